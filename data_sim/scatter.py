"""Scatter from the object: smooth along the detector, and there where the beam was weakened."""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from data_sim.blur import FWHM


def object_scatter(
    primary: NDArray[np.float64], p: NDArray[np.float32], *, ratio: float, fwhm_bins: float
) -> NDArray[np.float64]:
    """Scattered photons that each bin detects: S = G * (ratio p I).

    I is the primary intensity and p its line integral. A beam that is weakened from I0 to I = I0 exp(-p) sends about
    I0 p exp(-p) into the forward directions: what scatters at a depth and is weakened on the rest of the way as the
    primary is. That source is convolved along the detector with a Gaussian G of unit area, which stands for the angles
    of scattering, the depth of the object and the anti-scatter grid. Behind a wide uniform object the
    scatter-to-primary ratio is then ``ratio * p``. What leaves the detector's edge is lost; views do not mix.

    Parameters
    ----------
    primary : float64 (..., bins)
        Expected primary photons.
    p : float32 (..., bins)
        Line integrals against air.
    ratio : float
        Scattered photons per primary photon and unit of line integral. The CatSim simulator takes 0.025 for a beam of
        40 mm, 15 % behind 35 cm of water; scatter is about proportional to the width of the beam.
    fwhm_bins : float
        Full width at half maximum of G, in bins.

    Returns
    -------
    float64 (..., bins)

    References
    ----------
    B. Ohnesorge, T. Flohr, K. Klingenbeck-Regn, "Efficient object scatter correction algorithm for third and fourth
    generation CT scanners", European Radiology 9:563-569, 1999; the ratio: convolution model of scatter in CatSim,
    M. Wu et al., "XCIST, an open access x-ray/CT simulation toolkit", Phys. Med. Biol. 67:194002, 2022.
    """
    source = ratio * np.maximum(p, 0) * primary
    bins = source.shape[-1]
    length = scipy.fft.next_fast_len(bins + int(np.ceil(2 * fwhm_bins)) + 1, real=True)
    # the transfer function of the discrete Gaussian (see data_sim.blur), not of a sampled one
    sigma = fwhm_bins / FWHM
    response = np.exp(sigma**2 * (np.cos(2 * np.pi * np.arange(length // 2 + 1) / length) - 1))
    spread = scipy.fft.irfft(scipy.fft.rfft(source, length) * response, length)[..., :bins]
    return np.asarray(np.maximum(spread, 0))
