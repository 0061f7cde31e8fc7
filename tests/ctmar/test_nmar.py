"""NMAR on an image of air, water and bone whose prior is known by construction."""

import numpy as np
import pytest
from scipy import ndimage

from ctmar.nmar import nmar_prior, normalized_interpolation
from ctmar.segmentation import three_means
from tests.data_sim.analytic import GEOMETRIES, Ellipse, disc, sinogram

MU_WATER = 0.02
MU_BONE = 0.045


@pytest.fixture
def body():
    """Air around a disc of water, a square of bone in it; the labels beside it."""
    rows, cols = np.indices((64, 64))
    labels = (np.hypot(rows - 31.5, cols - 31.5) < 25).astype(int)
    labels[24:36, 36:46] = 2
    return np.array([0, MU_WATER, MU_BONE], np.float32)[labels], labels


def inner(mask, steps=3):
    return ndimage.binary_erosion(mask, np.ones((3, 3)), iterations=steps)


def test_prior_of_a_clean_image(body):
    image, labels = body
    prior = nmar_prior(image, np.zeros(image.shape, bool), mu_water_per_mm=MU_WATER)
    assert prior.dtype == np.float32
    assert not prior[inner(labels == 0)].any()
    np.testing.assert_array_equal(prior[inner(labels == 1)], np.float32(MU_WATER))
    np.testing.assert_allclose(prior[inner(labels == 2)], MU_BONE, rtol=1e-5)
    assert set(np.unique(prior[prior <= 1.2 * MU_WATER])) == {0, np.float32(MU_WATER)}


def test_soft_tissue_and_streaks_become_water(body):
    image, labels = body
    rng = np.random.default_rng(0)
    streaks = 0.25 * MU_WATER * np.sin(np.arange(64) / 2)[None, :] + rng.normal(0, 0.05 * MU_WATER, image.shape)
    prior = nmar_prior((image + streaks).astype(np.float32), np.zeros(image.shape, bool), mu_water_per_mm=MU_WATER)
    assert not prior[inner(labels == 0)].any()
    assert (prior[inner(labels == 1)] == np.float32(MU_WATER)).mean() > 0.98


@pytest.mark.parametrize("seen", [-0.1, 0.0, 0.3])
def test_metal_becomes_water(body, seen):
    image, _ = body
    metal = np.zeros(image.shape, bool)
    metal[38:44, 20:26] = True
    image[metal] = seen
    prior = nmar_prior(image, metal, mu_water_per_mm=MU_WATER)
    np.testing.assert_array_equal(prior[36:46, 18:28], np.float32(MU_WATER))


def test_what_is_less_than_a_fifth_above_water_is_not_bone():
    """3-means alone would begin bone at 1.19 mu_water in this image of air, water and contrast medium."""
    image = np.full((60, 300), MU_WATER, np.float32)
    image[:20] = 0
    ramp = np.linspace(1.005, 1.525, 300) * MU_WATER
    image[40:] = ramp
    assert three_means(image, (0, MU_WATER, 2 * MU_WATER))[1] < 1.195 * MU_WATER
    prior = nmar_prior(image, np.zeros(image.shape, bool), mu_water_per_mm=MU_WATER)[45:, 2:-2]
    soft, bone = ramp[2:-2] < 1.199 * MU_WATER, ramp[2:-2] > 1.201 * MU_WATER
    np.testing.assert_array_equal(prior[:, soft], np.float32(MU_WATER))
    np.testing.assert_allclose(prior[:, bone], np.tile(ramp[2:-2][bone], (15, 1)), rtol=1e-3)


def test_bone_is_smoothed_by_a_5x5_gaussian():
    """The bone's values are those of the image under a Gaussian of sigma 1, cut to five pixels."""
    image = np.full((40, 40), MU_WATER, np.float32)
    image[:10] = 0
    image[20:30, 15:25] = MU_BONE
    image[25, 20] = 2 * MU_BONE
    taps = np.exp(-0.5 * np.arange(-2, 3) ** 2)
    taps /= taps.sum()
    prior = nmar_prior(image, np.zeros(image.shape, bool), mu_water_per_mm=MU_WATER)
    for row, col in ((25, 20), (25, 21), (27, 22), (23, 23), (20, 20)):
        part = image[row - 2 : row + 3, col - 2 : col + 3]
        assert prior[row, col] == pytest.approx(taps @ part @ taps, rel=1e-5)


# --- normalized interpolation ---------------------------------------------------------------------


@pytest.fixture(params=GEOMETRIES, scope="module")
def truth_and_trace(request):
    geometry = GEOMETRIES[request.param]
    truth = sinogram(geometry, disc(0.02, 5, -8, 95), Ellipse(0.025, 30, 20, 20, 10, 0.5)).astype(np.float32)
    return truth, sinogram(geometry, disc(1, -20, 30, 9), disc(1, 35, -25, 6)) > 0


def test_a_prior_that_is_true_gives_the_truth(truth_and_trace):
    """To rounding, and so does one whose sinogram, with the offset of 1, is the truth's times any factor."""
    truth, trace = truth_and_trace
    measured = np.where(trace, truth + 4, truth)
    for factor in (1.0, 1.3, 3.0):
        got = normalized_interpolation(measured, np.float32(factor) * (truth + 1) - 1, trace)
        np.testing.assert_allclose(got, truth, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_a_prior_of_the_wrong_density_hardly_matters(truth_and_trace, factor):
    """Normalized, what a fifth of the prior's value leaves is what bends in it from bin to bin."""
    truth, trace = truth_and_trace
    got = normalized_interpolation(truth + 4 * trace, np.float32(factor) * truth, trace)
    assert np.abs(got - truth).max() < 0.05 * abs(factor - 1) * truth.max()


def test_measured_data_outside_the_trace(truth_and_trace):
    truth, trace = truth_and_trace
    noisy = truth + np.random.default_rng(0).normal(0, 0.1, truth.shape).astype(np.float32)
    got = normalized_interpolation(noisy, truth, trace)
    np.testing.assert_array_equal(got[~trace], noisy[~trace])


def test_a_quotient_by_hand():
    """1 is added to all: 3/2 and 7/3 on either side, 23/12 half way, times 5, less 1."""
    got = normalized_interpolation(
        np.array([[2, 99, 6]], np.float32), np.array([[1, 4, 2]], np.float32), np.array([[False, True, False]])
    )
    np.testing.assert_allclose(got, [[2, 23 / 12 * 5 - 1, 6]], rtol=1e-6)


def test_rays_through_air_stay_finite():
    """A prior below 0 counts as 0."""
    measured = np.array([[0.0, 7.0, 0.0, 1.0]], np.float32)
    prior = np.array([[-0.5, -1.0, 0.0, 1.0]], np.float32)
    got = normalized_interpolation(measured, prior, np.array([[False, True, False, False]]))
    np.testing.assert_allclose(got, [[0, 0, 0, 1]], atol=1e-6)


def test_a_prior_that_is_cut_off_beside_the_trace_does_no_harm():
    """Tissue was measured where the prior has air: with a quotient of 1/1e-6 the trace would be millions."""
    got = normalized_interpolation(
        np.array([[1, 99, 1]], np.float32), np.array([[0, 4, 0]], np.float32), np.array([[False, True, False]])
    )
    np.testing.assert_allclose(got, [[1, 2 * 5 - 1, 1]])
