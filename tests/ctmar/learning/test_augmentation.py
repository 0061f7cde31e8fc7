import dataclasses

import numpy as np
import pytest
import torch

from ctmar.config import AugmentationSettings
from ctmar.learning.augmentation import Variation, draw, vary, without_artifacts

ALL = AugmentationSettings(turns="all", flips=True, max_degrees=10, max_scale=0.1, max_intensity=0.05, clean=0.1)


def variation(count=1, **values):
    same = {"turns": 0, "flips": False, "degrees": 0.0, "scale": 1.0, "intensity": 1.0, "clean": False} | values
    types = (np.int8, bool, np.float32, np.float32, np.float32, bool)
    return Variation(*(np.full(count, value, kind) for value, kind in zip(same.values(), types, strict=True)))


def varied(image, **values):
    return vary(torch.from_numpy(image[None, None].astype(np.float32)), variation(**values))[0, 0].numpy()


IMAGE = np.random.default_rng(0).random((16, 16))


def test_turns_and_flips_move_pixels_only():
    for turns in range(4):
        np.testing.assert_allclose(varied(IMAGE, turns=turns), np.rot90(IMAGE, turns), rtol=1e-6)
    np.testing.assert_allclose(varied(IMAGE, flips=True), IMAGE[:, ::-1], rtol=1e-6)
    np.testing.assert_allclose(varied(IMAGE, turns=1, flips=True), np.rot90(IMAGE)[:, ::-1], rtol=1e-6)


def test_each_patch_has_its_own_variation():
    images = torch.from_numpy(np.stack([IMAGE] * 5)[:, None].astype(np.float32))
    mixed = dataclasses.replace(variation(5), turns=np.array([0, 3, 1, 2, 0], np.int8), flips=np.arange(5) == 4)
    result = vary(images, mixed)[:, 0].numpy()
    for turned, turns in zip(result[:4], (0, 3, 1, 2), strict=True):
        np.testing.assert_allclose(turned, np.rot90(IMAGE, turns), rtol=1e-6)
    np.testing.assert_allclose(result[4], IMAGE[:, ::-1], rtol=1e-6)


def blob(row, col, side=65):
    """A Gaussian spot (row down, col right, from the centre) that interpolation hardly blurs."""
    rows, cols = np.mgrid[:side, :side] - (side - 1) / 2
    return np.exp(-((rows - row) ** 2 + (cols - col) ** 2) / (2 * 4**2))


def centre(image):
    rows, cols = np.mgrid[: image.shape[0], : image.shape[1]] - (image.shape[0] - 1) / 2
    return np.array([(rows * image).sum(), (cols * image).sum()]) / image.sum()


def test_a_quarter_turn_by_degrees_is_that_by_pixels():
    np.testing.assert_allclose(varied(blob(3, 10), degrees=90.0), np.rot90(blob(3, 10)), atol=1e-4)


def test_rotation_is_against_the_clock_and_scale_enlarges():
    angle = np.deg2rad(30)
    # 12 pixels to the right: after 30 degrees against the clock it is higher up, at smaller rows
    found = centre(varied(blob(0, 12), degrees=30.0))
    assert found == pytest.approx([-12 * np.sin(angle), 12 * np.cos(angle)], abs=0.05)
    assert centre(varied(blob(0, 12), scale=1.25)) == pytest.approx([0, 15], abs=0.05)


def test_intensity_is_for_attenuation_and_distances_stay_whole():
    assert varied(IMAGE, intensity=1.5) == pytest.approx(1.5 * IMAGE)
    distance = torch.from_numpy(np.random.default_rng(1).integers(0, 9, (1, 1, 16, 16)).astype(np.float32))
    turned = vary(distance, variation(degrees=7.0, intensity=1.5), attenuation=False)
    assert set(turned.flatten().tolist()) <= set(range(9))


def test_the_papers_recipe_is_the_default():
    drawn = draw(AugmentationSettings(), 4000, rng=np.random.default_rng(0))
    assert set(drawn.turns) == {0, 1}
    assert drawn.turns.mean() == pytest.approx(0.5, abs=0.03)
    assert not drawn.flips.any()
    assert not drawn.degrees.any()
    assert (drawn.scale == 1).all()
    assert (drawn.intensity == 1).all()
    assert not draw(AugmentationSettings(turns="none"), 50, rng=np.random.default_rng(0)).turns.any()


def test_what_is_drawn_stays_within_its_limits_and_fills_them():
    drawn = draw(ALL, 4000, rng=np.random.default_rng(0))
    assert np.bincount(drawn.turns) == pytest.approx(np.full(4, 1000), rel=0.1)
    assert drawn.flips.mean() == pytest.approx(0.5, abs=0.03)
    for values, low, high in ((drawn.degrees, -10, 10), (drawn.scale, 0.9, 1.1), (drawn.intensity, 0.95, 1.05)):
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high
    part = drawn.of(np.array([5, 2]))
    assert part.degrees.tolist() == [drawn.degrees[5], drawn.degrees[2]]


def test_one_option_does_not_shift_what_the_others_draw():
    one = draw(ALL, 20, rng=np.random.default_rng(3))
    other = draw(dataclasses.replace(ALL, max_scale=0.0, flips=False), 20, rng=np.random.default_rng(3))
    np.testing.assert_array_equal(one.degrees, other.degrees)
    np.testing.assert_array_equal(one.turns, other.turns)


def test_clean_patches_have_the_reference_for_images_and_keep_their_maps():
    inputs, target = torch.rand(2, 4, 8, 8), torch.rand(2, 1, 8, 8)
    mixed = dataclasses.replace(variation(2), clean=np.array([True, False]))
    result = without_artifacts(inputs, target, mixed, images=3)
    torch.testing.assert_close(result[0, 1:], target[0].expand(3, -1, -1), rtol=0, atol=0)
    torch.testing.assert_close(result[:, 0], inputs[:, 0], rtol=0, atol=0)
    torch.testing.assert_close(result[1], inputs[1], rtol=0, atol=0)
    assert without_artifacts(inputs, target, variation(2), images=3) is inputs


def test_the_share_of_clean_patches_is_what_was_asked_for():
    assert draw(AugmentationSettings(), 1000, rng=np.random.default_rng(0)).clean.sum() == 0
    assert 70 < draw(ALL, 1000, rng=np.random.default_rng(0)).clean.sum() < 130
