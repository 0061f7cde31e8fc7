"""The curves that implants are drawn with, each a closed polygon (n, 2) of x, y in mm."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from data_sim.implants.pieces import Points


def superellipse(half_x_mm: float, half_y_mm: float, power: float = 2.0, points: int = 96) -> Points:
    """|x/a|^p + |y/b|^p = 1 about the origin: 2 is an ellipse, more is a rounded rectangle."""
    t = np.linspace(0, 2 * np.pi, points, endpoint=False)
    c, s = np.cos(t), np.sin(t)
    x = half_x_mm * np.sign(c) * np.abs(c) ** (2 / power)
    y = half_y_mm * np.sign(s) * np.abs(s) ** (2 / power)
    return np.stack([x, y], axis=1)


def disc(diameter_mm: float, x_mm: float = 0.0, y_mm: float = 0.0) -> Points:
    """A circle."""
    return superellipse(diameter_mm / 2, diameter_mm / 2) + np.array([x_mm, y_mm])


def band(path_mm: ArrayLike, width_mm: float) -> Points:
    """A strip of constant width along an open path (n, 2) of x, y in mm."""
    path = np.asarray(path_mm, float)
    tangent = np.gradient(path, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)
    normal *= width_mm / 2 / np.linalg.norm(normal, axis=1, keepdims=True)
    return np.concatenate([path + normal, (path - normal)[::-1]])


def arc(radius_mm: float, start_rad: float, stop_rad: float, points: int = 64) -> Points:
    """Points of a circular arc about the origin, shape (points, 2)."""
    t = np.linspace(start_rad, stop_rad, points)
    return radius_mm * np.stack([np.cos(t), np.sin(t)], axis=1)


def blob(rng: Generator, diameter_mm: float, roughness: float = 0.12) -> Points:
    """A smooth irregular closed curve of about the given diameter: a circle plus harmonics 2 to 5."""
    t = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    radius = np.ones_like(t)
    for k in range(2, 6):
        radius += roughness * rng.normal() / (k - 1) * np.cos(k * t + rng.uniform(0, 2 * np.pi))
    radius = np.clip(radius, 0.35, 1.6) * diameter_mm / 2
    return radius[:, None] * np.stack([np.cos(t), np.sin(t)], axis=1)


def threaded(length_mm: float, major_mm: float, core_mm: float, pitch_mm: float) -> Points:
    """A threaded shaft seen lengthwise from (0, 0) along +x, with a pointed tip of one major diameter."""
    shank = max(length_mm - major_mm, pitch_mm)
    turns = max(1, int(shank / pitch_mm))
    x = np.linspace(0, shank, 2 * turns + 1)
    half = np.where(np.arange(x.size) % 2, major_mm, core_mm) / 2
    # The crests of a helix lie half a pitch apart on the two sides.
    other = np.where(np.arange(x.size) % 2, core_mm, major_mm) / 2
    upper, lower = np.stack([x, half], axis=1), np.stack([x, -other], axis=1)
    return np.concatenate([upper, [[length_mm, 0.0]], lower[::-1]])
