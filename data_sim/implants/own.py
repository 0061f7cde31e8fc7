"""A user's own metal: a mask turned into polygons in mm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi
from skimage.measure import find_contours

from data_sim.geometry import ImageGrid
from data_sim.implants.pieces import Implant, Piece, Points


@dataclass(frozen=True, eq=False)
class Shape:
    """The metal of one mask, without a material yet.

    Attributes
    ----------
    rings
        For every part of the mask its outline and its holes, each (n, 2) of x, y in mm in the frame of `grid`.
    grid
        The mask's own grid.
    """

    rings: tuple[tuple[Points, tuple[Points, ...]], ...]
    grid: ImageGrid

    @property
    def centre_mm(self) -> Points:
        """Middle of the bounding box, (x, y)."""
        points = np.concatenate([outline for outline, _ in self.rings])
        return np.asarray((points.min(axis=0) + points.max(axis=0)) / 2)

    def of(self, material: str) -> Implant:
        """The implant at the mask's own place."""
        return tuple(Piece(outline, material, holes) for outline, holes in self.rings)


def shape_of(mask: NDArray[np.bool_], pixel_mm: float) -> Shape:
    """Outlines of a mask halfway between its pixels and their neighbours.

    Such an outline is smoother than the pixels' edges, and cuts corners; each ring is scaled about its middle so
    that its area is that of the pixels in it.

    Parameters
    ----------
    mask : bool (rows, cols)
        Metal; touching pixels (also at a corner) are one part.
    pixel_mm
        Their size.

    Raises
    ------
    ValueError
        Where there is no metal.
    """
    if mask.ndim != 2 or not mask.any():
        raise ValueError("a shape needs a mask (rows, cols) with metal in it")
    rows, cols = mask.shape
    grid = ImageGrid(rows, cols, pixel_mm)
    labels, _ = ndi.label(np.pad(mask, 1), structure=np.ones((3, 3)))
    rings = []
    for index, box in enumerate(ndi.find_objects(labels), start=1):
        part = labels[box] == index
        corner = box[0].start - 1, box[1].start - 1
        filled = np.asarray(ndi.binary_fill_holes(part))
        cavities, count = ndi.label(filled & ~part)
        holes = tuple(_ring(cavities == k, corner, grid) for k in range(1, count + 1))
        rings.append((_ring(filled, corner, grid), holes))
    return Shape(tuple(rings), grid)


def _ring(part: NDArray[np.bool_], corner: tuple[int, int], grid: ImageGrid) -> Points:
    """Outline of one part without holes whose first pixel is `corner` of the grid."""
    lines = find_contours(np.pad(part, 1).astype(np.float32), 0.5, fully_connected="high")
    line = max(lines, key=len)[:-1] - 1 + corner
    x = (line[:, 1] - (grid.cols - 1) / 2) * grid.pixel_mm
    y = ((grid.rows - 1) / 2 - line[:, 0]) * grid.pixel_mm
    ring = np.stack([x, y], axis=1)
    after = np.roll(ring, -1, axis=0)
    area = abs(float(np.sum(ring[:, 0] * after[:, 1] - after[:, 0] * ring[:, 1]))) / 2
    middle = ring.mean(axis=0)
    return np.asarray(middle + (ring - middle) * np.sqrt(part.sum() * grid.pixel_mm**2 / area))
