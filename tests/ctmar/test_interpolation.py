import numpy as np
import pytest

from ctmar.interpolation import interpolate_trace


def interpolated(row, trace):
    return interpolate_trace(np.array([row], np.float32), np.array([trace], bool))[0]


@pytest.mark.parametrize(
    ("row", "trace", "expected"),
    [
        ([0, 9, 9, 9, 4], [0, 1, 1, 1, 0], [0, 1, 2, 3, 4]),
        ([5, 9, 9, 2, 7], [0, 1, 1, 0, 0], [5, 4, 3, 2, 7]),
        ([1, 9, 3, 9, 9, 9, 7], [0, 1, 0, 1, 1, 1, 0], [1, 2, 3, 4, 5, 6, 7]),  # two pieces of metal
        ([9, 9, 3, 4], [1, 1, 0, 0], [3, 3, 3, 4]),  # at the detector's left end
        ([3, 4, 9, 9], [0, 0, 1, 1], [3, 4, 4, 4]),  # at its right end
        ([9, 9, 3, 9], [1, 1, 0, 1], [3, 3, 3, 3]),
        ([9, 9, 9], [1, 1, 1], [0, 0, 0]),  # nothing to interpolate from
        ([9, 8, 7], [0, 0, 0], [9, 8, 7]),
        ([9], [1], [0]),
    ],
)
def test_views_by_hand(row, trace, expected):
    np.testing.assert_allclose(interpolated(row, trace), expected, atol=1e-6)


def test_against_numpy_on_random_traces():
    rng = np.random.default_rng(0)
    sinogram = rng.normal(size=(3, 40, 60)).astype(np.float32)
    trace = rng.random(sinogram.shape) < rng.uniform(0, 0.95, (3, 40, 1))
    trace[..., 30] = False
    bins = np.arange(60)
    expected = np.array(
        [
            [np.interp(bins, bins[~t], row[~t]) for row, t in zip(view, traced, strict=True)]
            for view, traced in zip(sinogram, trace, strict=True)
        ]
    )
    got = interpolate_trace(sinogram, trace)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=2e-6)
    np.testing.assert_array_equal(got[~trace], sinogram[~trace])


def test_views_do_not_mix():
    sinogram = np.array([[1, 50, 3], [10, 50, 30]], np.float32)
    trace = np.array([[0, 1, 0], [0, 1, 0]], bool)
    np.testing.assert_allclose(interpolate_trace(sinogram, trace)[:, 1], [2, 20])


def test_the_input_is_left_alone():
    sinogram = np.array([[0, 9, 4]], np.float32)
    for trace in ([[False, True, False]], [[False] * 3]):
        out = interpolate_trace(sinogram, np.array(trace))
        out[:] = -1
        np.testing.assert_array_equal(sinogram, [[0, 9, 4]])


def test_metal_of_any_height_leaves_no_mark():
    """What is measured inside the trace, infinite or not, does not matter."""
    np.testing.assert_allclose(interpolated([1, np.inf, np.nan, 4], [0, 1, 1, 0]), [1, 2, 3, 4], atol=1e-6)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="differ in shape"):
        interpolate_trace(np.zeros((2, 3), np.float32), np.zeros((3, 2), bool))
