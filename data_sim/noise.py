"""Noise of the detector: photons that are counted or whose energy is added up, and electronics."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from data_sim.blur import shared
from data_sim.kernels import in_threads, kernel

_COUNTS_AT_ONCE = 1 << 15

FEWEST = 1.0
"""A signal is never below this many photons before the logarithm: behind enough metal nothing is left."""


def detect(
    signal: NDArray[np.float64],
    variance: NDArray[np.float64] | None = None,
    *,
    crosstalk: float = 0.0,
    electronic_noise: float = 0.0,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """A noisy reading for every expected signal, not below `FEWEST`.

    Counted photons are Poisson. Where energies are added up, the signal of N(E) photons is compound Poisson, with mean
    sum E N(E) and variance sum E^2 N(E); it is drawn as g Poisson(signal / g), g = variance / signal, which has both.
    The signal then spreads to the neighbouring bins with its noise, and electronics add a Gaussian.

    Parameters
    ----------
    signal : float64 (..., bins)
        Expected photons, in photons of the mean energy in air where energies are added up.
    variance : float64 (..., bins), optional
        Variance of the signal before crosstalk and electronics; by default that of counted photons, the signal.
    crosstalk : float
        Share of a bin's signal that each neighbour gets, see `data_sim.blur.shared`.
    electronic_noise : float
        Standard deviation of the electronic noise, in the unit of the signal.
    rng
        Source of the noise.

    References
    ----------
    B. R. Whiting, P. Massoumzadeh, O. A. Earl, J. A. O'Sullivan, D. L. Snyder, J. F. Williamson, "Properties of
    preprocessed sinogram data in x-ray computed tomography", Med. Phys. 33(9):3290-3303, 2006; electronic noise:
    J. Xu, B. M. W. Tsui, "Electronic noise modeling in statistical iterative reconstruction", IEEE Trans. Image
    Process. 18(6):1228-1238, 2009.
    """
    if variance is None:
        reading = poisson(signal, rng)
    else:
        gain = np.divide(variance, signal, out=np.ones_like(signal), where=signal > 1e-30)
        reading = gain * poisson(signal / gain, rng)
    reading = shared(reading, crosstalk)
    if electronic_noise > 0:
        reading += electronic_noise * rng.standard_normal(reading.shape)
    return np.maximum(reading, FEWEST, out=reading)


def poisson(mean: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Poisson counts of given means, as quantiles of one standard normal each.

    A rejection sampler draws more or less from its generator as the mean falls, so that a change of rounding (another
    device, other slices in the stack) makes all that follows another noise. Here every element has a draw of its own,
    and the count follows the mean. Below a mean of 50 it is the exact quantile, above that its Cornish-Fisher
    expansion to the order 1 / mean (M. Abramowitz, I. A. Stegun, Handbook of Mathematical Functions, 26.2.49), the
    variance less the 1/12 of rounding.

    Parameters
    ----------
    mean : float64, any shape
    rng
        Gives ``mean.size`` normal deviates.

    Returns
    -------
    float64, whole numbers in the shape of `mean`
    """
    counts = rng.standard_normal(mean.shape)
    means = np.ascontiguousarray(mean, np.float64).ravel()
    in_threads(_quantiles, means.size, _COUNTS_AT_ONCE, means, counts.ravel())
    return np.maximum(counts, 0, out=counts)


@kernel("void(intp, intp, float64[::1], float64[::1])")
def _quantiles(first, stop, mean, normal):  # type: ignore[no-untyped-def]
    """Normal deviates to Poisson counts, in place."""
    for i in range(first, stop):
        m, z = mean[i], normal[i]
        if m < 50.0:
            wanted = 0.5 * math.erfc(-z / math.sqrt(2.0))
            count = 0
            term = math.exp(-m)
            total = term
            while total < wanted and count < 300:
                count += 1
                term *= m / count
                total += term
            normal[i] = count
        else:
            deviation = math.sqrt(m - 1.0 / 12.0)
            w = z + (z * z - 1.0) / (6.0 * deviation) + (z - z * z * z) / (72.0 * m)
            normal[i] = math.floor(m + deviation * w + 0.5)
