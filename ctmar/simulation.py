"""From clean slices to a database of cases: plan, scan, correct by the classical methods, write."""

from __future__ import annotations

import multiprocessing
import os
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import tomli_w

from ctmar import __version__
from ctmar.config import load_toml
from ctmar.database import Case, read_info, write_case, write_index
from ctmar.errors import NoUsableSeriesError, UnsupportedInputError, UsageError
from ctmar.files import refuse_existing, replacing
from ctmar.methods import Correction
from ctmar.metrics import body_mask
from ctmar.segmentation import dilate, metal_mask
from ctmar.shapes import read_shapes
from ctmar.sources import Screened, find_slices, screen
from data_sim.acquisition import ScanSettings
from data_sim.field_of_view import narrowed
from data_sim.geometry import FanArc, FanFlat, Geometry, Parallel
from data_sim.implants.own import Shape
from data_sim.materials import METALS
from data_sim.placement import IMPLANTS, OWN, place
from data_sim.projection import Projector
from data_sim.scanner import simulate_slices
from data_sim.units import MU_WATER_PER_MM

STORED_IMAGES = ("uncorrected", "bhc", "li", "nmar1", "nmar2")
"""The methods whose images every case holds."""

_BLUR_PX = 3
SETTINGS_FILE = "simulation.toml"

_GEOMETRIES: Mapping[str, type[FanArc] | type[FanFlat] | type[Parallel]] = {
    "arc": FanArc,
    "flat": FanFlat,
    "parallel": Parallel,
}
_CASES_AT_ONCE = 16
_PLACEMENT_ATTEMPTS = 10

Done = Callable[[str, int, int], None]
"""Told what is going on, how many are done and of how many."""

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class SimulationSettings:
    """What `ctmar simulate` makes; the same settings, sources and seed give the same database.

    Attributes
    ----------
    cases, seed
        How many, and what they are drawn from.
    implants, materials
        Families (`data_sim.placement.IMPLANTS`) and metals (`data_sim.materials.METALS`) to draw from.
    shapes
        Masks of the user's own metal, see `ctmar.shapes`; where there are any, the family "own" is drawn too.
    scan
        Tube, photons and detector.
    geometry, views, bins
        "arc", "flat" or "parallel", and another number of views or bins than the geometry's own.
    fov_mm
        Diameter of a field of view that is smaller than the scanner's, instead of `bins`; see
        `data_sim.field_of_view.narrowed`.
    arc_deg
        What parallel views cover, 180 (their default) or 360 degrees; fans always turn once.
    """

    cases: int = 100
    seed: int = 0
    implants: tuple[str, ...] = tuple(IMPLANTS)
    materials: tuple[str, ...] = ("ti", "fe", "cu", "au")
    shapes: tuple[str, ...] = ()
    scan: ScanSettings = field(default_factory=ScanSettings)
    geometry: Literal["arc", "flat", "parallel"] = "arc"
    views: int | None = None
    bins: int | None = None
    fov_mm: float | None = None
    arc_deg: Literal[180, 360] | None = None

    def __post_init__(self) -> None:
        if self.cases < 1:
            raise ValueError(f"cases must be at least 1, not {self.cases}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, not {self.seed}")
        for what, names, known in (
            ("implant", self.implants, (*IMPLANTS, *([OWN] if self.shapes else []))),
            ("material", self.materials, tuple(METALS)),
        ):
            if not names:
                raise ValueError(f"at least one {what} is needed: any of {', '.join(known)}")
            for name in names:
                if name not in known:
                    raise ValueError(f"unknown {what} {name!r}: expected one of {', '.join(known)}")
        if self.bins is not None and self.fov_mm is not None:
            raise ValueError("bins and fov_mm both set the width of the detector: give one of them")
        if self.arc_deg == 180 and self.geometry != "parallel":
            raise ValueError("arc_deg 180 is for parallel beams: fans turn once")
        self.scan.beam(self.scanner())

    @property
    def families(self) -> tuple[str, ...]:
        """What to draw from: the implants, and the user's own shapes where there are any."""
        return tuple(dict.fromkeys((*self.implants, *([OWN] if self.shapes else []))))

    def scanner(self) -> Geometry:
        """The geometry that these settings describe."""
        counts = {name: n for name, n in (("views", self.views), ("bins", self.bins)) if n is not None}
        geometry: Geometry = _GEOMETRIES[self.geometry](**counts)
        if isinstance(geometry, Parallel) and self.arc_deg is not None:
            geometry = replace(geometry, arc_rad=float(np.deg2rad(self.arc_deg)))
        return geometry if self.fov_mm is None else narrowed(geometry, self.fov_mm)


