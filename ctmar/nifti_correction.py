"""Volumes in, corrected volumes out: NIfTI, and DICOM series into NIfTI."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctmar.correction import metal_of, result_of, what_to_say
from ctmar.correction_settings import CorrectionSettings
from ctmar.detection import Detection
from ctmar.dicom.affine import affine_of
from ctmar.dicom.output import SeriesStack
from ctmar.dicom.series import Series
from ctmar.errors import UnsupportedInputError
from ctmar.files import refuse_existing
from ctmar.images import Image
from ctmar.masks import read_mask, read_nifti_mask
from ctmar.methods import Restorer
from ctmar.nifti import NiftiVolume, is_nifti, write_series_volume, write_volume
from ctmar.packed import PackedMasks
from ctmar.pipeline import Tell, correct_stack, find_metal
from ctmar.results import UNREADABLE, SeriesResult, SliceResult
from ctmar.slice_correction import SliceOutcome


@dataclass
class _Corrected:
    """Keeps the images that were corrected; all others are read again when the file is written."""

    images: dict[int, NDArray[np.float32]] = field(default_factory=dict)

    def add(self, index: int, image: Image, metal: NDArray[np.bool_], outcome: SliceOutcome | None) -> None:
        """Keep one slice."""
        if outcome is not None and outcome.image_hu is not None:
            self.images[index] = outcome.image_hu


def correct_volume(
    volume: NiftiVolume,
    out: Path,
    settings: CorrectionSettings,
    *,
    restorer: Restorer | None = None,
    tell: Tell | None = None,
) -> SeriesResult:
    """Correct a NIfTI volume into the file `out`, in the orientation, type and scaling of the source.

    The file holds the whole volume, and so does the memory: in the type in which it is stored, and the slices that were
    corrected as float32 as well.

    Raises
    ------
    OutputExistsError
        Where `out` exists and is not to be overwritten.
    UnsupportedInputError
        Where a slice cannot be read: NIfTI has no place for gaps.
    UsageError
        Where the mask does not fit the volume.
    """
    began = time.monotonic()
    refuse_existing(out, kind=(), overwrite=settings.overwrite)
    metal = metal_of_volume(volume, settings, tell=tell)
    kept = _Corrected()
    results = correct_stack(volume, metal.masks, (kept,), settings, restorer=restorer, tell=tell)
    _require_all(results)
    write_volume(out, (kept.images.get(index) for index in range(len(volume))), like=volume)
    warnings = (*volume.warnings, *what_to_say(metal))
    return result_of(results, metal, settings, out=out, began=began, restorer=restorer, warnings=warnings)


def correct_series_to_nifti(
    series: Series,
    out: Path,
    settings: CorrectionSettings,
    *,
    restorer: Restorer | None = None,
    tell: Tell | None = None,
) -> SeriesResult:
    """Correct a DICOM series into a NIfTI file in HU, float32.

    Raises
    ------
    OutputExistsError
        Where `out` exists and is not to be overwritten.
    UnsupportedInputError
        Where slices cannot be read, are missing or unevenly spaced, or differ in their grids, which NIfTI cannot hold.
    UsageError
        Where the mask does not fit the series.
    """
    began = time.monotonic()
    refuse_existing(out, kind=(), overwrite=settings.overwrite)
    affine_of(series)  # refuses what cannot be written before the work is done
    stack = SeriesStack(series)
    metal, unreadable = metal_of(stack, series, settings, tell=tell)
    _require_all([SliceResult(index + 1, UNREADABLE, message=why) for index, why in unreadable.items()])
    kept = _Corrected()
    results = correct_stack(stack, metal.masks, (kept,), settings, unreadable=unreadable, restorer=restorer, tell=tell)
    _require_all(results)

    def images() -> Iterator[NDArray[np.float32]]:
        for index in range(len(stack)):
            corrected = kept.images.get(index)
            yield stack.read(index).image_hu if corrected is None else corrected

    write_series_volume(out, images(), series=series)
    warnings = (*series.warnings, *what_to_say(metal))
    return result_of(results, metal, settings, out=out, began=began, restorer=restorer, warnings=warnings)


def metal_of_volume(volume: NiftiVolume, settings: CorrectionSettings, *, tell: Tell | None = None) -> Detection:
    """The metal of every slice, from the user's mask (NIfTI or .npy) or by detection.

    Raises
    ------
    UsageError
        Where the mask does not fit the volume.
    UnsupportedInputError
        Where the mask, or all of the volume, cannot be read.
    """
    if settings.mask is None:
        return find_metal(volume, settings, tell=tell)[0]
    if not is_nifti(settings.mask):
        return Detection(PackedMasks(read_mask(settings.mask, volume.shape)), source="array")
    mask = read_nifti_mask(settings.mask, volume.source.affine, volume.source.shape[:3])
    return Detection(PackedMasks(volume.oriented(mask)), source="NIfTI")


def _require_all(results: list[SliceResult]) -> None:
    for result in results:
        if result.status == UNREADABLE:
            raise UnsupportedInputError(
                f"slice {result.number}: {result.message} NIfTI cannot hold a series with gaps."
            )
