"""The empirical beam hardening correction, against the sum over the spectrum and streaks that are known."""

import numpy as np
import pytest

from ctmar.ebhc import fit_hardening, hardening_terms
from data_sim.polychromatic import polychromatic
from data_sim.spectrum import load_spectrum


def test_the_terms_hold_what_titanium_behind_water_does():
    """The sum over the spectrum, less what is linear in it, for up to 20 mm of titanium behind up to 30 cm of water."""
    metal, water = np.meshgrid(np.linspace(0, 20, 41, dtype=np.float32), np.linspace(0, 300, 31, dtype=np.float32))
    spectrum = load_spectrum(120)
    added = polychromatic({"water": water, "ti": metal}, spectrum) - polychromatic({"water": water}, spectrum)
    terms = np.concatenate([hardening_terms(metal, 0.0193 * water), metal[None]]).reshape(9, -1)
    assert not terms[:, metal.ravel() == 0].any()
    rest = []
    for columns in (terms[-1:], terms):
        coefficients, *_ = np.linalg.lstsq(columns.T, added.ravel(), rcond=None)
        rest.append(np.sqrt(np.mean((coefficients @ columns - added.ravel()) ** 2)))
    assert rest[0] > 0.05  # what hardens is not linear
    assert rest[1] < 0.1 * rest[0]


def streaks(seed, count=8):
    return np.random.default_rng(seed).normal(0, 1, (count, 40, 50)).astype(np.float32)


def test_streaks_that_the_terms_can_make_go():
    target = streaks(1, 1)[0] * 30
    terms = streaks(0) * np.logspace(-6, 3, 8, dtype=np.float32)[:, None, None]  # of whatever size
    coefficients = np.array([50, -20, 0, 3, 10, -40, 7, 90]) / np.logspace(-6, 3, 8)
    image = target - np.tensordot(coefficients, terms, 1).astype(np.float32)
    everywhere = np.ones(target.shape, bool)
    corrected = fit_hardening(image, target, terms, everywhere)
    assert corrected.dtype == np.float32
    np.testing.assert_allclose(corrected, target, atol=0.05)
    # what the target has wrong and no term can make stays out, as does what lies where nothing counts
    lesion = np.zeros(target.shape, np.float32)
    lesion[10:14, 10:14] = 60
    where = everywhere.copy()
    where[30:] = False
    spoiled = np.where(where, target - lesion, 5000).astype(np.float32)
    assert np.abs(fit_hardening(image, spoiled, terms, where) - target).max() < 10


def test_nothing_to_fit_leaves_the_image():
    image, target = streaks(2, 2)
    nothing = np.zeros((8, *image.shape), np.float32)
    np.testing.assert_array_equal(fit_hardening(image, target, nothing, np.ones(image.shape, bool)), image)
    np.testing.assert_array_equal(fit_hardening(image, target, streaks(0), np.zeros(image.shape, bool)), image)


def test_what_hardly_changes_anything_is_left_out():
    target, terms = streaks(3, 1)[0], streaks(0)
    unit = terms.sum(axis=0) / terms.sum(axis=0).std()
    for size_hu, left in ((1.0, 16 / 17), (2.0, 0.5), (10.0, 0.0016)):
        image = target + np.float32(size_hu) * unit
        rest = fit_hardening(image, target, terms, np.ones(image.shape, bool)) - target
        assert rest.std() == pytest.approx(left * size_hu, abs=0.02)
