"""CPU kernels: Joseph's forward projection, its exact adjoint, and pixel-driven backprojection for FBP.

All kernels work on a block of slices with the slice index innermost in memory, so that the geometry of a ray or
pixel is computed once for the block and the inner loop is straight SIMD. The block width is a compile-time
constant: `WIDTHS` are the ones that exist, and `blocks` cuts a stack into them.

Interpolation of the forward projection: P. M. Joseph, "An improved algorithm for reprojecting rays through pixel
images", IEEE Trans. Med. Imaging 1(3):192-196, 1982.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numba
import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from data_sim.geometry import FanArc, FanFlat, Geometry, ImageGrid

WIDTHS = (1, 4, 32)
"""Block widths. Between 4 and 32 lies nothing: LLVM unrolls shorter inner loops into scalar code, so that a block
of 16 takes as long as one of 32."""

_VIEWS_AT_ONCE = 16
_ROWS_AT_ONCE = 16
_TILE = 32
_PARALLEL, _FLAT, _ARC = 0, 1, 2

_ATAN = np.polynomial.Chebyshev.interpolate(
    lambda t: np.where(t > 0, np.arctan(np.sqrt(np.maximum(t, 1e-300))) / np.sqrt(np.maximum(t, 1e-300)), 1.0),
    9,
    domain=[0, 1],
).convert(kind=np.polynomial.Polynomial)
_A0, _A1, _A2, _A3, _A4, _A5, _A6, _A7, _A8, _A9 = (np.float32(c) for c in _ATAN.coef)


def blocks(slices: int) -> Iterator[tuple[int, int, int]]:
    """(start, stop, width) of the blocks that a stack is worked in; the last block may be padded with zeros."""
    start = 0
    while start < slices:
        width = next((w for w in WIDTHS if w >= slices - start), WIDTHS[-1])
        yield start, min(start + width, slices), width
        start += width


def interleave(stack: NDArray[Any], width: int, pad: int = 0) -> NDArray[np.float32]:
    """(slice, a, b) as float32 (a + 2 pad, b + 2 pad, width) with a border of zeros."""
    n, a, b = stack.shape
    block = np.zeros((a + 2 * pad, b + 2 * pad, width), np.float32)
    block[pad : a + pad, pad : b + pad, :n] = np.moveaxis(stack, 0, -1)
    return block


def joseph_lines(
    geometry: Geometry, grid: ImageGrid, rays: NDArray[np.bool_] | None
) -> tuple[NDArray[np.int8], NDArray[np.float64], NDArray[np.float64], NDArray[np.float32]]:
    """How each ray steps through the grid.

    Returns
    -------
    axis : int8 (views, bins)
        0: one step a row, the column is interpolated; 1: the other way round; -1: not wanted.
    start, slope : float64 (views, bins)
        The interpolated index at step i of the zero-padded image is ``start + slope i``.
    step_mm : float32 (views, bins)
        Length of the ray within one step.
    """
    theta, s = geometry.line_coordinates()
    cos, sin = np.cos(theta), np.sin(theta)
    by_row = np.abs(cos) >= np.abs(sin)
    p = grid.pixel_mm
    x0, y0 = grid.x_mm()[0], grid.y_mm()[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        col0 = (s - y0 * sin) / (p * cos) - x0 / p
        row0 = y0 / p - (s - x0 * cos) / (p * sin)
        start = np.where(by_row, col0, row0)
        slope = np.where(by_row, sin / cos, cos / sin)
        step = np.where(by_row, p / np.abs(cos), p / np.abs(sin))
    axis = np.where(by_row, 0, 1).astype(np.int8)
    if rays is not None:
        axis[~rays] = -1
    # one pixel of border: step i of the padded image is step i - 1 of the image, index + 1
    return axis, start - slope + 1.0, slope, step.astype(np.float32)


@cache
def _forward_kernel(width: int) -> Callable[..., None]:
    @njit(parallel=True, fastmath=True, cache=True)
    def kernel(image, axis, wanted, start, slope, out):  # type: ignore[no-untyped-def]
        views, bins = axis.shape
        steps, across, _ = image.shape
        last = across - 1
        chunks = (views + _VIEWS_AT_ONCE - 1) // _VIEWS_AT_ONCE
        for chunk in prange(chunks):
            v0 = chunk * _VIEWS_AT_ONCE
            v1 = min(v0 + _VIEWS_AT_ONCE, views)
            total = np.empty(width, np.float32)
            for i0 in range(1, steps - 1, _ROWS_AT_ONCE):
                i1 = min(i0 + _ROWS_AT_ONCE, steps - 1)
                for v in range(v0, v1):
                    for d in range(bins):
                        if axis[v, d] != wanted:
                            continue
                        first = start[v, d] + slope[v, d] * i0
                        final = start[v, d] + slope[v, d] * (i1 - 1)
                        if max(first, final) <= 0.0 or min(first, final) >= last:
                            continue
                        for k in range(width):
                            total[k] = np.float32(0)
                        for i in range(i0, i1):
                            position = start[v, d] + slope[v, d] * i
                            if position <= 0.0 or position >= last:
                                continue
                            j = int(position)
                            w1 = np.float32(position - j)
                            w0 = np.float32(1.0) - w1
                            for k in range(width):
                                total[k] += w0 * image[i, j, k] + w1 * image[i, j + 1, k]
                        for k in range(width):
                            out[v, d, k] += total[k]

    return kernel


@cache
def _adjoint_kernel(width: int) -> Callable[..., None]:
    @njit(parallel=True, fastmath=True, cache=True)
    def kernel(sinogram, axis, wanted, start, slope, step, image):  # type: ignore[no-untyped-def]
        views, bins = axis.shape
        steps, across, _ = image.shape
        last = across - 1
        chunks = (steps - 2 + _ROWS_AT_ONCE - 1) // _ROWS_AT_ONCE
        for chunk in prange(chunks):
            i0 = 1 + chunk * _ROWS_AT_ONCE
            i1 = min(i0 + _ROWS_AT_ONCE, steps - 1)
            for v in range(views):
                for i in range(i0, i1):
                    for d in range(bins):
                        if axis[v, d] != wanted:
                            continue
                        position = start[v, d] + slope[v, d] * i
                        if position <= 0.0 or position >= last:
                            continue
                        j = int(position)
                        w1 = np.float32(position - j) * step[v, d]
                        w0 = step[v, d] - w1
                        for k in range(width):
                            image[i, j, k] += w0 * sinogram[v, d, k]
                            image[i, j + 1, k] += w1 * sinogram[v, d, k]

    return kernel


@njit(fastmath=True, inline="always")
def _arctan(z):  # type: ignore[no-untyped-def]
    """Arctan to 1e-7 rad in float32, without a branch so that the loop around it vectorises."""
    a = abs(z)
    large = a > np.float32(1)
    q = np.float32(1) / a if large else a
    t = q * q
    poly = _A6 + t * (_A7 + t * (_A8 + t * _A9))
    poly = _A0 + t * (_A1 + t * (_A2 + t * (_A3 + t * (_A4 + t * (_A5 + t * poly)))))
    angle = q * poly
    angle = np.float32(np.pi / 2) - angle if large else angle
    return -angle if z < np.float32(0) else angle


@cache
def _backproject_kernel(width: int, kind: int) -> Callable[..., None]:
    @njit(parallel=True, fastmath=True, cache=True)
    def kernel(filtered, cos, sin, radius, per_bin, x, y, image):  # type: ignore[no-untyped-def]
        views, bins, _ = filtered.shape
        rows, cols, _ = image.shape
        tiles_down = (rows + _TILE - 1) // _TILE
        tiles_across = (cols + _TILE - 1) // _TILE
        end = np.float32(bins - 1)
        middle = np.float32((bins - 1) / 2)
        for tile in prange(tiles_down * tiles_across):
            r0 = (tile // tiles_across) * _TILE
            c0 = (tile % tiles_across) * _TILE
            r1 = min(r0 + _TILE, rows)
            n = min(c0 + _TILE, cols) - c0
            low = np.empty(_TILE, np.int32)
            w0 = np.empty(_TILE, np.float32)
            w1 = np.empty(_TILE, np.float32)
            for v in range(views):
                cv = np.float32(cos[v])
                sv = np.float32(sin[v])
                for r in range(r0, r1):
                    t0 = np.float32(y[r] * sin[v])
                    u0 = np.float32(radius - y[r] * cos[v])
                    # the bin between whose neighbours each pixel lies, and their weights, without a branch so that
                    # the loop vectorises; pixels behind the source or beside the detector get none
                    for c in range(n):
                        t = x[c0 + c] * cv + t0
                        u = x[c0 + c] * sv + u0
                        if kind == _PARALLEL:
                            index = t * per_bin + middle
                            weight = np.float32(1)
                        elif kind == _FLAT:
                            index = t / u * per_bin + middle
                            weight = np.float32(1) / (u * u)
                        else:
                            index = _arctan(t / u) * per_bin + middle
                            weight = np.float32(1) / (u * u + t * t)
                        if kind != _PARALLEL:
                            weight = weight if u > np.float32(0) else np.float32(0)
                        inside = min(max(index, np.float32(0)), end)
                        weight = weight if inside == index else np.float32(0)
                        low[c] = np.int32(min(inside, end - np.float32(1)))
                        w1[c] = (inside - np.float32(low[c])) * weight
                        w0[c] = weight - w1[c]
                    if width == 1:
                        for c in range(n):
                            j = low[c]
                            image[r, c0 + c, 0] += w0[c] * filtered[v, j, 0] + w1[c] * filtered[v, j + 1, 0]
                    else:
                        for c in range(n):
                            j = low[c]
                            for k in range(width):
                                image[r, c0 + c, k] += w0[c] * filtered[v, j, k] + w1[c] * filtered[v, j + 1, k]

    return kernel


def forward_block(
    stack: NDArray[Any],
    width: int,
    lines: tuple[NDArray[np.int8], NDArray[np.float64], NDArray[np.float64], NDArray[np.float32]],
) -> NDArray[np.float32]:
    """Line integrals (slice, view, bin) of one block (slice, row, col) along `joseph_lines`."""
    axis, start, slope, step = lines
    out = np.zeros((*axis.shape, width), np.float32)
    image = interleave(stack, width, pad=1)
    kernel = _forward_kernel(width)
    kernel(image, axis, np.int8(0), start, slope, out)
    if (axis == 1).any():
        image = np.ascontiguousarray(image.transpose(1, 0, 2))
        kernel(image, axis, np.int8(1), start, slope, out)
    out *= step[..., None]
    return np.ascontiguousarray(np.moveaxis(out[..., : len(stack)], -1, 0))


def adjoint_block(
    stack: NDArray[Any],
    width: int,
    grid: ImageGrid,
    lines: tuple[NDArray[np.int8], NDArray[np.float64], NDArray[np.float64], NDArray[np.float32]],
) -> NDArray[np.float32]:
    """Transpose of `forward_block`: (slice, view, bin) -> (slice, row, col)."""
    axis, start, slope, step = lines
    sinogram = interleave(stack, width)
    image = np.zeros((grid.rows + 2, grid.cols + 2, width), np.float32)
    turned = np.zeros((grid.cols + 2, grid.rows + 2, width), np.float32)
    kernel = _adjoint_kernel(width)
    kernel(sinogram, axis, np.int8(0), start, slope, step, image)
    kernel(sinogram, axis, np.int8(1), start, slope, step, turned)
    image += turned.transpose(1, 0, 2)
    return np.ascontiguousarray(np.moveaxis(image[1:-1, 1:-1, : len(stack)], -1, 0))


def backproject_block(stack: NDArray[Any], width: int, geometry: Geometry, grid: ImageGrid) -> NDArray[np.float32]:
    """Weighted backprojection of filtered sinograms, without the constant of the view spacing.

    Weights are 1/L^2 for an arc (L: source to pixel), R^2/U^2 for a flat detector (U: along the central ray)
    and 1 for parallel beams (Kak & Slaney, sections 3.3 and 3.4).
    """
    b = geometry.view_angles_rad()
    kind, radius, factor = _PARALLEL, 0.0, 1.0
    if isinstance(geometry, FanFlat):
        kind, radius = _FLAT, geometry.source_isocentre_mm
        per_bin = geometry.source_detector_mm / geometry.bin_pitch_mm
        factor = radius**2
    elif isinstance(geometry, FanArc):
        kind, radius, per_bin = _ARC, geometry.source_isocentre_mm, 1 / geometry.bin_pitch_rad
    else:
        per_bin = 1 / geometry.bin_pitch_mm
    image = np.zeros((*grid.shape, width), np.float32)
    _backproject_kernel(width, kind)(
        interleave(stack, width),
        np.cos(b),
        np.sin(b),
        radius,
        np.float32(per_bin),
        grid.x_mm().astype(np.float32),
        grid.y_mm(),
        image,
    )
    if factor != 1.0:
        image *= np.float32(factor)
    return np.ascontiguousarray(np.moveaxis(image[..., : len(stack)], -1, 0))


def threads() -> int:
    """How many threads the kernels use."""
    return int(numba.get_num_threads())
