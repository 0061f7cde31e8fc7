"""Osteosynthesis: screws, wires, plates, and round metal in bone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from data_sim.implants.choice import choose_material
from data_sim.implants.pieces import Implant, Piece, Points, moved
from data_sim.implants.shapes import arc, band, disc, superellipse, threaded


def fixation_screw(rng: Generator, materials: Sequence[str], *, length_mm: float | None = None) -> Implant:
    """Bone screw seen lengthwise, entering bone at the origin along +x, its head behind.

    HA3.5 (core 2.4, pitch 1.25, head 6 mm), HA4.5 (3.0, 1.75, 8 mm) and HB4.0 (1.9, 1.75, 6 mm) of ISO 5835;
    20 to 60 mm long.
    """
    major, core, pitch, head = ((3.5, 2.4, 1.25, 6.0), (4.5, 3.0, 1.75, 8.0), (4.0, 1.9, 1.75, 6.0))[
        int(rng.integers(3))
    ]
    length = float(rng.uniform(20, 60)) if length_mm is None else length_mm
    material = choose_material(rng, materials, ("ti", "ss316l"))
    shaft = Piece(threaded(length, major, core, pitch), material)
    dome = arc(head / 2, np.pi / 2, 3 * np.pi / 2, 24) * [0.9, 1.0]
    return (shaft, Piece(dome + np.array([0.3, 0.0]), material))


def wire(rng: Generator, materials: Sequence[str], *, length_mm: float | None = None) -> Implant:
    """Kirschner wire from the origin along +x: 1 to 2 mm thick, 20 to 70 mm in the slice, pointed.

    Kirschner wires are 0.7 to 3 mm thick, mostly 1 to 2 mm (ISO 5838-1).
    """
    length, half = float(rng.uniform(20, 70)) if length_mm is None else length_mm, rng.uniform(0.5, 1.0)
    outline = np.array([[0, half], [length - 4 * half, half], [length, 0], [length - 4 * half, -half], [0, -half]])
    return (Piece(outline, choose_material(rng, materials, ("ss316l", "fe"))),)


def anchor(rng: Generator, materials: Sequence[str]) -> Implant:
    """Round metal in bone, origin at its centre: suture anchor or screw seen end on, or a washer.

    Anchors are 2.8 to 6.5 mm across; washers for 3.5 to 4.5 mm screws are 7 to 13 mm with a bore of the screw
    (catalogue sizes). A washer's bore is filled by its screw here, of the same metal.
    """
    diameter = rng.uniform(2.8, 6.5) if rng.random() < 0.6 else rng.uniform(7, 13)
    return (Piece(disc(diameter), choose_material(rng, materials, ("ti", "ss316l"))),)


def nail(rng: Generator, materials: Sequence[str], *, bone_mm: float) -> Implant:
    """Intramedullary nail end on, origin at its centre: 9 to 13 mm with a bore of 4 to 5 mm.

    Catalogue range of cannulated femoral, tibial and humeral nails (ISO 15142-1 gives their requirements); 10 mm
    less than the bone, which leaves cortex all around.
    """
    diameter = float(np.clip(rng.uniform(9, 13), 7, max(bone_mm - 10, 7)))
    bore = disc(min(rng.uniform(4, 5), 0.5 * diameter))
    return (Piece(disc(diameter), choose_material(rng, materials, ("ti", "ss316l")), (bore,)),)


def plate_across(rng: Generator, materials: Sequence[str], *, bone_mm: float) -> Implant:
    """Plate on a long bone, cut across: origin on the bone's surface, bone towards +x.

    Compression plates of 3.5 mm screws are 10 to 11 mm wide and 3.0 to 3.5 mm thick, those of 4.5 mm screws 12 to
    13.5 x 3.6 to 4.6 mm (narrow) or 16 to 17.5 x 4.5 to 5.2 mm (broad; catalogue sizes, holes as in ISO 5836).
    In three of five slices a screw crosses both cortices.
    """
    sizes = ((10.0, 11.0, 3.0, 3.5, 0), (12.0, 13.5, 3.6, 4.6, 1), (16.0, 17.5, 4.5, 5.2, 1))
    least_w, most_w, least_t, most_t, screw = sizes[0 if bone_mm < 22 else int(rng.integers(1, 3))]
    width, thick = rng.uniform(least_w, most_w), rng.uniform(least_t, most_t)
    material = choose_material(rng, materials, ("ti", "ss316l"))
    plate = superellipse(thick / 2, width / 2, 5) - [thick / 2, 0.0]
    if rng.random() < 0.4:
        return (Piece(plate, material),)
    major, core, pitch = ((3.5, 2.4, 1.25), (4.5, 3.0, 1.75))[screw]
    shaft = threaded(bone_mm + rng.uniform(1, 3) + thick, major, core, pitch) - [thick, 0.0]
    return (Piece(plate, material), Piece(shaft, material))


def plate_along(
    rng: Generator, materials: Sequence[str], *, surface_mm: Points, inward: int, thin: bool, depth_mm: float
) -> Implant:
    """Plate seen along its length on a bone's surface, with its screws; in the frame of the surface.

    `thin`: cranial and facial miniplates, 0.5 to 1.0 mm, with 1.5 to 2.0 mm screws 6 to 8 mm apart. Otherwise
    reconstruction and small-fragment plates, 2.5 to 3.3 mm, with 3.5 mm screws 12 mm apart (catalogue sizes; screw
    HA3.5 of ISO 5835). Screws end within the bone.

    Parameters
    ----------
    surface_mm
        Path (n, 2) of x, y along the surface.
    inward
        +1 where the bone lies to the left of the path, -1 where it lies to the right.
    depth_mm
        The bone's thickness under the plate.
    """
    material = choose_material(rng, materials, ("ti",) if thin else ("ti", "ss316l"))
    thick = rng.uniform(0.5, 1.0) if thin else rng.uniform(2.5, 3.3)
    tangent = np.gradient(surface_mm, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    normal = inward * np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)
    pieces = [Piece(band(surface_mm - normal * thick / 2, thick), material)]
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(surface_mm, axis=0), axis=1))])
    apart = rng.uniform(6, 8) if thin else 12.0
    major, core, pitch = (rng.uniform(1.5, 2.0), 1.1, 0.6) if thin else (3.5, 2.4, 1.25)
    for at in np.arange(apart / 2, along[-1], apart):
        if rng.random() < 0.25:
            continue  # a hole without a screw, or one that the slice misses
        index = int(np.searchsorted(along, at))
        length = thick + min(depth_mm - 0.5, rng.uniform(3, 6) if thin else rng.uniform(10, 18))
        screw = (Piece(threaded(max(length, 2 * major), major, core, pitch), material),)
        x, y = surface_mm[index] - normal[index] * thick
        pieces += moved(screw, float(x), float(y), float(np.arctan2(normal[index, 1], normal[index, 0])))
    return tuple(pieces)
