import numpy as np
import pytest

from ctmar.presets import PRESETS, Preset, preset_mask

NAMES = ("auto", "hip", "spine", "dental", "head")


def image_of(*blocks, shape=(24, 30)):
    """Blocks (rows, cols, HU) upon water."""
    image = np.zeros(shape, np.float32)
    for rows, cols, hu in blocks:
        image[rows, cols] = hu
    return image


def test_the_halo_of_dense_metal_is_no_metal():
    image = image_of((slice(4, 12), slice(4, 12), 2600), (slice(6, 10), slice(6, 10), 3071))
    found = preset_mask(image, Preset(), pixel_mm=1.0)
    np.testing.assert_array_equal(found, image == 3071)


def test_thin_metal_that_never_saturates_is_found():
    """In the same slice as dense metal with a halo; its core would have to be at least 1 mm2."""
    image = image_of(
        (slice(4, 12), slice(4, 12), 2600),
        (slice(6, 10), slice(6, 10), 3071),
        (slice(16, 18), slice(20, 26), 2700),
        (slice(16, 17), slice(20, 21), 3071),
    )
    fine = preset_mask(image, Preset(), pixel_mm=0.6)
    np.testing.assert_array_equal(fine[:14], image[:14] == 3071)
    np.testing.assert_array_equal(fine[14:], image[14:] >= 2700)


def test_thresholds_and_growth_are_the_presets():
    image = image_of((slice(5, 8), slice(5, 8), 2200), (slice(5, 8), slice(15, 18), 2800))
    assert preset_mask(image, Preset(), pixel_mm=1.0).sum() == 9
    assert preset_mask(image, Preset(metal_threshold_hu=2000.0), pixel_mm=1.0).sum() == 18
    assert preset_mask(image, Preset(dilation=1), pixel_mm=1.0).sum() == 9 + 12


def test_a_stack_is_masked_slice_by_slice():
    """A core in one slice says nothing about the slice above it."""
    first = image_of((slice(4, 12), slice(4, 12), 2600), (slice(6, 10), slice(6, 10), 3071))
    second = image_of((slice(4, 12), slice(4, 12), 2600))
    found = preset_mask(np.stack([first, second]), Preset(), pixel_mm=1.0)
    assert found.sum(axis=(1, 2)).tolist() == [16, 64]


def test_no_metal():
    assert not preset_mask(image_of(), Preset(), pixel_mm=1.0).any()


def test_every_preset_says_what_was_measured():
    assert tuple(PRESETS) == NAMES
    for preset in PRESETS.values():
        assert preset.reason
        assert preset.metal_threshold_hu <= preset.core_threshold_hu <= 3071
        assert preset.dilation >= 0
        assert preset.strength == pytest.approx(1.0)
