"""`ctmar correct` from its settings to its messages: what is done with a DICOM source and with case files."""

from __future__ import annotations

import logging
import types
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py

from ctmar.console import Bar, note, print_json, progress_bar, warn
from ctmar.correction import correct_series, metal_of
from ctmar.correction_settings import CorrectionSettings
from ctmar.database import Case, list_cases, read_info
from ctmar.dicom.output import SeriesStack
from ctmar.dicom.series import Found, Series, choose_series, describe, find_series
from ctmar.errors import CtmarError, SomeSlicesFailedError, UnsupportedInputError, UsageError
from ctmar.files import CASES, CORRECTION, building, keep_files, refuse_existing
from ctmar.nifti import is_nifti, open_volume
from ctmar.nifti_correction import correct_series_to_nifti, correct_volume, metal_of_volume
from ctmar.pipeline import Tell, find_metal
from ctmar.raw import correct_case
from ctmar.restorer import restorer_for
from ctmar.results import SeriesResult
from ctmar.words import ranges

logger = logging.getLogger(__name__)

_LOOKED_THROUGH = 1000
"""Slices that are searched for metal only to say which of several series holds any."""


def is_case_source(source: Path) -> bool:
    """Whether the source is a case file or a folder of them."""
    if source.is_dir():
        return any(source.glob("*.h5"))
    return source.suffix == ".h5" or (source.is_file() and h5py.is_hdf5(source))


