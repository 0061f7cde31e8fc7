"""Metal trace replacement by a prior image, and the metal's return into the image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ctmar.interpolation import interpolate_trace
from ctmar.nmar import normalized_interpolation


def replace_trace(
    sinogram: NDArray[np.float32],
    prior_sinogram: NDArray[np.float32],
    trace: NDArray[np.bool_],
    *,
    normalized: bool = False,
) -> NDArray[np.float32]:
    """The trace filled from the prior's sinogram, joined to the measured data without a step.

    Inside the trace ``p_prior + LI(p - p_prior)`` (Zhang & Yu 2018, section III.D), outside the measured data.
    `normalized` joins by the quotient, as NMAR does, instead of the difference.

    Parameters
    ----------
    sinogram, prior_sinogram : float32 (..., views, bins)
        The prior's is needed on the trace and on the bins beside it.
    trace : bool, same shape
    """
    if normalized:
        return normalized_interpolation(sinogram, prior_sinogram, trace)
    filled = prior_sinogram + interpolate_trace(sinogram - prior_sinogram, trace)
    return np.where(trace, filled, sinogram)


def insert_metal(
    corrected: NDArray[np.float32], uncorrected: NDArray[np.float32], metal: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """The corrected image with the metal's pixels as they were before correction."""
    return np.where(metal, uncorrected, corrected)
