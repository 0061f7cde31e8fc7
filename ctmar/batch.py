"""Many corrections into one folder, a task each: what one fails at stops no other, and what is there is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from itertools import count
from pathlib import Path
from typing import Any

from ctmar import __version__
from ctmar.cluster import Cluster
from ctmar.correction import correct_series
from ctmar.correction_settings import CorrectionSettings
from ctmar.dicom.series import Series
from ctmar.errors import CtmarError, UsageError, WorkersDifferError, in_words
from ctmar.files import BATCH, claimed, refuse_existing, remove, remove_partial, replacing
from ctmar.masks import split_choice
from ctmar.methods import Restorer
from ctmar.nifti import is_nifti, open_volume
from ctmar.nifti_correction import correct_volume
from ctmar.pipeline import Tell
from ctmar.raw import correct_case
from ctmar.restorer import NetworkRestorer, restorer_for
from ctmar.results import SeriesResult, read_report

BATCH_FILE = "batch.json"

WRITTEN = "written"
THERE = "there already"
FAILED = "failed"


@dataclass(frozen=True)
class Job:
    """One correction of a batch.

    Attributes
    ----------
    key
        What tells its source from every other; written to the output, so without patient data.
    source
        A DICOM series, or the path of a NIfTI volume or a case file.
    name
        Of the output in the folder; chosen by `run_batch`.
    """

    key: str
    source: Series | Path
    name: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes
    ----------
    status
        `WRITTEN`, `THERE` or `FAILED`.
    message
        Why it failed.
    result
        What became of the slices of a series or volume.
    metal
        Whether there is any; None where nothing tells.
    """

    name: str
    status: str
    message: str = ""
    result: SeriesResult | None = None
    metal: bool | None = None


def run_batch(
    jobs: Sequence[Job],
    out: Path,
    settings: CorrectionSettings,
    model: str,
    *,
    cluster: Cluster,
    resume: bool = False,
    tell: Tell | None = None,
) -> list[Outcome]:
    """Correct everything into the folder `out`; each output appears when it is complete.

    Parameters
    ----------
    jobs
        With keys that differ. On resuming, those that are known keep their names, so that sources may be added.
    out
        Folder, with `BATCH_FILE` in it: settings, name and end of every job; no names of source files.
    settings, model
        As for one correction.
    cluster
        Who does the work.
    resume
        Keep what is there of a batch with the same settings; try again what failed.

    Raises
    ------
    ModelError
        Where the model cannot be used.
    OutputExistsError
        Where `out` exists and is neither to be resumed nor overwritten, or is being written to.
    UsageError
        Where what is to be resumed was made with other settings.
    WorkerLostError
        Where workers or their scheduler are lost; go on with `resume`.
    """
    tell = tell or (lambda *_: None)
    restorer = cached_restorer(settings.method, model, settings.device)
    sha256 = restorer.card.sha256 if isinstance(restorer, NetworkRestorer) else ""
    made_with = _made_with(settings, sha256)
    known = _known(out, made_with) if resume and out.exists() else None
    if known is None:
        refuse_existing(out, kind=BATCH, overwrite=settings.overwrite)
    jobs = _named(jobs, known or {})
    fresh = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    ended = {job.name: _there(job, out) for job in jobs if known is not None and (out / job.name).exists()}
    left = [job for job in jobs if job.name not in ended]
    work = partial(
        _correct,
        out=out.absolute(),
        settings=replace(settings, mask=settings.mask.absolute() if settings.mask else None),
        model=str(Path(model).absolute()) if Path(model).is_file() else model,
        sha256=sha256,
        tell=tell if cluster.alone else None,
    )
    with claimed(out):
        remove_partial(out)
        if known is None:
            _empty(out)  # or --resume would take what other settings made for this
        _write(out, made_with, jobs, ended)
        try:
            for job, outcome in zip(left, cluster.each(work, left, lost=_lost), strict=True):
                ended[job.name] = outcome
                tell("correcting", len(ended), len(jobs))
        finally:
            remove_partial(out)
            _write(out, made_with, jobs, ended)
            if fresh and not any((out / job.name).exists() for job in jobs):
                (out / BATCH_FILE).unlink()
                out.rmdir()
    return [ended[job.name] for job in jobs]


@lru_cache(maxsize=4)
def cached_restorer(method: str, model: str, device: str) -> Restorer | None:
    """The network of a method, loaded once in every process; a node may take turns with several."""
    return restorer_for(method, model, device=device)


