"""Chest: sternal wires, pacemaker and lead, port."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from data_sim.implants.choice import choose_material
from data_sim.implants.pieces import Implant, Piece
from data_sim.implants.shapes import band, disc, superellipse


def sternal_wire(rng: Generator, materials: Sequence[str], *, half_x_mm: float, half_y_mm: float) -> Implant:
    """Wire around a sternum of the given half extents, origin at its centre, anterior +y.

    Steel sutures USP 5 to 7 are 0.7 to 0.9 mm thick (ASTM F138 steel); the twisted end is twice as thick and 5 to
    9 mm long. A loop lies more or less in the slice, which meets all of it, its front, or its two sides.
    """
    material = choose_material(rng, materials, ("ss316l", "fe"))
    thick = rng.uniform(0.7, 0.9)
    a, b = half_x_mm + thick, half_y_mm + thick
    ring = superellipse(a, b, 2.6, 160)
    ring = np.roll(ring, -40, axis=0)  # so that it begins in front, at +y
    which = rng.random()
    if which < 0.25:
        pieces = [Piece(superellipse(a, b, 2.6), material, (superellipse(a - thick, b - thick, 2.6),))]
    elif which < 0.65:
        half = int(rng.uniform(0.12, 0.3) * len(ring))
        front = np.concatenate([ring[-half:], ring[:half]])
        pieces = [Piece(band(front, thick), material)]
    else:
        pieces = []
        for middle in (int(rng.uniform(0.18, 0.3) * len(ring)), int(rng.uniform(0.7, 0.82) * len(ring))):
            half = int(rng.integers(2, 9))
            pieces.append(Piece(band(ring[middle - half : middle + half + 1], thick), material))
    if which < 0.65:
        length, x = rng.uniform(5, 9), rng.uniform(-0.4, 0.4) * a
        pieces.append(Piece(superellipse(length / 2, thick, 4) + np.array([x, b + thick / 2]), material))
    return tuple(pieces)


def pacemaker(rng: Generator, materials: Sequence[str]) -> Implant:
    """Pacemaker can on edge, origin at its centre, the skin towards +y: 40 to 52 mm long, 6 to 8 mm thick.

    A titanium shell of 0.4 mm with a battery that fills 40 to 60 % of its length and the connector's blocks
    beside the header (catalogue sizes of pulse generators; connectors as in ISO 5841-3). The rest holds little
    metal. The battery's case is steel where steel is offered.
    """
    half_x, half_y = rng.uniform(20, 26), rng.uniform(3, 4)
    shell = choose_material(rng, materials, ("ti",))
    inside = superellipse(half_x - 0.4, half_y - 0.4, 6)
    share = rng.uniform(0.4, 0.6)
    side = int(rng.choice((-1, 1)))
    battery = superellipse(share * (half_x - 0.8), half_y - 0.8, 8)
    battery[:, 0] += side * (1 - share) * (half_x - 0.8)
    blocks = [disc(2.5, -side * half_x * at) for at in (0.6, 0.8)]
    core = choose_material(rng, materials, ("ss316l", "fe"))
    return (
        Piece(superellipse(half_x, half_y, 6), shell, (inside,)),
        Piece(battery, core),
        *(Piece(block, core) for block in blocks),
    )


def lead(rng: Generator, materials: Sequence[str], *, length_mm: float = 0.0) -> Implant:
    """Lead of a pacemaker, origin at its middle: its conductor coil, 0.9 to 1.5 mm, seen end on or along +x.

    Lead bodies are 1.4 to 2.7 mm thick with their insulation, which is no metal (catalogue sizes; ISO 5841-3).
    The conductor is a cobalt-nickel alloy, of which CoCrMo is the nearest here.
    """
    width = rng.uniform(0.9, 1.5)
    material = choose_material(rng, materials, ("cocrmo", "ss316l"))
    if length_mm <= width:
        return (Piece(disc(width), material),)
    x = np.linspace(-length_mm / 2, length_mm / 2, 24)
    y = rng.normal(0, 0.1) * length_mm * (1 - (2 * x / length_mm) ** 2)
    return (Piece(band(np.stack([x, y], axis=1), width), material),)


def port(rng: Generator, materials: Sequence[str]) -> Implant:
    """Venous access port cut through its middle, origin at its centre, the skin towards +y.

    A titanium cup 22 to 30 mm wide at the base, narrower above, and 9 to 13 mm high; the walls are 1.5 to 2.5 mm,
    and the chamber with its silicone septum, 10 to 13 mm wide, opens to the skin (catalogue sizes; ISO 10555-6).
    """
    base, height, wall = rng.uniform(22, 30), rng.uniform(9, 13), rng.uniform(1.5, 2.5)
    septum = rng.uniform(10, 13)
    top = septum + 2 * wall + rng.uniform(0, 3)
    low, high = -height / 2, height / 2
    cup = np.array(
        [
            [-base / 2, low],
            [base / 2, low],
            [base / 2, low + 2.5],
            [top / 2, high],
            [septum / 2, high],
            [septum / 2, low + wall],
            [-septum / 2, low + wall],
            [-septum / 2, high],
            [-top / 2, high],
            [-base / 2, low + 2.5],
        ]
    )
    return (Piece(cup, choose_material(rng, materials, ("ti",))),)
