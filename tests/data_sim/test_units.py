import numpy as np
import pytest

from data_sim.units import HU_AIR, MU_WATER_PER_MM, hu_to_mu, mu_to_hu


def test_anchors_of_the_scale():
    np.testing.assert_allclose(hu_to_mu([HU_AIR, 0, 1000], 0.02), [0, 0.02, 0.04], atol=1e-9)
    np.testing.assert_allclose(mu_to_hu([0, 0.02, 0.05], 0.02), [-1000, 0, 1500], atol=1e-3)


def test_water_at_70_kev():
    """NIST's table of water has 0.2059 and 0.1837 cm2/g at 60 and 80 keV; between them, nearly a power law."""
    mu_per_cm = np.exp(np.interp(np.log(70), np.log([60, 80]), np.log([0.2059, 0.1837])))
    assert pytest.approx(mu_per_cm / 10, rel=0.005) == MU_WATER_PER_MM


def test_padding_is_air_and_never_negative():
    assert not hu_to_mu([-1024.0, -2000.0, -32768.0]).any()


def test_there_and_back():
    hu = np.linspace(-1000, 3071, 500)
    np.testing.assert_allclose(mu_to_hu(hu_to_mu(hu)), hu, atol=1e-3)


@pytest.mark.parametrize("convert", [hu_to_mu, mu_to_hu])
def test_single_precision_in_the_shape_given(convert):
    out = convert(np.zeros((2, 3, 4), np.int16))
    assert out.dtype == np.float32
    assert out.shape == (2, 3, 4)
