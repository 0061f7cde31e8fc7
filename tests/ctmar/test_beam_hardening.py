import numpy as np
import pytest

from ctmar.beam_hardening import correct_beam_hardening, fit_hardening, hardening_terms
from data_sim.polychromatic import polychromatic
from data_sim.spectrum import load_spectrum


def scan(a1, a2, a3, longest_mm=40.0):
    """Tissue that LI recovers exactly, and a metal whose contribution is a known polynomial of its path."""
    bins = np.arange(80)
    tissue = 3 + 0.01 * bins + np.linspace(0, 1, 25)[:, None]
    half_mm = np.linspace(0.3, 1, 25)[:, None] * longest_mm
    path = 2 * np.sqrt(np.maximum(0, (half_mm / 2) ** 2 - (1.5 * (bins - 40)) ** 2))
    metal = a1 * path + a2 * path**2 + a3 * path**3
    return [a.astype(np.float32) for a in (tissue + metal, np.broadcast_to(tissue, path.shape), path)]


@pytest.mark.parametrize(
    ("a1", "a2", "a3"), [(0.2, 0, 0), (0.2, -2e-3, 0), (0.25, -4e-3, 3e-5), (0.05, 0, -1e-5), (0, -1e-3, 0)]
)
@pytest.mark.parametrize("longest_mm", [8.0, 40.0])
def test_the_metals_contribution_becomes_linear(a1, a2, a3, longest_mm):
    measured, tissue, path = scan(a1, a2, a3, longest_mm)
    corrected = correct_beam_hardening(measured, tissue, path)
    assert corrected.dtype == np.float32
    np.testing.assert_allclose(corrected, tissue + a1 * path, atol=2e-4)


def test_measured_data_outside_the_trace():
    measured, tissue, path = scan(0.25, -4e-3, 3e-5)
    corrected = correct_beam_hardening(measured, tissue, path)
    np.testing.assert_array_equal(corrected[path == 0], measured[path == 0])
    assert np.abs(corrected - measured)[path > 30].min() > 0.1  # and inside there is something to correct


def test_noise_is_averaged_out():
    measured, tissue, path = scan(0.25, -4e-3, 3e-5)
    noise = np.random.default_rng(0).normal(0, 0.05, path.shape).astype(np.float32)
    error = correct_beam_hardening(measured + noise, tissue, path) - noise - tissue - 0.25 * path
    assert np.sqrt(np.mean(error[path > 0] ** 2)) < 0.05


def test_without_metal_nothing_happens():
    measured, tissue, path = scan(0.25, -4e-3, 3e-5)
    corrected = correct_beam_hardening(measured, tissue, np.zeros_like(path))
    np.testing.assert_array_equal(corrected, measured)
    assert corrected is not measured


def test_one_or_two_rays_of_metal_stay_finite():
    """Fewer rays than coefficients: the fit of least norm is as good as any."""
    for rays in (1, 2):
        path = np.zeros((1, 5), np.float32)
        path[0, :rays] = [10.0, 4.0][:rays]
        measured = np.full((1, 5), 2.0, np.float32)
        corrected = correct_beam_hardening(measured, np.ones_like(path), path)
        assert np.isfinite(corrected).all()
        assert np.abs(corrected - measured).max() < 3  # the excess over LI is 1


def test_the_terms_hold_what_titanium_behind_water_does():
    """The sum over the spectrum itself, less what is linear in the metal, for 0 to 20 mm of titanium behind 0 to 30 cm."""
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
