"""`ctmar correct` from its settings to its messages: what is done with a DICOM source and with case files."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py

from ctmar.batch import BATCH_FILE, Job
from ctmar.cluster import Cluster
from ctmar.console import Bar, note, print_json, progress_bar, warn
from ctmar.correcting_batch import correct_batch, file_job, say, say_metal_free
from ctmar.correction import correct_series, metal_of
from ctmar.correction_settings import CorrectionSettings
from ctmar.database import list_cases, read_info
from ctmar.dicom.output import SeriesStack
from ctmar.dicom.series import Found, Series, choose_series, describe, find_series
from ctmar.errors import (
    CtmarError,
    NoUsableSeriesError,
    SomeSlicesFailedError,
    UnsupportedInputError,
    UsageError,
    in_words,
)
from ctmar.files import BATCH, CORRECTION, keep_files, refuse_existing
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
    resume: bool,
    cluster: Cluster,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Correct the chosen series of a DICOM source and say what became of them.

    Raises `CtmarError` as `find_series`, `choose_series`, `correct_series` and `run_batch` do, and where slices failed.
    """
    if not resume:
        refuse_existing(out, kind=BATCH, overwrite=settings.overwrite)
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
    if dry_run:
        _dry_run(chosen, out, settings, as_json=as_json)
    elif len(chosen) > 1 or (resume and (out / BATCH_FILE).exists()):
        jobs = [Job(one.key, one) for one in chosen]
        correct_batch(jobs, {}, out, settings, model, resume=resume, cluster=cluster, as_json=as_json)
    else:
        refuse_existing(out, kind=CORRECTION, overwrite=settings.overwrite)
        restorer = restorer_for(settings.method, model, device=settings.device)
        run = correct_series_to_nifti if is_nifti(out) else correct_series
        with progress_bar() as bar:
            result = run(chosen[0], out, settings, restorer=restorer, tell=bar)
        _conclude(result, as_json=as_json)


def correct_many(
    sources: Sequence[Path],
    out: Path,
    settings: CorrectionSettings,
    model: str,
    *,
    resume: bool,
    cluster: Cluster,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Correct everything in several sources, of any kind, into one folder, and say what became of it.

    A source that cannot be read is named at the end and stops no other.

    Raises `CtmarError` as `run_batch` does, and where something failed.
    """
    jobs: dict[str, Job] = {}
    failed: dict[str, str] = {}
    with progress_bar() as bar:
        found = cluster.each(_jobs_of, [one.absolute() for one in sources], lost=lambda _, error: in_words(error))
        for done, (source, one) in enumerate(zip(sources, found, strict=True), start=1):
            if isinstance(one, str):
                failed[str(source)] = one
            else:
                for job in one:
                    if jobs.setdefault(job.key, job) is not job:
                        failed[str(source)] = f"{source}: holds what another source holds, too: {job.key}"
            bar("reading headers", done, len(sources))
    if not jobs:
        raise NoUsableSeriesError("nothing can be corrected:" + "".join(f"\n  {reason}" for reason in failed.values()))
    for job in jobs.values():
        if isinstance(job.source, Series):
            keep_files((one.file.path for one in job.source.slices), out)
    if dry_run:
        series = [job.source for job in jobs.values() if isinstance(job.source, Series)]
        for reason in failed.values():
            warn(reason)
        _dry_run(series, out, settings, as_json=as_json, several=True)
        files = [job.source.name for job in jobs.values() if isinstance(job.source, Path)]
        note("".join(f"{name} -> {out}\n" for name in files).rstrip())
        return
    correct_batch(list(jobs.values()), failed, out, settings, model, resume=resume, cluster=cluster, as_json=as_json)


def _jobs_of(source: Path) -> list[Job] | str:
    """What there is to correct in a source; or why there is nothing."""
    try:
        if is_case_source(source):
            return [file_job(file) for file in (list_cases(source) if source.is_dir() else [source])]
        if is_nifti(source):
            open_volume(source)
            return [file_job(source)]
        return [Job(one.key, one) for one in choose_series(find_series(source), all_=True)]
    except CtmarError as error:
        return str(error)


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
        _conclude(result, as_json=as_json)
        return
    if as_json:
        print_json([{"series": "", "slices": len(volume), "slices_with_metal": found, "out": str(out)}])
    note(f"{source.name}: {len(volume)} slices, {len(found)} with metal -> {out}")


def correct_cases(
    source: Path,
    out: Path,
    settings: CorrectionSettings,
    model: str,
    *,
    resume: bool,
    cluster: Cluster,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Correct a case file, or every one of a folder, and say what became of them.

    Raises `CtmarError` as `correct_case` does for a single file, and where some of several failed.
    """
    if not resume:
        refuse_existing(out, kind=BATCH if source.is_dir() else (), overwrite=settings.overwrite)
    if source.is_file() and out.is_dir():
        raise UsageError(f"{out}: is a folder; the output of one case file is a case file.")
    files = list_cases(source) if source.is_dir() else [source]
    if dry_run:
        for file in files:
            read_info(file)
        if as_json:
            print_json([{"case": file.name, "method": settings.method, "out": str(out)} for file in files])
        note(f"{source}: {len(files)} case file(s) by {settings.method} -> {out}")
    elif source.is_dir():
        jobs = [file_job(file) for file in files]
        correct_batch(jobs, {}, out, settings, model, resume=resume, cluster=cluster, as_json=as_json)
    else:
        restorer = restorer_for(settings.method, model, device=settings.device)
        with progress_bar() as bar:
            bar("correcting", 0, 1)
            case = correct_case(source, out, settings, restorer=restorer)
        if case.mask_metal is None or not case.mask_metal.any():
            say_metal_free(source.name)
        if as_json:
            print_json({"method": settings.method, "written": [out], "failed": {}})
        note(f"{out}: 1 case file(s) corrected by {settings.method}.")


def _dry_run(
    chosen: Sequence[Series], out: Path, settings: CorrectionSettings, *, as_json: bool, several: bool = False
) -> None:
    """Say what would be done; raises `SomeSlicesFailedError` where the run itself would, for want of slices."""
    several = several or len(chosen) > 1
    targets = [out / f"series-{k:03d}" if several else out for k in range(1, len(chosen) + 1)]
    for one in chosen:
        for text in one.warnings:
            warn(f"{one.key}: {text}")
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


def _conclude(result: SeriesResult, *, as_json: bool) -> None:
    if as_json:
        print_json([asdict(result)])
    say(result)
    if result.failed:
        raise SomeSlicesFailedError(f"{len(result.failed)} slice(s) could not be corrected; they are listed above.")


def _named(bar: Bar, name: str) -> Tell:
    def tell(what: str, done: int, total: int) -> None:
        bar(f"{name}: {what}", done, total)

    return tell


def _say_skipped(found: Found) -> None:
    for reason, count in Counter(s.reason.split(" as ")[0] for s in found.skipped).most_common():
        note(f"skipped {count} file(s): {reason}")
