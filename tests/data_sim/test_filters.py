import numpy as np
import pytest

from data_sim.projection.filters import FILTERS, apply_filter, frequency_response, padded_length, ramp_kernel


def test_kernel_values():
    """Kak & Slaney, eq. 61: 1/(4 a^2), -1/(pi n a)^2 at odd n, 0 at even n."""
    expected = np.array([0.25, -1 / np.pi**2, 0, -1 / (9 * np.pi**2), 0, -1 / (25 * np.pi**2)])
    np.testing.assert_allclose(ramp_kernel(6, 1.0), expected, atol=1e-15)
    np.testing.assert_allclose(ramp_kernel(6, 0.5), 4 * expected, atol=1e-15)


def test_response_is_the_ramp():
    """|f| in cycles a bin, up to 1/2 at Nyquist; the truncated kernel leaves little but not nothing at 0."""
    bins = 400
    response = frequency_response(ramp_kernel(bins, 1.0), "ram-lak", 1.0)
    frequency = np.linspace(0, 0.5, response.size)
    np.testing.assert_allclose(response, frequency, atol=1.5e-3)
    # the tail cut off: 2 sum over odd n >= bins of 1/(pi n)^2, about 1 / (pi^2 bins)
    assert response[0] == pytest.approx(1 / (np.pi**2 * bins), rel=0.02)


@pytest.mark.parametrize(
    ("name", "half", "end"),
    [
        ("ram-lak", 1, 1),
        ("shepp-logan", 2 * np.sqrt(2) / np.pi, 2 / np.pi),
        ("cosine", np.sqrt(0.5), 0),
        ("hamming", 0.54, 0.08),
        ("hann", 0.5, 0),
    ],
)
def test_windows_at_zero_half_and_nyquist(name, half, end):
    kernel = ramp_kernel(64, 1.0)
    plain = frequency_response(kernel, "ram-lak", 1.0).astype(float)
    middle = (plain.size - 1) // 2
    assert (plain.size - 1) % 2 == 0
    share = frequency_response(kernel, name, 1.0) / plain
    np.testing.assert_allclose(share[[0, middle, -1]], [1, half, end], atol=1e-6)


@pytest.mark.parametrize("name", FILTERS)
def test_cutoff_moves_the_end_of_the_window(name):
    kernel = ramp_kernel(64, 1.0)
    plain, whole, cut = (frequency_response(kernel, n, c) for n, c in (("ram-lak", 1), (name, 1), (name, 0.5)))
    middle = (plain.size - 1) // 2
    assert not cut[middle + 1 :].any()
    np.testing.assert_allclose(
        cut[: middle + 1] / plain[: middle + 1], (whole / plain)[: 2 * middle + 1 : 2], rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("bins", [1, 2, 37, 250, 921])
def test_filtering_is_a_linear_convolution(bins):
    rng = np.random.default_rng(0)
    half = ramp_kernel(bins, 1.3)
    rows = rng.normal(size=(bins, 8)).astype(np.float32)
    kernel = np.concatenate([half[:0:-1], half])
    expected = np.stack([np.convolve(row, kernel)[bins - 1 : 2 * bins - 1] for row in rows.T], axis=1)
    got = apply_filter(rows, frequency_response(half, "ram-lak", 1.0))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("bins", [1, 2, 3, 100, 920, 1021])
def test_padding_is_even_and_long_enough(bins):
    length = padded_length(bins)
    assert length % 2 == 0
    assert length >= 2 * bins - 1


def test_filters_refuse_nonsense():
    kernel = ramp_kernel(8, 1.0)
    with pytest.raises(ValueError, match="unknown filter 'hanning'"):
        frequency_response(kernel, "hanning", 1.0)
    for cutoff in (0.0, -0.5, 1.5, float("nan")):
        with pytest.raises(ValueError, match="cutoff"):
            frequency_response(kernel, "hann", cutoff)
