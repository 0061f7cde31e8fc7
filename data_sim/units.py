"""Hounsfield units, attenuation and the constants that tie them together.

Attenuation is in mm^-1 at the reference energy, lengths in mm, energies in keV.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

REFERENCE_ENERGY_KEV = 70.0
"""Energy at which images are expressed and to which the water correction linearises."""

MU_WATER_PER_MM = 0.0192851
"""Total attenuation of water (1 g/cm3) at 70 keV, mm^-1 (XrayDB, Elam tables; NIST XCOM gives 0.01929)."""

HU_AIR = -1000.0


def hu_to_mu(hu: ArrayLike, mu_water_per_mm: float = MU_WATER_PER_MM) -> NDArray[np.float32]:
    """Attenuation in mm^-1 of Hounsfield units: mu = mu_water (1 + HU / 1000).

    Values below air are clipped to zero attenuation, since padding is not tissue.

    >>> float(hu_to_mu(0.0, 0.02))
    0.019999999552965164
    """
    mu = (np.asarray(hu, np.float32) + np.float32(1000)) * np.float32(mu_water_per_mm / 1000)
    return np.maximum(mu, np.float32(0))


def mu_to_hu(mu_per_mm: ArrayLike, mu_water_per_mm: float = MU_WATER_PER_MM) -> NDArray[np.float32]:
    """Hounsfield units of an attenuation in mm^-1: HU = 1000 (mu / mu_water - 1)."""
    scale = np.float32(1000 / mu_water_per_mm)
    return np.asarray(mu_per_mm, np.float32) * scale - np.float32(1000)
