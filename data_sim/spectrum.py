"""What the detector sees of the tube: spectra as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from data_sim.materials import linear_attenuation

TUBE_POTENTIALS_KV = (80, 100, 120, 140)
"""Tube potentials with a committed table (`tables/README.md`)."""

DETECTORS = ("photon-counting", "energy-integrating")
"""How a detected photon counts: each the same, or each as its energy."""


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Share of the detector's signal in air that each energy contributes.

    Attributes
    ----------
    energies_kev : ndarray of float64, shape (energies,)
    weights : ndarray of float64, shape (energies,)
        Not negative; divided by their sum on construction.
    """

    energies_kev: NDArray[np.float64]
    weights: NDArray[np.float64]

    def __post_init__(self) -> None:
        energies_kev = np.array(self.energies_kev, np.float64)
        weights = np.array(self.weights, np.float64)
        if energies_kev.ndim != 1 or energies_kev.shape != weights.shape:
            raise ValueError("a spectrum needs as many weights as energies, both one-dimensional")
        if not (np.all(energies_kev > 0) and np.all(weights >= 0) and 0 < weights.sum() < np.inf):
            raise ValueError("energies must be positive, weights finite, not negative and not all zero")
        weights /= weights.sum()
        for name, values in (("energies_kev", energies_kev), ("weights", weights)):
            values.flags.writeable = False
            object.__setattr__(self, name, values)

    @property
    def mean_energy_kev(self) -> float:
        """Weighted mean energy."""
        return float(self.energies_kev @ self.weights)

    @cached_property
    def weighted_by_energy(self) -> Spectrum:
        """The spectrum with every weight multiplied by its energy; always the same object."""
        return Spectrum(self.energies_kev, self.weights * self.energies_kev)


@lru_cache
def load_spectrum(
    kvp: int, detector: str = "photon-counting", *, filter_al_mm: float = 0.0, filter_cu_mm: float = 0.0
) -> Spectrum:
    """The committed tungsten spectrum behind 6 mm Al, and what is put after it, as an ideal detector weighs it.

    Parameters
    ----------
    kvp : int
        Tube potential, one of `TUBE_POTENTIALS_KV`.
    detector : str
        ``photon-counting``: weights are photon numbers. ``energy-integrating``: numbers times energy.
    filter_al_mm, filter_cu_mm : float
        Aluminium and copper in the beam beside the 6 mm Al of the table: the photons of each energy are
        multiplied by exp(-mu_Al t_Al - mu_Cu t_Cu).

    Returns
    -------
    Spectrum
        1 keV bins from 20 keV to the tube potential, energies at their centres.

    Raises
    ------
    ValueError
        Where there is no table for `kvp`, no such detector, or a filter is negative or thicker than 50 mm.

    >>> round(load_spectrum(120).mean_energy_kev, 1)
    59.8
    """
    if detector not in DETECTORS:
        raise ValueError(f"unknown detector {detector!r}: expected one of {', '.join(DETECTORS)}")
    energies_kev, photons = _filtered_fluence(kvp, filter_al_mm, filter_cu_mm)
    spectrum = Spectrum(energies_kev, photons)
    return spectrum.weighted_by_energy if detector == "energy-integrating" else spectrum


def tube_output(kvp: int, *, filter_al_mm: float = 0.0, filter_cu_mm: float = 0.0) -> float:
    """Photons per mm2 and mAs that the tube gives at 1 m, behind its filters, without air in between.

    The sum of the committed table, which SpekPy computed for an ideal tube of 12 degrees anode angle. Tubes differ:
    waveform, anode angle, roughening by age and filters change the output by tens of percent. At 120 kVp the table
    amounts to 0.08 mGy of air kerma per mAs at 1 m.

    >>> f"{tube_output(120):.3g}"
    '2.33e+06'
    """
    return float(_filtered_fluence(kvp, filter_al_mm, filter_cu_mm)[1].sum()) / 100  # per cm2 to per mm2


def _filtered_fluence(
    kvp: int, filter_al_mm: float, filter_cu_mm: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Energies (keV) and photons / cm2 / mAs at 1 m of a table, behind further filters."""
    if kvp not in TUBE_POTENTIALS_KV:
        raise ValueError(f"no spectrum for {kvp} kVp: expected one of {TUBE_POTENTIALS_KV}")
    table = (files("data_sim") / "tables" / f"tube-{int(kvp)}kvp.csv").read_text(encoding="utf-8")
    energies_kev, photons = np.loadtxt(table.splitlines(), delimiter=",", unpack=True)
    for code, thickness_mm in (("al", filter_al_mm), ("cu", filter_cu_mm)):
        if not 0 <= thickness_mm <= 50:
            raise ValueError(f"filter_{code}_mm must lie between 0 and 50, not {thickness_mm}")
        photons = photons * np.exp(-linear_attenuation(code, energies_kev) * thickness_mm)
    return energies_kev, photons
