"""Masks grown, shrunk and measured in mm."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

Mask = NDArray[np.bool_]


def grown(mask: Mask, radius_mm: float, pixel_mm: float) -> Mask:
    """Dilation with a disc, by distance so that large radii cost no more than small ones."""
    if not mask.any():
        return mask.copy()
    return np.asarray(ndi.distance_transform_edt(~mask) * pixel_mm <= radius_mm)


def shrunk(mask: Mask, radius_mm: float, pixel_mm: float) -> Mask:
    """Erosion with a disc; what lies outside the image does not erode."""
    return ~grown(~mask, radius_mm, pixel_mm)


def depth_mm(mask: Mask, pixel_mm: float) -> NDArray[np.float64]:
    """Distance in mm of each pixel of a mask to the mask's outside."""
    return np.asarray(ndi.distance_transform_edt(mask)) * pixel_mm


def elongation(mask: Mask) -> float:
    """Ratio of a mask's longest to its shortest principal spread: 1 for a disc."""
    spread = np.linalg.eigvalsh(np.cov(np.nonzero(mask)))
    return float(np.sqrt(spread[1] / max(spread[0], 1e-9)))
