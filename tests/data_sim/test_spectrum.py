import importlib.util
from pathlib import Path

import numpy as np
import pytest
import xraydb

import data_sim
from data_sim.materials import linear_attenuation
from data_sim.spectrum import TUBE_POTENTIALS_KV, Spectrum, load_spectrum, tube_output

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
    assert passed(load_spectrum(kvp), half_value_layer_mm) == pytest.approx(0.5, abs=0.005)


def kerma_per_photon(spectrum):
    """Air kerma of each energy, keV cm2/g: E mu_en/rho of air from NIST SRD 126."""
    mu_en = np.exp(
        np.interp(
            np.log(spectrum.energies_kev),
            np.log([20, 30, 40, 50, 60, 80, 100, 150]),
            np.log([0.5389, 0.1537, 0.06833, 0.04098, 0.03041, 0.02407, 0.02325, 0.02496]),
        )
    )
    return spectrum.energies_kev * mu_en


def passed(spectrum, aluminium_mm):
    """Share of the air kerma that aluminium lets through."""
    kerma = spectrum.weights * kerma_per_photon(spectrum)
    mu_per_mm = np.asarray(xraydb.mu_elam("Al", spectrum.energies_kev * 1000)) * 2.699 / 10
    return kerma @ np.exp(-mu_per_mm * aluminium_mm) / kerma.sum()


def test_aluminium_makes_the_standard_beam_of_that_filter():
    """RQA 9 of IEC 61267: 120 kV, 40 mm of aluminium beside the tube's own 2.5, half-value layer 11.6 mm."""
    hard = load_spectrum(120, filter_al_mm=36.5)
    assert passed(hard, 11.6) == pytest.approx(0.5, abs=0.01)
    # photons per mm2 and uGy of that beam, IEC 62220-1; 1 keV/g is 1.602e-7 uGy
    per_ugy = 1 / (hard.weights @ kerma_per_photon(hard) * 100 * 1.602e-7)
    assert per_ugy == pytest.approx(31_077, rel=0.03)


def test_copper_weakens_each_energy_by_its_own_attenuation():
    """NIST: 1.593, 0.7630, 0.4584 cm2/g at 60, 80, 100 keV."""
    bare, filtered = load_spectrum(120), load_spectrum(120, filter_cu_mm=0.5)
    left = filtered.weights / bare.weights
    at = np.isin(bare.energies_kev, [59.5, 79.5, 99.5])
    expected = np.exp(-0.05 * 8.96 * np.array([1.593, 0.7630, 0.4584]))
    np.testing.assert_allclose(left[at] / left[at][-1], expected / expected[-1], rtol=0.02)
    assert filtered.mean_energy_kev > bare.mean_energy_kev + 3


def test_output_of_the_tube():
    """At 120 kVp: the table's sum, 2.335e8 photons / cm2 / mAs, and the air kerma that it amounts to."""
    assert tube_output(120) == pytest.approx(2.335e6, rel=1e-3)
    spectrum = load_spectrum(120)
    kerma_mgy = tube_output(120) * 100 * (spectrum.weights @ kerma_per_photon(spectrum)) * 1.602e-10
    assert kerma_mgy == pytest.approx(0.08, rel=0.1)
    assert tube_output(80) < 0.5 * tube_output(120)
    assert tube_output(120, filter_al_mm=5.0) < 0.85 * tube_output(120)


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
    for name in ("filter_al_mm", "filter_cu_mm"):
        with pytest.raises(ValueError, match=f"{name} must lie between 0 and 50"):
            load_spectrum(120, **{name: -1.0})


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
