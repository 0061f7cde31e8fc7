"""Tissue processing of images whose result is known by construction."""

import numpy as np
import pytest
from scipy import ndimage

from ctmar.prior import fill_from_ring, three_means_hu, tissue_prior

NO_METAL = np.zeros((80, 80), bool)


@pytest.fixture
def body():
    """Air, a disc of soft tissue at 40 HU and a square of bone at 900 HU, and the labels."""
    rows, cols = np.indices((80, 80))
    labels = (np.hypot(rows - 39.5, cols - 39.5) < 34).astype(int)
    labels[28:44, 44:60] = 2
    return np.array([-1000.0, 40.0, 900.0], np.float32)[labels], labels


def deep(mask, pixels):
    """At least so far from everything else."""
    return ndimage.distance_transform_edt(mask) >= pixels


def test_noise_in_soft_tissue_becomes_its_mean(body):
    image, labels = body
    noisy = image + np.random.default_rng(0).normal(0, 30, image.shape).astype(np.float32)
    prior = tissue_prior(noisy, NO_METAL)
    assert prior.dtype == np.float32
    uniform = prior[deep(labels == 1, 5)]
    assert np.ptp(uniform) < 1e-2
    assert uniform[0] == pytest.approx(40, abs=1.5)  # 30 HU over the root of some 2000 pixels
    for label in (0, 2):
        np.testing.assert_array_equal(prior[labels == label], noisy[labels == label])


def test_the_transition_is_linear_over_five_pixels():
    """A half plane of water beside air: weights of 1/5, 2/5 ... by hand."""
    ramp = np.array([-1000] * 20 + [0, 100] * 10, np.float32)
    image = np.tile(ramp, (30, 1))
    prior = tissue_prior(image, np.zeros(image.shape, bool))
    distance = np.arange(1, 21)
    weight = np.minimum(distance, 5) / 5
    mean = (weight * ramp[20:]).sum() / weight.sum()
    expected = weight * mean + (1 - weight) * ramp[20:]
    np.testing.assert_allclose(prior[:, 20:], np.tile(expected, (30, 1)), atol=1e-2)
    np.testing.assert_array_equal(prior[:, :20], image[:, :20])


def test_weak_bone_counts_only_beside_strong_bone():
    """260 HU, above half of the threshold: spongy bone next to cortex, soft tissue (contrast medium) elsewhere."""
    image = np.zeros((80, 80), np.float32)
    image[:20] = -1000
    image[30:60, 20:50] = 1000.0
    image[60:66, 20:50] = 260.0
    image[28:36, 62:70] = 260.0
    air, bone = three_means_hu(image)
    assert bone / 2 < 260 < bone
    assert -1000 < air < 0
    prior = tissue_prior(image, NO_METAL)
    np.testing.assert_array_equal(prior[30:66, 20:50], image[30:66, 20:50])
    assert prior[28:36, 62:70].max() < 30  # 64 of about 3800 pixels of water


def test_bone_threshold_is_at_least_350_hu():
    image = np.full((40, 40), 0.0, np.float32)
    image[:15] = -1000
    image[30:] = 250.0
    assert three_means_hu(image)[1] >= 350
    assert three_means_hu(np.full((4, 4), -1000.0, np.float32)) == (0.0, 1000.0)


@pytest.mark.parametrize("seen", [-3000.0, 5000.0])
def test_metal_takes_the_value_around_it(body, seen):
    image, labels = body
    metal = np.zeros(image.shape, bool)
    metal[48:56, 22:30] = True
    image[metal] = seen
    prior = tissue_prior(image, metal)
    np.testing.assert_allclose(prior[40:60, 15:35][labels[40:60, 15:35] == 1], 40, atol=5)
    assert prior[50, 25] == prior[46, 25]


def test_metal_in_bone_is_filled_with_bone(body):
    image, _ = body
    metal = np.zeros(image.shape, bool)
    metal[34:38, 50:54] = True
    image[metal] = 4000
    np.testing.assert_array_equal(tissue_prior(image, metal)[28:44, 44:60], np.float32(900))


def test_an_image_of_air_stays_as_it_is():
    image = np.full((20, 20), -1000, np.float32)
    np.testing.assert_array_equal(tissue_prior(image, np.zeros(image.shape, bool)), image)


def test_the_input_is_left_alone(body):
    image, _ = body
    before = image.copy()
    metal = np.zeros(image.shape, bool)
    metal[50, 25] = True
    tissue_prior(image, metal)
    fill_from_ring(image, metal)
    np.testing.assert_array_equal(image, before)


# --- filling --------------------------------------------------------------------------------------


def test_ring_by_hand():
    """One pixel of metal, grown to 3 x 3: its sides take the value beside them."""
    image = np.arange(49, dtype=np.float32).reshape(7, 7)
    metal = np.zeros((7, 7), bool)
    metal[3, 3] = True
    filled = fill_from_ring(image, metal)
    assert filled[2, 3] == image[1, 3]
    assert filled[4, 3] == image[5, 3]
    assert filled[3, 2] == image[3, 1]
    assert filled[3, 4] == image[3, 5]
    assert filled[3, 3] in (image[1, 3], image[5, 3], image[3, 1], image[3, 5])
    outside = np.ones((7, 7), bool)
    outside[2:5, 2:5] = False
    np.testing.assert_array_equal(filled[outside], image[outside])


@pytest.mark.parametrize("metal", [np.zeros((3, 3), bool), np.ones((3, 3), bool), np.eye(3, dtype=bool)])
def test_without_metal_or_without_a_ring_nothing_is_filled(metal):
    image = np.arange(9, dtype=np.float32).reshape(3, 3)
    np.testing.assert_array_equal(fill_from_ring(image, metal), image)
