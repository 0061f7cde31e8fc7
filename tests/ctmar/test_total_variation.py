"""Smoothing by total variation, against what is known of it."""

import numpy as np
import pytest
from skimage.restoration import denoise_tv_chambolle

from ctmar.total_variation import chambolle, tv_prior

NO_METAL = np.zeros((64, 64), bool)


def step(low=-100.0, high=300.0):
    image = np.full((64, 64), low, np.float32)
    image[:, 32:] = high
    return image


@pytest.mark.parametrize(("shape", "iterations"), [((37, 53), 2), ((64, 41), 30), ((1, 9), 5), ((9, 1), 5)])
def test_the_result_of_scikit_image(shape, iterations):
    image = np.random.default_rng(0).normal(0.04, 0.2, shape)
    expected = denoise_tv_chambolle(image, weight=0.1, eps=0, max_num_iter=iterations)
    np.testing.assert_allclose(chambolle(image, weight=0.1, iterations=iterations), expected, atol=1e-6)


def test_a_flat_image_stays_and_an_edge_keeps_its_place():
    flat = np.full((64, 64), 55.0, np.float32)
    np.testing.assert_allclose(tv_prior(flat, NO_METAL, weight_hu=50.0), flat, atol=1e-3)
    smooth = tv_prior(step(), NO_METAL, weight_hu=50.0)
    assert np.argmax(np.diff(smooth[10])) == 31
    assert smooth[32, 32] - smooth[32, 31] > 0.8 * 400
    np.testing.assert_allclose(smooth[:, :20], -100, atol=5)
    np.testing.assert_allclose(smooth[:, 44:], 300, atol=5)


def test_stripes_below_the_weight_go():
    stripes = np.where(np.arange(64) % 8 < 4, 20.0, -20.0).astype(np.float32) * np.ones((64, 1), np.float32)
    assert tv_prior(stripes, NO_METAL, weight_hu=100.0).std() < 0.25 * stripes.std()


def test_the_mean_is_kept():
    image = np.random.default_rng(0).normal(40, 30, (64, 64)).astype(np.float32)
    assert tv_prior(image, NO_METAL, weight_hu=40.0).mean() == pytest.approx(image.mean(), abs=0.5)


def test_metal_and_the_brightest_streaks_do_not_pass():
    image = np.full((64, 64), 40.0, np.float32)
    metal = NO_METAL.copy()
    metal[30:34, 30:34] = True
    image[metal] = 20_000
    np.testing.assert_allclose(tv_prior(image, metal, weight_hu=20.0), 40, atol=1e-2)
    image[5, 5] = 50_000
    assert tv_prior(image, metal, weight_hu=20.0).max() <= 2500
