import numpy as np
import pytest

from ctmar.replacement import insert_metal, replace_trace
from tests.data_sim.analytic import GEOMETRIES, Ellipse, disc, sinogram


@pytest.fixture(params=GEOMETRIES, scope="module")
def truth_and_trace(request):
    geometry = GEOMETRIES[request.param]
    truth = sinogram(geometry, disc(0.02, 5, -8, 95), Ellipse(0.025, 30, 20, 20, 10, 0.5)).astype(np.float32)
    return truth, sinogram(geometry, disc(1, -20, 30, 9), disc(1, 35, -25, 6)) > 0


@pytest.mark.parametrize("normalized", [False, True])
def test_the_true_prior_gives_the_truth(truth_and_trace, normalized):
    truth, trace = truth_and_trace
    measured = np.where(trace, truth + 5, truth)
    got = replace_trace(measured, truth, trace, normalized=normalized)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, truth, atol=5e-6)


def test_an_offset_of_the_prior_cancels(truth_and_trace):
    """And so does a slope along the detector: the difference is interpolated linearly."""
    truth, trace = truth_and_trace
    slope = np.linspace(-1, 1, truth.shape[1], dtype=np.float32)
    for error in (np.float32(0.7), slope):
        np.testing.assert_allclose(replace_trace(truth + 5 * trace, truth + error, trace), truth, atol=1e-5)


def test_a_factor_of_the_prior_nearly_cancels_in_the_quotient(truth_and_trace):
    truth, trace = truth_and_trace
    prior = np.float32(0.9) * truth
    error = {n: replace_trace(truth + 5 * trace, prior, trace, normalized=n) - truth for n in (False, True)}
    assert np.abs(error[True]).max() < 0.5 * np.abs(error[False]).max()
    assert np.abs(error[False]).max() > 0.01  # there is something to cancel


def test_measured_data_outside_the_trace(truth_and_trace):
    truth, trace = truth_and_trace
    noisy = truth + np.random.default_rng(0).normal(0, 0.1, truth.shape).astype(np.float32)
    for normalized in (False, True):
        got = replace_trace(noisy, truth, trace, normalized=normalized)
        np.testing.assert_array_equal(got[~trace], noisy[~trace])


def test_by_hand():
    """Differences of 1 and 3 beside the trace; 2 in the middle, on top of a prior of 10."""
    got = replace_trace(
        np.array([[2, 99, 6]], np.float32), np.array([[1, 10, 3]], np.float32), np.array([[False, True, False]])
    )
    np.testing.assert_allclose(got, [[2, 12, 6]])


def test_metal_goes_back_in():
    corrected, uncorrected = np.zeros((2, 2), np.float32), np.full((2, 2), 3000, np.float32)
    metal = np.array([[True, False], [False, False]])
    np.testing.assert_array_equal(insert_metal(corrected, uncorrected, metal), [[3000, 0], [0, 0]])
