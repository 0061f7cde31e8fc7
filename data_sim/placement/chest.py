"""Where the metal of the chest goes: around the sternum, under the skin in front, into the mediastinum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from data_sim.implants import Implant, chest, moved
from data_sim.landmarks import Landmarks
from data_sim.morphology import shrunk
from data_sim.placement.where import random_point, within


def sternum(anatomy: Landmarks, rng: Generator, materials: Sequence[str]) -> Implant | None:
    """A sternal wire around the sternum."""
    bone = anatomy.sternum
    if bone is None:
        return None
    wire = chest.sternal_wire(rng, materials, half_x_mm=bone.half_x_mm, half_y_mm=bone.half_y_mm)
    placed = moved(wire, bone.x_mm, bone.y_mm)
    return placed if within(placed, anatomy.body & ~anatomy.air, anatomy.grid) else None


def pacemaker(anatomy: Landmarks, rng: Generator, materials: Sequence[str]) -> Implant | None:
    """A pacemaker under the skin of the upper chest, mostly the left, with leads behind it and in the mediastinum."""
    if not anatomy.is_upper_chest:
        return None
    side = 1 if rng.random() < 0.75 else -1
    can = chest.pacemaker(rng, materials)
    thick = float(np.ptp(can[0].outline[:, 1]))
    if rng.random() < 0.6:
        # The lead's excess lies coiled behind the can.
        loop = chest.lead(rng, materials, length_mm=rng.uniform(10, 35))
        can += moved(loop, rng.uniform(-6, 6), -thick / 2 - 2.0)
    placed = _under_skin(can, anatomy, rng, side=side, least_mm=45, most_mm=100)
    if placed is None:
        return None
    vein = _mediastinum(anatomy, rng)
    if vein:
        for _ in range(int(rng.integers(1, 3))):
            dx, dy = rng.normal(0, 1.5, 2)
            placed += moved(chest.lead(rng, materials), vein[0] + dx, vein[1] + dy)
    return placed


def port(anatomy: Landmarks, rng: Generator, materials: Sequence[str]) -> Implant | None:
    """A venous access port under the skin of the upper chest, mostly the right."""
    if not anatomy.is_upper_chest:
        return None
    side = -1 if rng.random() < 0.75 else 1
    return _under_skin(chest.port(rng, materials), anatomy, rng, side=side, least_mm=35, most_mm=95)


def _under_skin(
    pieces: Implant, anatomy: Landmarks, rng: Generator, *, side: int, least_mm: float, most_mm: float
) -> Implant | None:
    """Pieces whose +y faces the skin, 4 to 12 mm under it in front, on one side of the midline; clear of bone, lung."""
    x = anatomy.midline_mm + side * rng.uniform(least_mm, most_mm)
    grid = anatomy.grid
    column = int(np.clip(round(grid.index_of(x, 0.0)[1]), 1, grid.cols - 2))
    skin = anatomy.anterior_skin
    slope = (skin[column + 1] - skin[column - 1]) / (2 * grid.pixel_mm)
    if not np.isfinite(slope) or abs(slope) > 1.2:
        return None
    angle = float(np.arctan(slope))
    high = max(float(p.outline[:, 1].max()) for p in pieces)
    deep = high + rng.uniform(4, 12)
    placed = moved(pieces, x + deep * np.sin(angle), skin[column] - deep * np.cos(angle), angle)
    clear = shrunk(anatomy.body, 2.0, grid.pixel_mm) & ~anatomy.bone & ~anatomy.air
    return placed if within(placed, clear, grid, 0.995) else None


def _mediastinum(anatomy: Landmarks, rng: Generator) -> tuple[float, float] | None:
    """A place between the lungs, right of the midline as the superior vena cava is."""
    grid = anatomy.grid
    low_mm, high_mm = anatomy.extent_mm[2:]
    from_midline = grid.x_mm() - anatomy.midline_mm
    y = (grid.y_mm() - low_mm) / (high_mm - low_mm)
    zone = ((from_midline > -32) & (from_midline < -8))[None, :] & ((y > 0.5) & (y < 0.72))[:, None]
    return random_point(zone & shrunk(anatomy.soft, 3.0, grid.pixel_mm), grid, rng)
