"""What the detector sees of the tube: spectra as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

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


@lru_cache
def load_spectrum(kvp: int, detector: str = "photon-counting") -> Spectrum:
    """The committed tungsten spectrum behind 6 mm Al as an ideal detector weighs it.

    Parameters
    ----------
    kvp : int
        Tube potential, one of `TUBE_POTENTIALS_KV`.
    detector : str
        ``photon-counting``: weights are photon numbers. ``energy-integrating``: numbers times energy.

    Returns
    -------
    Spectrum
        1 keV bins from 20 keV to the tube potential, energies at their centres.

    Raises
    ------
    ValueError
        Where there is no table for `kvp` or no such detector.

    >>> round(load_spectrum(120).mean_energy_kev, 1)
    59.8
    """
    if kvp not in TUBE_POTENTIALS_KV:
        raise ValueError(f"no spectrum for {kvp} kVp: expected one of {TUBE_POTENTIALS_KV}")
    if detector not in DETECTORS:
        raise ValueError(f"unknown detector {detector!r}: expected one of {', '.join(DETECTORS)}")
    table = (files("data_sim") / "tables" / f"tube-{int(kvp)}kvp.csv").read_text(encoding="utf-8")
    energies_kev, photons = np.loadtxt(table.splitlines(), delimiter=",", unpack=True)
    weights = photons * energies_kev if detector == "energy-integrating" else photons
    return Spectrum(energies_kev, weights)
