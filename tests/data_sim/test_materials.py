import numpy as np
import pytest

from data_sim.materials import (
    FILTERS,
    METALS,
    PLASTICS,
    TISSUES,
    Material,
    find_material,
    linear_attenuation,
    material_names,
)
from data_sim.units import MU_WATER_PER_MM

# Mass attenuation with coherent scatter, cm2/g, at 60, 80 and 100 keV: J. H. Hubbell and S. M. Seltzer, NIST
# Standard Reference Database 126; gold's K edge at 80.725 keV lies between the last two.
NIST_CM2_G = {
    "water": (0.2059, 0.1837, 0.1707),
    "bone": (0.3148, 0.2229, 0.1855),
    "ti": (0.7661, 0.4052, 0.2721),
    "fe": (1.205, 0.5952, 0.3717),
    "cu": (1.593, 0.7630, 0.4584),
    "au": (4.528, 2.185, 5.158),
    "pmma": (0.1924, 0.1751, 0.1641),
    "al": (0.2778, 0.2018, 0.1704),
}


@pytest.mark.parametrize("code", NIST_CM2_G)
def test_agrees_with_nist(code):
    expected_per_mm = np.array(NIST_CM2_G[code]) * find_material(code).density_g_cm3 / 10
    np.testing.assert_allclose(linear_attenuation(code, [60, 80, 100]), expected_per_mm, rtol=1e-3)


@pytest.mark.parametrize("code", material_names())
def test_agrees_with_xraylib(code):
    xraylib = pytest.importorskip("xraylib")
    energies_kev = np.arange(20.5, 140)
    material = find_material(code)
    expected_per_mm = [
        sum(
            fraction * xraylib.CS_Total(xraylib.SymbolToAtomicNumber(symbol), energy)
            for symbol, fraction in material.composition.items()
        )
        * material.density_g_cm3
        / 10
        for energy in energies_kev
    ]
    np.testing.assert_allclose(linear_attenuation(code, energies_kev), expected_per_mm, rtol=0.01)


def test_gold_steps_up_at_its_k_edge():
    below, above = linear_attenuation("au", [80.5, 81.0])
    assert above / below == pytest.approx(4.10, abs=0.05)  # 8.825 / 2.151 cm2/g


def test_water_is_the_unit_of_hounsfield():
    assert float(linear_attenuation("water", 70.0)) == pytest.approx(MU_WATER_PER_MM, rel=1e-4)


def test_densities_are_those_of_the_method():
    densities = {code: find_material(code).density_g_cm3 for code in ("ti", "fe", "cu", "au", "bone")}
    assert densities == {"ti": 4.506, "fe": 7.874, "cu": 8.96, "au": 19.3, "bone": 1.92}


@pytest.mark.parametrize("code", ["amalgam", "goldalloy"])
def test_alloy_density_is_that_of_its_parts(code):
    grams_cm3 = {"Hg": 13.534, "Ag": 10.49, "Sn": 7.287, "Cu": 8.96, "Au": 19.3, "Pd": 12.02, "Zn": 7.14}
    volume = sum(fraction / grams_cm3[symbol] for symbol, fraction in METALS[code].composition.items())
    assert METALS[code].density_g_cm3 == pytest.approx(1 / volume, rel=0.01)


def test_compounds_have_their_stoichiometry():
    """By standard atomic weights: C5H8O2; and oxygen as the oxides of zirconium, hafnium and yttrium bind it."""
    fractions = find_material("pmma").composition
    moles = {symbol: fractions[symbol] / weight for symbol, weight in (("H", 1.008), ("C", 12.011), ("O", 15.999))}
    assert moles["H"] / moles["O"] == pytest.approx(4, rel=1e-3)
    assert moles["C"] / moles["O"] == pytest.approx(2.5, rel=1e-3)
    fractions = find_material("ceramic").composition
    bound = 2 * fractions["Zr"] / 91.224 + 2 * fractions["Hf"] / 178.49 + 1.5 * fractions["Y"] / 88.906
    assert fractions["O"] == pytest.approx(bound * 15.999, rel=5e-3)


def test_keeps_the_shape_of_the_energies():
    assert linear_attenuation("fe", 70.0).shape == ()
    assert linear_attenuation("fe", np.full((2, 3), 70.0)).shape == (2, 3)


def test_names_are_unique_and_complete():
    groups = (TISSUES, METALS, PLASTICS, FILTERS)
    assert set(material_names()) == set().union(*groups)
    assert len(material_names()) == sum(map(len, groups))


def test_refuses_unknown_codes_and_energies():
    with pytest.raises(ValueError, match="unknown material 'unobtainium'"):
        linear_attenuation("unobtainium", 70.0)
    for energy_kev in (0.0, 0.07, 70_000.0, np.nan):
        with pytest.raises(ValueError, match="between 1 and 1000 keV"):
            linear_attenuation("water", energy_kev)


def test_material_checks_itself_and_cannot_change():
    with pytest.raises(ValueError, match="add up to 1"):
        Material("half", {"Fe": 0.5}, 1.0, "test")
    with pytest.raises(ValueError, match="density"):
        Material("nothing", {"Fe": 1.0}, 0.0, "test")
    with pytest.raises(TypeError):
        METALS["ti"].composition["Ti"] = 0.5  # type: ignore[index]
