"""Case files in, case files with a corrected image out: correction of measured sinograms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctmar.blending import blend
from ctmar.correction_settings import CorrectionSettings
from ctmar.database import Case, read_case, write_case
from ctmar.detection import detect_in_image
from ctmar.errors import UnsupportedInputError
from ctmar.masks import read_mask
from ctmar.methods import Correction, Restorer
from data_sim.projection import Projector
from data_sim.scanner import KERNEL
from data_sim.units import mu_to_hu

DILATION_MM = 0.6
"""A pixel: rays that graze metal are inconsistent, too. An image that is reprojected has its trace grown instead."""


def correct_case(source: Path, out: Path, settings: CorrectionSettings, *, restorer: Restorer | None = None) -> Case:
    """Correct one case file and write it, with `image/<method>` and `image/corrected` added, to `out`.

    The first is the method's own image, the second takes as much of its change as `settings` ask for. Only what the
    format calls needed must be there: metal is segmented where the file has no mask. The uncorrected image is always
    reconstructed, since a correction changes the image that *our* kernel makes of the sinogram.

    Raises
    ------
    UnsupportedInputError
        Where the file is no usable case file.
    """
    case = prepare(read_case(source), settings)
    correction = correction_of(case, settings, restorer=restorer)
    whole = blended = correction.uncorrected_hu
    if correction.metal.any():
        whole, blended = correction.image(settings.method), blended_stack(correction, settings)
    case = replace(case, images={**case.images, settings.method: whole[0], "corrected": blended[0]})
    write_case(out, case)
    return case


def prepare(case: Case, settings: CorrectionSettings) -> Case:
    """The case with the uncorrected image of our own kernel, and a metal mask.

    Raises
    ------
    UnsupportedInputError
        Where the geometry has no filtered backprojection.
    """
    projector = Projector(case.geometry, case.grid, device=settings.device)
    try:
        uncorrected = projector.fbp(case.sinogram_metal, window=KERNEL)
    except (ValueError, ArithmeticError) as error:
        raise UnsupportedInputError(f"the case cannot be reconstructed: {error}.") from None
    if not np.isfinite(uncorrected).all():
        raise UnsupportedInputError("the case cannot be reconstructed: its geometry is absurd.")
    images = {**case.images, "uncorrected": mu_to_hu(uncorrected, case.mu_water_per_mm)}
    mask = case.mask_metal
    if settings.mask is not None:
        mask = read_mask(settings.mask, (1, *case.grid.shape))[0]
    elif mask is None:
        pixel_mm = (case.grid.pixel_mm, case.grid.pixel_mm)
        metal = settings.metal
        if metal.dilation_mm is None:
            metal = replace(metal, dilation_mm=DILATION_MM)
        mask = detect_in_image(images["uncorrected"], pixel_mm, metal).masks[0]
    return replace(case, images=images, mask_metal=mask)


def blended_stack(correction: Correction, settings: CorrectionSettings) -> NDArray[np.float32]:
    """The images of a raw-data correction with the part of the change that `settings` ask for, see `ctmar.blending`."""
    return blend(
        correction.uncorrected_hu,
        correction.image(settings.method),
        correction.metal,
        pixel_mm=correction.projector.grid.pixel_mm,
        strength=settings.strength,
        adaptive=settings.blends,
        fallback_hu=correction.fallback_hu(settings.method),
    )


def correction_of(case: Case, settings: CorrectionSettings, *, restorer: Restorer | None = None) -> Correction:
    """The raw-data correction of a prepared case."""
    if case.mask_metal is None:
        raise ValueError("the case is not prepared: it has no metal mask")
    return Correction(
        case.sinogram_metal[None],
        case.images["uncorrected"][None],
        np.asarray(case.mask_metal)[None],
        Projector(case.geometry, case.grid, device=settings.device),
        mu_water_per_mm=case.mu_water_per_mm,
        restorer=restorer,
    )
