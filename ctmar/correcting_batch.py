"""Several corrections as `ctmar correct` speaks of them."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from ctmar.batch import BATCH_FILE, FAILED, THERE, WRITTEN, Job, run_batch
from ctmar.cluster import Cluster
from ctmar.console import note, print_json, progress_bar, warn
from ctmar.correction_settings import CorrectionSettings
from ctmar.errors import SomeSlicesFailedError, UnsupportedInputError, UsageError
from ctmar.nifti import is_nifti
from ctmar.results import SeriesResult

logger = logging.getLogger(__name__)


def file_job(file: Path) -> Job:
    """A case file or NIfTI volume as a job; its path stays out of what is written."""
    return Job(hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:16], file.absolute())


def correct_batch(
    jobs: Sequence[Job],
    failed: Mapping[str, str],
    out: Path,
    settings: CorrectionSettings,
    model: str,
    *,
    resume: bool,
    cluster: Cluster,
    as_json: bool,
) -> None:
    """Correct all jobs and say what became of them, and of the sources that failed before."""
    if is_nifti(out):
        raise UsageError(f"{out}: a NIfTI file holds one series; choose it with --series, or name a folder.")
    with progress_bar() as bar:
        outcomes = run_batch(jobs, out, settings, model, cluster=cluster, resume=resume, tell=bar)
    bad = {one.name: one.message for one in outcomes if one.status == FAILED}
    named = {one.name: replace(one.result, folder=str(out / one.name)) for one in outcomes if one.result is not None}
    if as_json and all(isinstance(job.source, Path) for job in jobs):
        written = [out / one.name for one in outcomes if one.status != FAILED]
        print_json({"method": settings.method, "written": written, "failed": bad})
    elif as_json:
        print_json([asdict(result) for result in named.values()])
    for one in outcomes:
        if one.status == WRITTEN and one.name in named:
            say(named[one.name])
        elif one.metal is False:
            say_metal_free(one.name)
    for name, reason in bad.items():
        warn(f"{name}: {reason}")
    for reason in failed.values():
        warn(reason)
    count = Counter(one.status for one in outcomes)
    said = ", ".join(f"{count[status]} {status}" for status in (WRITTEN, THERE, FAILED) if count[status])
    said += f" of {len(jobs)}" + (f", {len(failed)} source(s) left out" if failed else "")
    note(f"{out}: {said}, by {settings.method}; {BATCH_FILE} lists them. Not for diagnostic use.")
    slices = sum(len(result.failed) for result in named.values())
    if len(bad) == len(jobs):
        raise UnsupportedInputError(f"nothing can be corrected: {next(iter(bad.values()))}")
    if bad or failed or slices:
        what = [f"{len(bad)} of {len(jobs)} inputs"] * bool(bad) + [f"{len(failed)} source(s)"] * bool(failed)
        what += [f"{slices} slice(s)"] * bool(slices)
        raise SomeSlicesFailedError(f"{', '.join(what)} could not be corrected; they are listed above.")


def say(result: SeriesResult) -> None:
    """Say what became of a series or volume."""
    logger.info("%d slices in %.1f s", len(result.slices), result.seconds)
    for text in result.warnings:
        warn(text)
    note(f"{result.folder}: {result.corrected} of {len(result.slices)} slices corrected; not for diagnostic use.")
    for text in result.about_slices(files=True):
        warn(text)


def say_metal_free(name: str) -> None:
    """Say that nothing was done."""
    warn(f"{name}: No metal was found: its image is carried through unchanged.")
