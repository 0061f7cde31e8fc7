"""Joseph's forward projection of a block of slices, and its exact transpose.

A ray takes one step a row (or a column, whichever it crosses faster) and interpolates linearly between the two
pixels beside it: P. M. Joseph, "An improved algorithm for reprojecting rays through pixel images", IEEE Trans. Med.
Imaging 1(3):192-196, 1982.

The image is worked in tiles that stay in the cache for all rays of a group of views. A step belongs to the tile in
which its position lies; the first step in a tile is computed with the same formula as the last in the tile before, so
that none is counted twice or left out. Tiles without anything in them are skipped, and so are the rays beside a tile:
the cost follows what is in the image.
"""

# mypy: disable-error-code="no-untyped-def, call-arg"

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_sim.geometry import ImageGrid
from data_sim.kernels import in_threads, kernel, part, thread_count
from data_sim.projection import simd
from data_sim.projection.lanes import Block
from data_sim.projection.scan_tables import ARC, PARALLEL, Scan

TILE = 32
_VIEWS_AT_ONCE = 32


def forward(image: Block, out: Block, scan: Scan, grid: ImageGrid, rays: NDArray[np.bool_] | None = None) -> None:
    """Add the line integrals of a padded block (rows + 2, cols + 2, width) to `out` (views, bins, width).

    Parameters
    ----------
    rays : bool (views, bins), optional
        Rays to compute.
    """
    views, bins, width = out.shape
    wanted = np.ones((views, bins), bool) if rays is None else np.ascontiguousarray(rays)
    at_once = max(1, min(_VIEWS_AT_ONCE, -(-views // (2 * thread_count()))))
    sums, lanes = out.reshape(-1, width), (0.0,) * width
    for by_row in (True, False):
        turned = image if by_row else np.ascontiguousarray(image.transpose(1, 0, 2))
        steps, across, _ = turned.shape
        occupied = np.zeros((-(-(steps - 2) // TILE), -(-(across - 1) // TILE)), bool)
        in_threads(_find_occupied, len(occupied), 1, turned, occupied)
        if occupied.any():
            data = turned.reshape(-1, width), across, occupied
            in_threads(_forward, views, at_once, by_row, *data, _plain(scan, grid), wanted, sums, lanes)


def adjoint(sinogram: Block, scan: Scan, grid: ImageGrid) -> Block:
    """The transpose of `forward`: (views, bins, width) to (rows, cols, width)."""
    views, bins, width = sinogram.shape
    data, wanted, lanes = sinogram.reshape(-1, width), np.ones((views, bins), bool), (0.0,) * width
    sums = []
    for by_row in (True, False):
        steps, across = (grid.rows, grid.cols) if by_row else (grid.cols, grid.rows)
        image = np.zeros((steps + 2, across + 2, width), np.float32)
        stripes, target = -(-steps // TILE), image.reshape(-1, width)
        in_threads(_adjoint, stripes, 1, by_row, data, across + 2, _plain(scan, grid), wanted, target, lanes)
        sums.append(image[1:-1, 1:-1])
    return np.add(sums[0], sums[1].transpose(1, 0, 2), order="C")


def _plain(scan: Scan, grid: ImageGrid) -> tuple[Any, ...]:
    """The scan, and position and size of the padded block's first pixel, as kernels take them."""
    p = grid.pixel_mm
    first = np.array([grid.x_mm()[0] - p, grid.y_mm()[0] + p, p])
    return scan.kind, scan.radius, scan.per_bin, scan.first_bin, scan.views, scan.bins, first


@part
def _lines(v, place, by_row, scan, wanted, lines):
    """How the rays of a view step: position = start + slope i at step i, ray length in a step (0: not this way)."""
    _, _, _, _, views, bins, (x0, y0, p) = scan
    start, slope, inverse, length = lines
    cos_b, sin_b = views[v, 0], views[v, 1]
    for d in range(bins.shape[0]):
        cos = cos_b * bins[d, 0] - sin_b * bins[d, 1]
        sin = sin_b * bins[d, 0] + cos_b * bins[d, 1]
        s = bins[d, 2]
        length[place, d] = 0
        if (abs(cos) >= abs(sin)) != by_row or not wanted[v, d]:
            continue
        if by_row:
            start[place, d] = (s - y0 * sin) / (p * cos) - x0 / p
            q = sin / cos
            length[place, d] = p / abs(cos)
        else:
            start[place, d] = y0 / p - (s - x0 * cos) / (p * sin)
            q = cos / sin
            length[place, d] = p / abs(sin)
        slope[place, d] = q if abs(q) > 1e-12 else 1e-12
        inverse[place, d] = 1 / slope[place, d]


@part
def _bins_of_disc(x, y, rho, cos_b, sin_b, kind, radius, per_bin, first_bin, bins):
    """First and last bin whose rays may meet a disc."""
    t = x * cos_b + y * sin_b
    if kind == PARALLEL:
        low, high = (t - rho) * per_bin, (t + rho) * per_bin
    else:
        u = radius + x * sin_b - y * cos_b
        distance = math.hypot(t, u)
        if distance <= rho or u <= rho:  # around the source or behind it: rays are whole lines
            return 0, bins - 1
        g, half = math.atan2(t, u), math.asin(rho / distance)
        if kind == ARC:
            low, high = (g - half) * per_bin, (g + half) * per_bin
        else:
            edge = 0.5 * math.pi - 1e-6
            low = math.tan(min(max(g - half, -edge), edge)) * per_bin
            high = math.tan(min(max(g + half, -edge), edge)) * per_bin
    return max(0, math.floor(low + first_bin)), min(bins - 1, math.ceil(high + first_bin))


@part
def _first_step(column, start, slope, inverse, i0, i1):
    """The first step of i0 .. i1 on the far side of a column's edge; neighbouring tiles ask for the same number."""
    step = (column - start) * inverse
    step = math.ceil(step) if slope > 0 else math.floor(step) + 1.0
    return int(min(max(step, i0), i1))


@part
def _weights(i, c0, across, start, slope, length, rows, w0, w1):
    """Pixels and weights of the steps from i on: as many as there are places, so that the loop has no remainder."""
    position0 = np.float32(start + slope * i - c0)
    slope = np.float32(slope)
    base, across = np.int32(i * across + c0), np.int32(across)
    for k in range(rows.size):
        position = position0 + slope * np.float32(k)
        j = np.int32(position)
        rows[k] = base + np.int32(k) * across + j
        w1[k] = (position - np.float32(j)) * length
        w0[k] = length - w1[k]


@kernel("void(intp, intp, float32[:, :, ::1], boolean[:, ::1])")
def _find_occupied(first, stop, image, occupied):
    """Which tiles, with the column beside them, hold anything."""
    steps, across, width = image.shape
    for down in range(first, stop):
        for right in range(occupied.shape[1]):
            for i in range(1 + down * TILE, min(1 + (down + 1) * TILE, steps - 1)):
                for j in range(right * TILE, min((right + 1) * TILE + 1, across)):
                    any_lane = False
                    for k in range(width):
                        any_lane |= image[i, j, k] != 0
                    if any_lane:
                        occupied[down, right] = True
                        break
                if occupied[down, right]:
                    break


_BLOCK = "float32[:, ::1]"
_SCAN = "Tuple((intp, float64, float64, float64, float64[:, ::1], float64[:, ::1], float64[::1]))"


@part
def _cross_tile(v0, v1, tile, across, by_row, scan, lines, steps, out, data, transpose, lanes):
    """Along every ray of the views v0 .. v1 that meets a tile: `gather`, or `scatter` for the transpose."""
    i0, i1, c0, c1 = tile
    kind, radius, per_bin, first_bin, views, bins, (x0, y0, p) = scan
    start, slope, inverse, length = lines
    rows, w0, w1 = steps
    middle_i, middle_c = i0 + 0.5 * TILE, c0 + 0.5 * TILE
    x = x0 + p * (middle_c if by_row else middle_i)
    y = y0 - p * (middle_i if by_row else middle_c)
    rho = p * (TILE / math.sqrt(2.0) + 1.5)
    n = bins.shape[0]
    for v in range(v0, v1):
        k = v - v0
        low, high = _bins_of_disc(x, y, rho, views[v, 0], views[v, 1], kind, radius, per_bin, first_bin, n)
        for d in range(low, high + 1):
            if length[k, d] == 0:
                continue
            s, q, r = start[k, d], slope[k, d], inverse[k, d]
            near, far = (c0, c1) if q > 0 else (c1, c0)
            begin = _first_step(near, s, q, r, i0, i1)
            count = _first_step(far, s, q, r, i0, i1) - begin
            if count > 0:
                _weights(begin, c0, across, s, q, length[k, d], rows, w0, w1)
                if transpose:
                    simd.scatter(out, v * n + d, data, rows, w0, w1, 0, count, 1, lanes)
                else:
                    simd.gather(out, v * n + d, data, rows, w0, w1, 0, count, 1, lanes)


@part
def _room(views, bins):
    """What `_lines` fills for a few views, and `_weights` for the steps in a tile."""
    shape = (views, bins)
    lines = np.empty(shape), np.empty(shape), np.empty(shape), np.empty(shape, np.float32)
    return lines, (np.empty(TILE, np.int32), np.empty(TILE, np.float32), np.empty(TILE, np.float32))


@kernel(f"void(intp, intp, boolean, {_BLOCK}, intp, boolean[:, ::1], {_SCAN}, boolean[:, ::1], {_BLOCK}, LANES)")
def _forward(v0, v1, by_row, image, across, occupied, scan, wanted, out, lanes):
    end = image.shape[0] // across - 1
    lines, steps = _room(v1 - v0, wanted.shape[1])
    for v in range(v0, v1):
        _lines(v, v - v0, by_row, scan, wanted, lines)
    for down in range(occupied.shape[0]):
        for right in range(occupied.shape[1]):
            if occupied[down, right]:
                i0, c0 = 1 + down * TILE, right * TILE
                tile = i0, min(i0 + TILE, end), c0, min(c0 + TILE, across - 1)
                _cross_tile(v0, v1, tile, across, by_row, scan, lines, steps, out, image, False, lanes)


@kernel(f"void(intp, intp, boolean, {_BLOCK}, intp, {_SCAN}, boolean[:, ::1], {_BLOCK}, LANES)")
def _adjoint(first_stripe, last, by_row, sinogram, across, scan, wanted, image, lanes):
    end = image.shape[0] // across - 1
    lines, steps = _room(_VIEWS_AT_ONCE, wanted.shape[1])
    for stripe in range(first_stripe, last):
        i0 = 1 + stripe * TILE
        for v0 in range(0, wanted.shape[0], _VIEWS_AT_ONCE):
            v1 = min(v0 + _VIEWS_AT_ONCE, wanted.shape[0])
            for v in range(v0, v1):
                _lines(v, v - v0, by_row, scan, wanted, lines)
            for c0 in range(0, across - 1, TILE):
                tile = i0, min(i0 + TILE, end), c0, min(c0 + TILE, across - 1)
                _cross_tile(v0, v1, tile, across, by_row, scan, lines, steps, image, sinogram, True, lanes)
