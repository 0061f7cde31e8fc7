"""Jaw and head."""

from __future__ import annotations

import numpy as np

from data_sim.canvas import (
    BLOOD,
    CORTEX,
    DENTINE,
    DIPLOE,
    ENAMEL,
    FAT,
    GAS,
    GREY,
    MUSCLE,
    ORGAN,
    PULP,
    WATER,
    WHITE,
    Canvas,
    Tissue,
)


def jaw(c: Canvas) -> None:
    """Bite plane: arch of teeth in their sockets, mandibular rami, tongue, pharynx, a cervical vertebra."""
    a, b = c.vary(70, 0.02), c.vary(92, 0.02)
    c.outline((a, b), 2.3, c.vary(6, 0.15))
    c.blob(MUSCLE, (0, -4), (a - 7, b - 8), power=2.2)
    c.blob(FAT, (0, 30), (48, 50))
    c.blob(FAT, (0, -10), (54, 20), power=3)
    c.muscle((52, 14), (8.5, 20), -6)  # masseter
    c.muscle((35, 8), (7, 18), -12)  # medial pterygoid
    c.muscle((48, -38), (11, 17), 15)  # sternocleidomastoid
    c.muscle((21, -62), (19, 17), 10)  # neck extensors
    c.muscle((26, -34), (10, 8), 20)
    for side in (-1, 1):
        c.blob(Tissue(-15, 15, 2), (side * 54, -14), (10, 14), turn_deg=side * 10)  # parotid
        c.blob(BLOOD, (side * 30, -17), (3.5, 3.8))
        c.blob(Tissue(48), (side * 37, -21), (5, 5))
        ramus = [(side * 41, 22), (side * 45, 10), (side * 48, -2)]
        c.bone_strip(ramus, [9, 10, 8], 2.2)
    # The dental arch is a parabola from the incisors at (0, front) back to the wisdom teeth.
    front, wide = c.vary(74, 0.015), c.vary(29, 0.03)
    depth = 46.0
    t = np.linspace(-1, 1, 400)
    arch = np.stack([wide * t * (1.15 - 0.15 * t**2), front - depth * np.abs(t) ** 2.3], axis=1)
    length = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(arch, axis=0).T))])
    knots = arch[:: len(arch) // 12]
    c.strip(MUSCLE, [tuple(p) for p in knots], 18)
    c.bone_strip([tuple(p) for p in knots], 9.5 + 1.5 * np.tanh(-c.z_mm / 6), 1.6)
    c.blob(Tissue(62, 14, 1), (0, 34), (wide - 8, 29), power=2.3)  # tongue
    sizes = np.array([10.5, 10, 7.2, 7.0, 7.6, 6.6, 8.0])  # second molar to incisor, mm
    widths = np.concatenate([sizes, sizes[::-1]]) + 0.35
    middles = np.cumsum(widths) - widths / 2
    middles += length[-1] / 2 - widths.sum() / 2
    for place, width in zip(middles, widths, strict=True):
        x, y = np.interp(place, length, arch[:, 0]), np.interp(place, length, arch[:, 1])
        ahead = [np.interp(place + 1, length, arch[:, k]) for k in (0, 1)]
        turn = float(np.rad2deg(np.arctan2(ahead[1] - y, ahead[0] - x)))
        across = min(width * 1.05, c.vary(8.6))
        half = ((width - 0.5) / 2, across / 2)
        c.blob(ENAMEL, (x, y), half, turn_deg=turn, power=2.5)
        c.blob(DENTINE, (x, y), (half[0] - 1.0, half[1] - 1.0), turn_deg=turn, power=2.3)
        c.blob(PULP, (x, y), (half[0] * 0.22, half[1] * 0.22), turn_deg=turn)
    c.blob(ORGAN, (0, -1), (c.vary(18), c.vary(10)))
    c.blob(GAS, (0, 0), (c.vary(12, 0.1), c.vary(6, 0.1)))
    c.muscle((9, -13), (8, 4))  # longus colli
    c.vertebra(-27, (c.vary(9.5), c.vary(7.5)), c.vary(9.0, 0.03), 24)


def head(c: Canvas) -> None:
    """Lateral ventricles: scalp, skull with its diploe, gyri and white matter, falx, frontal sinus."""
    a, b = c.vary(74, 0.02), c.vary(93, 0.02)
    c.outline((a, b), 2.15, 3.5)
    state = c.rng.bit_generator.state
    thick = c.vary(7.0, 0.08)
    for tissue, inset in ((CORTEX, 5.5), (DIPLOE, 7.3), (CORTEX, 5.5 + thick - 1.8), (WATER, 5.5 + thick)):
        c.rng.bit_generator.state = state
        c.blob(tissue, (0, 0), (a - inset, b - inset), power=2.15, wobble=0.012)
    inner_a, inner_b = a - 14, b - 14
    c.blob(GREY, (0, 0), (inner_a, inner_b), power=2.15, wobble=0.012)
    # Sulci run in from the surface between gyri.
    for k in range(46):
        t = 2 * np.pi * (k + c.rng.uniform(-0.3, 0.3)) / 46
        deep, bend = c.rng.uniform(0.72, 0.86), c.rng.normal(0, 0.05)
        rim = (0.98 * inner_a * np.cos(t), 0.98 * inner_b * np.sin(t))
        middle = (0.9 * inner_a * np.cos(t + bend), 0.9 * inner_b * np.sin(t + bend))
        end = (deep * inner_a * np.cos(t - bend), deep * inner_b * np.sin(t - bend))
        c.strip(Tissue(14), [rim, middle, end], [1.8, 1.2, 0.8])
    for side in (-1, 1):
        c.blob(WHITE, (side * 27, 2), (c.vary(19), c.vary(54)), turn_deg=side * 4, wobble=0.06)
        c.blob(GREY, (side * 21, 2), (c.vary(11), c.vary(17)), turn_deg=side * 14, wobble=0.05)
        shift = 5 * np.tanh(c.z_mm / 30)
        c.strip(WATER, [(side * 5, 28 + shift), (side * 8, 14), (side * 10, -6)], [c.vary(8, 0.15), 6, 5])
        c.strip(WATER, [(side * 10, -6), (side * 20, -26), (side * 22, -38 - shift)], [5, c.vary(9, 0.15), 4])
    c.strip(Tissue(58), [(0, inner_b), (0, 34)], [2.0, 1.2])
    c.strip(Tissue(58), [(0, -inner_b), (0, -34)], [2.4, 1.2])
    c.blob(Tissue(60), (0, -inner_b + 2), (4, 3))
    c.bone((0, inner_b + 3), (3.0, 5.0), 1.5)  # frontal crest
    for side in (-1, 1):
        c.blob(GAS, (side * 9, b - 5.5 - thick / 2), (c.vary(6, 0.15), thick / 2 - 1.6), turn_deg=-side * 7)
