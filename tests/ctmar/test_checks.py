from dataclasses import dataclass

import numpy as np
import pytest

from ctmar.checks import check

SIDE = 160


@dataclass
class Image:
    image_hu: np.ndarray
    padding: np.ndarray
    pixel_mm: tuple[float, float] = (2.0, 2.0)


def patient(radius_mm=120.0, centre=(0.0, 0.0)):
    y, x = (np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2) * 2.0
    hu = np.where(np.hypot(y - centre[0], x - centre[1]) < radius_mm, 30, -1000).astype(np.float32)
    return hu + np.random.default_rng(0).normal(0, 10, hu.shape).astype(np.float32)


def pin(row=80, col=50):
    metal = np.zeros((SIDE, SIDE), bool)
    metal[row - 2 : row + 3, col - 2 : col + 3] = True
    return metal


def image(hu=None, padding=None):
    hu = patient() if hu is None else hu
    return Image(hu, np.zeros(hu.shape, bool) if padding is None else padding)


def test_measures_of_a_known_change():
    source, metal = image(), pin()
    corrected = source.image_hu.copy()
    corrected[90:100, 90:100] += 80  # 84 mm from the metal and more
    found = check(source, corrected, metal)
    assert (found.failure, found.warnings) == ("", ())
    assert found.measures["largest_change_hu"] == pytest.approx(80, abs=0.01)
    assert found.measures["mean_change_hu"] == pytest.approx(80 * 100 / (SIDE**2 - 25), rel=1e-3)
    assert found.measures["mean_after_hu"] > found.measures["mean_before_hu"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(value):
    source = image()
    corrected = source.image_hu.copy()
    corrected[0, 0] = value
    assert "finite" in check(source, corrected, pin()).failure
    metal = pin(2, 2)
    assert not check(source, corrected, metal).failure  # the metal comes back as it was


def test_a_patient_of_another_density_is_refused():
    source = image()
    assert "-200 HU" in check(source, source.image_hu - 200, pin()).failure
    assert not check(source, source.image_hu - 60, pin()).failure


def test_tissue_that_becomes_air_is_refused_and_a_black_band_that_becomes_tissue_is_not():
    whole, metal = patient(), pin()
    banded = whole.copy()
    banded[76:86, 60:140] = -900
    assert "air or bone" in check(image(whole), banded, metal).failure
    assert not check(image(banded), whole, metal).failure


def test_much_that_changed_far_away_is_said():
    source = image()
    corrected = source.image_hu + np.where(np.indices(source.image_hu.shape)[1] > 95, 120, 0).astype(np.float32)
    found = check(source, corrected, pin())
    assert not found.failure
    assert any("far from the metal" in text for text in found.warnings)


def test_truncation_and_metal_at_the_border():
    assert not check(image(), patient(), pin()).warnings
    cut = patient(centre=(0.0, -70.0))
    assert any("reaches the border" in text for text in check(image(cut), cut, pin()).warnings)
    assert any("metal at the border" in text for text in check(image(), patient(), pin(80, 2)).warnings)
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    circle = np.hypot(y, x) > 50
    padded = np.where(circle, -1000, patient()).astype(np.float32)
    assert any("reaches the border" in text for text in check(image(padded, circle), padded, pin()).warnings)


def test_a_table_at_the_border_is_no_patient():
    hu = patient(100.0)
    hu[150:153] = 0
    assert not check(image(hu), hu, pin()).warnings


def test_nothing_but_metal():
    source = image()
    found = check(source, source.image_hu, np.ones((SIDE, SIDE), bool))
    assert found.failure == "metal would be 100% of the patient: the mask is wrong"
    assert found.measures["largest_change_hu"] == 0
