"""What every case of a database will be, from the seed and its number: implant, slice, and where the metal goes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctmar.errors import CtmarError, NoUsableSeriesError
from ctmar.screening import Screened
from ctmar.simulation_settings import SimulationSettings
from ctmar.sources import counted
from data_sim.geometry import ImageGrid
from data_sim.implants import Implant
from data_sim.implants.own import Shape
from data_sim.placement import place

_MOST_CASES_AT_ONCE = 16
_PLACEMENT_ATTEMPTS = 10


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


@dataclass(frozen=True, eq=False)
class PlacedCase:
    """A case with its slice in memory and its metal in place.

    Attributes
    ----------
    planned
        What it comes from.
    image_hu, grid, patient
        The metal-free slice, float32 (rows, cols).
    pieces
        The metal.
    rng
        What its noise is drawn from: it has gone on from placing the metal.
    """

    planned: PlannedCase
    image_hu: NDArray[np.float32]
    grid: ImageGrid
    patient: str
    pieces: Implant
    rng: np.random.Generator


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
        reasons = counted([candidate.reason for candidate in screened if candidate.reason])
        why = f" Left out: {'; '.join(reasons)}." if reasons else ""
        raise NoUsableSeriesError(f"none of the slices has room for any of: {', '.join(settings.families)}.{why}")
    planned = []
    for number in range(1, settings.cases + 1):
        rng = np.random.default_rng((settings.seed, number, 0))
        implant = implants[rng.integers(len(implants))]
        patients = fitting[implant]
        patient = sorted(patients)[rng.integers(len(patients))]
        choice = patients[patient]
        planned.append(PlannedCase(number, implant, choice[rng.integers(len(choice))]))
    return planned


def place_case(case: PlannedCase, settings: SimulationSettings, shapes: Sequence[Shape] = ()) -> PlacedCase | str:
    """Load a case's slice and put its metal in; the reason where that fails."""
    try:
        image_hu, grid, patient = case.screened.slice.load()
    except CtmarError as error:
        return str(error)
    if grid != case.screened.grid:
        return "the slice has changed since it was screened; start again"
    rng = np.random.default_rng((settings.seed, case.number, 1))
    for _ in range(_PLACEMENT_ATTEMPTS):
        pieces = place(case.implant, image_hu, grid, rng, settings.materials, shapes=shapes)
        if pieces is not None:
            return PlacedCase(case, image_hu, grid, patient, pieces, rng)
    return f"no place for the implant {case.implant} in this slice"


def batches(cases: Sequence[PlannedCase], *, workers: int) -> Iterator[list[PlannedCase]]:
    """Cases that share a grid, a few at a time, so that there is something to do for every worker."""
    at_once = max(1, min(_MOST_CASES_AT_ONCE, len(cases) // (2 * workers) if workers > 1 else _MOST_CASES_AT_ONCE))
    groups: dict[ImageGrid | None, list[PlannedCase]] = defaultdict(list)
    for case in cases:
        groups[case.screened.grid].append(case)
    for group in groups.values():
        for start in range(0, len(group), at_once):
            yield group[start : start + at_once]
