"""Where pedicle screws and rods go."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from data_sim.anatomy import Vertebra
from data_sim.implants import Implant, Piece, choose_material, moved
from data_sim.implants import spine as metal
from data_sim.landmarks import Landmarks
from data_sim.morphology import shrunk
from data_sim.placement.where import metal_on, reach, within


def spine(anatomy: Landmarks, rng: Generator, materials: Sequence[str]) -> Implant | None:
    """Pedicle screws with rods where the arch is whole; rods alone elsewhere, and in one of eight."""
    vertebra = anatomy.vertebra
    if vertebra is None or anatomy.cranium:
        return None
    if vertebra.closed and rng.random() > 1 / 8:
        return _pedicle_screws(vertebra, anatomy, rng, materials)
    rods = _rods(vertebra, rng, materials)
    return rods if within(rods, shrunk(anatomy.body, 8.0, anatomy.grid.pixel_mm), anatomy.grid) else None


def _rods(vertebra: Vertebra, rng: Generator, materials: Sequence[str]) -> Implant:
    """Both rods of a construct cut between two screws, behind and beside the canal."""
    size = 1.0 if vertebra.body_radius_mm > 9.5 else 0.6
    apart = vertebra.half_width_mm + size * rng.uniform(6, 13)
    behind = vertebra.half_height_mm + size * rng.uniform(12, 20)
    rod = metal.rod(rng, materials, scale=size)
    placed: list[Piece] = []
    for side in (-1, 1):
        dx, dy = rng.normal(0, 1.5, 2)
        placed += moved(rod, vertebra.x_mm + side * apart + dx, vertebra.y_mm - behind + dy)
    return tuple(placed)


def _pedicle_screws(vertebra: Vertebra, anatomy: Landmarks, rng: Generator, materials: Sequence[str]) -> Implant | None:
    """Screws converging by 8 to 28 degrees from behind the pedicles into the vertebral body.

    Those of small (cervical) vertebrae are thinner and shorter. None where they would end outside bone or
    breach the canal.
    """
    grid = anatomy.grid
    small = vertebra.body_radius_mm < 9.5
    major = rng.uniform(3.5, 4.0) if small else rng.uniform(5.5, 7.0)
    wanted = rng.uniform(14, 26) if small else rng.uniform(35, 50)
    beside = vertebra.half_width_mm + major / 2 + rng.uniform(1.0, 3.5)
    sides = (-1, 1) if rng.random() < 0.9 else (int(rng.choice((-1, 1))),)
    # One system: both screws of one metal, both rods of one.
    screws = (choose_material(rng, materials, ("ti",)),)
    rods = (choose_material(rng, materials, ("ti", "cocrmo")),)
    placed: list[Piece] = []
    for side in sides:
        angle = np.pi / 2 + side * np.deg2rad(rng.uniform(8, 28))
        pedicle = vertebra.x_mm + side * beside, vertebra.y_mm + rng.uniform(0, 3)
        most = 12.0 if small else 22.0
        back = reach(anatomy.whole_bone, grid, pedicle, angle + np.pi, most)
        ahead = reach(anatomy.whole_bone, grid, pedicle, angle, 60.0)
        length = min(back + ahead - 3.0, wanted)
        if length < (12 if small else 25):
            return None
        screw = metal.pedicle_screw(rng, screws, length_mm=length, major_mm=major, rod_materials=rods)
        placed += moved(screw, pedicle[0] - back * np.cos(angle), pedicle[1] - back * np.sin(angle), angle)
    # A screw that breaches the canal is a complication, not the rule.
    breach = metal_on(tuple(placed), grid)[vertebra.canal].sum()
    return tuple(placed) if breach < 0.04 * vertebra.canal.sum() else None
