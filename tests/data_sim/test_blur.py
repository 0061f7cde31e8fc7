import numpy as np
import pytest

from data_sim.blur import FWHM, blurred, shared


@pytest.mark.parametrize("sigma", [0.1, 0.35, 0.8, 3.0])
def test_a_point_spreads_to_the_variance_asked_for(sigma):
    point = np.zeros((2, 101))
    point[:, 50] = 5.0
    spread = blurred(point, sigma)
    at = np.arange(101) - 50
    assert spread[0].sum() == pytest.approx(5, rel=1e-12)
    assert (spread[1] * at).sum() == pytest.approx(0, abs=1e-12)
    assert (spread[1] * at**2).sum() / 5 == pytest.approx(sigma**2, rel=1e-6)
    assert spread.min() >= 0


def test_a_wide_blur_is_the_gaussian():
    point = np.zeros(201)
    point[100] = 1.0
    at = np.arange(201) - 100
    expected = np.exp(-(at**2) / (2 * 6.0**2)) / (6.0 * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(blurred(point, 6.0), expected, atol=4e-4)
    assert expected[100 + round(6 * FWHM / 2)] == pytest.approx(expected[100] / 2, rel=0.02)


def test_blur_keeps_what_is_even():
    even = np.full((3, 20), 7.0)
    np.testing.assert_allclose(blurred(even, 2.0), even, rtol=1e-12)
    np.testing.assert_allclose(shared(even, 0.1), even, rtol=1e-12)
    assert blurred(even, 0.0) is even
    assert shared(even, 0.0) is even


def test_neighbours_get_their_share():
    np.testing.assert_allclose(shared(np.array([[0.0, 0, 10, 0, 0]]), 0.05), [[0, 0.5, 9, 0.5, 0]])
