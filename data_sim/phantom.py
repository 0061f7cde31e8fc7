"""Anthropomorphic phantom: axial CT slices of four regions from analytic shapes, one patient a seed.

Ellipse-like blobs and strips of varying width are painted over one another, from skin to bone, with edges
antialiased by their signed distance and a texture that belongs to the patient, not to the scanner (there is
no noise: the virtual scanner adds that). CT numbers are those of textbooks: fat -100, muscle 50, brain 30 to
40, spongy bone 200 to 350, cortex 900 to 1300, dentine 1700, enamel 2400 HU.

Frame: x to the patient's left, y anterior, mm, as in `ImageGrid`; z_mm superior.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage as ndi

from data_sim.canvas import (
    BLOOD,
    BLUR_MM,
    CORTEX,
    DENTINE,
    DIPLOE,
    DISC,
    ENAMEL,
    FAT,
    GAS,
    GREY,
    LUNG,
    MUSCLE,
    ORGAN,
    PULP,
    WATER,
    WHITE,
    XY,
    Canvas,
    Image,
    Tissue,
)
from data_sim.geometry import ImageGrid


def _pelvis(c: Canvas) -> None:
    """Hip joints: femoral heads in their sockets, trochanters, bladder, rectum, sacrum and coccyx."""
    z = np.tanh(c.z_mm / 40)  # a series of any length stays at the joint
    a, b = c.vary(180, 0.02), c.vary(112, 0.04)
    c.outline((a, b), 2.35, c.vary(17, 0.2))
    c.blob(MUSCLE, (0, 2), (a - 14, b - 14), power=2.3, wobble=0.02)
    c.blob(FAT, (0, 8), (c.vary(92), c.vary(84)), power=2.2)
    c.muscle((66, -68), (62, 25), -28)  # gluteus maximus
    c.muscle((136, -2), (17, 42), 8)  # gluteus medius, tensor
    c.muscle((72, 52), (24, 18), 25)  # iliopsoas
    c.muscle((114, 56), (17, 13), 35)  # rectus femoris, sartorius
    c.muscle((27, 88 - 4 * z), (25, 7), -4)  # rectus abdominis
    c.muscle((52, -18), (8, 34), 10)  # obturator internus
    for side in (-1, 1):
        for k, tissue in enumerate((BLOOD, Tissue(52, 3))):
            c.blob(tissue, (side * (66 + 12 * k), 76), (5.0 + k, 5.5))
    radius = c.vary(24.0, 0.03) * np.sqrt(1 - 0.2 * z**2)
    centre_x, centre_y = c.vary(88, 0.02), c.vary(12, 0.2)
    for side in (-1, 1):

        def around(angle_deg: float, r: float, side: int = side) -> XY:
            t = np.deg2rad(angle_deg)
            return side * (centre_x + r * np.cos(t)), centre_y + r * np.sin(t)

        # Trochanter and neck appear below the joint's middle.
        neck = float(np.clip(0.55 - z, 0.0, 1.0))
        c.bone_strip(
            [around(0, 10), around(-18, radius + 8 * neck), around(-22, radius + 22 * neck)],
            [20 * neck, 19 * neck, 25 * neck],
            2.0,
        )
        socket = [around(t, radius + 6.5) for t in (75, 110, 150, 190, 230, 275)]
        c.bone_strip(socket, [7, 13, 9, 8, 13, 16], 1.6)
        c.bone_strip([around(262, radius + 7), around(255, radius + 24)], [17, 9], 1.6)
        c.bone_strip([around(118, radius + 5), around(128, radius + 24 + 8 * z)], [12, 8], 1.5)
        c.blob(DISC, around(0, 0), (radius + 2.2, radius + 2.2), wobble=0.0)
        c.bone(around(0, 0), (radius, radius), 1.3, core=Tissue(c.vary(310, 0.08), 55, 2))
    c.blob(ORGAN, (0, 36), (c.vary(44, 0.1), c.vary(32, 0.1)), power=2.2)
    c.blob(WATER, (0, 36), (c.vary(40, 0.08), c.vary(28, 0.08)), power=2.2)
    c.blob(ORGAN, (c.vary(1), -14), (c.vary(27, 0.1), c.vary(15, 0.1)))
    c.blob(ORGAN, (0, -50), (c.vary(20, 0.1), c.vary(16, 0.1)))
    c.blob(GAS, (c.vary(3), -46), (c.vary(9, 0.2), c.vary(6, 0.2)))
    c.bone((0, 31 - b), (c.vary(12 + 3 * z), c.vary(6.5 + 1.5 * z)), 1.5, power=1.8)


def _shoulder(c: Canvas) -> None:
    """Shoulder girdle: humeral heads, scapulae, clavicles, lung apices, trachea, upper thoracic spine."""
    z = np.tanh(c.z_mm / 40)
    a, b = c.vary(187, 0.012), c.vary(84, 0.04)
    c.outline((a, b), 2.7, c.vary(9, 0.15))
    c.blob(MUSCLE, (0, 0), (a - 6, b - 6), power=2.7, wobble=0.015)
    c.blob(FAT, (0, 14), (88, 46), power=2.2)
    c.muscle((52, -62), (44, 11), 8)  # trapezius
    c.muscle((22, -46), (17, 14))  # erector spinae
    c.muscle((92, -30), (32, 13), -30)  # subscapularis
    c.muscle((112, -48), (32, 12), -22)  # infraspinatus
    c.muscle((92, 44), (46, 12), -8)  # pectoralis
    c.muscle((40, 38), (13, 17), 15)  # neck muscles' feet
    for side in (-1, 1):
        apex = c.vary(28, 0.05) * (1 - 0.25 * z)
        c.blob(Tissue(40, 8), (side * 52, -8), (apex + 4, 1.2 * apex + 4), power=2.2)
        c.blob(LUNG, (side * 52, -8), (apex, 1.2 * apex), power=2.2)
        for _ in range(9):
            r, t = c.rng.uniform(4, 24), c.rng.uniform(0, 2 * np.pi)
            c.blob(Tissue(-150), (side * 52 + r * np.cos(t), -8 + r * np.sin(t)), (1.3, 1.3))
        rib = [
            (side * (52 + (apex + 8) * np.cos(t)), -8 + (1.2 * apex + 8) * np.sin(t))
            for t in np.deg2rad([-150, -110, -65, -20])
        ]
        c.bone_strip(rib, [7, 8, 8, 6], 1.2)
        c.bone_strip(
            [
                (side * (52 + (apex + 8) * np.cos(t)), -8 + (1.2 * apex + 8) * np.sin(t))
                for t in np.deg2rad([18, 48, 78])
            ],
            [6, 9, 8],
            1.2,
        )
        for x, y, r in ((15, 32, 7), (30, 30, 6), (27, 16, 4.5)):
            c.blob(BLOOD, (side * x, y), (r, r * 1.1))
        # Humerus with the deltoid around it, glenoid facing it, blade and spine of the scapula.
        hx, hy, hr = c.vary(146, 0.008), c.vary(8, 0.1), c.vary(23, 0.03)
        c.blob(FAT, (side * (hx - 2), hy), (hr + 15, hr + 20), wobble=0.02)
        c.blob(MUSCLE, (side * (hx - 2), hy), (hr + 13.5, hr + 18.5), wobble=0.02)
        c.blob(FAT, (side * hx, hy), (hr + 2, hr + 2), wobble=0.02)
        gx, gy = hx - hr - 9, hy - 6
        c.bone_strip([(side * gx, gy), (side * (gx - 9), gy - 21), (side * (gx - 36), gy - 50)], [15, 7, 6], 1.2)
        c.bone_strip(
            [(side * (gx - 15), gy - 28), (side * (gx - 2), gy - 47), (side * (gx + 22), gy - 46)],
            [6, 7, 9],
            1.3,
        )
        c.bone_strip([(side * gx, gy - 9), (side * (gx + 1), gy + 9)], 11, 1.2)
        c.blob(DISC, (side * hx, hy), (hr + 1.8, hr + 1.8), wobble=0.01)
        c.bone((side * hx, hy), (hr, hr), 1.2, core=Tissue(220, 55, 2))
        c.bone_strip(
            [
                (side * 22, b - 29 + 3 * z),
                (side * 60, b - 23 + 2 * z),
                (side * 98, b - 34),
                (side * 122, b - 38 - 3 * z),
            ],
            [16, 12, 11, 13],
            1.9,
        )
    c.blob(ORGAN, (0, 26), (24, 20))
    for side in (-1, 1):
        c.blob(Tissue(95, 8), (side * 17, 26), (8, 13 + 3 * z))  # thyroid
    c.blob(Tissue(70), (0, 22), (c.vary(11), c.vary(11.5)))
    c.blob(GAS, (0, 22), (c.vary(9), c.vary(9.5)))
    c.blob(ORGAN, (c.vary(4), 6), (8, 5.5))  # oesophagus
    c.vertebra(-16, (c.vary(16), c.vary(13)), c.vary(9.5, 0.03), 34)


def _jaw(c: Canvas) -> None:
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


def _head(c: Canvas) -> None:
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


@dataclass(frozen=True)
class _Region:
    draw: Callable[[Canvas], None]
    needs_mm: float


_REGIONS = {
    "pelvis": _Region(_pelvis, 395.0),
    "shoulder": _Region(_shoulder, 395.0),
    "jaw": _Region(_jaw, 215.0),
    "head": _Region(_head, 215.0),
}

REGIONS = tuple(_REGIONS)
"""Regions that the phantom has."""


def phantom_slice(region: str, *, grid: ImageGrid, seed: int, z_mm: float = 0.0) -> Image:
    """One slice of the phantom.

    Parameters
    ----------
    region
        One of `REGIONS`.
    grid
        Must cover the body: 395 mm for pelvis and shoulder, 215 mm for jaw and head.
    seed
        The patient.
    z_mm
        Position along the patient; the anatomy changes smoothly with it.

    Returns
    -------
    float32 (rows, cols)
        HU, air -1000, without noise.

    Raises
    ------
    ValueError
        Where the region is unknown or the grid too small.
    """
    if region not in _REGIONS:
        raise ValueError(f"unknown region {region!r}: expected one of {', '.join(REGIONS)}")
    needs_mm = _REGIONS[region].needs_mm
    if min(grid.shape) * grid.pixel_mm < needs_mm:
        raise ValueError(f"the {region} phantom needs a grid of at least {needs_mm:g} mm")
    canvas = Canvas(grid, seed, z_mm)
    _REGIONS[region].draw(canvas)
    return np.asarray(ndi.gaussian_filter(canvas.hu, BLUR_MM / grid.pixel_mm), np.float32)


def phantom_series(region: str, slices: int, *, grid: ImageGrid, seed: int, spacing_mm: float = 3.0) -> Image:
    """Neighbouring slices of one patient about the middle of the region, shape (slices, rows, cols), HU.

    Slice 0 is the lowest. Raises `ValueError` as `phantom_slice` does.
    """
    z = (np.arange(slices) - (slices - 1) / 2) * spacing_mm
    return np.stack([phantom_slice(region, grid=grid, seed=seed, z_mm=float(at)) for at in z])
