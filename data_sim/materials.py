"""X-ray attenuation of tissues, metals and alloys.

Compositions and densities are listed here with their sources; cross sections of the elements come from
`xraydb` (W. T. Elam, B. D. Ravel, J. R. Sieber, Radiation Physics and Chemistry 63:121-128, 2002): total
attenuation, coherent scatter included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import xraydb
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Material:
    """What a ray meets.

    Attributes
    ----------
    name : str
        For people.
    composition : mapping of str to float
        Mass fraction of each element; they add up to 1.
    density_g_cm3 : float
    source : str
        Where composition and density come from.
    """

    name: str
    composition: Mapping[str, float]
    density_g_cm3: float
    source: str

    def __post_init__(self) -> None:
        if abs(sum(self.composition.values()) - 1) > 1e-6 or min(self.composition.values()) <= 0:
            raise ValueError(f"the mass fractions of {self.name} must be positive and add up to 1")
        if not self.density_g_cm3 > 0:
            raise ValueError(f"the density of {self.name} must be positive, not {self.density_g_cm3}")
        object.__setattr__(self, "composition", MappingProxyType(dict(self.composition)))


TISSUES: Mapping[str, Material] = MappingProxyType(
    {
        "water": Material("water", {"H": 0.111894, "O": 0.888106}, 1.0, "H2O"),
        "bone": Material(
            "cortical bone",
            {
                "H": 0.034, "C": 0.155, "N": 0.042, "O": 0.435, "Na": 0.001,
                "Mg": 0.002, "P": 0.103, "S": 0.003, "Ca": 0.225,
            },
            1.92,
            "ICRU Report 44 (1989), adult cortical bone",
        ),
    }
)  # fmt: skip
"""The two materials that a CT image is split into, by their short code."""

METALS: Mapping[str, Material] = MappingProxyType(
    {
        "ti": Material("titanium", {"Ti": 1.0}, 4.506, "element"),
        "fe": Material("iron", {"Fe": 1.0}, 7.874, "element"),
        "cu": Material("copper", {"Cu": 1.0}, 8.96, "element"),
        "au": Material("gold", {"Au": 1.0}, 19.3, "element"),
        "cocrmo": Material(
            "cobalt-chromium-molybdenum",
            {"Co": 0.66, "Cr": 0.28, "Mo": 0.06},
            8.3,
            "ASTM F75 (Co-28Cr-6Mo), minor elements counted as cobalt",
        ),
        "ss316l": Material(
            "stainless steel 316L",
            {"Fe": 0.64, "Cr": 0.18, "Ni": 0.14, "Mo": 0.025, "Mn": 0.015},
            8.0,
            "middle of ASTM F138, minor elements counted as iron",
        ),
        "amalgam": Material(
            "dental amalgam",
            {"Hg": 0.425, "Ag": 0.339, "Sn": 0.161, "Cu": 0.075},
            10.6,
            "59 Ag 28 Sn 13 Cu alloy with 42.5 % mercury (Tytin); density from the elements' volumes",
        ),
        "goldalloy": Material(
            "dental gold alloy",
            {"Au": 0.75, "Ag": 0.11, "Cu": 0.095, "Pd": 0.035, "Zn": 0.01},
            15.5,
            "a usual casting gold for crowns and bridges (type III); density from the elements' volumes",
        ),
        "ceramic": Material(
            "zirconia ceramic",
            {"Zr": 0.687, "Hf": 0.017, "Y": 0.041, "O": 0.255},
            6.05,
            "yttria-stabilised zirconia, ISO 13356: 92.8 % ZrO2, 5.2 % Y2O3, 2 % HfO2, at least 6.00 g/cm3",
        ),
    }
)
"""What leaves artifacts to remove, by the short code that the command line takes: metals, and a ceramic as dense.

Ceramic is zirconia (crowns, dental implants, older hip heads), the stronger attenuator; alumina has 3.9 g/cm3."""

PLASTICS: Mapping[str, Material] = MappingProxyType(
    {
        "pmma": Material(
            "poly(methyl methacrylate)",
            {"H": 0.080538, "C": 0.599848, "O": 0.319614},
            1.19,
            "C5H8O2; density of NIST's table of materials. Bone cement holds a radio-opacifier as well",
        ),
    }
)
"""Parts of an implant that are no metal: little more than water to X-rays, and no part of a metal mask."""

FILTERS: Mapping[str, Material] = MappingProxyType({"al": Material("aluminium", {"Al": 1.0}, 2.699, "element")})
"""Filters of the tube that are not implant materials; copper is among the metals."""


def material_names() -> tuple[str, ...]:
    """All short codes: tissues, metals, plastics, filters."""
    return (*TISSUES, *METALS, *PLASTICS, *FILTERS)


def find_material(code: str) -> Material:
    """The material with a short code.

    Raises
    ------
    ValueError
        Where there is none of that code.
    """
    for group in (TISSUES, METALS, PLASTICS, FILTERS):
        if code in group:
            return group[code]
    raise ValueError(f"unknown material {code!r}: expected one of {', '.join(material_names())}")


def linear_attenuation(code: str, energies_kev: ArrayLike) -> NDArray[np.float64]:
    """Linear attenuation coefficient in mm^-1: mu(E) = density * sum_i fraction_i (mu / rho)_i(E).

    Parameters
    ----------
    code : str
        Short code of the material, see `material_names`.
    energies_kev : array_like
        Photon energies, 1 to 1000 keV, any shape.

    Returns
    -------
    ndarray of float64
        In the shape of `energies_kev`.

    Raises
    ------
    ValueError
        Where the code is unknown or an energy is out of range.

    >>> round(float(linear_attenuation("water", 70.0)), 5)
    0.01929
    """
    material = find_material(code)
    energies_ev = np.atleast_1d(np.asarray(energies_kev, np.float64)) * 1000
    if not np.all((energies_ev >= 1e3) & (energies_ev <= 1e6)):
        raise ValueError("photon energies must lie between 1 and 1000 keV")
    mass_attenuation_cm2_g = sum(
        fraction * np.asarray(xraydb.mu_elam(element, energies_ev.ravel(), kind="total"))
        for element, fraction in material.composition.items()
    )
    mu_per_mm = material.density_g_cm3 * np.asarray(mass_attenuation_cm2_g) / 10
    return mu_per_mm.reshape(np.shape(energies_kev))
