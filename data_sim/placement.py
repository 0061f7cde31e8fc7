"""Anatomical recipes: put an implant of a family where a clinic would, or say that this slice does not suit.

Each recipe proposes pieces from what `Anatomy` found; `place` accepts a proposal only if all of its metal
lies inside the patient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from data_sim import implants
from data_sim.anatomy import XY, Anatomy, Image, Mask, Vertebra, depth_mm, grown, shrunk
from data_sim.geometry import ImageGrid
from data_sim.implants import IMPLANTS, Implant, moved

Recipe = Callable[[Anatomy, Generator, Sequence[str]], Implant | None]

ATTEMPTS = 12
"""Proposals tried before a slice is given up."""


def place(name: str, image_hu: Image, grid: ImageGrid, rng: Generator, materials: Sequence[str]) -> Implant | None:
    """Implant of family `name` at a fitting place of this slice.

    Parameters
    ----------
    name
        One of `IMPLANTS`.
    image_hu : float (rows, cols)
        Metal-free slice in HU, anterior up.
    grid
        Its grid.
    rng
        The only source of randomness.
    materials
        Material codes to choose from; a family prefers those that clinics use.

    Returns
    -------
    tuple of Piece or None
        In the frame of `grid`, wholly inside the body; None where the slice lacks the anatomy.

    Raises
    ------
    ValueError
        Where the name is unknown, no material is offered or the image does not fit the grid.
    """
    if name not in _RECIPES:
        raise ValueError(f"unknown implant {name!r}: expected one of {', '.join(IMPLANTS)}")
    if not materials:
        raise ValueError("at least one material is needed")
    if np.shape(image_hu) != grid.shape:
        raise ValueError(f"the image is {np.shape(image_hu)}, its grid {grid.shape}")
    return _place(name, Anatomy(image_hu, grid), rng, materials)


def suitable(image_hu: Image, grid: ImageGrid, rng: Generator) -> list[str]:
    """Names of the families that one attempt of `place` finds room for."""
    anatomy = Anatomy(image_hu, grid)
    return [name for name in IMPLANTS if _place(name, anatomy, rng, ("ti",)) is not None]


def _place(name: str, anatomy: Anatomy, rng: Generator, materials: Sequence[str]) -> Implant | None:
    if not anatomy.body.any():
        return None
    for _ in range(ATTEMPTS):
        pieces = _RECIPES[name](anatomy, rng, materials)
        if pieces and _within(pieces, anatomy.body, anatomy.grid):
            return pieces
    return None


# ------------------------------------------------------------------------------------------------- geometry


def _within(pieces: Implant, mask: Mask, grid: ImageGrid, share: float = 1.0) -> bool:
    """Whether at least `share` of the metal lies in the mask, none of it cut off by the image's edge."""
    points = np.concatenate([p.outline for p in pieces])
    for x, y in (points.min(axis=0), points.max(axis=0)):
        row, col = grid.index_of(x, y)
        if not (0 <= row <= grid.rows - 1 and 0 <= col <= grid.cols - 1):
            return False
    metal = _metal(pieces, grid)
    return bool(metal[mask].sum(dtype=float) >= share * metal.sum(dtype=float) * (1 - 1e-6))


def _inside(mask: Mask, grid: ImageGrid, x_mm: NDArray[np.float64], y_mm: NDArray[np.float64]) -> Mask:
    """Whether points lie in a mask (nearest pixel; outside the image is outside)."""
    row, col = grid.index_of(0.0, 0.0)
    rows = np.rint(row - y_mm / grid.pixel_mm).astype(int)
    cols = np.rint(col + x_mm / grid.pixel_mm).astype(int)
    valid = (rows >= 0) & (rows < grid.rows) & (cols >= 0) & (cols < grid.cols)
    found = np.zeros(valid.shape, bool)
    found[valid] = mask[rows[valid], cols[valid]]
    return found


def _reach(mask: Mask, grid: ImageGrid, start: XY, angle_rad: float, most_mm: float) -> float:
    """How far one can go from a point along a direction before leaving the mask, mm."""
    steps = np.arange(0, most_mm, grid.pixel_mm / 2)
    inside = _inside(mask, grid, start[0] + steps * np.cos(angle_rad), start[1] + steps * np.sin(angle_rad))
    return float(most_mm if inside.all() else steps[np.argmin(inside)])


def _metal(pieces: Implant, grid: ImageGrid) -> NDArray[np.float32]:
    """Fraction of every pixel that is metal."""
    fine, masks = implants.fine_masks(pieces, grid)
    return implants.coverage(masks, fine, grid)


