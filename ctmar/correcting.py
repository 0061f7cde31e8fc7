"""`ctmar correct` from its settings to its messages: what is done with a DICOM source and with case files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py

from ctmar.console import note, print_json, progress_bar, warn
from ctmar.database import Case, list_cases, read_info
from ctmar.dicom.series import Found, Series, choose_series, find_series
from ctmar.errors import CtmarError, SomeSlicesFailedError, UnsupportedInputError, UsageError
from ctmar.files import building, refuse_existing
from ctmar.pipeline import NEEDS_NETWORK, CorrectionSettings, SeriesResult, correct_series, find_metal
from ctmar.raw import correct_case
from ctmar.restorer import NetworkRestorer


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
    with progress_bar() as bar:
        bar("reading headers", 0, 1)
        found = find_series(source)
    _say_skipped(found)
    chosen = choose_series(found, uid=uid, all_=all_)
    refuse_existing(out, overwrite=settings.overwrite)
    targets = [out] if len(chosen) == 1 else [out / f"series-{k:03d}" for k in range(1, len(chosen) + 1)]
    for one in chosen:
        for text in one.warnings:
            warn(text)
    if dry_run:
        _dry_run(chosen, targets, settings, as_json=as_json)
        return
    restorer = _restorer(settings, model)
    results: list[SeriesResult] = []
    with progress_bar() as bar:
        if len(chosen) == 1:
            tell = partial(bar, "correcting")
            results.append(correct_series(chosen[0], out, settings, restorer=restorer, progress=tell))
        else:
            with building(out, overwrite=settings.overwrite) as folder:
                for one, target in zip(chosen, targets, strict=True):
                    tell = partial(bar, f"correcting {target.name}")
                    result = correct_series(one, folder / target.name, settings, restorer=restorer, progress=tell)
                    results.append(replace(result, folder=str(target)))
    if as_json:
        print_json([asdict(result) for result in results])
    for result, target in zip(results, targets, strict=True):
        for text in result.warnings:
            if "No metal" in text:
                warn(text)
        note(f"{target}: {result.corrected} of {len(result.slices)} slices corrected; not for diagnostic use.")
        for slice_ in result.failed:
            warn(f"slice {slice_.number}: {slice_.message}")
    failures = sum(len(result.failed) for result in results)
    if failures:
        raise SomeSlicesFailedError(f"{failures} slices could not be corrected; they are listed above.")


def correct_cases(
    source: Path, out: Path, settings: CorrectionSettings, model: str, *, as_json: bool, dry_run: bool
) -> None:
    """Correct a case file, or every one of a folder, and say what became of them.

    Raises `CtmarError` as `correct_case` does for a single file, and where some of several failed.
    """
    refuse_existing(out, overwrite=settings.overwrite)
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
    restorer = _restorer(settings, model)
    done = []
    if not source.is_dir():
        with progress_bar() as bar:
            bar("correcting", 0, 1)
            case = correct_case(source, out, settings, restorer=restorer)
        done.append(out)
        _say_metal_free(case, source)
    else:
        with building(out, overwrite=settings.overwrite) as folder, progress_bar() as bar:
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
    listing: list[dict[str, Any]] = []
    with progress_bar() as bar:
        for one, target in zip(chosen, targets, strict=True):
            numbers = []
            for number, _, metal in find_metal(one, settings):
                if metal.any():
                    numbers.append(number)
                bar("looking for metal", number, len(one.slices))
            listing.append(
                {"series": one.uid, "slices": len(one.slices), "slices_with_metal": numbers, "out": str(target)}
            )
    if as_json:
        print_json(listing)
    for item in listing:
        note(f"{item['series']}: {item['slices']} slices, {len(item['slices_with_metal'])} with metal -> {item['out']}")


def _say_skipped(found: Found) -> None:
    for reason, count in Counter(s.reason.split(" as ")[0] for s in found.skipped).most_common():
        note(f"skipped {count} file(s): {reason}")


def _say_metal_free(case: Case, file: Path) -> None:
    if case.mask_metal is None or not case.mask_metal.any():
        warn(f"{file.name}: No metal was found: its image is carried through unchanged.")


def _restorer(settings: CorrectionSettings, model: str) -> NetworkRestorer | None:
    if settings.method not in NEEDS_NETWORK:
        return None
    return NetworkRestorer(model, device=settings.device)
