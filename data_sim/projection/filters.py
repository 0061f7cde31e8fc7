"""The ramp filter and its windows, built from the band-limited spatial kernel.

The kernel, rather than |f| sampled in the frequency domain, keeps the mean of the image free of the bias that a
zeroed DC term would give (Kak & Slaney, Principles of Computerized Tomographic Imaging, 1988, section 3.3.3).
"""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray

FILTERS = ("ram-lak", "shepp-logan", "cosine", "hamming", "hann")


def ramp_kernel(bins: int, pitch: float) -> NDArray[np.float64]:
    """Band-limited ramp h(n pitch), n = 0 .. bins-1 (Kak & Slaney, eq. 61): 1/(4 pitch^2) at 0, zero at even n."""
    n = np.arange(bins)
    kernel = np.zeros(bins)
    kernel[0] = 0.25
    odd = n[1::2]
    kernel[1::2] = -1.0 / (np.pi * odd) ** 2
    return kernel / pitch**2


def frequency_response(half_kernel: NDArray[np.float64], name: str, cutoff: float) -> NDArray[np.float32]:
    """Response of the symmetric kernel with a window applied, for rows padded to `padded_length`.

    Parameters
    ----------
    half_kernel
        Kernel at n = 0 .. bins-1.
    name
        One of `FILTERS`.
    cutoff
        Fraction of the Nyquist frequency at which the window reaches its end; nothing passes above it.
    """
    if name not in FILTERS:
        raise ValueError(f"unknown filter {name!r}: expected one of {', '.join(FILTERS)}")
    if not 0 < cutoff <= 1:
        raise ValueError(f"cutoff is a fraction of the Nyquist frequency in (0, 1], not {cutoff}")
    bins = half_kernel.size
    length = padded_length(bins)
    kernel = np.zeros(length)
    kernel[:bins] = half_kernel
    kernel[length - bins + 1 :] = half_kernel[:0:-1]
    response = scipy.fft.rfft(kernel).real
    x = np.linspace(0, 1, response.size) / cutoff
    windows = {
        "ram-lak": np.ones_like(x),
        "shepp-logan": np.sinc(x / 2),
        "cosine": np.cos(np.pi / 2 * x),
        "hamming": 0.54 + 0.46 * np.cos(np.pi * x),
        "hann": 0.5 + 0.5 * np.cos(np.pi * x),
    }
    return np.where(x <= 1, response * windows[name], 0).astype(np.float32)


def padded_length(bins: int) -> int:
    """Even FFT-friendly length that keeps the linear convolution free of wrap-around."""
    return 2 * scipy.fft.next_fast_len(bins, real=True)


def apply_filter(values: NDArray[np.float32], response: NDArray[np.float32]) -> NDArray[np.float32]:
    """Convolve (bins, n) along the bins with the kernel behind `response`; the n columns do not touch each other.

    Two columns as the real and imaginary part of one transform would be a tenth faster, but rounding would then tie
    each slice to its neighbour in the block.
    """
    length = padded_length(len(values))
    spectrum = scipy.fft.rfft(values, length, axis=0)
    spectrum *= response[:, None]
    filtered: NDArray[np.float32] = scipy.fft.irfft(spectrum, length, axis=0, overwrite_x=True)[: len(values)]
    return filtered
