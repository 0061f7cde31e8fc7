"""Masks (rows, cols) grown, shrunk and measured in mm."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

Mask = NDArray[np.bool_]


def grown(mask: Mask, radius_mm: float, pixel_mm: float) -> Mask:
    """Dilation with a disc, by distance so that large radii cost no more than small ones."""
    result = mask.copy()
    if mask.any():
        box = _box(mask, int(radius_mm / pixel_mm) + 1)
        result[box] = ndi.distance_transform_edt(~mask[box]) * pixel_mm <= radius_mm
    return result


def shrunk(mask: Mask, radius_mm: float, pixel_mm: float) -> Mask:
    """Erosion with a disc; what lies outside the image does not erode."""
    return mask & (depth_mm(mask, pixel_mm) > radius_mm)


def depth_mm(mask: Mask, pixel_mm: float) -> NDArray[np.float64]:
    """Distance in mm of each pixel of a mask to the mask's outside; infinite where that is nowhere in the image."""
    if mask.all():
        return np.full(mask.shape, np.inf)
    depth = np.zeros(mask.shape)
    if mask.any():
        box = _box(mask, 1)
        depth[box] = ndi.distance_transform_edt(mask[box]) * pixel_mm
    return depth


def _box(mask: Mask, margin: int) -> tuple[slice, ...]:
    """What holds a mask and so many pixels around it, as far as the image reaches: the rest of a slice costs time."""
    found = (np.flatnonzero(mask.any(axis=other)) for other in (1, 0))
    return tuple(slice(max(0, at[0] - margin), at[-1] + margin + 1) for at in found)


def elongation(mask: Mask) -> float:
    """Ratio of a mask's longest to its shortest principal spread: 1 for a disc."""
    spread = np.linalg.eigvalsh(np.cov(np.nonzero(mask)))
    return float(np.sqrt(spread[1] / max(spread[0], 1e-9)))
