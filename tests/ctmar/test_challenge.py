"""The challenge's axes on images whose values can be worked out."""

import numpy as np
import pytest
from scipy import ndimage

from ctmar import challenge

SIDE = 128
ROWS, COLS = np.mgrid[:SIDE, :SIDE]
BODY = np.hypot(ROWS - 63.5, COLS - 63.5) < 55
BONE = np.hypot(ROWS - 40, COLS - 64) < 9
FAT = BODY & (COLS < 40)
METAL = np.hypot(ROWS - 80, COLS - 80) < 4.2


def clean(noise=0.0):
    image = np.where(BODY, 40.0, -1000.0)
    image[FAT] = -100
    image[BONE] = 700
    return image + np.random.default_rng(0).normal(0, 1, image.shape) * noise


def with_metal(image):
    return np.where(METAL, 8000.0, image)


def measure(image, reference, uncorrected=None, pixel_mm=1.0):
    uncorrected = image if uncorrected is None else uncorrected
    where = challenge.regions(reference, uncorrected, METAL, BODY, pixel_mm=pixel_mm)
    return challenge.challenge_metrics(image, reference, METAL, BODY, where)


def test_a_perfect_image():
    reference = clean(noise=8.0)
    values = measure(with_metal(reference), reference)
    assert values["rmse_near_hu"] == values["rmse_far_hu"] == values["streak_range_hu"] == 0
    for name in (
        "ssim_body", "noise_ratio", "sharpness_ratio", "bone_volume_ratio", "metal_dice", "metal_volume_ratio",
    ):  # fmt: skip
        assert values[name] == pytest.approx(1), name
    assert values["noise_hu"] == pytest.approx(8, rel=0.3)


def test_near_and_far_are_told_apart_at_20_mm_and_metal_is_neither():
    reference = clean()
    distance = ndimage.distance_transform_edt(~METAL, sampling=0.5)
    image = reference + np.where(distance <= 20, 30, 7)
    image[METAL] = 9000
    values = measure(image, reference, pixel_mm=0.5)
    assert values["rmse_near_hu"] == pytest.approx(30)
    assert values["rmse_far_hu"] == pytest.approx(7)


def test_streaks_are_the_mean_of_the_extreme_twentieths():
    reference = clean()
    where = challenge.regions(reference, reference, METAL, BODY, pixel_mm=1.0)
    count = np.count_nonzero(where.streaks)
    error = np.random.default_rng(1).permutation(np.linspace(-50, 150, count))
    image = with_metal(reference)
    image[where.streaks] += error
    # of a uniform distribution from -50 to 150 the outer twentieths have means of -45 and 145
    assert measure(image, reference)["streak_range_hu"] == pytest.approx(190, abs=1)
    assert not (where.streaks & (BONE | METAL | ~BODY)).any()


def test_noise_is_measured_where_the_artifact_is_least():
    reference = clean(noise=8.0)
    artifact = 200.0 * np.exp(-np.hypot(ROWS - 80, COLS - 80) / 30)
    where = challenge.regions(reference, with_metal(reference + artifact), METAL, BODY, pixel_mm=1.0)
    rows, cols = np.nonzero(where.noise)
    assert np.hypot(rows.mean() - 80, cols.mean() - 80) > 50
    assert where.noise.sum() == 113  # the disc of radius 6
    assert not (where.noise & (BONE | METAL | ~BODY)).any()
    assert not (where.noise & FAT).any() or not (where.noise & ~FAT).any()
    # half of the noise, as if smoothed; twice the noise
    smooth = clean() + (reference - clean()) / 2
    assert measure(smooth, reference)["noise_ratio"] == pytest.approx(0.5)
    assert measure(clean() + 2 * (reference - clean()), reference)["noise_ratio"] == pytest.approx(2)


def test_blur_lowers_the_gradients_as_the_challenge_grades_it():
    """A Gaussian blur of sigma 0.4, 0.5, 0.75 and 1 pixels is what the challenge scores 1 to 4."""
    reference = ndimage.gaussian_filter(clean(), 0.6)  # a scanner's own sharpness
    ratios = [
        measure(ndimage.gaussian_filter(reference, sigma), reference)["sharpness_ratio"]
        for sigma in (0.4, 0.5, 0.75, 1)
    ]
    assert ratios == sorted(ratios, reverse=True)
    assert 0.9 < ratios[0] < 1
    assert 0.4 < ratios[-1] < 0.85
    where = challenge.regions(reference, reference, METAL, BODY, pixel_mm=1.0)
    assert (where.edges & ndimage.binary_dilation(BONE)).any()
    assert (where.edges & FAT).any()
    # not the skin, whose edge to the air is ten times as high
    assert not (where.edges & ~ndimage.binary_erosion(BODY, iterations=2)).any()


def test_bone_volume():
    reference = clean()
    image = with_metal(reference)
    image[np.hypot(ROWS - 40, COLS - 64) < 5] = 100  # bone that is lost
    image[20:25, 80:90] = 400  # bone that is made up: 50 pixels
    lost = np.count_nonzero(np.hypot(ROWS - 40, COLS - 64) < 5)
    expected = (BONE.sum() - lost + 50) / BONE.sum()
    assert measure(image, reference)["bone_volume_ratio"] == pytest.approx(expected)


def test_metal_that_is_missing_or_too_large():
    reference = clean()
    values = measure(reference, reference)
    assert values["metal_dice"] == values["metal_volume_ratio"] == 0
    grown = ndimage.binary_dilation(METAL)
    values = measure(np.where(grown, 8000.0, reference), reference)
    assert values["metal_volume_ratio"] == pytest.approx(grown.sum() / METAL.sum())
    assert values["metal_dice"] == pytest.approx(2 * METAL.sum() / (METAL.sum() + grown.sum()))
    # 40 HU beside the metal, so that the threshold is 290: a halo below it is not metal, one above is
    for value, ratio in ((289, 1), (291, grown.sum() / METAL.sum())):
        image = np.where(grown, float(value), reference)
        image[METAL] = 8000
        assert measure(image, reference)["metal_volume_ratio"] == pytest.approx(ratio)
    # what is bright elsewhere is none of the metal
    assert measure(with_metal(np.where(BONE, 5000.0, reference)), reference)["metal_dice"] == 1


def test_ssim_in_the_body_with_a_range_of_5000():
    reference = clean()
    image = reference + 100.0
    one, other = reference + 1000, image + 1000
    means = (2 * one * other + 2500) / (one**2 + other**2 + 2500)  # (0.01 * 5000)^2
    flat = ndimage.minimum_filter(reference, 11) == ndimage.maximum_filter(reference, 11)
    flat &= ~ndimage.binary_dilation(METAL, iterations=12)  # in the metal both are the reference
    expected = means[BODY & flat]
    index = challenge.ssim_body(image, reference, METAL, BODY & flat)
    assert index == pytest.approx(expected.mean(), rel=1e-6)
    air = np.where(BODY, reference, 500.0)
    far_inside = ndimage.binary_erosion(BODY, iterations=16)
    assert challenge.ssim_body(air, reference, METAL, far_inside) == pytest.approx(1)


def test_what_a_case_lacks_is_nan():
    reference = np.full((64, 64), -1000.0)
    nothing = np.zeros((64, 64), bool)
    where = challenge.regions(reference, reference, nothing, nothing, pixel_mm=1.0)
    values = challenge.challenge_metrics(reference, reference, nothing, nothing, where)
    assert all(np.isnan(value) for value in values.values())
    with pytest.raises(ValueError, match="shapes differ"):
        challenge.challenge_metrics(reference[:5], reference, nothing, nothing, where)
