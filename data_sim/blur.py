"""Blur along the detector: the focal spot's, before photons are counted, and between the bins, after."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d
from scipy.special import ive

FWHM = 2 * np.sqrt(2 * np.log(2))
"""Full width at half maximum of a Gaussian, in standard deviations."""


def blurred(intensity: NDArray[np.float64], sigma_bins: float) -> NDArray[np.float64]:
    """Intensities (..., bins) convolved with a discrete Gaussian of variance `sigma_bins` squared.

    T(n) = exp(-t) I_n(t), t the variance in bins: unlike the sampled Gaussian it has that variance and unit sum for any
    t, below one bin as well (T. Lindeberg, "Scale-space for discrete signals", IEEE Trans. PAMI 12(3):234-254, 1990).
    At the detector's ends the last bin goes on.
    """
    if sigma_bins == 0:
        return intensity
    reach = int(np.ceil(5 * sigma_bins)) + 3
    kernel = ive(np.abs(np.arange(-reach, reach + 1)), sigma_bins**2)
    return np.asarray(correlate1d(intensity, kernel / kernel.sum(), axis=-1, mode="nearest"))


def shared(signal: NDArray[np.float64], crosstalk: float) -> NDArray[np.float64]:
    """Signals (..., bins) of which each bin gives the share `crosstalk` to either neighbour."""
    if crosstalk == 0:
        return signal
    kernel = [crosstalk, 1 - 2 * crosstalk, crosstalk]
    return np.asarray(correlate1d(signal, kernel, axis=-1, mode="nearest"))
