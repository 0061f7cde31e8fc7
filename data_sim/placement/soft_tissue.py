"""Where clips, coils, markers and random shapes go."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from data_sim.implants import Implant, Piece, choose_material, moved, soft_tissue
from data_sim.landmarks import Landmarks
from data_sim.morphology import shrunk
from data_sim.placement.where import random_point, within


def clip(anatomy: Landmarks, rng: Generator, materials: Sequence[str]) -> Implant | None:
    """One to four surgical clips close together in soft tissue; in a brain an aneurysm clip."""
    grid = anatomy.grid
    if anatomy.brain is not None:
        return head_clip(anatomy, rng, materials)
    point = random_point(shrunk(anatomy.soft, 6.0, grid.pixel_mm), grid, rng)
    if point is None:
        return None
    placed: list[Piece] = []
    material = (choose_material(rng, materials, ("ti", "ss316l")),)
    for _ in range(int(rng.choice([1, 1, 2, 3, 4]))):
        dx, dy = rng.normal(0, 8.0, 2) if placed else (0.0, 0.0)
        angle = rng.uniform(0, 2 * np.pi)
        placed += moved(soft_tissue.clip(rng, material), point[0] + dx, point[1] + dy, angle)
    return tuple(placed) if within(tuple(placed), anatomy.soft, grid, 0.95) else None


def head_clip(anatomy: Landmarks, rng: Generator, materials: Sequence[str]) -> Implant | None:
    """An aneurysm clip deep in the brain, at times two."""
    point = random_point(anatomy.deep_brain, anatomy.grid, rng)
    if point is None:
        return None
    placed = moved(soft_tissue.aneurysm_clip(rng, materials), *point, rng.uniform(0, 2 * np.pi))
    if rng.random() < 0.2:
        dx, dy = rng.normal(0, 5.0, 2)
        second = soft_tissue.aneurysm_clip(rng, materials)
        placed += moved(second, point[0] + dx, point[1] + dy, rng.uniform(0, 2 * np.pi))
    return placed if within(placed, anatomy.body & ~anatomy.bone, anatomy.grid, 0.98) else None


def coil(anatomy: Landmarks, rng: Generator, materials: Sequence[str]) -> Implant | None:
    """An embolisation coil deep in the brain."""
    point = random_point(anatomy.deep_brain, anatomy.grid, rng)
    if point is None:
        return None
    placed = moved(soft_tissue.coil(rng, materials), *point)
    return placed if within(placed, anatomy.body & ~anatomy.bone, anatomy.grid, 0.98) else None


def marker(anatomy: Landmarks, rng: Generator, materials: Sequence[str]) -> Implant | None:
    """Two to four gold markers 8 to 20 mm from the middle of a target deep in soft tissue of the trunk."""
    grid = anatomy.grid
    if anatomy.width_mm < 230:
        return None
    target = random_point(anatomy.deep_soft, grid, rng)
    if target is None:
        return None
    count = int(rng.integers(2, 5))
    material = (choose_material(rng, materials, ("au",)),)
    around = rng.uniform(0, 2 * np.pi) + np.arange(count) * 2 * np.pi / count
    placed: list[Piece] = []
    for angle in around:
        r = rng.uniform(8, 20)
        at = target[0] + r * np.cos(angle), target[1] + r * np.sin(angle)
        placed += moved(soft_tissue.fiducial(rng, material), *at, rng.uniform(0, np.pi))
    return tuple(placed) if within(tuple(placed), anatomy.soft, grid, 0.95) else None


def random(anatomy: Landmarks, rng: Generator, materials: Sequence[str]) -> Implant | None:
    """One to three random shapes anywhere inside the body."""
    placed: list[Piece] = []
    inner = shrunk(anatomy.body, 3.0, anatomy.grid.pixel_mm)
    for _ in range(int(rng.integers(1, 4))):
        point = random_point(inner, anatomy.grid, rng)
        if point is None:
            return None
        placed += moved(soft_tissue.random_shape(rng, materials), *point, rng.uniform(0, 2 * np.pi))
    return tuple(placed)
