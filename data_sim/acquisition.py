"""The scan: tissue split, polychromatic line integrals, photon noise, water correction.

The forward model works on path lengths, one array of mm per material; `data_sim.scanner` makes them from
a slice and the metal in it. It is that of Y. Zhang and H. Yu, "Convolutional Neural Network Based Metal Artifact
Reduction in X-ray Computed Tomography", IEEE TMI 37(6):1370-1381, 2018 (arXiv 1709.01581).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linprog

from data_sim.materials import linear_attenuation
from data_sim.spectrum import Spectrum, load_spectrum
from data_sim.units import MU_WATER_PER_MM, REFERENCE_ENERGY_KEV, hu_to_mu

ALL_WATER_HU = 100.0
ALL_BONE_HU = 1500.0

RAYS_AT_A_TIME = 1024
"""Rays x energies in float32 then fit the second-level cache; larger blocks are many times slower."""

Paths = Mapping[str, NDArray[np.float32]]
"""Path length in mm of every ray in each material, by the material's short code; all of one shape."""


@dataclass(frozen=True)
class ScanSettings:
    """Everything about a scan but its geometry.

    Attributes
    ----------
    kvp : int
        Tube potential, one of `data_sim.spectrum.TUBE_POTENTIALS_KV`.
    photons : float
        Detected photons per ray in air.
    scatter_photons : float
        Scattered photons that every ray detects beside them.
    detector : str
        One of `data_sim.spectrum.DETECTORS`. Noise is that of counted photons for both.
    water_correction : bool
        Whether sinograms are linearised for water.
    """

    kvp: int = 120
    photons: float = 2e7
    scatter_photons: float = 20.0
    detector: str = "photon-counting"
    water_correction: bool = True

    def __post_init__(self) -> None:
        load_spectrum(self.kvp, self.detector)
        _check_photons(self.photons, self.scatter_photons)

    def to_dict(self) -> dict[str, Any]:
        """The fields by name; `ScanSettings(**values)` reads them back."""
        return asdict(self)


