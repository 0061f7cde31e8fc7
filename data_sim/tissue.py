"""What a CT image is made of for the scanner: water and bone."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data_sim.materials import linear_attenuation
from data_sim.units import MU_WATER_PER_MM, REFERENCE_ENERGY_KEV, hu_to_mu

ALL_WATER_HU = 100.0
ALL_BONE_HU = 1500.0


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
