"""Where metal may lie: masks, points, chords."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from data_sim.anatomy import XY, Mask
from data_sim.geometry import ImageGrid
from data_sim.implants import Implant, coverage, fine_masks


def metal_on(pieces: Implant, grid: ImageGrid) -> NDArray[np.float32]:
    """Fraction of every pixel that is metal."""
    fine, masks = fine_masks(pieces, grid)
    return coverage(masks, fine, grid)


def on_grid(pieces: Implant, grid: ImageGrid) -> bool:
    """Whether the image's edge cuts nothing off."""
    points = np.concatenate([p.outline for p in pieces])
    corners = [grid.index_of(x, y) for x, y in (points.min(axis=0), points.max(axis=0))]
    return all(0 <= row <= grid.rows - 1 and 0 <= col <= grid.cols - 1 for row, col in corners)


def within(pieces: Implant, mask: Mask, grid: ImageGrid, share: float = 1.0) -> bool:
    """Whether at least `share` of the metal lies in the mask, none of it cut off by the image's edge."""
    if not on_grid(pieces, grid):
        return False
    metal = metal_on(pieces, grid)
    return bool(metal[mask].sum(dtype=float) >= share * metal.sum(dtype=float) * (1 - 1e-6))


def inside(mask: Mask, grid: ImageGrid, x_mm: NDArray[np.float64], y_mm: NDArray[np.float64]) -> Mask:
    """Whether points lie in a mask (nearest pixel; outside the image is outside)."""
    row, col = grid.index_of(0.0, 0.0)
    rows = np.rint(row - y_mm / grid.pixel_mm).astype(int)
    cols = np.rint(col + x_mm / grid.pixel_mm).astype(int)
    valid = (rows >= 0) & (rows < grid.rows) & (cols >= 0) & (cols < grid.cols)
    found = np.zeros(valid.shape, bool)
    found[valid] = mask[rows[valid], cols[valid]]
    return found


def reach(mask: Mask, grid: ImageGrid, start: XY, angle_rad: float, most_mm: float) -> float:
    """How far one can go from a point along a direction before leaving the mask, mm."""
    steps = np.arange(0, most_mm, grid.pixel_mm / 2)
    held = inside(mask, grid, start[0] + steps * np.cos(angle_rad), start[1] + steps * np.sin(angle_rad))
    return float(most_mm if held.all() else steps[np.argmin(held)])


def random_point(mask: Mask, grid: ImageGrid, rng: Generator) -> XY | None:
    """Position of a pixel drawn from a mask."""
    indices = np.flatnonzero(mask)
    if not indices.size:
        return None
    row, col = np.unravel_index(int(rng.choice(indices)), mask.shape)
    return float(grid.x_mm()[col]), float(grid.y_mm()[row])


def axis(part: Mask, grid: ImageGrid) -> float:
    """Direction in radians of a mask's longest axis."""
    rows, cols = np.nonzero(part)
    centred = np.stack([grid.x_mm()[cols], grid.y_mm()[rows]])
    _, vectors = np.linalg.eigh(np.cov(centred))
    return float(np.arctan2(vectors[1, 1], vectors[0, 1]))
