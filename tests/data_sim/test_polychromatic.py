import numba
import numpy as np
import pytest

from data_sim.materials import linear_attenuation
from data_sim.polychromatic import polychromatic
from data_sim.spectrum import TUBE_POTENTIALS_KV, Spectrum, load_spectrum
from data_sim.units import MU_WATER_PER_MM
from tests.data_sim.direct import direct_integral


def test_monoenergetic_limit():
    line = Spectrum(np.array([70.0]), np.array([1.0]))
    paths = {"water": np.array([0.0, 100, 300]), "ti": np.array([0.0, 0, 20])}
    mu_water, mu_ti = (float(linear_attenuation(code, 70.0)) for code in paths)
    expected = mu_water * paths["water"] + mu_ti * paths["ti"]
    np.testing.assert_allclose(polychromatic(paths, line), expected, rtol=1e-6)


@pytest.mark.parametrize("metal", ["ti", "fe", "au", "amalgam"])
@pytest.mark.parametrize("kvp", TUBE_POTENTIALS_KV)
def test_agrees_with_the_integral_in_double_precision(metal, kvp):
    rng = np.random.default_rng(3)
    shape = (30, 70)  # more rays than one block
    paths = {
        "water": rng.uniform(0, 500, shape),
        "bone": rng.uniform(0, 60, shape),
        metal: rng.uniform(0, 80, shape) * (rng.random(shape) < 0.5),
    }
    p = polychromatic(paths, load_spectrum(kvp))
    expected = direct_integral(paths, load_spectrum(kvp))
    assert p.dtype == np.float32
    assert p.shape == shape
    assert np.max(np.abs(p - expected) / (1 + expected)) < 1e-6


def test_air_is_zero_and_metal_without_end_is_finite():
    p = polychromatic({"water": np.array([0.0, 0.0]), "au": np.array([0.0, 500.0])}, load_spectrum(120))
    assert abs(p[0]) < 1e-6
    assert 500 < p[1] < 5000


def test_steel_hardens_the_beam():
    """Behind steel, the next centimetre of water attenuates less than in air; the more steel, the less."""
    steel_mm = np.array([0.0, 2, 5, 10, 20])
    spectrum = load_spectrum(120)
    behind = polychromatic({"ss316l": steel_mm, "water": np.full(5, 10.0)}, spectrum)
    before = polychromatic({"ss316l": steel_mm, "water": np.zeros(5)}, spectrum)
    effective_mu = (behind - before) / 10
    assert np.all(np.diff(effective_mu) < 0)
    assert effective_mu[0] > MU_WATER_PER_MM > effective_mu[-1]


def test_polychromatic_refuses_nonsense():
    with pytest.raises(ValueError, match="at least one material"):
        polychromatic({}, load_spectrum(120))
    with pytest.raises(ValueError, match="same shape"):
        polychromatic({"water": np.zeros(3), "bone": np.zeros(4)}, load_spectrum(120))


def test_a_ray_depends_on_its_own_path_alone():
    """To the last bit: not on the rays beside it, on where it stands among them, or on the number of threads."""
    rng = np.random.default_rng(5)
    paths = {"water": rng.uniform(-1, 500, 3000), "bone": rng.uniform(0, 60, 3000), "au": rng.uniform(0, 30, 3000)}
    spectrum = load_spectrum(120)
    p = polychromatic(paths, spectrum)
    for part in (slice(1, 2), slice(700, 1777), slice(None, None, -1)):
        np.testing.assert_array_equal(polychromatic({k: v[part] for k, v in paths.items()}, spectrum), p[part])
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        np.testing.assert_array_equal(polychromatic(paths, spectrum), p)
    finally:
        numba.set_num_threads(threads)


def test_negative_paths_of_grazing_rays():
    """Replaced tissue may exceed what the bin's ray met by a fraction of a pixel."""
    paths = {"water": np.array([-0.7, 0.0, 120.0]), "bone": np.array([0.0, -0.3, -0.3])}
    expected = direct_integral(paths, load_spectrum(80))
    np.testing.assert_allclose(polychromatic(paths, load_spectrum(80)), expected, atol=1e-6, rtol=1e-6)