@dataclass(frozen=True)
class PlannedCase:
    """A case before it is simulated."""

    number: int
    implant: str
    screened: Screened

    @property
    def name(self) -> str:
        """Its file's name without the suffix."""
        return f"case-{self.number:06d}"


@dataclass(frozen=True)
class SimulationResult:
    """What became of a simulation: cases by name, and (name, reason) of cases and of slices left out."""

    cases: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]
    skipped: tuple[tuple[str, str], ...]


def simulate(
    sources: Sequence[str],
    out: Path,
    settings: SimulationSettings,
    *,
    workers: int = 1,
    resume: bool = False,
    device: str = "auto",
    progress: Done | None = None,
) -> SimulationResult:
    """Make a database of cases.

    Parameters
    ----------
    sources
        See `ctmar.sources.find_slices`.
    out
        Folder to write; it must not exist, or be a database of the same settings that `resume` completes.
    workers
        Processes that screen and simulate.

    Raises
    ------
    NoUsableSeriesError
        Where no slice can be used.
    OutputExistsError, UsageError
        Where `out` exists and was not to be resumed, or was made with other settings.
    """
    tell = progress or (lambda *_: None)
    text = _settings_text(sources, settings)
    _check_output(out, text, resume=resume)
    shapes = read_shapes(settings.shapes)
    tell("reading headers", 0, 1)
    slices, skipped = find_slices(sources)
    tell("reading headers", 1, 1)
    screened = []
    for result in _each(partial(screen, names=settings.families, shapes=shapes), slices, workers):
        screened.append(result)
        tell("screening slices", len(screened), len(slices))
    skipped += [(s.slice.name, s.reason) for s in screened if s.reason]
    planned = plan(screened, settings)
    for leftover in out.glob(".*.partial"):
        leftover.unlink()
    with replacing(out / SETTINGS_FILE) as partial_file:
        partial_file.write_text(text, encoding="utf-8")
    missing = [case for case in planned if not _is_complete(out, case, settings)]
    done = len(planned) - len(missing)
    failed: list[tuple[str, str]] = []
    tell("simulating cases", done, len(planned))
    work = partial(_simulate_batch, out=out, settings=settings, shapes=shapes, device=device)
    batches = list(_batches(missing))
    for batch, problems in zip(batches, _each(work, batches, workers), strict=True):
        failed += problems
        done += len(batch)
        tell("simulating cases", done, len(planned))
    _write_index(out, planned, skipped, failed)
    names = tuple(case.name for case in planned if (out / f"{case.name}.h5").exists())
    return SimulationResult(names, tuple(failed), tuple(skipped))


def plan(screened: Sequence[Screened], settings: SimulationSettings) -> list[PlannedCase]:
    """Draw an implant, a patient it fits, and one of the patient's slices for every case.

    Each case is drawn from the seed and its number alone, so that it does not depend on how many there are.

    Raises
    ------
    NoUsableSeriesError
        Where none of the implants fits any slice.
    """
    fitting: dict[str, dict[str, list[Screened]]] = defaultdict(lambda: defaultdict(list))
    for candidate in screened:
        for implant in candidate.implants:
            fitting[implant][candidate.patient].append(candidate)
    implants = [name for name in settings.families if name in fitting]
    if not implants:
        raise NoUsableSeriesError(f"none of the slices has room for any of: {', '.join(settings.families)}.")
    planned = []
    for number in range(1, settings.cases + 1):
        rng = np.random.default_rng((settings.seed, number, 0))
        implant = implants[rng.integers(len(implants))]
        patients = fitting[implant]
        patient = sorted(patients)[rng.integers(len(patients))]
        choice = patients[patient]
        planned.append(PlannedCase(number, implant, choice[rng.integers(len(choice))]))
    return planned