def _correct(
    job: Job, *, out: Path, settings: CorrectionSettings, model: str, sha256: str, tell: Tell | None
) -> Outcome:
    """One correction, as a worker does it; one that was done by a worker that has died since is not done again."""
    target = out / job.name
    if target.exists() and not settings.overwrite:
        return replace(_there(job, out), status=WRITTEN)
    restorer = cached_restorer(settings.method, model, settings.device)
    if isinstance(restorer, NetworkRestorer) and restorer.card.sha256 != sha256:
        raise WorkersDifferError(f"{model}: is another model where the workers are.")

    def named(what: str, done: int, total: int) -> None:
        if tell is not None:
            tell(f"{job.name}: {what}", done, total)

    try:
        if isinstance(job.source, Series):
            result = correct_series(job.source, target, settings, restorer=restorer, tell=named)
        elif is_nifti(job.source):
            result = correct_volume(open_volume(job.source), target, settings, restorer=restorer, tell=named)
        else:
            case = correct_case(job.source, target, settings, restorer=restorer)
            return Outcome(job.name, WRITTEN, metal=case.mask_metal is not None and bool(case.mask_metal.any()))
    except CtmarError as error:
        return Outcome(job.name, FAILED, str(error))
    return Outcome(job.name, WRITTEN, result=result, metal=bool(result.corrected or result.failed))


def _lost(job: Job, error: Exception) -> Outcome:
    return Outcome(job.name, FAILED, in_words(error))


def _there(job: Job, out: Path) -> Outcome:
    report = out / job.name / "report.json"
    return Outcome(job.name, THERE, result=read_report(report) if report.is_file() else None)


def _named(jobs: Sequence[Job], known: Mapping[str, str]) -> list[Job]:
    """The jobs with the names of their outputs: those that they had, or the next that is free."""
    taken = set(known.values())
    named = []
    for job in jobs:
        name = known.get(job.key) or next(one for one in _names(job) if one not in taken)
        taken.add(name)
        named.append(replace(job, name=name))
    return named


def _names(job: Job) -> Iterator[str]:
    if isinstance(job.source, Series):
        yield from (f"series-{number:03d}" for number in count(1))
    else:
        yield job.source.name
        yield from (f"{number:03d}-{job.source.name}" for number in count(2))


def _made_with(settings: CorrectionSettings, sha256: str) -> dict[str, Any]:
    """What has to be the same for a batch to be resumed, as JSON gives it back."""
    values = {name: value for name, value in asdict(settings).items() if name not in ("overwrite", "device")}
    if settings.mask is not None:  # its name may be a patient's
        file = split_choice(settings.mask)[0]
        values["mask"] = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
    made_with = {"version": __version__, "model_sha256": sha256, "settings": values}
    return dict(json.loads(json.dumps(made_with, default=str)))


def _known(out: Path, made_with: Mapping[str, Any]) -> dict[str, str]:
    """The names that jobs have by their keys, in a folder that was made with the same settings."""
    try:
        found = json.loads((out / BATCH_FILE).read_text(encoding="utf-8"))
        names = {str(one["key"]): str(one["name"]) for one in found.pop("jobs")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(f"{out}: has no {BATCH_FILE} that can be read, so it cannot be resumed.") from None
    if found != made_with:
        raise UsageError(f"{out}: was made with other settings, see {BATCH_FILE}; choose another folder.")
    if any(Path(name).name != name for name in names.values()):
        raise UsageError(f"{out / BATCH_FILE}: names no files of this folder.")
    return names


def _write(out: Path, made_with: Mapping[str, Any], jobs: Sequence[Job], ended: Mapping[str, Outcome]) -> None:
    listed = []
    for job in jobs:
        one = ended.get(job.name)
        result = one.result if one else None
        listed.append(
            {
                "name": job.name,
                "key": job.key,
                "status": one.status if one else "",
                "slices": len(result.slices) if result else None,
                "corrected": result.corrected if result else None,
                "failed": len(result.failed) if result else None,
            }
        )
    with replacing(out / BATCH_FILE) as partial_file:
        partial_file.write_text(json.dumps({**made_with, "jobs": listed}, indent=1), encoding="utf-8")


def _empty(out: Path) -> None:
    for path in out.iterdir():
        remove(path)
