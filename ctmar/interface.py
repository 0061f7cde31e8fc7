"""ctmar as a library: arrays, or a series, in; corrected ones out. What `ctmar correct` does, in one call."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctmar import correction, raw
from ctmar.checks import NOT_FINITE
from ctmar.correction_settings import CorrectionSettings
from ctmar.database import Case
from ctmar.detection import DetectionSettings
from ctmar.dicom.series import choose_series, find_series
from ctmar.files import keep_source
from ctmar.images import PlainImage
from ctmar.methods import Correction
from ctmar.pipeline import SLICES_AT_ONCE, Tell, correct_stack
from ctmar.pipeline import find_metal as metal_of_stack
from ctmar.restorer import DEFAULT_MODEL, NetworkRestorer, restorer_for
from ctmar.results import FAILED, SeriesResult
from ctmar.slice_correction import SliceOutcome
from data_sim.geometry import Geometry, ImageGrid
from data_sim.projection import Projector
from data_sim.units import MU_WATER_PER_MM

Stack = NDArray[np.float32]
Mask = NDArray[np.bool_]


def correct(
    data: ArrayLike,
    settings: CorrectionSettings | None = None,
    *,
    pixel_mm: float | tuple[float, float] | None = None,
    slice_mm: float | None = None,
    geometry: Geometry | None = None,
    grid: ImageGrid | None = None,
    mu_water_per_mm: float = MU_WATER_PER_MM,
    metal: NDArray[np.bool_] | None = None,
    model: str | Path = DEFAULT_MODEL,
) -> Stack:
    """Correct images, or measured sinograms. Not for diagnostic use.

    Images need `pixel_mm`; sinograms need `geometry` and `grid`. Slices without metal come back as they were
    (sinograms: reconstructed). So do images whose correction fails its checks (`ctmar.checks`), and what came out with
    values that are not finite, with a warning (`UserWarning`).

    Parameters
    ----------
    data
        Images in HU, (rows, cols) or (slices, rows, cols), with air where nothing was measured; or line integrals,
        (views, bins) or (slices, views, bins), corrected for water (`docs/case-format.md` says how bins and views lie).
    settings
        Method, strength, how metal is found, device; `mask` and what is about files (`seg`, `report`, ...) is ignored.
    pixel_mm
        Distance between rows and between columns, or one number for both.
    slice_mm
        Distance between the images of a stack: metal is found in three dimensions.
    geometry, grid
        Of the sinograms, and of the images to make from them.
    mu_water_per_mm
        For sinograms: the attenuation that is 0 HU.
    metal
        The metal, bool, of the images' shape, or of one image for all; it is found where None.
    model
        A shipped model or a .safetensors file, for the methods that need one.

    Returns
    -------
    numpy.ndarray
        Images in HU, float32, (rows, cols) or (slices, rows, cols), with the metal as it was.

    Raises
    ------
    ValueError
        Where shapes, pixels and settings do not fit together, or values are not finite.
    ctmar.errors.CtmarError
        Where the model cannot be loaded, or a sinogram cannot be reconstructed.
    """
    settings = replace(settings or CorrectionSettings(), mask=None)
    array = _checked(data)
    stack = array if array.ndim == 3 else array[None]
    if (geometry is None) != (grid is None) or (geometry is None) == (pixel_mm is None):
        raise ValueError("images need pixel_mm, sinograms need geometry and grid")
    shape = stack.shape if grid is None else (len(stack), *grid.shape)
    given = None if metal is None else _mask(metal, shape)
    restorer = restorer_for(settings.method, model, device=settings.device)
    if geometry is not None and grid is not None:
        if not 0 < mu_water_per_mm < math.inf:
            raise ValueError(f"mu_water_per_mm must be positive, not {mu_water_per_mm}")
        if stack.shape[1:] != geometry.shape:
            raise ValueError(f"sinograms of this geometry are {geometry.shape}, not {stack.shape[1:]}")
        cases = [
            Case(
                geometry=geometry,
                grid=grid,
                mu_water_per_mm=mu_water_per_mm,
                sinogram_metal=one,
                mask_metal=None if given is None else given[k],
            )
            for k, one in enumerate(stack)
        ]
        images = _from_sinograms(cases, settings, restorer)
    else:
        images = _from_images(_slices(stack, pixel_mm, slice_mm, found=given is not None), given, settings, restorer)
    return images if array.ndim == 3 else images[0]


def find_metal(
    image_hu: ArrayLike,
    *,
    pixel_mm: float | tuple[float, float],
    slice_mm: float | None = None,
    settings: DetectionSettings | None = None,
) -> Mask:
    """The metal that `correct` would find in images.

    Parameters
    ----------
    image_hu
        (rows, cols) or (slices, rows, cols) in HU.
    pixel_mm, slice_mm
        As for `correct`.
    settings
        How.

    Returns
    -------
    numpy.ndarray
        bool, of the images' shape.
    """
    array = _checked(image_hu)
    stack = array if array.ndim == 3 else array[None]
    found, _ = metal_of_stack(
        _slices(stack, pixel_mm, slice_mm), CorrectionSettings(metal=settings or DetectionSettings())
    )
    masks = np.stack([found.masks[index] for index in range(len(stack))])
    return masks if array.ndim == 3 else masks[0]


def correct_series(
    source: str | Path,
    out: str | Path,
    settings: CorrectionSettings | None = None,
    *,
    series: str | None = None,
    model: str | Path = DEFAULT_MODEL,
    tell: Tell | None = None,
) -> SeriesResult:
    """Correct a DICOM series into a new folder, as ``ctmar correct SOURCE --out OUT`` does; the source is only read.

    Parameters
    ----------
    source
        Folder, file, zip or DICOMDIR.
    out
        Folder to make; it appears when it is complete.
    settings
        What to do, and which further files to write.
    series
        UID of the series, where there are several.
    model
        A shipped model or a .safetensors file, for the methods that need one.
    tell
        Told what is going on, how many slices are done, and of how many.

    Returns
    -------
    SeriesResult
        What became of every slice; ``failed`` of them were left as they were.

    Raises
    ------
    ctmar.errors.CtmarError
        Where there is no such series, it cannot be read, the output exists or would be in the source, or the model
        cannot be loaded.
    """
    settings = settings or CorrectionSettings()
    keep_source(Path(source), Path(out))
    restorer = restorer_for(settings.method, model, device=settings.device)
    (chosen,) = choose_series(find_series(Path(source)), uid=series)
    return correction.correct_series(chosen, Path(out), settings, restorer=restorer, tell=tell)


@dataclass(frozen=True)
class _Slices:
    """Arrays as `ctmar.pipeline` reads them."""

    images_hu: Stack
    pixel_mm: tuple[float, float]
    along_normal_mm: Sequence[float]

    def __len__(self) -> int:
        return len(self.images_hu)

    def read(self, index: int) -> PlainImage:
        image_hu = self.images_hu[index]
        return PlainImage(image_hu, np.zeros(image_hu.shape, bool), self.pixel_mm)


@dataclass(frozen=True)
class _Result:
    """Where `ctmar.pipeline` puts corrected images."""

    images_hu: Stack

    def add(self, index: int, image: PlainImage, metal: Mask, outcome: SliceOutcome | None) -> None:
        if outcome is not None and outcome.image_hu is not None:
            self.images_hu[index] = outcome.image_hu


def _from_images(
    stack: _Slices, metal: Mask | None, settings: CorrectionSettings, restorer: NetworkRestorer | None
) -> Stack:
    masks = list(metal_of_stack(stack, settings)[0].masks) if metal is None else list(metal)
    result = _Result(stack.images_hu.copy())
    for one in correct_stack(stack, masks, [result], settings, restorer=restorer):
        if one.status == FAILED:
            warnings.warn(f"slice {one.number} is as it was: {one.message}", stacklevel=3)
    return result.images_hu


def _from_sinograms(cases: Sequence[Case], settings: CorrectionSettings, restorer: NetworkRestorer | None) -> Stack:
    prepared = [raw.prepare(case, settings) for case in cases]
    images_hu = np.stack([case.images["uncorrected"] for case in prepared])
    metal = np.stack([np.asarray(case.mask_metal) for case in prepared])
    projector = Projector(cases[0].geometry, cases[0].grid, device=settings.device)
    where = np.flatnonzero(metal.any(axis=(1, 2)))
    for start in range(0, len(where), SLICES_AT_ONCE):
        batch = where[start : start + SLICES_AT_ONCE]
        correction = Correction(
            np.stack([cases[index].sinogram_metal for index in batch]),
            images_hu[batch],
            metal[batch],
            projector,
            mu_water_per_mm=cases[0].mu_water_per_mm,
            restorer=restorer,
        )
        for index, image_hu in zip(batch, raw.blended_stack(correction, settings), strict=True):
            if np.isfinite(image_hu).all():
                images_hu[index] = image_hu
            else:
                warnings.warn(f"slice {index + 1} is as it was: {NOT_FINITE}", stacklevel=3)
    return images_hu


def _slices(
    stack: Stack, pixel_mm: float | tuple[float, float] | None, slice_mm: float | None, *, found: bool = False
) -> _Slices:
    if len(stack) > 1 and slice_mm is None and not found:
        raise ValueError("to find metal in a stack, the distance of its slices is needed: slice_mm")
    sizes = np.append(np.broadcast_to(np.asarray(pixel_mm, float), 2), 1.0 if slice_mm is None else slice_mm)
    if not (np.isfinite(sizes).all() and (sizes > 0).all()):
        raise ValueError("pixel_mm and slice_mm must be positive")
    rows_mm, cols_mm, apart_mm = map(float, sizes)
    return _Slices(stack, (rows_mm, cols_mm), [k * apart_mm for k in range(len(stack))])


def _checked(data: ArrayLike) -> Stack:
    array = np.asarray(data, np.float32)
    if array.ndim not in (2, 3) or not array.size:
        raise ValueError(f"expected one image or sinogram, or a stack of them, not an array {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("the data hold values that are not finite")
    return array


def _mask(metal: NDArray[np.bool_], shape: tuple[int, ...]) -> Mask:
    mask = np.asarray(metal)
    if mask.dtype != bool:
        raise ValueError(f"metal is a mask of bool, not of {mask.dtype}")
    if mask.shape not in (shape, shape[1:]):
        raise ValueError(f"the metal is {mask.shape}, the images are {shape}")
    return np.broadcast_to(mask, shape)
