"""Pixel-driven weighted backprojection of filtered sinograms.

Each pixel takes, from every view, the filtered value at its place on the detector, linearly interpolated, times
1/L^2 for an arc (L: source to pixel), R^2/U^2 for a flat detector (U: along the central ray) and 1 for parallel
beams: A. C. Kak and M. Slaney, Principles of Computerized Tomographic Imaging, 1988, sections 3.3 and 3.4.

The image is worked in tiles, each for a few views at a time, so that the detector's rows that a tile meets stay in
the cache and a pixel's sum in registers.
"""

# mypy: disable-error-code="no-untyped-def, call-arg"

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from data_sim.geometry import ImageGrid
from data_sim.kernels import in_threads, kernel, part
from data_sim.projection import simd
from data_sim.projection.lanes import Block
from data_sim.projection.scan_tables import ARC, FLAT, PARALLEL, Scan

_TILE = 32
_VIEWS_AT_ONCE = 4
_DEGREE = 6


def backproject(filtered: Block, scan: Scan, grid: ImageGrid) -> Block:
    """Sum over the views, without the constant of their spacing: (views, bins, width) to (rows, cols, width)."""
    _, bins, width = filtered.shape
    image = np.zeros((grid.rows, grid.cols, width), np.float32)
    per_bin, coefficients, most = _angle_to_bin(scan)
    in_threads(
        _backproject,
        -(-grid.rows // _TILE),
        1,
        filtered.reshape(-1, width),
        bins,
        scan.kind,
        scan.views,
        scan.radius,
        per_bin,
        np.float32(scan.first_bin),
        coefficients,
        most,
        grid.x_mm().astype(np.float32),
        grid.y_mm(),
        image.reshape(-1, width),
        (0.0,) * width,
    )
    return image


def _angle_to_bin(scan: Scan) -> tuple[np.float32, NDArray[np.float32], np.float32]:
    """Bins per unit of the kernel's coordinate, its polynomial for an arc, and the largest value that is needed.

    On an arc the kernel knows z = tan(g/2) = t / (u + L), without a square root more than the weight needs. The bin is
    g = z P(z^2), where P is fitted to the fan: to 1e-9 rad up to 90 degrees across, 1e-6 at 160. Beyond the detector's
    end, z is cut off where no bin is left.
    """
    per_bin = np.float32(scan.per_bin)
    if scan.kind != ARC:
        return per_bin, np.zeros(_DEGREE + 1, np.float32), np.float32(0)
    half_fan = min(float(np.abs(np.arctan2(scan.bins[[0, -1], 1], scan.bins[[0, -1], 0])).max()), np.pi / 2)
    most = math.tan(min(half_fan + 2 / scan.per_bin, 3.0) / 2)
    fit = np.polynomial.Chebyshev.interpolate(
        lambda t: 2 * np.arctan(np.sqrt(t + 1e-30)) / np.sqrt(t + 1e-30), _DEGREE, domain=(0, most**2)
    ).convert(kind=np.polynomial.Polynomial)
    return per_bin, (np.asarray(fit.coef, float) * scan.per_bin).astype(np.float32), np.float32(most)


@part
def _shared(inside, weight, end, row):
    """The row of the lower bin beside an index from 0 to `end`, and the weight's share of it and of the next."""
    low = np.int32(min(inside, end - np.float32(1)))
    upper = (inside - np.float32(low)) * weight
    return np.int32(row + low), weight - upper, upper


@part
def _places_parallel(x, cos, t0, per_bin, first_bin, end, row, rows, w0, w1):
    """Row of the filtered sinogram and weights for pixels beside each other; no weight beside the detector.

    There is no branch in the loop, so that it becomes vector instructions.
    """
    for c in range(x.size):
        index = (x[c] * cos + t0) * per_bin + first_bin
        inside = min(max(index, np.float32(0)), end)
        weight = np.float32(1) if inside == index else np.float32(0)
        rows[c], w0[c], w1[c] = _shared(inside, weight, end, row)


@part
def _places_flat(x, cos, sin, t0, u0, radius, per_bin, first_bin, end, row, rows, w0, w1):
    """As `_places_parallel`; pixels behind the source have no weight either."""
    nearest = radius * np.float32(1e-3)
    for c in range(x.size):
        u = x[c] * sin + u0
        part = np.float32(1) / max(u, nearest)
        index = (x[c] * cos + t0) * part * per_bin + first_bin
        inside = min(max(index, np.float32(0)), end)
        weight = radius * part
        weight = weight * weight if (inside == index) & (u > nearest) else np.float32(0)
        rows[c], w0[c], w1[c] = _shared(inside, weight, end, row)


@part
def _places_arc(x, cos, sin, t0, u0, radius, coefficients, most, first_bin, end, row, rows, w0, w1):
    """As `_places_flat`, on an arc."""
    nearest = radius * np.float32(1e-3)
    a0, a1, a2, a3 = coefficients[0], coefficients[1], coefficients[2], coefficients[3]
    a4, a5, a6 = coefficients[4], coefficients[5], coefficients[6]
    for c in range(x.size):
        t = x[c] * cos + t0
        u = x[c] * sin + u0
        squared = t * t + u * u
        weight = np.float32(1) / max(squared, nearest * nearest)
        far = np.float32(1) / max(u + math.sqrt(squared), nearest)
        z = min(max(t * far, -most), most)
        q = z * z
        index = z * (a0 + q * (a1 + q * (a2 + q * (a3 + q * (a4 + q * (a5 + q * a6)))))) + first_bin
        inside = min(max(index, np.float32(0)), end)
        weight = weight if (inside == index) & (u > nearest) else np.float32(0)
        rows[c], w0[c], w1[c] = _shared(inside, weight, end, row)


@kernel(
    "void(intp, intp, float32[:, ::1], intp, intp, float64[:, ::1], float64, float32, float32, float32[::1],"
    " float32, float32[::1], float64[::1], float32[:, ::1], LANES)"
)
def _backproject(
    first, stop, filtered, bins, kind, views, radius, per_bin, first_bin, coefficients, most, x, y, image, lanes
):
    rows_, cols = y.size, x.size
    low = np.empty((_VIEWS_AT_ONCE, _TILE), np.int32)
    w0 = np.empty((_VIEWS_AT_ONCE, _TILE), np.float32)
    w1 = np.empty((_VIEWS_AT_ONCE, _TILE), np.float32)
    all_low, all_w0, all_w1 = low.reshape(-1), w0.reshape(-1), w1.reshape(-1)
    across = np.zeros(_TILE, np.float32)
    end, radius_ = np.float32(bins - 1), np.float32(radius)
    for down in range(first, stop):
        for c0 in range(0, cols, _TILE):
            n = min(_TILE, cols - c0)
            across[:n] = x[c0 : c0 + n]
            for v0 in range(0, views.shape[0], _VIEWS_AT_ONCE):
                some = min(_VIEWS_AT_ONCE, views.shape[0] - v0)
                for r in range(down * _TILE, min((down + 1) * _TILE, rows_)):
                    for k in range(some):
                        cos, sin = np.float32(views[v0 + k, 0]), np.float32(views[v0 + k, 1])
                        t0 = np.float32(y[r] * views[v0 + k, 1])
                        u0 = np.float32(radius - y[r] * views[v0 + k, 0])
                        row = np.int32((v0 + k) * bins)
                        if kind == PARALLEL:
                            _places_parallel(across, cos, t0, per_bin, first_bin, end, row, low[k], w0[k], w1[k])
                        elif kind == FLAT:
                            _places_flat(
                                across,
                                cos,
                                sin,
                                t0,
                                u0,
                                radius_,
                                per_bin,
                                first_bin,
                                end,
                                row,
                                low[k],
                                w0[k],
                                w1[k],
                            )
                        else:
                            _places_arc(
                                across,
                                cos,
                                sin,
                                t0,
                                u0,
                                radius_,
                                coefficients,
                                most,
                                first_bin,
                                end,
                                row,
                                low[k],
                                w0[k],
                                w1[k],
                            )
                    for c in range(n):
                        simd.gather(image, r * cols + c0 + c, filtered, all_low, all_w0, all_w1, c, some, _TILE, lanes)
