"""Images whose pixels are not square, on a grid that is: projections know only those."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ctmar.errors import UnsupportedInputError
from data_sim.geometry import FanArc, ImageGrid

_EQUAL = 1e-3
"""Relative difference of a pixel's sides that is rounding: a tenth of a pixel over a hundred."""

_MOST_PIXELS = 4096 * 4096


@dataclass(frozen=True)
class SquareGrid:
    """How an image and its square grid go together: same centre, the finer of the two spacings.

    Attributes
    ----------
    shape
        Rows and columns of the image.
    grid
        The square grid.
    steps
        Pixels of the grid a row and a column of the image; (1, 1) where nothing is resampled.
    """

    shape: tuple[int, int]
    grid: ImageGrid
    steps: tuple[float, float]

    @property
    def same(self) -> bool:
        """Whether the image is on the grid already."""
        return self.steps == (1.0, 1.0)

    def onto(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """An image (rows, cols) on the grid, by linear interpolation; beyond its outermost pixels their values."""
        if self.same:
            return image
        return _resampled(image, self.grid.shape, (1 / self.steps[0], 1 / self.steps[1]))

    def mask_onto(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """A mask on the grid: every pixel that any of the mask reaches."""
        return mask if self.same else self.onto(mask.astype(np.float32)) > 0

    def back(self, change: NDArray[np.float32]) -> NDArray[np.float32]:
        """A change (rows, cols) of the grid on the image."""
        return change if self.same else _resampled(change, self.shape, self.steps)


def is_square(pixel_mm: tuple[float, float]) -> bool:
    """Whether a pixel's height and width differ by no more than rounding."""
    rows_mm, cols_mm = pixel_mm
    return abs(rows_mm - cols_mm) <= _EQUAL * rows_mm


def square_grid(shape: tuple[int, int], pixel_mm: tuple[float, float]) -> SquareGrid:
    """The grid for images of `shape` whose rows and columns are `pixel_mm` apart.

    Raises
    ------
    UnsupportedInputError
        Where the sides differ so much that the grid would be absurdly large.
    """
    rows_mm, cols_mm = pixel_mm
    if is_square(pixel_mm):
        return SquareGrid(shape, ImageGrid(*shape, rows_mm), (1.0, 1.0))
    fine = min(pixel_mm)
    steps = (rows_mm / fine, cols_mm / fine)
    rows, cols = (int(np.ceil(count * step)) for count, step in zip(shape, steps, strict=True))
    if rows * cols > _MOST_PIXELS:
        raise UnsupportedInputError(f"pixels of {rows_mm:g} x {cols_mm:g} mm are too far from square to be corrected.")
    return SquareGrid(shape, ImageGrid(rows, cols, fine), steps)


def reprojection_geometry(grid: ImageGrid) -> FanArc:
    """A clinical arc fan wide enough for the circle within the image.

    Raises
    ------
    UnsupportedInputError
        Where no gantry is wide enough.
    """
    scanner = FanArc()
    radius_mm = max(grid.shape) / 2 * grid.pixel_mm
    if radius_mm >= scanner.source_isocentre_mm:
        raise UnsupportedInputError(f"an image of {2 * radius_mm:.0f} mm is wider than any CT gantry.")
    needed = 2 * int(np.ceil(np.arcsin(radius_mm / scanner.source_isocentre_mm) / scanner.bin_pitch_rad))
    return FanArc(bins=max(scanner.bins, needed))


def _resampled(image: NDArray[np.float32], shape: tuple[int, int], steps: tuple[float, float]) -> NDArray[np.float32]:
    """Linear interpolation at pixels `steps` of the image apart, both centred."""
    first = [(have - 1) / 2 - step * (want - 1) / 2 for have, want, step in zip(image.shape, shape, steps, strict=True)]
    out: NDArray[np.float32] = ndimage.affine_transform(
        image, steps, offset=first, output_shape=shape, output=np.float32, order=1, mode="nearest"
    )
    return out