def _random_point(mask: Mask, grid: ImageGrid, rng: Generator) -> XY | None:
    """Position of a pixel drawn from a mask."""
    indices = np.flatnonzero(mask)
    if not indices.size:
        return None
    row, col = np.unravel_index(int(rng.choice(indices)), mask.shape)
    return float(grid.x_mm()[col]), float(grid.y_mm()[row])


# -------------------------------------------------------------------------------------------------- recipes


def _hip(anatomy: Anatomy, rng: Generator, materials: Sequence[str]) -> Implant | None:
    """Ball and cup in femoral heads, stems in the shafts below; on both sides in a third of the cases."""
    femurs = anatomy.hips
    if not femurs:
        return None
    if rng.random() > 1 / 3:
        femurs = [femurs[int(rng.integers(len(femurs)))]]
    placed: list[implants.Piece] = []
    for bone, is_head in femurs:
        if is_head:
            lateral = 0.0 if bone.x_mm > anatomy.midline_mm else np.pi
            joint = implants.hip_joint(rng, materials, cup_mm=2 * bone.radius_mm + rng.uniform(2, 8))
            angle = lateral + rng.normal(0, 0.15)
        else:
            joint = implants.hip_stem(rng, materials, bone_mm=2 * bone.radius_mm)
            angle = rng.uniform(-0.6, 0.6)
        placed += moved(joint, bone.x_mm, bone.y_mm, angle)
    return tuple(placed)


def _axis(part: Mask, grid: ImageGrid) -> float:
    """Direction in radians of a mask's longest axis."""
    rows, cols = np.nonzero(part)
    centred = np.stack([grid.x_mm()[cols], grid.y_mm()[rows]])
    _, vectors = np.linalg.eigh(np.cov(centred))
    return float(np.arctan2(vectors[1, 1], vectors[0, 1]))


def _screw_in(
    bone: Mask, anatomy: Anatomy, rng: Generator, materials: Sequence[str], angle_rad: float
) -> Implant | None:
    """A screw (or a wire, one in seven) through an inner point of a bone along a direction, head outside."""
    grid = anatomy.grid
    point = _random_point(bone & (depth_mm(bone, grid.pixel_mm) > 2.5), grid, rng)
    if point is None:
        return None
    # Bone is reached from outside: the screw points to the midline.
    inward = angle_rad + (np.pi if np.cos(angle_rad) * (point[0] - anatomy.midline_mm) > 0 else 0.0)
    back = _reach(bone, grid, point, inward + np.pi, 80.0)
    chord = back + _reach(bone, grid, point, inward, 80.0)
    if chord < 18:
        return None
    length = min(rng.uniform(20, 60), chord - 1)
    build = implants.wire if rng.random() < 1 / 7 else implants.fixation_screw
    start = point[0] - back * np.cos(inward), point[1] - back * np.sin(inward)
    screw = moved(build(rng, materials, length_mm=length), *start, inward)
    return screw if _within(screw, bone, grid, 0.7) else None


def _shoulder(anatomy: Anatomy, rng: Generator, materials: Sequence[str]) -> Implant | None:
    """One to three screws or wires along one shoulder bone, and in half of the cases round metal in bone."""
    bones = anatomy.shoulder_bones
    if not bones:
        return None
    grid = anatomy.grid
    sizes = np.array([b.sum() for b in bones], float)
    free = bones[int(rng.choice(len(bones), p=sizes / sizes.sum()))]
    direction = _axis(free, grid) + rng.normal(0, 0.25)
    placed: list[implants.Piece] = []
    wanted = int(rng.integers(1, 4))
    for _ in range(6 * wanted):
        screw = _screw_in(free, anatomy, rng, materials, direction + rng.normal(0, 0.1))
        if screw is None:
            continue
        placed += screw
        free = free & ~grown(_metal(screw, grid) > 0, 1.5, grid.pixel_mm)
        wanted -= 1
        if not wanted:
            break
    if not placed or rng.random() < 0.5:
        metal = implants.anchor(rng, materials)
        half = np.ptp(metal[0].outline[:, 0]) / 2
        point = _random_point(free & (depth_mm(free, grid.pixel_mm) > half), grid, rng)
        if point:
            placed += moved(metal, *point)
    return tuple(placed) or None


def _dental(anatomy: Anatomy, rng: Generator, materials: Sequence[str]) -> Implant | None:
    """Fillings or crowns in one to six teeth."""
    teeth = anatomy.teeth
    if not teeth:
        return None
    chosen = rng.permutation(len(teeth))[: int(rng.integers(1, 7))]
    placed: list[implants.Piece] = []
    for index in chosen:
        x, y = teeth[int(index)]
        dx, dy = rng.normal(0, 0.7, 2)
        metal = implants.crown(rng, materials) if rng.random() < 0.25 else implants.filling(rng, materials)
        placed += moved(metal, x + dx, y + dy, rng.uniform(0, 2 * np.pi))
    return tuple(placed)


