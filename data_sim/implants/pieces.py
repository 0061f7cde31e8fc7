"""Pieces of metal as polygons in mm, and their pixels on a grid.

An implant is a tuple of `Piece`, in a frame of its own whose origin is the point that placement anchors: the
centre of a femoral ball, the place where a screw enters bone. `moved` brings it into the image. Pieces may be of
different metals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from skimage.draw import polygon as polygon_pixels

from data_sim.geometry import ImageGrid

Points = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Piece:
    """One piece of metal: a closed polygon (n, 2) of x, y in mm, a material code, holes of the same form."""

    outline: Points
    material: str
    holes: tuple[Points, ...] = ()

    def __post_init__(self) -> None:
        for ring in (self.outline, *self.holes):
            if ring.ndim != 2 or ring.shape[0] < 3 or ring.shape[1] != 2 or not np.isfinite(ring).all():
                raise ValueError("an outline needs at least three finite (x, y) points")


Implant = tuple[Piece, ...]


def moved(pieces: Implant, dx_mm: float, dy_mm: float, angle_rad: float = 0.0, scale: float = 1.0) -> Implant:
    """Scale and rotate (counter-clockwise, about the frame's origin), then shift."""
    c, s = scale * np.cos(angle_rad), scale * np.sin(angle_rad)
    turn = np.array([[c, s], [-s, c]])
    shift = np.array([dx_mm, dy_mm])
    return tuple(
        replace(p, outline=p.outline @ turn + shift, holes=tuple(h @ turn + shift for h in p.holes)) for p in pieces
    )


def _inside(ring: Points, grid: ImageGrid) -> Mask:
    row, col = grid.index_of(0.0, 0.0)
    mask = np.zeros(grid.shape, bool)
    mask[polygon_pixels(row - ring[:, 1] / grid.pixel_mm, col + ring[:, 0] / grid.pixel_mm, grid.shape)] = True
    return mask


def rasterise(pieces: Implant, grid: ImageGrid) -> dict[str, Mask]:
    """Pixels whose centre lies in the metal, by material.

    Parameters
    ----------
    pieces
        In the frame of the grid; what lies outside it is cut off.
    grid
        Where to rasterise.

    Returns
    -------
    dict of bool (rows, cols)
        Disjoint masks: a later piece overrides the earlier ones.
    """
    codes = list(dict.fromkeys(p.material for p in pieces))
    owner = np.full(grid.shape, -1)
    for piece in pieces:
        filled = _inside(piece.outline, grid)
        for hole in piece.holes:
            filled &= ~_inside(hole, grid)
        owner[filled] = codes.index(piece.material)
    return {code: owner == k for k, code in enumerate(codes)}


def fine_masks(pieces: Implant, grid: ImageGrid, refine: int = 4) -> tuple[ImageGrid, dict[str, Mask]]:
    """Rasterise on a grid `refine` times finer that covers no more than the implant and two pixels around it.

    Returns
    -------
    fine_grid, masks
        The fine grid's edges coincide with pixel edges of `grid`; the masks are those of `rasterise`.

    Raises
    ------
    ValueError
        Where there is no piece, or none of them lies on the grid.
    """
    if not pieces:
        raise ValueError("an implant needs at least one piece")
    points = np.concatenate([p.outline for p in pieces])
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    (top, left), (bottom, right) = grid.index_of(x0, y1), grid.index_of(x1, y0)
    row0, row1 = max(0, int(np.floor(top)) - 2), min(grid.rows, int(np.ceil(bottom)) + 3)
    col0, col1 = max(0, int(np.floor(left)) - 2), min(grid.cols, int(np.ceil(right)) + 3)
    if row0 >= row1 or col0 >= col1:
        raise ValueError("the implant lies outside the image grid")
    fine = grid.crop(row0, row1, col0, col1).refined(refine)
    return fine, rasterise(pieces, fine)


def coverage(masks: Mapping[str, Mask], fine_grid: ImageGrid, grid: ImageGrid) -> NDArray[np.float32]:
    """Fraction of every pixel of `grid` that is metal, shape (rows, cols), from the masks of `fine_masks`.

    The metal mask of a case is where this is at least one half.
    """
    refine = round(grid.pixel_mm / fine_grid.pixel_mm)
    rows, cols = fine_grid.rows // refine, fine_grid.cols // refine
    metal = np.zeros(fine_grid.shape, bool)
    for mask in masks.values():
        metal |= mask
    blocks = metal.reshape(rows, refine, cols, refine).mean(axis=(1, 3), dtype=np.float32)
    centre_row, centre_col = grid.index_of(fine_grid.centre_x_mm, fine_grid.centre_y_mm)
    row0, col0 = round(centre_row - (rows - 1) / 2), round(centre_col - (cols - 1) / 2)
    fraction = np.zeros(grid.shape, np.float32)
    fraction[row0 : row0 + rows, col0 : col0 + cols] = blocks
    return fraction
