"""Where a user's own shapes go."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from data_sim.anatomy import shrunk
from data_sim.implants import Implant, choose_material, moved
from data_sim.implants.own import Shape
from data_sim.landmarks import Landmarks
from data_sim.placement.where import random_point, within


def own(anatomy: Landmarks, rng: Generator, materials: Sequence[str], *, shapes: Sequence[Shape]) -> Implant | None:
    """One of the shapes, all of one metal: at its own place where that is known, else anywhere that it fits.

    Its own place is known where the mask has the slice's rows, columns and pixel size, and holds where all of it
    lies inside the patient. Anywhere else it is turned at random and put into bone in half of the proposals, else
    into any tissue; at most 5 % of it in air or lung, all of it at least 3 mm under the skin.
    """
    shape = shapes[int(rng.integers(len(shapes)))]
    pieces = shape.of(choose_material(rng, materials))
    grid = anatomy.grid
    same = shape.grid.shape == grid.shape and abs(shape.grid.pixel_mm / grid.pixel_mm - 1) < 0.01
    if same and within(pieces, anatomy.body, grid):
        return pieces
    inner = shrunk(anatomy.body, 3.0, grid.pixel_mm)
    bone = anatomy.whole_bone & inner
    point = random_point(bone if bone.any() and rng.random() < 0.5 else inner & ~anatomy.air, grid, rng)
    if point is None:
        return None
    x, y = shape.centre_mm
    placed = moved(moved(pieces, -x, -y), *point, rng.uniform(0, 2 * np.pi))
    fits = within(placed, inner, grid) and within(placed, inner & ~anatomy.air, grid, 0.95)
    return placed if fits else None