def split_tissue(
    image_hu: ArrayLike, *, mu_water_per_mm: float = MU_WATER_PER_MM
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Fractions of water and cortical bone that give each pixel its attenuation at 70 keV.

    A pixel's attenuation is water's up to 100 HU, bone's from 1500 HU and a linear mix between; the share b
    of bone gives the fractions ``(1 - b) mu / mu_water`` and ``b mu / mu_bone``. They are relative to the
    densities of `data_sim.materials`, so fat has less than 1 of water and dense bone more than 1 of bone.

    Parameters
    ----------
    image_hu : array_like
        CT image in HU, any shape; -1000 and below (padding) is air.
    mu_water_per_mm : float
        Attenuation that is 0 HU, mm^-1.

    Returns
    -------
    water_fraction, bone_fraction : ndarray of float32
        In the shape of the image, dimensionless, not negative.
    """
    hu = np.asarray(image_hu, np.float32)
    mu = hu_to_mu(hu, mu_water_per_mm)
    mu_bone_per_mm = float(linear_attenuation("bone", REFERENCE_ENERGY_KEV))
    bone_share = np.clip((hu - ALL_WATER_HU) / np.float32(ALL_BONE_HU - ALL_WATER_HU), 0, 1)
    return mu * (1 - bone_share) / np.float32(mu_water_per_mm), mu * bone_share / np.float32(mu_bone_per_mm)


def polychromatic(paths_mm: Paths, spectrum: Spectrum) -> NDArray[np.float32]:
    """Line integrals that a detector measures: p = -ln( sum_E w(E) exp(-sum_k mu_k(E) L_k) ).

    Parameters
    ----------
    paths_mm : mapping of str to ndarray
        Path length of every ray in each material, mm.
    spectrum : Spectrum

    Returns
    -------
    ndarray of float32
        Dimensionless, in the shape of the paths; within 1e-6 (1 + p) of the sum in float64.

    Raises
    ------
    ValueError
        Where there is no material, a code is unknown, or the shapes differ.
    """
    if not paths_mm:
        raise ValueError("a scan needs at least one material")
    lengths = [np.asarray(length, np.float32) for length in paths_mm.values()]
    shape = lengths[0].shape
    if any(length.shape != shape for length in lengths):
        raise ValueError("the paths of all materials must have the same shape")
    rays = np.stack([length.ravel() for length in lengths])
    attenuation = [linear_attenuation(code, spectrum.energies_kev) for code in paths_mm]
    minus_mu = np.ascontiguousarray(-np.stack(attenuation, axis=1), np.float32)
    weights = spectrum.weights.astype(np.float32)
    p = np.empty(rays.shape[1], np.float32)
    for start in range(0, p.size, RAYS_AT_A_TIME):
        block = slice(start, start + RAYS_AT_A_TIME)
        exponents = minus_mu @ rays[:, block]
        # The most penetrating energy is taken out of the sum: it stays finite behind any amount of metal.
        largest = exponents.max(axis=0)
        exponents -= largest
        np.exp(exponents, out=exponents)
        p[block] = -np.log(weights @ exponents) - largest
    return p.reshape(shape)


def add_noise(p: ArrayLike, *, photons: float, scatter_photons: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Photon noise and a scatter floor: p = -ln(max(N, 1) / photons), N ~ Poisson(photons e^-p + scatter).

    The calibration in air (`photons`) has no scatter, since scatter comes from the patient: the line integral
    of air is low by scatter_photons / photons (1e-6 with 20 in 2e7, against noise of 2.2e-4). The variance is
    1 / (photons e^-p + scatter_photons); p cannot exceed ln(photons).

    Parameters
    ----------
    p : array_like
        Line integrals, dimensionless, any shape.
    photons, scatter_photons : float
        Expected numbers of detected photons per ray: primary ones in air, scattered ones in every ray.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of float32
        In the shape of `p`, finite.
    """
    _check_photons(photons, scatter_photons)
    expected = photons * np.exp(-np.asarray(p, np.float64)) + scatter_photons
    counts = np.maximum(rng.poisson(expected), 1)
    return (np.log(photons) - np.log(counts)).astype(np.float32)


def fit_water_correction(spectrum: Spectrum) -> NDArray[np.float64]:
    """Coefficients (a1, a2, a3) with a1 p + a2 p^2 + a3 p^3 = mu_water(70 keV) T for T up to 50 cm of water.

    The largest *relative* error over T = 0.05, 0.10 ... 50 cm is made as small as it can be (a linear programme), since
    HU are relative: 3.0 HU at 120 kVp and 3.6 HU at 80 kVp, where least squares of the relative error leaves 6.4 and
    7.7 HU in thin water, and of the absolute error 17 HU.

    Returns
    -------
    ndarray of float64, shape (3,)
    """
    thickness_mm = np.arange(1, 1001) * 0.5
    mu = linear_attenuation("water", spectrum.energies_kev)
    p = -np.log(np.exp(-np.outer(thickness_mm, mu)) @ spectrum.weights)
    target = MU_WATER_PER_MM * thickness_mm
    powers = p[:, None] ** np.arange(1, 4) / target[:, None]
    scale = powers.max(axis=0)
    bound = np.full((target.size, 1), -1.0)
    rows = np.block([[powers / scale, bound], [-powers / scale, bound]])
    limits = np.concatenate([np.ones_like(target), -np.ones_like(target)])
    free = [(None, None)] * 3 + [(0, None)]
    best = linprog([0, 0, 0, 1], A_ub=rows, b_ub=limits, bounds=free)
    return np.asarray(best.x[:3] / scale)


def apply_water_correction(p: ArrayLike, coefficients: ArrayLike) -> NDArray[np.float32]:
    """a1 p + a2 p^2 + a3 p^3 in float32, with the coefficients of `fit_water_correction`."""
    p = np.asarray(p, np.float32)
    a1, a2, a3 = np.asarray(coefficients, np.float32)
    return p * (a1 + p * (a2 + p * a3))


def scan(paths_mm: Paths, settings: ScanSettings, *, rng: np.random.Generator) -> NDArray[np.float32]:
    """Sinogram of given path lengths: polychromatic, noisy, water-corrected; float32 in their shape."""
    return measure(polychromatic(paths_mm, load_spectrum(settings.kvp, settings.detector)), settings, rng)


def measure(p: NDArray[np.float32], settings: ScanSettings, rng: np.random.Generator) -> NDArray[np.float32]:
    """What the scanner makes of noiseless line integrals."""
    noisy = add_noise(p, photons=settings.photons, scatter_photons=settings.scatter_photons, rng=rng)
    if not settings.water_correction:
        return noisy
    return apply_water_correction(noisy, fit_water_correction(load_spectrum(settings.kvp, settings.detector)))


def _check_photons(photons: float, scatter_photons: float) -> None:
    if not 1 <= photons <= 1e15:
        raise ValueError(f"photons per ray must lie between 1 and 1e15, not {photons}")
    if not 0 <= scatter_photons <= 1e15:
        raise ValueError(f"scatter photons per ray must lie between 0 and 1e15, not {scatter_photons}")
