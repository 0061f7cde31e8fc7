"""Where screws, wires and plates go: into bone along its axis, onto its surface."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from scipy import ndimage as ndi

from data_sim.anatomy import Mask, RoundBone
from data_sim.implants import Implant, Points, choose_material, fixation, moved
from data_sim.landmarks import Landmarks, outlines, parts_of
from data_sim.morphology import depth_mm, grown, shrunk
from data_sim.placement.where import axis, inside, metal_on, random_point, reach, within

_STRETCHES = 10
"""Stretches of a bone's outline tried for a plate."""


def _screw_in(
    bone: Mask, anatomy: Landmarks, rng: Generator, materials: Sequence[str], *, angle_rad: float, wires: float
) -> Implant | None:
    """A screw (a wire with probability `wires`) through an inner point of a bone along a direction, head outside."""
    grid = anatomy.grid
    point = random_point(bone & (depth_mm(bone, grid.pixel_mm) > 2.5), grid, rng)
    if point is None:
        return None
    # Bone is reached from outside: the screw points to the midline.
    inward = angle_rad + (np.pi if np.cos(angle_rad) * (point[0] - anatomy.midline_mm) > 0 else 0.0)
    back = reach(bone, grid, point, inward + np.pi, 80.0)
    chord = back + reach(bone, grid, point, inward, 80.0)
    if chord < 18:
        return None
    length = min(rng.uniform(20, 60), chord - 1)
    build = fixation.wire if rng.random() < wires else fixation.fixation_screw
    start = point[0] - back * np.cos(inward), point[1] - back * np.sin(inward)
    screw = moved(build(rng, materials, length_mm=length), *start, inward)
    return screw if within(screw, bone, grid, 0.7) else None


def _screws_in(
    free: Mask, wanted: int, anatomy: Landmarks, rng: Generator, materials: Sequence[str], *, wires: float
) -> tuple[list[Implant], Mask]:
    """Up to `wanted` screws of one metal along a bone, clear of one another, and what of the bone is left."""
    grid = anatomy.grid
    direction = axis(free, grid) + rng.normal(0, 0.25)
    material = (choose_material(rng, materials, ("ti", "ss316l")),)
    screws: list[Implant] = []
    for _ in range(6 * wanted):
        if len(screws) == wanted:
            break
        screw = _screw_in(free, anatomy, rng, material, angle_rad=direction + rng.normal(0, 0.1), wires=wires)
        if screw is not None:
            screws.append(screw)
            free = free & ~grown(metal_on(screw, grid) > 0, 1.5, grid.pixel_mm)
    return screws, free


def _round_metal(free: Mask, anatomy: Landmarks, rng: Generator, materials: Sequence[str]) -> Implant:
    """A suture anchor or washer within bone, nothing where there is no room."""
    grid = anatomy.grid
    metal = fixation.anchor(rng, materials)
    half = np.ptp(metal[0].outline[:, 0]) / 2
    point = random_point(free & (depth_mm(free, grid.pixel_mm) > half), grid, rng)
    return moved(metal, *point) if point else ()


def _a_shoulder_bone(anatomy: Landmarks, rng: Generator) -> Mask | None:
    bones = anatomy.shoulder_bones
    if not bones:
        return None
    sizes = np.array([b.sum() for b in bones], float)
    return bones[int(rng.choice(len(bones), p=sizes / sizes.sum()))]


def shoulder(anatomy: Landmarks, rng: Generator, materials: Sequence[str]) -> Implant | None:
    """One to three screws or wires along one shoulder bone, and in half of the cases round metal in bone."""
    bone = _a_shoulder_bone(anatomy, rng)
    if bone is None:
        return None
    screws, free = _screws_in(bone, int(rng.integers(1, 4)), anatomy, rng, materials, wires=1 / 7)
    placed = tuple(piece for screw in screws for piece in screw)
    if not placed or rng.random() < 0.5:
        placed += _round_metal(free, anatomy, rng, materials)
    return placed or None


def shoulder_screws(anatomy: Landmarks, rng: Generator, materials: Sequence[str]) -> Implant | None:
    """Two fixation screws along one shoulder bone and round metal in the same bone."""
    bone = _a_shoulder_bone(anatomy, rng)
    if bone is None:
        return None
    screws, free = _screws_in(bone, 2, anatomy, rng, materials, wires=0.0)
    if len(screws) < 2:
        return None
    anchor = _round_metal(free, anatomy, rng, materials)
    return (*screws[0], *screws[1], *anchor) if anchor else None


def plate(anatomy: Landmarks, rng: Generator, materials: Sequence[str]) -> Implant | None:
    """A plate with its screws on a skull, along a flat bone or across a shaft, or a nail in a shaft."""
    inner = anatomy.brain
    if inner is not None:
        return _plate_on_skull(inner, anatomy, rng, materials)
    flat = anatomy.flat_bones
    long = anatomy.shafts
    if not flat and not long:
        return None
    chosen = int(rng.integers(len(flat) + len(long)))
    if chosen < len(flat):
        return _plate_on_flat_bone(flat[chosen], anatomy, rng, materials)
    bone, part = long[chosen - len(flat)]
    if rng.random() < 0.25:
        return moved(fixation.nail(rng, materials, bone_mm=2 * bone.radius_mm), bone.x_mm, bone.y_mm)
    return _plate_on_shaft(bone, part, anatomy, rng, materials)


