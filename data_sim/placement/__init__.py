"""Anatomical recipes: put an implant of a family where a clinic would, or say that this slice does not suit.

Each recipe proposes pieces from what `Anatomy` found; `place` accepts a proposal only if all of its metal
lies inside the patient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.random import Generator

from data_sim.anatomy import Image
from data_sim.geometry import ImageGrid
from data_sim.implants import Implant
from data_sim.implants.own import Shape
from data_sim.landmarks import Landmarks
from data_sim.placement import chest, dental, fixation, joints, soft_tissue, spine
from data_sim.placement.own import own
from data_sim.placement.where import within

Recipe = Callable[[Landmarks, Generator, Sequence[str]], Implant | None]

IMPLANTS: Mapping[str, Recipe] = {
    "hip": joints.hip,
    "hips": joints.hips,
    "knee": joints.knee,
    "shoulder": fixation.shoulder,
    "shoulder-screws": fixation.shoulder_screws,
    "shoulder-joint": joints.shoulder_joint,
    "spine": spine.spine,
    "plate": fixation.plate,
    "dental": dental.dental,
    "fillings": dental.fillings,
    "dental-implant": dental.dental_implant,
    "clip": soft_tissue.clip,
    "head-clip": soft_tissue.head_clip,
    "coil": soft_tissue.coil,
    "sternum": chest.sternum,
    "pacemaker": chest.pacemaker,
    "port": chest.port,
    "marker": soft_tissue.marker,
    "random": soft_tissue.random,
}
"""The families by the names of the command line, each with its recipe."""

OWN = "own"
"""The family of the user's own shapes, which has a recipe where there are shapes."""

ATTEMPTS = 12
"""Proposals tried before a slice is given up."""


def place(
    name: str,
    image_hu: Image,
    grid: ImageGrid,
    rng: Generator,
    materials: Sequence[str],
    *,
    shapes: Sequence[Shape] = (),
) -> Implant | None:
    """Implant of family `name` at a fitting place of this slice.

    Parameters
    ----------
    name
        One of `IMPLANTS`, or `OWN` where there are shapes.
    image_hu : float (rows, cols)
        Metal-free slice in HU, anterior up.
    grid
        Its grid.
    rng
        The only source of randomness.
    materials
        Material codes to choose from; a family prefers those that clinics use.
    shapes
        The user's own, see `data_sim.implants.own`.

    Returns
    -------
    tuple of Piece or None
        In the frame of `grid`, wholly inside the body; None where the slice lacks the anatomy.

    Raises
    ------
    ValueError
        Where the name is unknown, no material is offered or the image does not fit the grid.
    """
    recipe = _recipes(shapes).get(name)
    if recipe is None:
        raise ValueError(f"unknown implant {name!r}: expected one of {', '.join(IMPLANTS)}")
    if not materials:
        raise ValueError("at least one material is needed")
    if np.shape(image_hu) != grid.shape:
        raise ValueError(f"the image is {np.shape(image_hu)}, its grid {grid.shape}")
    return _place(recipe, Landmarks(image_hu, grid), rng, materials)


def suitable(
    image_hu: Image,
    grid: ImageGrid,
    rng: Generator,
    *,
    names: Sequence[str] = tuple(IMPLANTS),
    shapes: Sequence[Shape] = (),
) -> list[str]:
    """Which of the families one attempt of `place` finds room for."""
    anatomy, recipes = Landmarks(image_hu, grid), _recipes(shapes)
    return [name for name in names if _place(recipes[name], anatomy, rng, ("ti",)) is not None]


def _recipes(shapes: Sequence[Shape]) -> Mapping[str, Recipe]:
    return {**IMPLANTS, OWN: partial(own, shapes=shapes)} if shapes else IMPLANTS


def _place(recipe: Recipe, anatomy: Landmarks, rng: Generator, materials: Sequence[str]) -> Implant | None:
    if not anatomy.body.any():
        return None
    for _ in range(ATTEMPTS):
        pieces = recipe(anatomy, rng, materials)
        if pieces and within(pieces, anatomy.body, anatomy.grid):
            return pieces
    return None
