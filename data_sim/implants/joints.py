"""Joint prostheses: hip, knee, shoulder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from data_sim.implants.choice import choose_material
from data_sim.implants.pieces import Implant, Piece
from data_sim.implants.shapes import arc, band, disc, superellipse


def hip_joint(rng: Generator, materials: Sequence[str], *, cup_mm: float | None = None) -> Implant:
    """Femoral ball in the metal shell of an acetabular cup, origin at the ball's centre, cup open to +x.

    Ball 22.2, 28, 32 or 36 mm (the sizes of ISO 7206-2); shell 44 to 60 mm outside and 3 to 4 mm thick with
    at least 5 mm of polyethylene between (catalogue ranges of press-fit cups). The slice meets the ball up to
    30 % of its radius off centre. In a third of the cases it also meets the neck, 12 to 14 mm wide as 12/14
    tapers are, leaving towards +x.
    """
    shell = rng.uniform(44, 60) if cup_mm is None else float(np.clip(cup_mm, 44, 60))
    thickness = rng.uniform(3, 4)
    sizes = [d for d in (22.2, 28.0, 32.0, 36.0) if d <= shell - 2 * thickness - 10]
    ball = float(rng.choice(sizes)) * np.sqrt(1 - rng.uniform(0, 0.3) ** 2)
    head = choose_material(rng, materials, ("cocrmo", "ceramic", "ss316l", "fe"))
    cup = choose_material(rng, materials, ("ti", head))
    opening = rng.normal(0, 0.2)
    half_turn = rng.uniform(1.35, 1.6)
    wall = arc((shell - thickness) / 2, np.pi + opening - half_turn, np.pi + opening + half_turn)
    pieces = [Piece(band(wall, thickness), cup)]
    if rng.random() < 1 / 3:
        reach, direction = ball / 2 + rng.uniform(6, 14), rng.normal(0, 0.25)
        axis = np.linspace(0, reach, 16)[:, None] * [np.cos(direction), np.sin(direction)]
        pieces.append(Piece(band(axis, rng.uniform(12, 14)), head))
    return (*pieces, Piece(disc(ball), head))


def hip_stem(rng: Generator, materials: Sequence[str], *, bone_mm: float) -> Implant:
    """Cross section of a femoral stem in a femur `bone_mm` across, origin at its centre.

    Rounded rectangle, 8 to 16 mm front to back and 1 to 1.9 times that across: from the round distal end to
    the flat proximal body of tapered-wedge stems (catalogue sections of ISO 7206-1 stems). It leaves 4 mm of
    bone on each side.
    """
    across = np.clip(bone_mm - 8, 8, 30)
    short = min(rng.uniform(8, 16), across / rng.uniform(1.0, 1.9))
    long = min(across, short * rng.uniform(1.0, 1.9))
    material = choose_material(rng, materials, ("ti", "cocrmo"))
    return (Piece(superellipse(long / 2, short / 2, rng.uniform(2, 4)), material),)


def knee_femoral(rng: Generator, materials: Sequence[str], *, width_mm: float) -> Implant:
    """Femoral component of a total knee in a slice through the condyles, origin at its middle, anterior +y.

    A flange 5 to 8 mm thick before the femur and two posterior condyles 8 to 10 mm thick and 20 to 28 mm wide:
    the bone between them stays. Components are 54 to 80 mm wide and 0.86 to 0.96 times that front to back
    (catalogue ranges; ISO 7207-1 names the parts and their dimensions). Cast CoCrMo as a rule.
    """
    width = float(np.clip(width_mm, 54, 80))
    depth = width * rng.uniform(0.86, 0.96)
    material = choose_material(rng, materials, ("cocrmo",))
    flange_mm, condyle_mm = rng.uniform(5, 8), rng.uniform(8, 10)
    x = np.linspace(-0.36 * width, 0.36 * width, 40)
    # The trochlea is a groove 3 to 6 mm deep between its two ridges.
    groove = rng.uniform(3, 6) * np.exp(-((x / (0.13 * width)) ** 2))
    front = depth / 2 - flange_mm / 2 - 0.18 * depth * (2 * x / width) ** 2 - groove
    pieces = [Piece(band(np.stack([x, front], axis=1), flange_mm), material)]
    runner = rng.uniform(20, 28) * width / 70
    for side in (-1, 1):
        t = np.linspace(-1, 1, 24)
        path = np.stack(
            [
                side * (width - runner) / 2 + t * (runner / 2 - 0.3 * condyle_mm),
                -depth / 2 + condyle_mm * (0.5 + 0.35 * t**2),
            ]
        )
        pieces.append(Piece(band(path.T, condyle_mm), material))
    return tuple(pieces)


def knee_tibial(rng: Generator, materials: Sequence[str], *, width_mm: float) -> Implant:
    """Tibial component of a total knee, origin at its middle, anterior +y: its tray, or the keel below it.

    Trays are 58 to 85 mm wide and 0.62 to 0.7 times that deep, with a notch behind; the keel is a stem of 12 to
    16 mm with two fins 3 to 4 mm thick that run out and back (catalogue ranges; ISO 7207-1).
    """
    width = float(np.clip(width_mm, 58, 85))
    depth = width * rng.uniform(0.62, 0.7)
    material = choose_material(rng, materials, ("ti", "cocrmo"))
    if rng.random() < 0.4:
        tray = superellipse(width / 2, depth / 2, 2.4)
        behind = tray[:, 1] < 0
        tray[behind, 1] += 0.2 * depth * np.exp(-((tray[behind, 0] / (0.15 * width)) ** 2))
        return (Piece(tray, material),)
    stem, fin_mm, fan = rng.uniform(12, 16), rng.uniform(3, 4), rng.uniform(0.3, 0.7)
    fin = np.linspace(0, rng.uniform(0.28, 0.36) * width, 12)[:, None]
    pieces = [Piece(band(fin * [side * np.cos(fan), -np.sin(fan)], fin_mm), material) for side in (-1, 1)]
    return (*pieces, Piece(disc(stem), material))


def humeral_head(rng: Generator, materials: Sequence[str], *, bone_mm: float) -> Implant:
    """Head of an anatomic shoulder prosthesis with its stem, origin at the humeral head's centre, facing +x.

    A spherical cap 38 to 56 mm across and 0.36 to 0.46 times that high, a taper 9 to 12 mm wide, and the stem end
    on, 8 to 14 mm (catalogue ranges of modular stems). CoCrMo head, titanium stem as a rule.
    """
    radius = float(np.clip(bone_mm, 38, 56)) / 2
    height = 2 * radius * rng.uniform(0.36, 0.46)
    half = np.arccos((radius - height) / radius)
    head, stem = choose_material(rng, materials, ("cocrmo", "ceramic")), choose_material(rng, materials, ("ti",))
    back = rng.uniform(0, 4)
    taper = np.linspace(radius - height + 0.5, -back, 8)[:, None] * [1.0, 0.0]
    return (
        Piece(band(taper, rng.uniform(9, 12)), stem),
        Piece(disc(rng.uniform(8, 14), -back), stem),
        Piece(arc(radius, -half, half), head),
    )
