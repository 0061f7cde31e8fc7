"""Pelvis, chest and shoulder girdle."""

from __future__ import annotations

import numpy as np

from data_sim.canvas import BLOOD, DISC, FAT, GAS, LUNG, MUSCLE, ORGAN, WATER, XY, Canvas, Tissue


def pelvis(c: Canvas) -> None:
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


def shoulder(c: Canvas) -> None:
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


def chest(c: Canvas) -> None:
    """Above the aortic arch: lungs, trachea, great vessels, sternum, ribs, pectoral muscles, thoracic spine."""
    z = np.tanh(c.z_mm / 40)
    a, b = c.vary(162, 0.02), c.vary(104, 0.03)
    c.outline((a, b), 2.4, c.vary(14, 0.2))
    c.blob(MUSCLE, (0, 0), (a - 14, b - 14), power=2.4, wobble=0.015)
    c.blob(FAT, (0, 10), (a - 30, b - 38), power=2.4)
    c.muscle((78, 68), (48, 8), -22)  # pectoralis
    c.muscle((26, -74), (20, 13))  # erector spinae
    c.muscle((108, -46), (34, 9), -38)  # latissimus and serratus
    for side in (-1, 1):
        lung = c.vary(52, 0.04) * (1 - 0.1 * z), c.vary(62, 0.04) * (1 - 0.1 * z)
        c.blob(Tissue(40, 8), (side * 72, -2), (lung[0] + 3, lung[1] + 3), power=2.3, wobble=0.02)
        c.blob(LUNG, (side * 72, -2), lung, power=2.3, wobble=0.02)
        for _ in range(16):
            r, t = c.rng.uniform(4, 42), c.rng.uniform(0, 2 * np.pi)
            c.blob(Tissue(-100), (side * 72 + r * np.cos(t), -2 + r * np.sin(t)), (1.6, 1.6))
        for start in (-165, -110, -50, 5, 50):
            rib = [
                (side * (72 + (lung[0] + 9) * np.cos(t)), -2 + (lung[1] + 9) * np.sin(t))
                for t in np.deg2rad([start, start + 12, start + 24, start + 36])
            ]
            c.bone_strip(rib, [7, 8.5, 8.5, 7], 1.2)
    c.blob(ORGAN, (0, 2), (17, 52), power=2.2)
    c.blob(BLOOD, (-14, 22), (8, 9))  # superior vena cava
    for x, y, r in ((8, 26, 9), (16, 12, 6), (-4, 40, 7)):
        c.blob(BLOOD, (x, y), (r, 1.1 * r))
    c.blob(Tissue(70), (0, -6), (c.vary(11), c.vary(11)))
    c.blob(GAS, (0, -6), (c.vary(9), c.vary(9)))
    c.blob(ORGAN, (c.vary(7), -20), (6, 4.5))  # oesophagus
    c.vertebra(-44, (c.vary(16), c.vary(13)), c.vary(9.5, 0.03), 34)
    c.bone((0, b - 30), (c.vary(21, 0.06), c.vary(6.5, 0.06)), 1.3, power=2.6)
