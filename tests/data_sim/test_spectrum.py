import importlib.util
from pathlib import Path

import numpy as np
import pytest

import data_sim
from data_sim.materials import linear_attenuation
from data_sim.spectrum import TUBE_POTENTIALS_KV, Spectrum, load_spectrum

TABLES = Path(data_sim.__file__).parent / "tables"


@pytest.mark.parametrize("kvp", TUBE_POTENTIALS_KV)
def test_table_covers_20_kev_to_the_tube_potential(kvp):
    spectrum = load_spectrum(kvp)
    np.testing.assert_allclose(spectrum.energies_kev, np.arange(20.5, kvp))
    assert np.all(spectrum.weights > 0)
    assert spectrum.weights.sum() == pytest.approx(1, abs=1e-12)


def test_mean_energy_at_120_kvp():
    assert load_spectrum(120).mean_energy_kev == pytest.approx(60, abs=1)


def test_tungsten_k_lines_stand_out():
    spectrum = load_spectrum(120)
    weight = dict(zip(spectrum.energies_kev, spectrum.weights, strict=True))
    assert weight[57.5] > 1.4 * weight[56.5]  # K alpha 2, 57.98 keV
    assert weight[59.5] > 1.4 * weight[60.5]  # K alpha 1, 59.32 keV
    assert load_spectrum(80).mean_energy_kev < load_spectrum(100).mean_energy_kev < 60


@pytest.mark.parametrize(("kvp", "half_value_layer_mm"), [(80, 4.36), (100, 5.40), (120, 6.34), (140, 7.20)])
def test_half_value_layer_of_the_readme(kvp, half_value_layer_mm):
    """Half of the air kerma behind the layer that the table's README states (from SpekPy, its own data)."""
    xraydb = pytest.importorskip("xraydb")
    spectrum = load_spectrum(kvp)
    energies_ev = spectrum.energies_kev * 1000
    mu_aluminium_per_mm = np.asarray(xraydb.mu_elam("Al", energies_ev)) * 2.699 / 10
    # mu_en/rho of air, cm2/g, NIST SRD 126
    mu_en = np.exp(
        np.interp(
            np.log(spectrum.energies_kev),
            np.log([20, 30, 40, 50, 60, 80, 100, 150]),
            np.log([0.5389, 0.1537, 0.06833, 0.04098, 0.03041, 0.02407, 0.02325, 0.02496]),
        )
    )
    kerma = spectrum.weights * spectrum.energies_kev * mu_en
    passed = kerma @ np.exp(-mu_aluminium_per_mm * half_value_layer_mm) / kerma.sum()
    assert passed == pytest.approx(0.5, abs=0.005)


def test_energy_integrating_weighs_by_energy():
    counting, integrating = load_spectrum(120), load_spectrum(120, "energy-integrating")
    expected = counting.weights * counting.energies_kev / counting.mean_energy_kev
    np.testing.assert_allclose(integrating.weights, expected, rtol=1e-12)


def test_water_looks_denser_to_softer_tubes():
    attenuation = [
        float(linear_attenuation("water", s.energies_kev) @ s.weights) for s in map(load_spectrum, TUBE_POTENTIALS_KV)
    ]
    assert attenuation == sorted(attenuation, reverse=True)


def test_refuses_what_it_has_not():
    with pytest.raises(ValueError, match="no spectrum for 90 kVp"):
        load_spectrum(90)
    with pytest.raises(ValueError, match="unknown detector 'film'"):
        load_spectrum(120, "film")


@pytest.mark.parametrize(
    ("energies_kev", "weights"),
    [([60, 70], [1]), ([[60]], [[1]]), ([0, 60], [1, 1]), ([60], [-1]), ([60], [0]), ([60], [np.nan])],
)
def test_spectrum_checks_itself(energies_kev, weights):
    with pytest.raises(ValueError, match=r"spectrum needs|must be positive"):
        Spectrum(np.array(energies_kev, float), np.array(weights, float))


def test_spectrum_is_read_only_and_leaves_its_arguments_alone():
    weights = np.array([1.0, 3.0])
    spectrum = Spectrum(np.array([60.0, 70.0]), weights)
    np.testing.assert_array_equal(weights, [1, 3])
    assert spectrum.mean_energy_kev == pytest.approx(67.5)
    with pytest.raises(ValueError, match="read-only"):
        spectrum.weights[0] = 1


def test_committed_tables_are_those_of_the_script():
    if importlib.util.find_spec("spekpy") is None:
        pytest.skip("spekpy is not installed (pip install ctmar[tables])")
    source = importlib.util.spec_from_file_location("make_tables", TABLES / "make_tables.py")
    assert source is not None
    assert source.loader is not None
    module = importlib.util.module_from_spec(source)
    source.loader.exec_module(module)
    table = np.loadtxt(TABLES / "tube-80kvp.csv", delimiter=",")
    np.testing.assert_allclose(table, module.tube_spectrum(80), rtol=1e-5)
