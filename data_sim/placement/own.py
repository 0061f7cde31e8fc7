"""Where a user's own shapes go."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from data_sim.implants import Implant, choose_material, moved
from data_sim.implants.own import Shape
from data_sim.landmarks import Landmarks
from data_sim.morphology import shrunk
from data_sim.placement.where import random_point, within

_POSES = 8
"""Tried for each proposal."""


def own(anatomy: Landmarks, rng: Generator, materials: Sequence[str], *, shapes: Sequence[Shape]) -> Implant | None:
    """One of the shapes, all of one metal: at its own place where that is known, else anywhere that it fits.

    Its own place is known where the mask has the slice's rows, columns and pixel size, and holds where all of it
    lies inside the patient. Anywhere else it is turned at random and put into bone (60 % of it) in half of the
    proposals, else into soft tissue (80 %); at most 5 % of it in air or lung, all of it at least 3 mm under the skin.
    """
    shape = shapes[int(rng.integers(len(shapes)))]
    pieces = shape.of(choose_material(rng, materials))
    grid = anatomy.grid
    same = shape.grid.shape == grid.shape and abs(shape.grid.pixel_mm / grid.pixel_mm - 1) < 0.01
    if same and within(pieces, anatomy.body, grid):
        return pieces
    x, y = shape.centre_mm
    centred = moved(pieces, -x, -y)
    inner = shrunk(anatomy.body, 3.0, grid.pixel_mm)
    bone, soft = anatomy.whole_bone & inner, inner & ~anatomy.whole_bone & ~anatomy.air
    in_bone = rng.random() < 0.5
    for _ in range(_POSES):
        point = random_point(bone if in_bone else soft, grid, rng)
        if point is None:
            return None
        placed = moved(centred, *point, rng.uniform(0, 2 * np.pi))
        if not within(placed, inner, grid) or not within(placed, ~anatomy.air, grid, 0.95):
            continue
        if within(placed, bone, grid, 0.6) if in_bone else within(placed, soft, grid, 0.8):
            return placed
    return None
