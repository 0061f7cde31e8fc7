"""Polychromatic line integrals: the sum over the spectrum for every ray, compiled."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from data_sim.kernels import in_threads, kernel, part
from data_sim.materials import linear_attenuation
from data_sim.spectrum import Spectrum

Paths = Mapping[str, NDArray[np.float32]]
"""Path length in mm of every ray in each material, by the material's short code; all of one shape."""

_RAYS_AT_A_TIME = 1 << 15
_LANES = 16
"""The number of energies is filled up to a multiple of this, so that the inner loops have no remainder."""


def polychromatic(paths_mm: Paths, spectrum: Spectrum) -> NDArray[np.float32]:
    """Line integrals that a detector measures: p = -ln( sum_E w(E) exp(-sum_k mu_k(E) L_k) ).

    Parameters
    ----------
    paths_mm : mapping of str to ndarray
        Path length of every ray in each material, mm.
    spectrum : Spectrum

    Returns
    -------
    ndarray of float32
        Dimensionless, in the shape of the paths; within 1e-6 (1 + p) of the sum in float64. A ray's value depends on
        its own path alone, to the last bit.

    Raises
    ------
    ValueError
        Where there is no material, a code is unknown, or the shapes differ.
    """
    if not paths_mm:
        raise ValueError("a scan needs at least one material")
    lengths = [np.asarray(length, np.float32) for length in paths_mm.values()]
    shape = lengths[0].shape
    if any(length.shape != shape for length in lengths):
        raise ValueError("the paths of all materials must have the same shape")
    rays = np.stack([length.ravel() for length in lengths])
    p = np.empty(rays.shape[1], np.float32)
    in_threads(_sum_over_energies, p.size, _RAYS_AT_A_TIME, rays, *_coefficients(tuple(paths_mm), spectrum), p)
    return p.reshape(shape)


@lru_cache(maxsize=64)
def _coefficients(codes: tuple[str, ...], spectrum: Spectrum) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """-mu (materials, energies) and weights (energies,), filled up with energies of no weight."""
    fill = -spectrum.weights.size % _LANES
    minus_mu = -np.stack([linear_attenuation(code, spectrum.energies_kev) for code in codes])
    weights = np.pad(spectrum.weights, (0, fill)).astype(np.float32)
    return np.pad(minus_mu, ((0, 0), (0, fill)), mode="edge").astype(np.float32), weights


@intrinsic
def _float_of_bits(_: Any, bits: Any) -> Any:
    """The float32 that has the bits of an int32."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.int32), generate


@part
def _exp(x):  # type: ignore[no-untyped-def]
    """Exp of x <= 0 to 1e-7 of itself in float32, 2^-125 below -87; no branch, so that the loop around it vectorises.

    exp(x) = 2^n exp(f), |f| <= ln(2) / 2; ln(2) in two parts and the polynomial as in the Cephes library's expf
    (S. L. Moshier).
    """
    x = max(x, np.float32(-87))
    n = np.int32(x * np.float32(1.44269504) - np.float32(0.5))
    f = x - np.float32(n) * np.float32(0.693359375) - np.float32(n) * np.float32(-2.12194440e-4)
    y = np.float32(1.9875691500e-4)
    y = y * f + np.float32(1.3981999507e-3)
    y = y * f + np.float32(8.3334519073e-3)
    y = y * f + np.float32(4.1665795894e-2)
    y = y * f + np.float32(1.6666665459e-1)
    y = y * f + np.float32(5.0000001201e-1)
    y = y * f * f + f + np.float32(1)
    return y * _float_of_bits(np.int32((n + np.int32(127)) << np.int32(23)))  # type: ignore[call-arg]


@kernel("void(intp, intp, float32[:, ::1], float32[:, ::1], float32[::1], float32[::1])", reorder=True)
def _sum_over_energies(first, stop, rays, minus_mu, weights, p):  # type: ignore[no-untyped-def]
    materials, energies = rays.shape[0], weights.size
    exponent = np.empty(energies, np.float32)
    for ray in range(first, stop):
        met = False
        for k in range(materials):
            met |= rays[k, ray] != np.float32(0)
        if not met:
            p[ray] = np.float32(0)
            continue
        length = rays[0, ray]
        for e in range(energies):
            exponent[e] = minus_mu[0, e] * length
        for k in range(1, materials):
            length = rays[k, ray]
            if length != np.float32(0):
                for e in range(energies):
                    exponent[e] += minus_mu[k, e] * length
        # The most penetrating energy is taken out of the sum: it stays finite behind any amount of metal.
        largest = exponent[0]
        for e in range(energies):
            largest = max(largest, exponent[e])
        total = np.float32(0)
        for e in range(energies):
            total += weights[e] * _exp(exponent[e] - largest)
        p[ray] = -np.log(total) - largest
