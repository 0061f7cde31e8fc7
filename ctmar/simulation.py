"""From sources to a database of cases, or to a picture of what it would hold; what is there already is kept."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ctmar.case_maker import write_cases
from ctmar.cluster import ALONE, Cluster
from ctmar.config import load_toml
from ctmar.database import read_case, read_info, write_index
from ctmar.dicom.simulated import write_case_dicom
from ctmar.errors import OutputExistsError, UnsupportedInputError, UsageError, in_words
from ctmar.files import claimed, remove_partial, replacing
from ctmar.planning import PlacedCase, PlannedCase, batches, place_case, plan
from ctmar.report.contact_sheet import MOST_TILES, planned_sheet, simulated_sheet
from ctmar.screening import Screened, screen, without_neighbours_of_metal
from ctmar.shapes import read_shapes
from ctmar.simulation_settings import SETTINGS_FILE, SimulationSettings, settings_text
from ctmar.sources import find_slices
from data_sim.implants.own import Shape

DICOM_FOLDER = "dicom"
PLANNED_SHEET = "planned.png"
SIMULATED_SHEET = "simulated.png"

Done = Callable[[str, int, int], None]
"""Told what is going on, how many are done and of how many."""

LeftOut = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class SimulationResult:
    """What became of a simulation: cases by name, and (name, reason) of cases and of slices left out.

    `truncated` counts the cases whose patient reaches outside the scan's field of view.
    """

    cases: tuple[str, ...]
    failed: LeftOut
    skipped: LeftOut
    truncated: int


def simulate(
    sources: Sequence[str],
    out: Path,
    settings: SimulationSettings,
    *,
    cluster: Cluster = ALONE,
    resume: bool = False,
    dicom: bool = False,
    device: str = "auto",
    progress: Done | None = None,
) -> SimulationResult:
    """Make a database of cases.

    Parameters
    ----------
    sources
        See `ctmar.sources.find_slices`.
    out
        Folder to write; it must not exist (or hold no more than a preview), or be a database of the same settings
        that `resume` completes: case files that are missing, truncated or damaged are made again.
    cluster
        Who screens and simulates.
    dicom
        Write every case as DICOM, too, see `ctmar.dicom.simulated`.

    Raises
    ------
    NoUsableSeriesError
        Where no slice can be used.
    OutputExistsError, UsageError
        Where `out` exists and was not to be resumed, was made with other settings, or is being written to.
    WorkerLostError
        Where a worker was killed; the database can be resumed.
    """
    tell = progress or (lambda *_: None)
    text = settings_text(sources, settings)
    _check_output(out, text, resume=resume)
    shapes = read_shapes(settings.shapes)
    planned, skipped = _planned(sources, settings, shapes, cluster, tell)
    out.mkdir(parents=True, exist_ok=True)
    with claimed(out):
        _check_output(out, text, resume=resume)  # somebody else may have begun meanwhile
        with replacing(out / SETTINGS_FILE) as partial_file:
            partial_file.write_text(text, encoding="utf-8")
        _remove_partial(out)
        try:
            failed = _make_missing(planned, out, settings, shapes, cluster=cluster, device=device, tell=tell)
            names = [case.name for case in planned if (out / f"{case.name}.h5").exists()]
            if dicom:
                failed += _write_dicom(names, out, settings, cluster, tell)
        finally:
            _remove_partial(out)  # of workers that were ended
        _write_index(out, planned, skipped, failed)
        simulated_sheet([out / f"{name}.h5" for name in names[:MOST_TILES]], out / SIMULATED_SHEET)
    return SimulationResult(tuple(names), tuple(failed), tuple(skipped), _truncated(planned, settings))


def preview(
    sources: Sequence[str],
    out: Path,
    settings: SimulationSettings,
    *,
    cluster: Cluster = ALONE,
    progress: Done | None = None,
) -> SimulationResult:
    """Draw the first cases of a database, slices with metal in place, into `out/planned.png`; nothing is scanned.

    Raises
    ------
    NoUsableSeriesError
        Where no slice can be used.
    OutputExistsError
        Where `out` holds anything but an earlier preview.
    """
    tell = progress or (lambda *_: None)
    if not _is_free(out):
        raise OutputExistsError(f"{out}: exists already; choose another folder for the preview.")
    shapes = read_shapes(settings.shapes)
    planned, skipped = _planned(sources, settings, shapes, cluster, tell)
    shown, failed = [], []
    first = planned[:MOST_TILES]
    work = partial(place_case, settings=settings, shapes=shapes)
    for case, found in zip(first, cluster.each(work, first, lost=_reason), strict=True):
        if isinstance(found, PlacedCase):
            shown.append(found)
        else:
            failed.append((case.name, found))
        tell("placing metal", len(shown) + len(failed), len(first))
    planned_sheet(shown, out / PLANNED_SHEET)
    names = tuple(case.planned.name for case in shown)
    return SimulationResult(names, tuple(failed), tuple(skipped), _truncated(first, settings))


def _truncated(planned: Sequence[PlannedCase], settings: SimulationSettings) -> int:
    radius_mm = settings.scanner().field_of_view_mm
    return sum(case.screened.reach_mm > radius_mm for case in planned)


def _planned(
    sources: Sequence[str], settings: SimulationSettings, shapes: Sequence[Shape], cluster: Cluster, tell: Done
) -> tuple[list[PlannedCase], list[tuple[str, str]]]:
    """All cases, and (name, reason) of slices and files that are left out."""
    tell("reading headers", 0, 1)
    slices, skipped = find_slices(sources)
    tell("reading headers", 1, 1)
    screened = []
    work = partial(screen, names=settings.families, shapes=shapes, wants=settings.wants)
    for result in cluster.each(work, slices, lost=lambda one, error: Screened(one, reason=_reason(one, error))):
        screened.append(result)
        tell("screening slices", len(screened), len(slices))
    screened = without_neighbours_of_metal(screened)
    skipped += [(found.slice.name, found.reason) for found in screened if found.reason]
    return plan(screened, settings), skipped


def _make_missing(
    planned: Sequence[PlannedCase],
    out: Path,
    settings: SimulationSettings,
    shapes: Sequence[Shape],
    *,
    cluster: Cluster,
    device: str,
    tell: Done,
) -> list[tuple[str, str]]:
    """Make the cases that are not there and whole; returns (name, reason) of those that failed."""
    there = [case for case in planned if (out / f"{case.name}.h5").exists()]
    whole = set()
    check = partial(_is_whole, out=out.absolute(), settings=settings)
    for case, complete in zip(there, cluster.each(check, there, lost=lambda *_: False), strict=True):
        if complete:
            whole.add(case.number)
        tell("checking what is there", len(whole), len(there))
    missing = [case for case in planned if case.number not in whole]
    done = len(planned) - len(missing)
    failed: list[tuple[str, str]] = []
    tell("simulating cases", done, len(planned))
    work = partial(write_cases, out=out.absolute(), settings=settings, shapes=shapes, device=device)
    portions = list(batches(missing, workers=cluster.size if missing else 1))
    made = cluster.each(work, portions, lost=lambda batch, error: [(one.name, _reason(one, error)) for one in batch])
    for batch, problems in zip(portions, made, strict=True):
        for name, _ in problems:
            (out / f"{name}.h5").unlink(missing_ok=True)  # a damaged one that could not be made again
        failed += problems
        done += len(batch)
        tell("simulating cases", done, len(planned))
    return failed


def _write_dicom(
    names: Sequence[str], out: Path, settings: SimulationSettings, cluster: Cluster, tell: Done
) -> list[tuple[str, str]]:
    """Write the cases that are not there as DICOM; returns (name, reason) of those that failed."""
    missing = [name for name in names if not (out / DICOM_FOLDER / name).is_dir()]
    failed = []
    work = partial(_case_dicom, out=out.absolute(), settings=settings)
    results = cluster.each(work, missing, lost=_reason)
    for done, (name, reason) in enumerate(zip(missing, results, strict=True), start=1):
        if reason:
            failed.append((f"{DICOM_FOLDER}/{name}", reason))
        tell("writing DICOM", len(names) - len(missing) + done, len(names))
    return failed


def _case_dicom(name: str, *, out: Path, settings: SimulationSettings) -> str:
    """Write a case as DICOM; returns no reason for a failure, since one is raised."""
    write_case_dicom(out / f"{name}.h5", out / DICOM_FOLDER / name, settings)
    return ""


def _reason(_: object, error: Exception) -> str:
    return in_words(error)


def _remove_partial(out: Path) -> None:
    for folder in (out, out / DICOM_FOLDER):
        remove_partial(folder)


def _check_output(out: Path, text: str, *, resume: bool) -> None:
    """Refuse a folder that exists, unless it is free or the one to complete."""
    if _is_free(out):
        return
    if not resume:
        raise OutputExistsError(f"{out}: exists already; give --resume to complete it, or choose another name.")
    file = out / SETTINGS_FILE
    if not file.is_file():
        raise UsageError(f"{out}: has no {SETTINGS_FILE}, so it cannot be resumed; choose another folder.")
    before, now = load_toml(file), tomllib.loads(text)
    made_by, here = before.pop("version", None), now.pop("version")
    if before == now and made_by != here:
        raise UsageError(
            f"{out}: was made by ctmar {made_by}, this is {here}; go on with that or choose another folder."
        )
    if before != now:
        raise UsageError(f"{out}: was made with other settings, see {SETTINGS_FILE}; choose another folder.")


def _is_free(out: Path) -> bool:
    """Whether a database can begin here: no such folder, or nothing in it but a preview or what was cut short."""
    if not out.is_dir() or out.is_symlink():
        return not out.exists()
    partial_names = {f".{PLANNED_SHEET}.", f".{SETTINGS_FILE}."}
    return all(
        path.name == PLANNED_SHEET
        or (path.name.endswith(".partial") and any(path.name.startswith(name) for name in partial_names))
        for path in out.iterdir()
    )


def _is_whole(case: PlannedCase, *, out: Path, settings: SimulationSettings) -> bool:
    """Whether the file of a case can be read to its end and is this case; every array has a checksum in its gzip."""
    try:
        found = read_case(out / f"{case.name}.h5")
    except UnsupportedInputError:
        return False
    same = (found.seed, found.implant, found.source) == (settings.seed, case.implant, case.screened.slice.name)
    return same and set(settings.images) <= set(found.images) & set(found.dicom_images)


def _write_index(
    out: Path,
    planned: Sequence[PlannedCase],
    skipped: Sequence[tuple[str, str]],
    failed: Sequence[tuple[str, str]],
) -> None:
    """One line a case, then one for everything left out, with the reason."""
    rows: list[dict[str, object]] = []
    for case in planned:
        path = out / f"{case.name}.h5"
        if path.exists():
            info = read_info(path)
            rows.append(
                {
                    "case": case.name,
                    "patient": info.patient,
                    "implant": info.implant,
                    "material": info.material,
                    "seed": info.seed,
                    "source": info.source,
                    "left_out": "",
                }
            )
    rows += [{"case": name, "left_out": reason} for name, reason in failed]
    rows += [{"source": name, "left_out": reason} for name, reason in skipped]
    write_index(out, rows)
