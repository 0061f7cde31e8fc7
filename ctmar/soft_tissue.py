"""Soft tissue in an image, whatever streaks lie upon it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

SOFT_HU = 200.0
"""Soft tissue lies within this of water."""

_SMOOTH_MM = 3.0


def without_fine_streaks(image_hu: NDArray[np.float32], *, pixel_mm: float) -> NDArray[np.float32]:
    """An image (rows, cols) in HU smoothed so far that fine streaks and noise do not count."""
    smooth: NDArray[np.float32] = ndimage.gaussian_filter(image_hu, _SMOOTH_MM / pixel_mm)
    return smooth


def soft_tissue(image_hu: NDArray[np.float32], *, pixel_mm: float) -> NDArray[np.bool_]:
    """Where an image (rows, cols) in HU shows soft tissue."""
    return np.abs(without_fine_streaks(image_hu, pixel_mm=pixel_mm)) < SOFT_HU
