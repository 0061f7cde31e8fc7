"""Exact line integrals of ellipses, from the formulas of the case file written out by hand.

Nothing here uses the geometry code under test but the parameters in its dataclasses.
"""

from dataclasses import dataclass

import numpy as np

from data_sim.geometry import FanArc, FanFlat, ImageGrid, Parallel

GRID = ImageGrid(128, 128, 2.0)
ARC = FanArc(views=180, bins=250, source_isocentre_mm=595.0, bin_pitch_rad=0.002)
FLAT = FanFlat(views=180, bins=250, source_isocentre_mm=595.0, source_detector_mm=1085.6, bin_pitch_mm=2.2)
PARALLEL = Parallel(views=180, bins=250, bin_pitch_mm=1.2)
GEOMETRIES = {geometry.type: geometry for geometry in (ARC, FLAT, PARALLEL)}


@dataclass(frozen=True)
class Ellipse:
    """Value inside, centre and half axes in mm; the first axis is turned counter-clockwise from x."""

    value: float
    x_mm: float
    y_mm: float
    a_mm: float
    b_mm: float
    turn_rad: float = 0.0


def disc(value, x_mm, y_mm, radius_mm):
    return Ellipse(value, x_mm, y_mm, radius_mm, radius_mm)


def _scaled(table, scale_mm):
    """Ellipses of a phantom given on the unit square: value, x, y, a, b, degrees."""
    return tuple(
        Ellipse(value, x * scale_mm, y * scale_mm, a * scale_mm, b * scale_mm, np.deg2rad(turn))
        for value, x, y, a, b, turn in table
    )


SHEPP_LOGAN = _scaled(
    (
        (1.0, 0, 0, 0.69, 0.92, 0),
        (-0.8, 0, -0.0184, 0.6624, 0.874, 0),
        (-0.2, 0.22, 0, 0.11, 0.31, -18),
        (-0.2, -0.22, 0, 0.16, 0.41, 18),
        (0.1, 0, 0.35, 0.21, 0.25, 0),
        (0.1, 0, 0.1, 0.046, 0.046, 0),
        (0.1, 0, -0.1, 0.046, 0.046, 0),
        (0.1, -0.08, -0.605, 0.046, 0.023, 0),
        (0.1, 0, -0.606, 0.023, 0.023, 0),
        (0.1, 0.06, -0.605, 0.023, 0.046, 0),
    ),
    110.0,
)
"""Shepp and Logan 1974 with the contrasts of Toft 1996, 202 mm high."""

HEAD = _scaled(
    (
        (1.8, 0, 0, 0.8, 1.0, 0),
        (-0.75, 0, 0, 0.75, 0.95, 0),
        (0.01, -0.39, 0.36, 0.167, 0.167, 0),
        (0.01, 0.39, 0.36, 0.167, 0.167, 0),
        (-1.05, 0, 0.7, 0.15, 0.25, 0),
        (0.0025, 0.33, 0.05, 0.12, 0.06, 30),
        (-0.0025, -0.3, -0.15, 0.1, 0.1, 0),
        (0.75, 0.63, -0.16, 0.1, 0.2, -8),
        (0.75, -0.63, -0.16, 0.1, 0.2, 8),
        (-0.6, 0.63, -0.16, 0.03, 0.05, 0),
        (0.75, 0, -0.85, 0.08, 0.1, 0),
    ),
    110.0,
)
"""In the manner of the FORBILD head (skull of 1.8, brain of 1.05, eyes, sinus, ears of bone, low contrasts)."""


def rays(geometry):
    """A point of every ray and its direction of unit length, each (views, bins, 2)."""
    k = np.arange(geometry.views)[:, None]
    d = np.arange(geometry.bins)[None, :] - (geometry.bins - 1) / 2 + geometry.bin_offset
    if geometry.type == "parallel":
        b, s = np.broadcast_arrays(k * geometry.arc_rad / geometry.views, d * geometry.bin_pitch_mm)
        point = np.stack([s * np.cos(b), s * np.sin(b)], axis=-1)
        return point, np.stack([np.sin(b), -np.cos(b)], axis=-1)
    if geometry.type == "fan-arc":
        g = d * geometry.bin_pitch_rad
    else:
        g = np.arctan(d * geometry.bin_pitch_mm / geometry.source_detector_mm)
    b, g = np.broadcast_arrays(2 * np.pi * k / geometry.views, g)
    source = geometry.source_isocentre_mm * np.stack([-np.sin(b), np.cos(b)], axis=-1)
    along, across = np.stack([np.sin(b), -np.cos(b)], axis=-1), np.stack([np.cos(b), np.sin(b)], axis=-1)
    return source, np.cos(g)[..., None] * along + np.sin(g)[..., None] * across


def sinogram(geometry, *ellipses):
    """Line integrals, float64 (views, bins): the chord is the distance of the roots of |o + t d|^2 = 1."""
    point, direction = rays(geometry)
    total = np.zeros(geometry.shape)
    for e in ellipses:
        c, s = np.cos(e.turn_rad), np.sin(e.turn_rad)
        to_unit_circle = np.array([[c, s], [-s, c]]) / np.array([[e.a_mm], [e.b_mm]])
        o = (point - [e.x_mm, e.y_mm]) @ to_unit_circle.T
        v = direction @ to_unit_circle.T
        vv, ov, oo = (v * v).sum(-1), (o * v).sum(-1), (o * o).sum(-1)
        total += e.value * 2 * np.sqrt(np.maximum(ov**2 - vv * (oo - 1), 0)) / vv
    return total


def pixel_centres(grid, factor=1):
    """X (1, cols factor) and y (rows factor, 1) of the pixels' centres, cut into factor x factor."""
    step = grid.pixel_mm / factor
    cols, rows = grid.cols * factor, grid.rows * factor
    x = (np.arange(cols) - (cols - 1) / 2) * step
    y = ((rows - 1) / 2 - np.arange(rows)) * step
    return x[None, :], y[:, None]


def raster(grid, *ellipses, factor=10):
    """Means over the pixels of a centred grid, float64 (rows, cols), from factor x factor samples each."""
    x, y = pixel_centres(grid, factor)
    image = np.zeros((y.size, x.size))
    for e in ellipses:
        c, s = np.cos(e.turn_rad), np.sin(e.turn_rad)
        u, v = (x - e.x_mm) * c + (y - e.y_mm) * s, (y - e.y_mm) * c - (x - e.x_mm) * s
        image += e.value * ((u / e.a_mm) ** 2 + (v / e.b_mm) ** 2 < 1)
    return image.reshape(grid.rows, factor, grid.cols, factor).mean(axis=(1, 3))
