"""Tissue processing: from the network's image to the prior image of the trace replacement.

Zhang & Yu 2018, section III.C: soft tissue becomes uniform, so that what is left of the artifacts there cannot pass
into the corrected sinogram; bone and air stay as the network has them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import apply_hysteresis_threshold

from ctmar.segmentation import three_means

_START_HU = (-900.0, 0.0, 1000.0)
_LOWEST_BONE_HU = 350.0
_TRANSITION_PX = 5.0


def tissue_prior(image_hu: NDArray[np.float32], metal: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Prior image in HU.

    Parameters
    ----------
    image_hu : float32 (rows, cols)
        The network's image.
    metal : bool (rows, cols)

    Returns
    -------
    float32 (rows, cols), HU
    """
    image = np.where(metal, np.float32(0), image_hu)
    air_hu, bone_hu = three_means_hu(image)
    bone = apply_hysteresis_threshold(image, bone_hu / 2, bone_hu)
    water = (image > air_hu) & ~bone
    if water.any():
        weight = np.minimum(ndimage.distance_transform_edt(water), _TRANSITION_PX) / _TRANSITION_PX
        mean = float((weight * image).sum() / weight.sum())
        image = (weight * mean + (1 - weight) * image).astype(np.float32)
    return fill_from_ring(image, metal)


def three_means_hu(image_hu: NDArray[np.float32]) -> tuple[float, float]:
    """Air and bone threshold of a slice in HU, the latter at least 350."""
    air_hu, bone_hu = three_means(image_hu, _START_HU)
    return air_hu, max(bone_hu, _LOWEST_BONE_HU)


def fill_from_ring(image: NDArray[np.float32], metal: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The metal, grown by a 3x3 square, filled from the nearest pixel around it."""
    if not metal.any() or metal.all():
        return image
    grown = ndimage.binary_dilation(metal, np.ones((3, 3)))
    if grown.all():
        return image
    row, col = ndimage.distance_transform_edt(grown, return_distances=False, return_indices=True)
    return image[row, col]
