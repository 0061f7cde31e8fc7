"""Where the metal is: in the image, and in the sinogram."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from data_sim.projection import Projector

METAL_THRESHOLD_HU = 2500.0
"""Above dense bone and enamel, below 3071 HU where 12-bit scanners saturate."""

CROSS = ndimage.generate_binary_structure(2, 1)
"""3x3 cross, the structuring element of every dilation here."""


def metal_mask(
    image_hu: NDArray[np.float32],
    *,
    threshold_hu: float = METAL_THRESHOLD_HU,
    smallest_mm2: float = 1.0,
    pixel_mm: float = 1.0,
    dilation: int = 1,
) -> NDArray[np.bool_]:
    """Metal by threshold alone on the uncorrected image, slice by slice.

    For simulated images and for screening, where nothing but metal is as bright; `ctmar.detection` finds the metal of
    patients.

    Parameters
    ----------
    image_hu : float (rows, cols) or (slices, rows, cols)
    threshold_hu
        Pixels at or above are metal.
    smallest_mm2
        Connected regions (8 neighbours) smaller than this are noise and dropped.
    pixel_mm
        Pixel size.
    dilation
        Growth in steps of one pixel; a mask that is too small costs far more than one that is too large
        (Zhang & Yu 2018, section IV.B).

    Returns
    -------
    bool, shape of `image_hu`
    """
    stack = np.atleast_3d(image_hu) if image_hu.ndim == 3 else image_hu[None]
    out = np.zeros(stack.shape, bool)
    smallest = max(1, round(smallest_mm2 / pixel_mm**2))
    for image, mask in zip(stack, out, strict=True):
        found = image >= threshold_hu
        if not found.any():
            continue
        labels, count = ndimage.label(found, np.ones((3, 3)))
        area = np.bincount(labels.ravel(), minlength=count + 1)
        keep = area >= smallest
        keep[0] = False
        mask[...] = dilate(keep[labels], dilation)
    return out if image_hu.ndim == 3 else out[0]


def dilate(mask: NDArray[np.bool_], steps: int = 1) -> NDArray[np.bool_]:
    """A mask (rows, cols), or a stack of them, grown by `steps` pixels with the 3x3 cross."""
    if steps < 1 or not mask.any():
        return mask.copy()
    structure = CROSS if mask.ndim == 2 else CROSS[None]
    return ndimage.binary_dilation(mask, structure, iterations=steps)


def metal_path_mm(mask: NDArray[np.bool_], projector: Projector) -> NDArray[np.float32]:
    """Length of every ray within the metal: (slices, rows, cols) -> (slices, views, bins), mm."""
    return projector.forward(mask)


def metal_trace(path_mm: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Rays that meet the metal: where its forward projection is positive."""
    return path_mm > 0


def beside(trace: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Rays (views, bins) in or beside the trace of any slice: where the replacement of a trace needs a prior."""
    near = np.asarray(trace.any(axis=0))
    near[:, 1:] |= near[:, :-1].copy()
    near[:, :-1] |= near[:, 1:].copy()
    return near


def three_means(values: NDArray[np.float32], start: tuple[float, float, float]) -> tuple[float, float]:
    """Lowest values of the second and third class of a 3-means clustering (Lloyd's iterations).

    Parameters
    ----------
    values : float, any shape
    start : the three initial means, increasing

    Notes
    -----
    Clustering a 4096-bin histogram instead of the pixels gives the same boundaries to the bin width, and takes
    milliseconds.
    """
    low, high = float(values.min()), float(values.max())
    if low == high:
        return start[1], start[2]
    counts, edges = np.histogram(values, bins=4096, range=(low, high))
    centres = (edges[1:] + edges[:-1]) / 2
    cumulative = np.concatenate([[0], np.cumsum(counts)])
    moments = np.concatenate([[0], np.cumsum(counts * centres)])
    means = np.asarray(start, float)
    bounds = np.empty(2)
    for _ in range(200):
        bounds = (means[1:] + means[:-1]) / 2
        cut = np.concatenate([[0], np.searchsorted(centres, bounds), [counts.size]])
        size = cumulative[cut[1:]] - cumulative[cut[:-1]]
        total = moments[cut[1:]] - moments[cut[:-1]]
        updated = np.where(size > 0, total / np.maximum(size, 1), means)  # an empty class keeps its mean
        if np.allclose(updated, means, rtol=0, atol=1e-9 * (high - low)):
            break
        means = updated
    return float(bounds[0]), float(bounds[1])