def correct_dicom(
    source: Path,
    out: Path,
    settings: CorrectionSettings,
    model: str,
    *,
    uid: str | None,
    all_: bool,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Correct the chosen series of a DICOM source and say what became of them.

    Raises `CtmarError` as `find_series`, `choose_series` and `correct_series` do, and where slices failed.
    """
    refuse_existing(out, kind=CORRECTION, overwrite=settings.overwrite)
    if is_nifti(out):
        _refuse_further_series(settings)
    with progress_bar() as bar:
        bar("reading headers", 0, 1)
        found = find_series(source)
    _say_skipped(found)
    keep_files((one.file.path for series in found.series for one in series.slices), out)
    if dry_run and uid is None:
        all_ = True  # to list is what it is for
    few = sum(len(one.slices) for one in found.series) <= _LOOKED_THROUGH
    with progress_bar() as bar:
        remark = partial(_metal_in, settings=settings, bar=bar) if few and settings.mask is None else lambda _: ""
        chosen = choose_series(found, uid=uid, all_=all_, remark=remark)
    if is_nifti(out) and len(chosen) > 1 and not dry_run:
        raise UsageError(f"{out}: a NIfTI file holds one series; choose it with --series, or name a folder.")
    targets = [out] if len(chosen) == 1 else [out / f"series-{k:03d}" for k in range(1, len(chosen) + 1)]
    if dry_run:
        for one in chosen:
            for text in one.warnings:
                warn(f"{one.key}: {text}")
        _dry_run(chosen, targets, settings, as_json=as_json)
        return
    restorer = restorer_for(settings.method, model, device=settings.device)
    results: list[SeriesResult] = []
    failed: dict[str, str] = {}
    with progress_bar() as bar:
        if len(chosen) == 1:
            run = correct_series_to_nifti if is_nifti(out) else correct_series
            results.append(run(chosen[0], out, settings, restorer=restorer, tell=bar))
        else:
            with building(out, kind=CORRECTION, overwrite=settings.overwrite) as folder:
                for one, target in zip(chosen, targets, strict=True):
                    tell = _named(bar, target.name)
                    try:
                        result = correct_series(one, folder / target.name, settings, restorer=restorer, tell=tell)
                    except UnsupportedInputError as error:
                        failed[one.key] = str(error)
                        continue
                    results.append(replace(result, folder=str(target)))
                if not results:
                    raise UnsupportedInputError(f"no series can be corrected: {next(iter(failed.values()))}")
    _conclude(results, as_json=as_json, failed=failed)


def correct_nifti(
    source: Path, out: Path, settings: CorrectionSettings, model: str, *, as_json: bool, dry_run: bool
) -> None:
    """Correct a NIfTI volume and say what became of it.

    Raises `CtmarError` as `open_volume` and `correct_volume` do, and where slices failed.
    """
    if not is_nifti(out):
        raise UsageError(f"{out}: the output of a NIfTI volume is one, too; end its name with .nii or .nii.gz.")
    _refuse_further_series(settings)
    refuse_existing(out, kind=CORRECTION, overwrite=settings.overwrite)
    volume = open_volume(source)
    with progress_bar() as bar:
        if dry_run:
            found = [index + 1 for index in metal_of_volume(volume, settings, tell=bar).slices]
        else:
            restorer = restorer_for(settings.method, model, device=settings.device)
            result = correct_volume(volume, out, settings, restorer=restorer, tell=bar)
    if not dry_run:
        _conclude([result], as_json=as_json)
        return
    if as_json:
        print_json([{"series": "", "slices": len(volume), "slices_with_metal": found, "out": str(out)}])
    note(f"{source.name}: {len(volume)} slices, {len(found)} with metal -> {out}")


def correct_cases(
    source: Path, out: Path, settings: CorrectionSettings, model: str, *, as_json: bool, dry_run: bool
) -> None:
    """Correct a case file, or every one of a folder, and say what became of them.

    Raises `CtmarError` as `correct_case` does for a single file, and where some of several failed.
    """
    refuse_existing(out, kind=CASES, overwrite=settings.overwrite)
    if source.is_file() and out.is_dir():
        raise UsageError(f"{out}: is a folder; the output of one case file is a case file.")
    failed: dict[str, str] = {}
    files = list_cases(source) if source.is_dir() else [source]
    if dry_run:
        for file in files:
            read_info(file)
        if as_json:
            print_json([{"case": file.name, "method": settings.method, "out": str(out)} for file in files])
        note(f"{source}: {len(files)} case file(s) by {settings.method} -> {out}")
        return
    restorer = restorer_for(settings.method, model, device=settings.device)
    done = []
    if not source.is_dir():
        with progress_bar() as bar:
            bar("correcting", 0, 1)
            case = correct_case(source, out, settings, restorer=restorer)
        done.append(out)
        _say_metal_free(case, source)
    else:
        with building(out, kind=CASES, overwrite=settings.overwrite) as folder, progress_bar() as bar:
            for count, file in enumerate(files, start=1):
                try:
                    case = correct_case(file, folder / file.name, settings, restorer=restorer)
                    done.append(out / file.name)
                    _say_metal_free(case, file)
                except CtmarError as error:
                    failed[file.name] = str(error)
                bar("correcting", count, len(files))
            if not done:
                raise UnsupportedInputError(f"{source}: no case file can be corrected: {next(iter(failed.values()))}")
    if as_json:
        print_json({"method": settings.method, "written": done, "failed": failed})
    note(f"{out}: {len(done)} case file(s) corrected by {settings.method}.")
    for text in failed.values():
        warn(text)
    if failed:
        raise SomeSlicesFailedError(f"{len(failed)} case files could not be corrected; they are listed above.")


def _dry_run(chosen: Sequence[Series], targets: Sequence[Path], settings: CorrectionSettings, *, as_json: bool) -> None:
    """Say what would be done; raises `SomeSlicesFailedError` where the run itself would, for want of slices."""
    listing: list[dict[str, Any]] = []
    missing = 0
    with progress_bar() as bar:
        for one, target in zip(chosen, targets, strict=True):
            stack = SeriesStack(one)
            metal, unreadable = metal_of(stack, one, settings, tell=_named(bar, target.name))
            numbers = [index + 1 for index in metal.slices if index not in unreadable]
            listing.append(
                {
                    "series": one.key,
                    "description": describe(one),
                    "slices": len(stack),
                    "slices_with_metal": numbers,
                    "unreadable": {index + 1: why for index, why in unreadable.items()},
                    "out": str(target),
                }
            )
            missing += len(unreadable)
    if as_json:
        print_json(listing)
    for item in listing:
        with_metal = item["slices_with_metal"]
        what = f"metal in {len(with_metal)} slice(s), {ranges(with_metal)}" if with_metal else "no metal"
        note(f"{item['description']}: {what} -> {item['out']}")
        for number, why in item["unreadable"].items():
            warn(f"slice {number}: {why}")
    if missing:
        raise SomeSlicesFailedError(f"{missing} slices cannot be read; they are listed above.")


def _metal_in(series: Series, *, settings: CorrectionSettings, bar: Bar) -> str:
    """How many slices of a series hold metal, for a list of several."""
    try:
        found, _ = find_metal(SeriesStack(series), replace(settings, strict=False), tell=_named(bar, series.key))
    except UnsupportedInputError:
        return ", cannot be read"
    return f", metal in {len(found.slices)}" if found.slices else ", no metal"


def _refuse_further_series(settings: CorrectionSettings) -> None:
    if settings.seg or settings.difference or settings.preview or settings.report:
        raise UsageError("--seg, --difference, --preview and --report go with a folder of DICOM files, not with NIfTI.")


def _conclude(
    results: Sequence[SeriesResult], *, as_json: bool, failed: Mapping[str, str] = types.MappingProxyType({})
) -> None:
    if as_json:
        print_json([asdict(result) for result in results])
    for result in results:
        _say(result)
    for key, reason in failed.items():
        warn(f"series {key} was left out: {reason}")
    failures = sum(len(result.failed) for result in results)
    if failures or failed:
        what = f"{failures} slice(s)" + (f" and {len(failed)} series" if failed else "")
        raise SomeSlicesFailedError(f"{what} could not be corrected; they are listed above.")


def _say(result: SeriesResult) -> None:
    logger.info("%d slices in %.1f s", len(result.slices), result.seconds)
    for text in result.warnings:
        warn(text)
    note(f"{result.folder}: {result.corrected} of {len(result.slices)} slices corrected; not for diagnostic use.")
    for text in result.about_slices(files=True):
        warn(text)


def _named(bar: Bar, name: str) -> Tell:
    def tell(what: str, done: int, total: int) -> None:
        bar(f"{name}: {what}", done, total)

    return tell


def _say_skipped(found: Found) -> None:
    for reason, count in Counter(s.reason.split(" as ")[0] for s in found.skipped).most_common():
        note(f"skipped {count} file(s): {reason}")


def _say_metal_free(case: Case, file: Path) -> None:
    if case.mask_metal is None or not case.mask_metal.any():
        warn(f"{file.name}: No metal was found: its image is carried through unchanged.")