def _simulate_batch(
    batch: Sequence[PlannedCase], *, out: Path, settings: SimulationSettings, shapes: Sequence[Shape], device: str
) -> list[tuple[str, str]]:
    """Simulate cases that share a grid and write them; returns (name, reason) of those that failed."""
    ready, failed = [], []
    for case in batch:
        image_hu, grid, patient = case.screened.slice.load()
        rng = np.random.default_rng((settings.seed, case.number, 1))
        tries = (
            place(case.implant, image_hu, grid, rng, settings.materials, shapes=shapes)
            for _ in range(_PLACEMENT_ATTEMPTS)
        )
        pieces = next((found for found in tries if found is not None), None)
        if pieces is None:
            failed.append((case.name, f"no place for the implant {case.implant} in this slice"))
        else:
            ready.append((case, image_hu, pieces, rng, patient))
    if not ready:
        return failed
    geometry = settings.scanner()
    simulated = simulate_slices(
        np.stack([image for _, image, *_ in ready]),
        grid,
        [pieces for _, _, pieces, *_ in ready],
        [rng for *_, rng, _ in ready],
        geometry=geometry,
        settings=settings.scan,
        device=device,
    )
    projector = Projector(geometry, grid, device=device)
    # what a segmentation would find: the metal and its blurred edge, but not the bright streaks beyond
    bright = metal_mask(simulated.uncorrected_hu, pixel_mm=grid.pixel_mm)
    metal = simulated.metal | (dilate(simulated.metal, _BLUR_PX) & bright)
    raw = Correction(
        simulated.sinogram_metal,
        simulated.uncorrected_hu,
        metal,
        projector,
        mu_water_per_mm=MU_WATER_PER_MM,
    ).images(STORED_IMAGES)
    dicom = Correction.of_image(simulated.stored_hu, metal, projector, mu_water_per_mm=MU_WATER_PER_MM).images(
        STORED_IMAGES
    )
    for index, (case, _, pieces, _, patient) in enumerate(ready):
        reference_hu = simulated.reference_hu[index]
        write_case(
            out / f"{case.name}.h5",
            Case(
                geometry=geometry,
                grid=grid,
                mu_water_per_mm=MU_WATER_PER_MM,
                seed=settings.seed,
                implant=case.implant,
                material=",".join(sorted({piece.material for piece in pieces})),
                patient=patient,
                source=case.screened.slice.name,
                sinogram_metal=simulated.sinogram_metal[index],
                sinogram_reference=simulated.sinogram_reference[index],
                mask_metal=metal[index],
                mask_body=body_mask(reference_hu),
                images={name: stack[index] for name, stack in raw.items()} | {"reference": reference_hu},
                dicom_images={name: stack[index] for name, stack in dicom.items()},
            ),
        )
    return failed


def _settings_text(sources: Sequence[str], settings: SimulationSettings) -> str:
    values = {"version": __version__, "sources": list(map(str, sources)), "settings": asdict(settings)}
    return tomli_w.dumps(_without_none(values))


def _check_output(out: Path, text: str, *, resume: bool) -> None:
    """Refuse a folder that exists, unless it is the one to complete."""
    if not resume:
        refuse_existing(out, overwrite=False)
    if not out.exists():
        return
    file = out / SETTINGS_FILE
    if not file.is_file():
        raise UsageError(f"{out}: has no {SETTINGS_FILE}, so it cannot be resumed; choose another folder.")
    if load_toml(file) != tomllib.loads(text):
        raise UsageError(f"{out}: was made with other settings, see {SETTINGS_FILE}; choose another folder.")


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    """TOML has no null: what is None is left out, at every level."""
    kept = {key: value for key, value in values.items() if value is not None}
    return {key: _without_none(value) if isinstance(value, Mapping) else value for key, value in kept.items()}


def _is_complete(out: Path, case: PlannedCase, settings: SimulationSettings) -> bool:
    try:
        info = read_info(out / f"{case.name}.h5")
    except UnsupportedInputError:
        return False
    return info.seed == settings.seed and info.source == case.screened.slice.name


def _batches(cases: Iterable[PlannedCase]) -> Iterator[list[PlannedCase]]:
    """Cases that share a grid, a few at a time."""
    groups: dict[Any, list[PlannedCase]] = defaultdict(list)
    for case in cases:
        groups[case.screened.grid].append(case)
    for group in groups.values():
        for start in range(0, len(group), _CASES_AT_ONCE):
            yield group[start : start + _CASES_AT_ONCE]


def _each(function: Callable[[A], B], items: Sequence[A], workers: int) -> Iterator[B]:
    """Results in order, from this process or from `workers` others that share the cores."""
    if workers <= 1 or len(items) <= 1:
        yield from map(function, items)
        return
    threads = max(1, (os.cpu_count() or 1) // workers)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_use_threads, initargs=(threads,)) as pool:
        yield from pool.map(function, items)


def _use_threads(threads: int) -> None:
    import numba

    numba.set_num_threads(min(threads, numba.get_num_threads()))


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
