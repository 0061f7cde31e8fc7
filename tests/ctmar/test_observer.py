"""The observer against what is known of Gaussian images."""

import numpy as np
import pytest
from scipy.special import ndtr

from ctmar.observer import CHANNELS, channel_outputs, clustered_area, hotelling_template, observe


def gaussian(places, shift, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(shift, 1, (places, CHANNELS)), rng.normal(0, 1, (places, CHANNELS))


def names(places, each):
    return [f"p{k // each}" for k in range(places)]


@pytest.mark.parametrize("d", [0.5, 1.0, 2.0])
def test_the_area_is_that_of_the_theory(d):
    """White channels, a signal of norm d: the area is the normal distribution's at d / sqrt(2)."""
    present, absent = gaussian(1500, d / np.sqrt(CHANNELS))
    result = observe(present, absent, names(1500, 5))
    assert result.auc == pytest.approx(ndtr(d / np.sqrt(2)), abs=0.02)
    assert result.low < ndtr(d / np.sqrt(2)) < result.high
    assert (result.n, result.patients) == (1500, 300)


def test_no_signal_is_guessing_also_with_few_places():
    """Tested on what it has learned from, the observer would see a signal in 20 places of noise."""
    areas, cheating = [], []
    for seed in range(40):
        present, absent = gaussian(20, 0.0, seed)
        areas.append(observe(present, absent, names(20, 1), seed=seed).auc)
        template = hotelling_template(present, absent)
        cheating.append(np.mean((present @ template)[:, None] > (absent @ template)[None]))
    assert np.mean(areas) == pytest.approx(0.5, abs=0.05)
    assert np.mean(cheating) > 0.65


def test_the_template_is_the_hotelling_observers():
    rng = np.random.default_rng(1)
    mixing = rng.normal(size=(CHANNELS, CHANNELS))
    signal = rng.normal(size=CHANNELS)
    absent = rng.normal(size=(50_000, CHANNELS)) @ mixing.T
    present = rng.normal(size=(50_000, CHANNELS)) @ mixing.T + signal
    expected = np.linalg.solve(mixing @ mixing.T, signal)
    found = hotelling_template(present, absent)
    assert found @ expected / np.linalg.norm(found) / np.linalg.norm(expected) > 0.99


def test_the_interval_knows_that_places_of_a_patient_are_alike():
    present, absent = gaussian(60, 0.4)
    alone = observe(present, absent, names(60, 1))
    repeated = observe(np.repeat(present, 10, axis=0), np.repeat(absent, 10, axis=0), names(600, 10))
    assert repeated.high - repeated.low == pytest.approx(alone.high - alone.low, rel=0.4)


def test_the_standard_error_is_the_spread_of_repetitions():
    """Clusters of 5 that share half of their variance."""
    cluster = np.repeat(np.arange(40), 5)
    areas, errors = [], []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        shared = rng.normal(size=40)[cluster]
        values = (shift + shared + rng.normal(size=200) for shift in (1.0, 0.0))
        area, error = clustered_area(*values, cluster)
        areas.append(area)
        errors.append(error)
    assert np.mean(errors) == pytest.approx(np.std(areas), rel=0.15)
    assert np.mean(areas) == pytest.approx(ndtr(1 / 2), abs=0.02)


def test_too_few_patients():
    present, absent = gaussian(30, 1.0)
    assert np.isnan(observe(present, absent, ["p"] * 30).auc)
    assert np.isnan(observe(present[:6], absent[:6], names(6, 1)).auc)


def test_channels_are_orthonormal_and_do_not_depend_on_the_pixels():
    """Outputs of a smooth image on two grids; and each channel's output of itself."""
    outputs = []
    for pixel_mm in (0.5, 0.8):
        side = round(80 / pixel_mm) + 1
        rows, cols = (np.indices((side, side)) - (side - 1) / 2) * pixel_mm
        image = 30 * np.exp(-(rows**2 + cols**2) / 50) + rows
        outputs.append(channel_outputs(image, ((side - 1) / 2,) * 2, pixel_mm=pixel_mm, width_mm=12.0))
    np.testing.assert_allclose(outputs[0], outputs[1], atol=0.02)
    # integral of sqrt(2)/a exp(-pi r^2/a^2) 30 exp(-r^2/50) over the plane, divided by a
    a = 12.0
    assert outputs[0][0] == pytest.approx(30 * np.sqrt(2) / a**2 * np.pi / (np.pi / a**2 + 1 / 50), rel=1e-3)
    basis = []
    for number in range(CHANNELS):
        image = np.zeros((161, 161))
        unit = np.zeros(CHANNELS)
        unit[number] = 1
        rows, cols = (np.indices(image.shape) - 80) * 0.5
        x = 2 * np.pi * (rows**2 + cols**2) / a**2
        laguerre = np.polynomial.laguerre.lagval(x, unit)
        basis.append(channel_outputs(np.sqrt(2) * np.exp(-x / 2) * laguerre, (80, 80), pixel_mm=0.5, width_mm=a))
    np.testing.assert_allclose(basis, np.eye(CHANNELS), atol=0.03)


def test_another_toolkits_observer_agrees():
    """mar-eval's template and area (its package for Annex GG), learned and tested on the same halves as ours."""
    theirs = pytest.importorskip("mareval", reason="mar-eval is not installed (pip install mar-eval)")
    rng = np.random.default_rng(3)
    mixing, signal = rng.normal(size=(CHANNELS, CHANNELS)), 0.5 * rng.normal(size=CHANNELS)
    absent = rng.normal(size=(4000, CHANNELS)) @ mixing.T
    present = rng.normal(size=(4000, CHANNELS)) @ mixing.T + signal
    template = theirs.cho_template(present[:2000], absent[:2000], lambda_reg=1e-9)
    ours = hotelling_template(present[:2000], absent[:2000])
    assert template @ ours / np.linalg.norm(template) / np.linalg.norm(ours) > 0.9999
    values = np.concatenate([present[2000:], absent[2000:]]) @ template
    area = theirs.compute_auc(values, np.repeat([1, 0], 2000))
    assert clustered_area(present[2000:] @ ours, absent[2000:] @ ours, np.arange(2000))[0] == pytest.approx(
        area, abs=1e-3
    )
    assert observe(present, absent, names(4000, 1)).auc == pytest.approx(area, abs=0.015)
