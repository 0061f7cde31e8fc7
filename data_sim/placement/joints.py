"""Where joint prostheses go."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from data_sim.anatomy import RoundBone
from data_sim.implants import Implant, Piece, joints, moved
from data_sim.landmarks import Landmarks


def hip(anatomy: Landmarks, rng: Generator, materials: Sequence[str]) -> Implant | None:
    """Ball and cup in femoral heads, stems in the shafts below; on both sides in a third of the cases."""
    femurs = _femurs(anatomy)
    if not femurs:
        return None
    if rng.random() > 1 / 3:
        femurs = [femurs[int(rng.integers(len(femurs)))]]
    return _hips(femurs, anatomy, rng, materials)


def hips(anatomy: Landmarks, rng: Generator, materials: Sequence[str]) -> Implant | None:
    """Total hips on both sides."""
    femurs = _femurs(anatomy)
    return _hips(femurs, anatomy, rng, materials) if len(femurs) == 2 else None


def _femurs(anatomy: Landmarks) -> list[tuple[RoundBone, bool]]:
    """The hips of the slice; condyles of the femur are as round as its head, and are none."""
    return [] if anatomy.knees else anatomy.hips


def _hips(
    femurs: Sequence[tuple[RoundBone, bool]], anatomy: Landmarks, rng: Generator, materials: Sequence[str]
) -> Implant:
    placed: list[Piece] = []
    for bone, is_head in femurs:
        if is_head:
            lateral = 0.0 if bone.x_mm > anatomy.midline_mm else np.pi
            joint = joints.hip_joint(rng, materials, cup_mm=2 * bone.radius_mm + rng.uniform(2, 8))
            angle = lateral + rng.normal(0, 0.15)
        else:
            joint = joints.hip_stem(rng, materials, bone_mm=2 * bone.radius_mm)
            angle = rng.uniform(-0.6, 0.6)
        placed += moved(joint, bone.x_mm, bone.y_mm, angle)
    return tuple(placed)


def knee(anatomy: Landmarks, rng: Generator, materials: Sequence[str]) -> Implant | None:
    """Femoral component where a patella lies before the bone, tibial component elsewhere; in one knee or both."""
    found = anatomy.knees
    if not found:
        return None
    if len(found) == 2 and rng.random() > 1 / 3:
        found = [found[int(rng.integers(2))]]
    placed: list[Piece] = []
    for joint in found:
        build = joints.knee_femoral if joint.patella else joints.knee_tibial
        bone = joint.bone
        placed += moved(build(rng, materials, width_mm=2 * bone.half_x_mm - 2), bone.x_mm, bone.y_mm)
    return tuple(placed)


def shoulder_joint(anatomy: Landmarks, rng: Generator, materials: Sequence[str]) -> Implant | None:
    """Humeral head prosthesis in one shoulder, turned to the glenoid: to the middle and 20 to 40 degrees back."""
    heads = anatomy.humeral_heads
    if not heads:
        return None
    head = heads[int(rng.integers(len(heads)))]
    joint = joints.humeral_head(rng, materials, bone_mm=2 * head.radius_mm)
    back = np.deg2rad(rng.uniform(20, 40))
    angle = np.pi + back if head.x_mm > anatomy.midline_mm else -back
    return moved(joint, head.x_mm, head.y_mm, angle)
