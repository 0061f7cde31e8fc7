"""Where dental metal goes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.random import Generator

from data_sim.anatomy import XY
from data_sim.implants import Implant, Piece, moved
from data_sim.implants import dental as metal
from data_sim.landmarks import Landmarks


def dental(anatomy: Landmarks, rng: Generator, materials: Sequence[str]) -> Implant | None:
    """Fillings or crowns in one to six teeth, each of its own metal."""
    return _in_teeth(anatomy, rng, materials, wanted=int(rng.integers(1, 7)), crowns=0.25)


def fillings(anatomy: Landmarks, rng: Generator, materials: Sequence[str]) -> Implant | None:
    """Fillings in three to eight teeth; None where fewer than three show."""
    wanted = int(rng.integers(3, 9))
    return _in_teeth(anatomy, rng, materials, wanted=wanted, crowns=0.0) if len(anatomy.teeth) >= 3 else None


def _in_teeth(
    anatomy: Landmarks, rng: Generator, materials: Sequence[str], *, wanted: int, crowns: float
) -> Implant | None:
    teeth = anatomy.teeth
    if not teeth:
        return None
    placed: list[Piece] = []
    for index in rng.permutation(len(teeth))[:wanted]:
        x, y = teeth[int(index)]
        dx, dy = rng.normal(0, 0.7, 2)
        build = metal.crown if rng.random() < crowns else metal.filling
        placed += moved(build(rng, materials), x + dx, y + dy, rng.uniform(0, 2 * np.pi))
    return tuple(placed)


def dental_implant(anatomy: Landmarks, rng: Generator, materials: Sequence[str]) -> Implant | None:
    """One to four dental implants in the place of teeth, bare or crowned; or a bridge over three to five teeth."""
    teeth = anatomy.teeth
    if not teeth:
        return None
    span = _neighbours(teeth, rng)
    if span and rng.random() < 0.4:
        return metal.bridge(rng, materials, teeth_mm=np.array(span))
    placed: list[Piece] = []
    # A slice meets all implants of a jaw above the bone or all within it.
    crowned = rng.random() < 0.4
    for index in rng.permutation(len(teeth))[: int(rng.integers(1, 5))]:
        placed += moved(
            metal.dental_implant(rng, materials, crowned=crowned), *teeth[int(index)], rng.uniform(0, np.pi)
        )
    return tuple(placed)


def _neighbours(teeth: Sequence[XY], rng: Generator) -> list[XY]:
    """Three to five teeth that follow one another along the arch, 5 to 13 mm apart; empty where there are none."""
    centre_x, back_y = np.mean([x for x, _ in teeth]), min(y for _, y in teeth) - 10
    order = sorted(teeth, key=lambda at: float(np.arctan2(at[1] - back_y, at[0] - centre_x)))
    runs: list[list[XY]] = [[order[0]]]
    for before, after in pairwise(order):
        if 5 <= np.hypot(after[0] - before[0], after[1] - before[1]) <= 13:
            runs[-1].append(after)
        else:
            runs.append([after])
    long = [run for run in runs if len(run) >= 3]
    if not long:
        return []
    run = long[int(rng.integers(len(long)))]
    units = int(rng.integers(3, min(5, len(run)) + 1))
    start = int(rng.integers(len(run) - units + 1))
    return run[start : start + units]
