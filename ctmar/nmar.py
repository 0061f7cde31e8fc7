"""Normalized metal artifact reduction (NMAR).

E. Meyer, R. Raupach, M. Lell, B. Schmidt, M. Kachelriess, "Normalized metal artifact reduction (NMAR) in computed
tomography", Med. Phys. 37(10):5482-5493, 2010.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ctmar.interpolation import interpolate_trace
from ctmar.segmentation import three_means

_OFFSET = 1.0
"""Added to both sinograms before dividing, about 5 cm of water. Meyer et al. floor the prior near zero instead; where
the patient is cut off and the bin beside the trace sees air in the prior, their quotient explodes: 37,000 HU in a
simulated truncated shoulder, 51 HU with the offset, and the same to 1 HU elsewhere."""
_BONE_OVER_WATER = 1.2


def nmar_prior(
    mu_per_mm: NDArray[np.float32], metal: NDArray[np.bool_], *, mu_water_per_mm: float
) -> NDArray[np.float32]:
    """Prior image: air 0, soft tissue water, bone as it is in the image, metal water.

    Parameters
    ----------
    mu_per_mm : float32 (rows, cols)
        Attenuation of the uncorrected (NMAR1) or the LI image (NMAR2).
    metal : bool (rows, cols)

    Returns
    -------
    float32 (rows, cols), mm^-1
    """
    image = np.where(metal, np.float32(mu_water_per_mm), mu_per_mm)
    air, bone = three_means(image, (0.0, mu_water_per_mm, 2 * mu_water_per_mm))
    bone = max(bone, _BONE_OVER_WATER * mu_water_per_mm)
    # sigma 1 cut to a 5x5 window
    smooth = ndimage.gaussian_filter(image, 1.0, radius=2)
    prior = np.where(smooth < air, 0, np.float32(mu_water_per_mm))
    return np.where(smooth > bone, smooth, prior).astype(np.float32)


def normalized_interpolation(
    sinogram: NDArray[np.float32], prior_sinogram: NDArray[np.float32], trace: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """The sinogram divided by the prior's, interpolated over the trace and multiplied back.

    Parameters
    ----------
    sinogram, prior_sinogram : float32 (..., views, bins)
        The prior's is needed on the trace and on the bins beside it.
    trace : bool, same shape

    Returns
    -------
    float32, same shape; equal to `sinogram` outside the trace
    """
    prior = np.maximum(prior_sinogram, np.float32(0)) + np.float32(_OFFSET)
    quotient = (sinogram + np.float32(_OFFSET)) / prior
    filled = interpolate_trace(quotient, trace) * prior - np.float32(_OFFSET)
    return np.where(trace, filled, sinogram)
