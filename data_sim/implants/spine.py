"""Pedicle screws and rods."""

from __future__ import annotations

from collections.abc import Sequence

from numpy.random import Generator

from data_sim.implants.choice import choose_material
from data_sim.implants.pieces import Implant, Piece, moved
from data_sim.implants.shapes import disc, superellipse, threaded


def rod(rng: Generator, materials: Sequence[str], *, scale: float = 1.0) -> Implant:
    """Spinal rod seen end on, origin at its centre: 5.5 or 6.0 mm, `scale` smaller for the neck (3.5 mm)."""
    material = choose_material(rng, materials, ("ti", "cocrmo"))
    return (Piece(disc(float(rng.choice([5.5, 6.0])) * scale), material),)


def pedicle_screw(
    rng: Generator,
    materials: Sequence[str],
    *,
    length_mm: float | None = None,
    major_mm: float | None = None,
    rod_materials: Sequence[str] | None = None,
) -> Implant:
    """Pedicle screw seen lengthwise with its rod end on, entering bone at the origin along +x.

    Shaft 5.5 to 7.5 mm x 35 to 50 mm, core two thirds of that, pitch 2.7 mm; tulip about 12 mm wide and 13 mm
    high; rod 5.5 or 6.0 mm (catalogue ranges of polyaxial systems; ASTM F1798 tests these). For thinner
    screws, as the cervical spine takes, everything shrinks in proportion. The rod may have other materials offered.
    """
    major = float(rng.uniform(5.5, 7.5)) if major_mm is None else major_mm
    length = float(rng.uniform(35, 50)) if length_mm is None else length_mm
    size = min(1.0, major / 5.5)
    material = choose_material(rng, materials, ("ti",))
    tulip = superellipse(6.5 * size, 6 * size, 4) - [6 * size, 0.0]
    return (
        Piece(threaded(length, major, major * 2 / 3, 2.7 * size), material),
        Piece(tulip, material),
        *moved(rod(rng, rod_materials or materials, scale=size), -7 * size, 0.0),
    )