def _spine(anatomy: Anatomy, rng: Generator, materials: Sequence[str]) -> Implant | None:
    """Pedicle screws with rods where the arch is whole; rods alone elsewhere, and in one of eight."""
    spine = anatomy.vertebra
    if spine is None or anatomy.cranium:
        return None
    if spine.closed and rng.random() > 1 / 8:
        return _pedicle_screws(spine, anatomy, rng, materials)
    return _rods(spine, rng, materials)


def _rods(spine: Vertebra, rng: Generator, materials: Sequence[str]) -> Implant:
    """Both rods of a construct cut between two screws, behind and beside the canal."""
    size = 1.0 if spine.body_radius_mm > 9.5 else 0.6
    apart = spine.half_width_mm + size * rng.uniform(6, 13)
    behind = spine.half_height_mm + size * rng.uniform(12, 20)
    rod = implants.rod(rng, materials, scale=size)
    placed: list[implants.Piece] = []
    for side in (-1, 1):
        dx, dy = rng.normal(0, 1.5, 2)
        placed += moved(rod, spine.x_mm + side * apart + dx, spine.y_mm - behind + dy)
    return tuple(placed)


def _pedicle_screws(spine: Vertebra, anatomy: Anatomy, rng: Generator, materials: Sequence[str]) -> Implant | None:
    """Screws converging by 8 to 28 degrees from behind the pedicles into the vertebral body.

    Those of small (cervical) vertebrae are thinner and shorter. None where they would end outside bone or
    breach the canal.
    """
    grid = anatomy.grid
    small = spine.body_radius_mm < 9.5
    major = rng.uniform(3.5, 4.0) if small else rng.uniform(5.5, 7.0)
    wanted = rng.uniform(14, 26) if small else rng.uniform(35, 50)
    beside = spine.half_width_mm + major / 2 + rng.uniform(1.0, 3.5)
    sides = (-1, 1) if rng.random() < 0.9 else (int(rng.choice((-1, 1))),)
    placed: list[implants.Piece] = []
    for side in sides:
        angle = np.pi / 2 + side * np.deg2rad(rng.uniform(8, 28))
        pedicle = spine.x_mm + side * beside, spine.y_mm + rng.uniform(0, 3)
        most = 12.0 if small else 22.0
        back = _reach(anatomy.whole_bone, grid, pedicle, angle + np.pi, most)
        ahead = _reach(anatomy.whole_bone, grid, pedicle, angle, 60.0)
        length = min(back + ahead - 3.0, wanted)
        if length < (12 if small else 25):
            return None
        screw = implants.pedicle_screw(rng, materials, length_mm=length, major_mm=major)
        placed += moved(screw, pedicle[0] - back * np.cos(angle), pedicle[1] - back * np.sin(angle), angle)
    # A screw that breaches the canal is a complication, not the rule.
    breach = _metal(tuple(placed), grid)[spine.canal].sum()
    return tuple(placed) if breach < 0.04 * spine.canal.sum() else None


def _clip(anatomy: Anatomy, rng: Generator, materials: Sequence[str]) -> Implant | None:
    """One to four clips, or a coil, close together in soft tissue or brain."""
    grid = anatomy.grid
    point = _random_point(shrunk(anatomy.soft, 6.0, grid.pixel_mm), grid, rng)
    if point is None:
        return None
    if rng.random() < 0.2:
        return moved(implants.coil(rng, materials), *point)
    placed: list[implants.Piece] = []
    for _ in range(int(rng.choice([1, 1, 2, 3, 4]))):
        dx, dy = rng.normal(0, 8.0, 2) if placed else (0.0, 0.0)
        angle = rng.uniform(0, 2 * np.pi)
        placed += moved(implants.clip(rng, materials), point[0] + dx, point[1] + dy, angle)
    return tuple(placed) if _within(tuple(placed), anatomy.soft, grid, 0.95) else None


def _random(anatomy: Anatomy, rng: Generator, materials: Sequence[str]) -> Implant | None:
    """One to three random shapes anywhere inside the body."""
    placed: list[implants.Piece] = []
    inner = shrunk(anatomy.body, 3.0, anatomy.grid.pixel_mm)
    for _ in range(int(rng.integers(1, 4))):
        point = _random_point(inner, anatomy.grid, rng)
        if point is None:
            return None
        placed += moved(implants.random_shape(rng, materials), *point, rng.uniform(0, 2 * np.pi))
    return tuple(placed)


_RECIPES: dict[str, Recipe] = dict(zip(IMPLANTS, (_hip, _shoulder, _dental, _spine, _clip, _random), strict=True))
