"""Vessels and soft tissue: clips, coils, markers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from data_sim.implants.choice import choose_material
from data_sim.implants.pieces import Implant, Piece
from data_sim.implants.shapes import band, blob, disc, superellipse


def clip(rng: Generator, materials: Sequence[str]) -> Implant:
    """Surgical (ligating) clip, origin at its middle: a curved band 1 to 2 mm wide and 5 to 11 mm long.

    Closed clips of the sizes small to large are 5 to 11 mm long (catalogue sizes), titanium or steel.
    """
    length, bend = rng.uniform(5, 11), rng.uniform(-0.8, 0.8)
    t = np.linspace(-0.5, 0.5, 24)
    path = np.stack([length * t, length * bend * (t**2 - 1 / 12)], axis=1)
    return (Piece(band(path, rng.uniform(1, 2)), choose_material(rng, materials, ("ti", "ss316l"))),)


def aneurysm_clip(rng: Generator, materials: Sequence[str]) -> Implant:
    """Aneurysm clip in its plane, origin where the blades begin: blades along +x, the spring behind.

    Closed blades of 5 to 15 mm, 2 to 3 mm wide together, straight or curved; a spring coil of 4 to 6 mm with a
    bore a third as wide (catalogue sizes of standard clips; ISO 9713 describes them). Titanium or a cobalt alloy.
    """
    material = choose_material(rng, materials, ("ti", "cocrmo"))
    length, bend, width = rng.uniform(5, 15), rng.normal(0, 0.02), rng.uniform(2, 3)
    x = np.linspace(-1.0, length, 24)
    # Blades taper: two bands of which the inner one ends short.
    blades = Piece(band(np.stack([x, bend * x**2], axis=1), width), material)
    coil_mm = rng.uniform(4, 6)
    spring = Piece(disc(coil_mm, -coil_mm / 2), material, (disc(coil_mm / 3, -coil_mm / 2),))
    return (blades, spring)


def coil(rng: Generator, materials: Sequence[str]) -> Implant:
    """Embolisation coil cut by the slice, origin at its centre: a spiral 4 to 12 mm across.

    Coils of 0.25 to 0.45 mm wire pack aneurysms of 4 to 12 mm to about a third of the volume, so that a slice
    meets a dense tangle; the spiral's turns stand for it. Platinum is the usual metal, gold the nearest here.
    """
    diameter, pitch = rng.uniform(4, 12), rng.uniform(1.3, 1.9)
    t = np.linspace(0, np.pi * diameter / pitch, 240)
    radius = 0.4 + pitch * t / (2 * np.pi)
    path = radius[:, None] * np.stack([np.cos(t), np.sin(t)], axis=1)
    return (Piece(band(path, 0.6 * pitch), choose_material(rng, materials, ("au",))),)


def fiducial(rng: Generator, materials: Sequence[str]) -> Implant:
    """Gold marker of radiotherapy, origin at its centre: a cylinder of 0.8 to 1.2 mm x 3 to 5 mm.

    Catalogue sizes. The slice meets it along, across, or anywhere between.
    """
    width = rng.uniform(0.8, 1.2)
    length = max(width, rng.uniform(3, 5) * np.abs(np.cos(rng.uniform(0, np.pi / 2))))
    material = choose_material(rng, materials, ("au",))
    return (Piece(superellipse(length / 2, width / 2, 4 if length > 1.5 * width else 2), material),)


def random_shape(rng: Generator, materials: Sequence[str]) -> Implant:
    """A smooth shape of 3 to 30 mm, origin at its centre, some hollow; no clinical model, but diversity."""
    diameter = float(np.exp(rng.uniform(np.log(3), np.log(30))))
    outline = blob(rng, diameter, 0.18) * [1.0, rng.uniform(0.4, 1.0)]
    holes = (outline * rng.uniform(0.4, 0.7),) if diameter > 10 and rng.random() < 1 / 3 else ()
    return (Piece(outline, choose_material(rng, materials), holes),)