def _plate_on_shaft(
    bone: RoundBone, part: Mask, anatomy: Landmarks, rng: Generator, materials: Sequence[str]
) -> Implant:
    """On the outer side of the bone, as approaches to the femur and humerus have it."""
    lateral = 0.0 if bone.x_mm > anatomy.midline_mm else np.pi
    angle = lateral + rng.normal(0, 0.3)
    centre = bone.x_mm, bone.y_mm
    out = reach(part, anatomy.grid, centre, angle, 40.0)
    through = out + reach(part, anatomy.grid, centre, angle + np.pi, 40.0)
    start = centre[0] + out * np.cos(angle), centre[1] + out * np.sin(angle)
    return moved(fixation.plate_across(rng, materials, bone_mm=through), *start, angle + np.pi)


def _plate_on_skull(inner: Mask, anatomy: Landmarks, rng: Generator, materials: Sequence[str]) -> Implant | None:
    """A miniplate on the vault, where the skull is 3 to 15 mm thick over the brain."""
    pixel = anatomy.grid.pixel_mm
    # No more than scalp and temporal muscle over it: not the base of the skull.
    vault = grown(inner, 15.0, pixel) & ~shrunk(anatomy.body, 22.0, pixel)
    head = parts_of(ndi.binary_fill_holes(anatomy.whole_bone | inner), 2500.0, pixel)
    part = next((p for p in head if (p & inner).any()), None)
    if part is None:
        return None
    outline = outlines(part, anatomy)
    for _ in range(_STRETCHES):
        surface = _stretch(outline, rng, length_mm=rng.uniform(12, 40))
        if surface is None or not inside(vault, anatomy.grid, surface[:, 0], surface[:, 1]).all():
            continue
        bone_mm = _thickness(surface, anatomy.whole_bone, anatomy)
        if 3 < bone_mm < 15:
            return fixation.plate_along(rng, materials, surface_mm=surface, inward=1, thin=True, depth_mm=bone_mm)
    return None


def _plate_on_flat_bone(bone: Mask, anatomy: Landmarks, rng: Generator, materials: Sequence[str]) -> Implant | None:
    """A plate of 30 to 70 mm along the side of the bone that faces the skin."""
    outline = outlines(bone, anatomy)
    left_mm, right_mm, low_mm, high_mm = anatomy.extent_mm
    centre = np.array([(left_mm + right_mm) / 2, (low_mm + high_mm) / 2])
    for _ in range(_STRETCHES):
        surface = _stretch(outline, rng, length_mm=rng.uniform(30, 70))
        if surface is None:
            continue
        tangent, away = surface[-1] - surface[0], surface[len(surface) // 2] - centre
        outward = np.array([tangent[1], -tangent[0]]) / np.linalg.norm(tangent)
        bone_mm = _thickness(surface, bone, anatomy)
        if outward @ away < 0.3 * np.linalg.norm(away) or bone_mm < 5:
            continue
        # A surgeon comes from the skin: no other bone (a humeral head before its scapula) over the plate.
        over = (surface[:, None] + outward * np.arange(4, 30, 2.0)[None, :, None]).reshape(-1, 2)
        if inside(anatomy.bone & ~bone, anatomy.grid, over[:, 0], over[:, 1]).any():
            continue
        pieces = fixation.plate_along(rng, materials, surface_mm=surface, inward=1, thin=False, depth_mm=bone_mm)
        # Smoothing the outline must not have sunk the plate into the bone.
        if not within(pieces[:1], bone, anatomy.grid, 0.4):
            return pieces
    return None


def _stretch(ring: Points, rng: Generator, *, length_mm: float) -> Points | None:
    """A stretch of a closed outline (points 0.5 mm apart) as straight as a bent plate is: smoothed over 4 mm."""
    count = int(length_mm / 0.5)
    if count > 0.5 * len(ring):
        return None
    start = int(rng.integers(len(ring)))
    path = ndi.gaussian_filter1d(np.roll(ring, -start, axis=0), 8.0, axis=0, mode="wrap")[:count]
    chord = path[-1] - path[0]
    length = float(np.linalg.norm(chord))
    if length < 0.85 * length_mm:
        return None
    off = np.abs((path - path[0]) @ np.array([-chord[1], chord[0]])) / length
    return path if off.max() < 0.2 * length else None


def _thickness(surface: Points, bone: Mask, anatomy: Landmarks) -> float:
    """How thick the bone is under the middle of a stretch of its outline, mm."""
    chord = surface[-1] - surface[0]
    angle = float(np.arctan2(chord[0], -chord[1]))  # to the left of the path
    middle = surface[len(surface) // 2]
    start = float(middle[0] + 1.0 * np.cos(angle)), float(middle[1] + 1.0 * np.sin(angle))
    return 1.0 + reach(bone, anatomy.grid, start, angle, 40.0)
