import numpy as np
import pytest

from ctmar.beam_hardening import correct_beam_hardening


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
