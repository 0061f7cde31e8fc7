"""Knees."""

from __future__ import annotations

import numpy as np

from data_sim.canvas import BLOOD, CORTEX, DISC, FAT, MUSCLE, SKIN, SPONGY, XY, Canvas


def knee(c: Canvas) -> None:
    """Both knees through the femoral condyles: patella in front, notch and popliteal vessels behind."""
    apart = c.vary(90, 0.02)
    size = c.vary(1.0, 0.04)
    z = np.tanh(c.z_mm / 40)
    for side in (-1, 1):

        def at(x: float, y: float, side: int = side) -> XY:
            return side * (apart + size * x), size * y

        def half(x: float, y: float) -> XY:
            return size * x, size * y

        state = c.rng.bit_generator.state
        for tissue, inset in ((SKIN, 0.0), (FAT, 2.0)):
            c.rng.bit_generator.state = state
            c.blob(tissue, at(0, 0), half(68 - inset, 66 - inset), power=2.1, wobble=0.015)
        c.blob(MUSCLE, at(0, -6), half(55, 50), power=2.2, wobble=0.03)
        c.blob(FAT, at(0, -30), half(20, 18))
        for x, y, width, depth in ((-34.0, -38.0, 13.0, 16.0), (34.0, -38.0, 13.0, 16.0), (-44.0, -22.0, 7.0, 12.0)):
            c.blob(FAT, at(x, y), half(width + 1.2, depth + 1.2), wobble=0.03)
            c.blob(MUSCLE, at(x, y), half(width, depth), wobble=0.03)
        for x, y in ((0, -36), (5, -42)):
            c.blob(BLOOD, at(x, y), half(4.5, 4.5))
        # Femur: two condyles joined in front, painted as cortex, then as spongy bone within it.
        condyles = ((-20.0, -5.0, 19.5, 29.0), (20.0, -5.0, 19.5, 29.0), (0.0, 9.0, 27.0, 19 + 3 * z))
        state = c.rng.bit_generator.state
        for tissue, inset in ((DISC, -1.8), (CORTEX, 0.0), (SPONGY, 1.4)):
            c.rng.bit_generator.state = state
            for x, y, width, depth in condyles:
                c.blob(tissue, at(x, y), half(width - inset, depth - inset), power=2.3, wobble=0.012)
        c.bone(at(0, 44), half(c.vary(22), c.vary(9)), 1.6, power=2.1)
