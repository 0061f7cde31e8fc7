"""Slices with metal, corrected and checked: the arithmetic of `ctmar correct` without any files."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ctmar.blending import blend
from ctmar.checks import Checked, check
from ctmar.correction_settings import CorrectionSettings
from ctmar.errors import UnsupportedInputError
from ctmar.images import Image
from ctmar.methods import Correction, Restorer
from ctmar.regions import dark_parts
from ctmar.replacement import insert_metal
from ctmar.square_grid import SquareGrid, reprojection_geometry, square_grid
from ctmar.workings import Workings, workings_of
from data_sim.kernels import thread_count
from data_sim.projection import Projector
from data_sim.units import MU_WATER_PER_MM


@dataclass(frozen=True)
class SliceOutcome:
    """What the correction of one slice came to.

    Attributes
    ----------
    image_hu
        The corrected image, or None where the slice is to stay as it was.
    checked
        Measures of the change, warnings, and the reason why the slice stays as it was, if it does.
    workings
        For the report, where it is asked for.
    """

    image_hu: NDArray[np.float32] | None
    checked: Checked
    workings: Workings | None = None


def correct_slices(
    images: Sequence[Image],
    masks: Sequence[NDArray[np.bool_]],
    settings: CorrectionSettings,
    *,
    restorer: Restorer | None = None,
) -> list[SliceOutcome]:
    """Correct slices of one grid together.

    Parameters
    ----------
    images
        All of one shape and pixel size.
    masks : bool (rows, cols)
        Their metal.
    settings
        Method, strength, device.
    restorer
        The network, for the methods that need one.

    Returns
    -------
    One outcome a slice, in their order. Images that cannot be projected, being wider than any gantry or with absurd
    pixels, stay as they were.
    """
    rows, cols = images[0].image_hu.shape
    try:
        square = square_grid((rows, cols), images[0].pixel_mm)
        geometry = reprojection_geometry(square.grid)
    except UnsupportedInputError as error:
        return [SliceOutcome(None, Checked({}, (), str(error).rstrip("."))) for _ in images]
    before = np.stack([square.onto(image.image_hu) for image in images])
    metal = np.stack([square.mask_onto(mask) for mask in masks])
    pixel_mm = (square.grid.pixel_mm, square.grid.pixel_mm)
    kept = np.stack([dark_parts(image, mask, pixel_mm) for image, mask in zip(before, metal, strict=True)])
    projector = Projector(geometry, square.grid, device=settings.device)
    correction = Correction.of_image(
        before, metal, projector, mu_water_per_mm=MU_WATER_PER_MM, restorer=restorer, certain=kept
    )
    after, fallback = correction.image(settings.method), correction.fallback_hu(settings.method)
    finish = partial(_finish, square=square, settings=settings)
    with ThreadPoolExecutor(thread_count(), thread_name_prefix="finish") as pool:
        outcomes = list(pool.map(finish, images, masks, before, after, fallback, metal, kept))
    if not settings.report:
        return outcomes
    return [
        replace(outcome, workings=replace(one, prior_hu=None if one.prior_hu is None else square.back(one.prior_hu)))
        for outcome, one in zip(outcomes, workings_of(correction, settings.method), strict=True)
    ]


def _finish(
    image: Image,
    mask: NDArray[np.bool_],
    before: NDArray[np.float32],
    after: NDArray[np.float32],
    fallback: NDArray[np.float32],
    metal: NDArray[np.bool_],
    kept: NDArray[np.bool_],
    *,
    square: SquareGrid,
    settings: CorrectionSettings,
) -> SliceOutcome:
    """One slice from its correction on the square grid to what is written, or the reason why nothing is."""
    if not np.isfinite(after).all():
        return SliceOutcome(None, check(image, np.full_like(image.image_hu, np.nan), mask))
    blended = blend(
        before,
        after,
        metal,
        pixel_mm=square.grid.pixel_mm,
        strength=settings.strength,
        adaptive=settings.blends,
        fallback_hu=fallback,
    )
    blended = insert_metal(blended, before, kept)
    corrected = insert_metal(image.image_hu + square.back(blended - before), image.image_hu, mask | image.padding)
    checked = check(image, corrected, mask)
    return SliceOutcome(None if checked.failure else corrected, checked)
