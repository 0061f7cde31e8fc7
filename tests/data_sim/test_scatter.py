import numpy as np
import pytest

from data_sim.scatter import object_scatter


def test_behind_a_wide_object_the_ratio_grows_with_the_line_integral():
    """35 cm of water at 0.025: the 15 % that CatSim's own comment states for its model."""
    p = np.full((2, 900), 350 * 0.0193, np.float32)
    primary = 1e5 * np.exp(-p.astype(float))
    ratio = object_scatter(primary, p, ratio=0.025, fwhm_bins=100) / primary
    assert ratio[0, 450] == pytest.approx(0.025 * 6.755, rel=1e-4)
    assert ratio[0, 450] == pytest.approx(0.15, abs=0.03)
    assert ratio[1, 0] == pytest.approx(ratio[1, 450] / 2, rel=0.02)  # half of what spreads at the edge comes back


def test_it_is_the_convolution_with_a_gaussian():
    rng = np.random.default_rng(0)
    p = rng.uniform(0, 8, 300).astype(np.float32)
    primary = 1e6 * np.exp(-p.astype(float))
    sigma = 60 / 2.354820
    at = np.arange(-299, 300)
    kernel = np.exp(-(at**2) / (2 * sigma**2)) / (sigma * np.sqrt(2 * np.pi))
    expected = np.convolve(0.02 * p * primary, kernel)[299:-299]
    np.testing.assert_allclose(object_scatter(primary, p, ratio=0.02, fwhm_bins=60), expected, rtol=2e-3)


def test_it_falls_into_the_shadow_of_metal_and_not_from_air():
    p = np.zeros((1, 800), np.float32)
    p[:, 200:600] = 4.0
    p[:, 395:405] = 30.0
    primary = 1e7 * np.exp(-p.astype(float))
    scattered = object_scatter(primary, p, ratio=0.025, fwhm_bins=80)
    assert scattered[0, 400] > 1e6 * primary[0, 400]
    assert scattered[0, 400] == pytest.approx(0.1 * 1e7 * np.exp(-4), rel=0.15)  # as the water around it
    assert scattered[0, 5] < 1e-6 * primary[0, 5]
    assert not object_scatter(np.full(50, 1e5), np.zeros(50, np.float32), ratio=0.5, fwhm_bins=10).any()
