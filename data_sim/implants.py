"""Metal implants as polygons in mm: the shapes themselves and their pixels on a grid.

An implant is a tuple of `Piece`, in a frame of its own whose origin is the point that placement anchors: the
centre of a femoral ball, the place where a screw enters bone. `moved` brings it into the image. Dimensions
are those of catalogues and standards; each family's docstring names them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray
from skimage.draw import polygon as polygon_pixels

from data_sim.geometry import ImageGrid

Points = NDArray[np.float64]
Mask = NDArray[np.bool_]

IMPLANTS = ("hip", "shoulder", "dental", "spine", "clip", "random")
"""The families that placement knows, by the names of the command line."""


@dataclass(frozen=True, eq=False)
class Piece:
    """One piece of metal: a closed polygon (n, 2) of x, y in mm, a material code, holes of the same form."""

    outline: Points
    material: str
    holes: tuple[Points, ...] = ()

    def __post_init__(self) -> None:
        for ring in (self.outline, *self.holes):
            if ring.ndim != 2 or ring.shape[0] < 3 or ring.shape[1] != 2 or not np.isfinite(ring).all():
                raise ValueError("an outline needs at least three finite (x, y) points")


Implant = tuple[Piece, ...]


def moved(pieces: Implant, dx_mm: float, dy_mm: float, angle_rad: float = 0.0, scale: float = 1.0) -> Implant:
    """Scale and rotate (counter-clockwise, about the frame's origin), then shift."""
    c, s = scale * np.cos(angle_rad), scale * np.sin(angle_rad)
    turn = np.array([[c, s], [-s, c]])
    shift = np.array([dx_mm, dy_mm])
    return tuple(
        replace(p, outline=p.outline @ turn + shift, holes=tuple(h @ turn + shift for h in p.holes)) for p in pieces
    )


# --------------------------------------------------------------------------------------------------- pixels


def _inside(ring: Points, grid: ImageGrid) -> Mask:
    row, col = grid.index_of(0.0, 0.0)
    mask = np.zeros(grid.shape, bool)
    mask[polygon_pixels(row - ring[:, 1] / grid.pixel_mm, col + ring[:, 0] / grid.pixel_mm, grid.shape)] = True
    return mask


def rasterise(pieces: Implant, grid: ImageGrid) -> dict[str, Mask]:
    """Pixels whose centre lies in the metal, by material.

    Parameters
    ----------
    pieces
        In the frame of the grid; what lies outside it is cut off.
    grid
        Where to rasterise.

    Returns
    -------
    dict of bool (rows, cols)
        Disjoint masks: a later piece overrides the earlier ones.
    """
    codes = list(dict.fromkeys(p.material for p in pieces))
    owner = np.full(grid.shape, -1)
    for piece in pieces:
        filled = _inside(piece.outline, grid)
        for hole in piece.holes:
            filled ^= _inside(hole, grid)
        owner[filled] = codes.index(piece.material)
    return {code: owner == k for k, code in enumerate(codes)}


def fine_masks(pieces: Implant, grid: ImageGrid, refine: int = 4) -> tuple[ImageGrid, dict[str, Mask]]:
    """Rasterise on a grid `refine` times finer that covers no more than the implant and two pixels around it.

    Returns
    -------
    fine_grid, masks
        The fine grid's edges coincide with pixel edges of `grid`; the masks are those of `rasterise`.

    Raises
    ------
    ValueError
        Where there is no piece, or none of them lies on the grid.
    """
    if not pieces:
        raise ValueError("an implant needs at least one piece")
    points = np.concatenate([p.outline for p in pieces])
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    (top, left), (bottom, right) = grid.index_of(x0, y1), grid.index_of(x1, y0)
    row0, row1 = max(0, int(np.floor(top)) - 2), min(grid.rows, int(np.ceil(bottom)) + 3)
    col0, col1 = max(0, int(np.floor(left)) - 2), min(grid.cols, int(np.ceil(right)) + 3)
    if row0 >= row1 or col0 >= col1:
        raise ValueError("the implant lies outside the image grid")
    fine = grid.crop(row0, row1, col0, col1).refined(refine)
    return fine, rasterise(pieces, fine)


def coverage(masks: Mapping[str, Mask], fine_grid: ImageGrid, grid: ImageGrid) -> NDArray[np.float32]:
    """Fraction of every pixel of `grid` that is metal, shape (rows, cols), from the masks of `fine_masks`.

    The metal mask of a case is where this is at least one half.
    """
    refine = round(grid.pixel_mm / fine_grid.pixel_mm)
    rows, cols = fine_grid.rows // refine, fine_grid.cols // refine
    metal = np.zeros(fine_grid.shape, bool)
    for mask in masks.values():
        metal |= mask
    blocks = metal.reshape(rows, refine, cols, refine).mean(axis=(1, 3), dtype=np.float32)
    centre_row, centre_col = grid.index_of(fine_grid.centre_x_mm, fine_grid.centre_y_mm)
    row0, col0 = round(centre_row - (rows - 1) / 2), round(centre_col - (cols - 1) / 2)
    fraction = np.zeros(grid.shape, np.float32)
    fraction[row0 : row0 + rows, col0 : col0 + cols] = blocks
    return fraction


# ----------------------------------------------------------------------------------------------- primitives


def superellipse(half_x_mm: float, half_y_mm: float, power: float = 2.0, points: int = 96) -> Points:
    """|x/a|^p + |y/b|^p = 1 about the origin: 2 is an ellipse, more is a rounded rectangle."""
    t = np.linspace(0, 2 * np.pi, points, endpoint=False)
    c, s = np.cos(t), np.sin(t)
    x = half_x_mm * np.sign(c) * np.abs(c) ** (2 / power)
    y = half_y_mm * np.sign(s) * np.abs(s) ** (2 / power)
    return np.stack([x, y], axis=1)


def disc(diameter_mm: float, x_mm: float = 0.0, y_mm: float = 0.0) -> Points:
    """A circle."""
    return superellipse(diameter_mm / 2, diameter_mm / 2) + np.array([x_mm, y_mm])


def band(path_mm: ArrayLike, width_mm: float) -> Points:
    """A strip of constant width along an open path (n, 2) of x, y in mm."""
    path = np.asarray(path_mm, float)
    tangent = np.gradient(path, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)
    normal *= width_mm / 2 / np.linalg.norm(normal, axis=1, keepdims=True)
    return np.concatenate([path + normal, (path - normal)[::-1]])


def arc(radius_mm: float, start_rad: float, stop_rad: float, points: int = 64) -> Points:
    """Points of a circular arc about the origin, shape (points, 2)."""
    t = np.linspace(start_rad, stop_rad, points)
    return radius_mm * np.stack([np.cos(t), np.sin(t)], axis=1)


def blob(rng: Generator, diameter_mm: float, roughness: float = 0.12) -> Points:
    """A smooth irregular closed curve of about the given diameter: a circle plus harmonics 2 to 5."""
    t = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    radius = np.ones_like(t)
    for k in range(2, 6):
        radius += roughness * rng.normal() / (k - 1) * np.cos(k * t + rng.uniform(0, 2 * np.pi))
    radius = np.clip(radius, 0.35, 1.6) * diameter_mm / 2
    return radius[:, None] * np.stack([np.cos(t), np.sin(t)], axis=1)


def choose_material(rng: Generator, offered: Sequence[str], preferred: Sequence[str] = ()) -> str:
    """One of the offered codes; a preferred one is six times as likely as another.

    Raises
    ------
    ValueError
        Where none is offered.
    """
    if not offered:
        raise ValueError("at least one material is needed")
    weights = np.array([6.0 if code in preferred else 1.0 for code in offered])
    return str(rng.choice(np.asarray(offered), p=weights / weights.sum()))


# ------------------------------------------------------------------------------------------------- families


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
    head = choose_material(rng, materials, ("cocrmo", "ss316l", "fe"))
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


def threaded(length_mm: float, major_mm: float, core_mm: float, pitch_mm: float) -> Points:
    """A threaded shaft seen lengthwise from (0, 0) along +x, with a pointed tip of one major diameter."""
    shank = max(length_mm - major_mm, pitch_mm)
    turns = max(1, int(shank / pitch_mm))
    x = np.linspace(0, shank, 2 * turns + 1)
    half = np.where(np.arange(x.size) % 2, major_mm, core_mm) / 2
    # The crests of a helix lie half a pitch apart on the two sides.
    other = np.where(np.arange(x.size) % 2, core_mm, major_mm) / 2
    upper, lower = np.stack([x, half], axis=1), np.stack([x, -other], axis=1)
    return np.concatenate([upper, [[length_mm, 0.0]], lower[::-1]])


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


def anchor(rng: Generator, materials: Sequence[str]) -> Implant:
    """Round metal in bone, origin at its centre: suture anchor or screw seen end on, or a washer.

    Anchors are 2.8 to 6.5 mm across; washers for 3.5 to 4.5 mm screws are 7 to 13 mm with a bore of the screw
    (catalogue sizes). A washer's bore is filled by its screw here, of the same metal.
    """
    diameter = rng.uniform(2.8, 6.5) if rng.random() < 0.6 else rng.uniform(7, 13)
    return (Piece(disc(diameter), choose_material(rng, materials, ("ti", "ss316l"))),)


def filling(rng: Generator, materials: Sequence[str]) -> Implant:
    """Dental filling, origin at its centre: irregular and rounded, 2 to 6 mm.

    Class I and II restorations leave most of a molar's 10 to 11 mm crown (Wheeler's Dental Anatomy).
    """
    material = choose_material(rng, materials, ("amalgam", "au"))
    return (Piece(blob(rng, rng.uniform(2, 6)), material),)


def crown(rng: Generator, materials: Sequence[str]) -> Implant:
    """Full metal crown cut by the slice, origin at its centre: a rounded rectangle of 6 to 10 mm.

    Premolars are 7 to 9 mm, molars 10 to 11 mm across (Wheeler's Dental Anatomy).
    """
    half_x, half_y = rng.uniform(3, 5, 2)
    return (Piece(superellipse(half_x, half_y, 3), choose_material(rng, materials, ("au", "cocrmo"))),)


def rod(rng: Generator, materials: Sequence[str], *, scale: float = 1.0) -> Implant:
    """Spinal rod seen end on, origin at its centre: 5.5 or 6.0 mm, `scale` smaller for the neck (3.5 mm)."""
    material = choose_material(rng, materials, ("ti", "cocrmo"))
    return (Piece(disc(float(rng.choice([5.5, 6.0])) * scale), material),)


def pedicle_screw(
    rng: Generator, materials: Sequence[str], *, length_mm: float | None = None, major_mm: float | None = None
) -> Implant:
    """Pedicle screw seen lengthwise with its rod end on, entering bone at the origin along +x.

    Shaft 5.5 to 7.5 mm x 35 to 50 mm, core two thirds of that, pitch 2.7 mm; tulip about 12 mm wide and 13 mm
    high; rod 5.5 or 6.0 mm (catalogue ranges of polyaxial systems; ASTM F1798 tests these). For thinner
    screws, as the cervical spine takes, everything shrinks in proportion.
    """
    major = float(rng.uniform(5.5, 7.5)) if major_mm is None else major_mm
    length = float(rng.uniform(35, 50)) if length_mm is None else length_mm
    size = min(1.0, major / 5.5)
    material = choose_material(rng, materials, ("ti",))
    tulip = superellipse(6.5 * size, 6 * size, 4) - [6 * size, 0.0]
    return (
        Piece(threaded(length, major, major * 2 / 3, 2.7 * size), material),
        Piece(tulip, material),
        *moved(rod(rng, materials, scale=size), -7 * size, 0.0),
    )


def clip(rng: Generator, materials: Sequence[str]) -> Implant:
    """Surgical or aneurysm clip, origin at its middle: a curved band 1 to 2 mm wide and 5 to 11 mm long.

    Ligating clips are 5 to 11 mm closed, standard aneurysm clips have blades of 5 to 11 mm and 1 to 1.5 mm
    width (catalogue sizes; ISO 9713 describes the latter).
    """
    length, bend = rng.uniform(5, 11), rng.uniform(-0.8, 0.8)
    t = np.linspace(-0.5, 0.5, 24)
    path = np.stack([length * t, length * bend * (t**2 - 1 / 12)], axis=1)
    return (Piece(band(path, rng.uniform(1, 2)), choose_material(rng, materials, ("ti", "cocrmo"))),)


def coil(rng: Generator, materials: Sequence[str]) -> Implant:
    """Embolisation coil cut by the slice, origin at its centre: a spiral 4 to 12 mm across.

    Coils of 0.25 to 0.45 mm wire pack aneurysms of 4 to 12 mm to about a third of the volume, so that a slice
    meets a dense tangle; the spiral's turns stand for it. Platinum is the usual metal, gold the nearest here.
    """
    diameter, pitch = rng.uniform(4, 12), rng.uniform(1.3, 1.9)
    t = np.linspace(0, np.pi * diameter / pitch, 240)
    radius = 0.4 + pitch * t / (2 * np.pi)
    path = radius[:, None] * np.stack([np.cos(t), np.sin(t)], axis=1)
    return (Piece(band(path, 0.6 * pitch), choose_material(rng, materials, ("au",))),)


def wire(rng: Generator, materials: Sequence[str], *, length_mm: float | None = None) -> Implant:
    """Kirschner wire from the origin along +x: 1 to 2 mm thick, 20 to 70 mm in the slice, pointed.

    Kirschner wires are 0.7 to 3 mm thick, mostly 1 to 2 mm (ISO 5838-1).
    """
    length, half = float(rng.uniform(20, 70)) if length_mm is None else length_mm, rng.uniform(0.5, 1.0)
    outline = np.array([[0, half], [length - 4 * half, half], [length, 0], [length - 4 * half, -half], [0, -half]])
    return (Piece(outline, choose_material(rng, materials, ("ss316l", "fe"))),)


def random_shape(rng: Generator, materials: Sequence[str]) -> Implant:
    """A smooth shape of 3 to 30 mm, origin at its centre, some hollow; no clinical model, but diversity."""
    diameter = float(np.exp(rng.uniform(np.log(3), np.log(30))))
    outline = blob(rng, diameter, 0.18) * [1.0, rng.uniform(0.4, 1.0)]
    holes = (outline * rng.uniform(0.4, 0.7),) if diameter > 10 and rng.random() < 1 / 3 else ()
    return (Piece(outline, choose_material(rng, materials), holes),)
