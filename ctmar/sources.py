"""Metal-free slices to simulate from: DICOM, NIfTI or the built-in phantom, screened one by one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctmar.dicom.pixels import read_slice
from ctmar.dicom.series import SliceFile, find_series
from ctmar.errors import CtmarError, NoUsableSeriesError, UnsupportedInputError
from ctmar.metrics import body_mask
from ctmar.segmentation import metal_mask
from data_sim.geometry import ImageGrid
from data_sim.implants.own import Shape
from data_sim.phantom import REGIONS, phantom_slice
from data_sim.placement import IMPLANTS, suitable

PHANTOM = "phantom"
PHANTOM_PATIENTS = 6
PHANTOM_SLICES_MM = (-6.0, 0.0, 6.0)
PHANTOM_GRIDS = {
    "pelvis": ImageGrid(512, 512, 0.8),
    "shoulder": ImageGrid(512, 512, 0.8),
    "jaw": ImageGrid(512, 512, 0.45),
    "head": ImageGrid(512, 512, 0.45),
    "chest": ImageGrid(512, 512, 0.8),
    "knee": ImageGrid(512, 512, 0.8),
}

METAL_FREE_BELOW_HU = 3000.0
"""Enamel reaches 2700 HU in metal-free slices; real metal saturates 12-bit scanners at 3071."""

_LEAST_BODY_MM2 = 2000.0
_OTHER_FILES = (".nii", ".nii.gz")


@dataclass(frozen=True)
class SourceSlice:
    """A slice that can be loaded when it is needed.

    Attributes
    ----------
    name
        What it is called in provenance: a SOP instance UID, a file name with the slice's number, or the
        phantom's region, patient and position.
    load
        Gives the image in HU, float32 (rows, cols), its grid, and the patient's pseudonym.
    """

    name: str
    load: Callable[[], tuple[NDArray[np.float32], ImageGrid, str]]


@dataclass(frozen=True)
class Screened:
    """What screening found in a slice: the families of implants that fit it, or why it is left out."""

    slice: SourceSlice
    patient: str = ""
    grid: ImageGrid | None = None
    implants: tuple[str, ...] = ()
    reason: str = ""


def find_slices(sources: Sequence[str]) -> tuple[list[SourceSlice], list[tuple[str, str]]]:
    """All slices of the sources, and (name, reason) of what cannot be used.

    Parameters
    ----------
    sources
        DICOM folder, file or zip; NIfTI file; or the word "phantom".

    Raises
    ------
    NoUsableSeriesError
        Where a source does not exist or there is no slice at all.
    """
    slices: list[SourceSlice] = []
    skipped: list[tuple[str, str]] = []
    for source in sources:
        path = Path(source)
        if source == PHANTOM:
            slices.extend(_phantom())
        elif source.lower().endswith(_OTHER_FILES):
            slices.extend(_nifti(path))
        else:
            found = find_series(path)
            skipped.extend((file.path, file.reason) for file in found.skipped)
            for series in found.series:
                slices.extend(SourceSlice(s.sop_uid, partial(_load_dicom, s)) for s in series.slices)
    if not slices:
        raise NoUsableSeriesError(f"{', '.join(sources)}: no CT slice found; give DICOM, NIfTI or {PHANTOM!r}.")
    return slices, skipped


def screen(source: SourceSlice, *, names: Sequence[str] = tuple(IMPLANTS), shapes: Sequence[Shape] = ()) -> Screened:
    """Load a slice and say which of the families of implants it can be used for."""
    try:
        image_hu, grid, patient = source.load()
    except CtmarError as error:
        return Screened(source, reason=str(error))
    if metal_mask(image_hu, threshold_hu=METAL_FREE_BELOW_HU, pixel_mm=grid.pixel_mm).any():
        return Screened(source, patient, grid, reason=f"metal: values of {METAL_FREE_BELOW_HU:g} HU and above")
    if body_mask(image_hu).sum() * grid.pixel_mm**2 < _LEAST_BODY_MM2:
        return Screened(source, patient, grid, reason="hardly any patient in it")
    # the same generator for every slice: what fits does not depend on which others there are
    fitting = suitable(image_hu, grid, np.random.default_rng(0), names=names, shapes=shapes)
    return Screened(source, patient, grid, tuple(fitting), "" if fitting else "no implant fits")


def pseudonym(*identifiers: str) -> str:
    """A stable stand-in for a patient's identity, from which it cannot be read."""
    return "p-" + hashlib.sha256("\0".join(("ctmar", *identifiers)).encode()).hexdigest()[:12]


def _load_dicom(file: SliceFile) -> tuple[NDArray[np.float32], ImageGrid, str]:
    found = read_slice(file)
    rows_mm, cols_mm = found.pixel_mm
    if abs(rows_mm - cols_mm) > 1e-3 * rows_mm:
        raise UnsupportedInputError(f"{file.file.name}: its pixels are not square; resample the series first.")
    identity = str(found.dataset.get("PatientID") or found.dataset.get("StudyInstanceUID", ""))
    return found.image_hu, ImageGrid(len(found.image_hu), found.image_hu.shape[1], rows_mm), pseudonym(identity)


def _phantom() -> Iterator[SourceSlice]:
    for seed in range(PHANTOM_PATIENTS):
        for region in REGIONS:
            for z_mm in PHANTOM_SLICES_MM:
                yield SourceSlice(f"phantom-{region}-{seed}-{z_mm:g}mm", partial(_load_phantom, region, seed, z_mm))


def _load_phantom(region: str, seed: int, z_mm: float) -> tuple[NDArray[np.float32], ImageGrid, str]:
    grid = PHANTOM_GRIDS[region]
    return phantom_slice(region, grid=grid, seed=seed, z_mm=z_mm), grid, f"phantom-{seed}"


def _nifti(path: Path) -> Iterator[SourceSlice]:
    for index in range(_open_nifti(path).shape[2]):
        yield SourceSlice(f"{_nifti_name(path)}:{index}", partial(_load_nifti, path, index))


@lru_cache(maxsize=1)
def _open_nifti(path: Path) -> Any:
    """The volume on canonical RAS+ axes; opened anew in every process, since it may hold all of its voxels."""
    try:
        import nibabel
    except ImportError:
        raise UnsupportedInputError(f"{path.name}: reading NIfTI needs nibabel; pip install ctmar[nifti].") from None
    if not path.is_file():
        raise NoUsableSeriesError(f"{path.name}: no such file.")
    try:
        volume = nibabel.as_closest_canonical(nibabel.load(path))
        shape = volume.shape
    except Exception as error:  # nibabel raises many kinds on damaged files
        raise UnsupportedInputError(
            f"{path.name}: no readable NIfTI file ({type(error).__name__}); export it again."
        ) from None
    if len(shape) != 3:
        raise UnsupportedInputError(f"{path.name}: has {len(shape)} dimensions; one CT volume has 3.")
    return volume


def _nifti_name(path: Path) -> str:
    """File and folder: many collections give every patient a folder and the same file name."""
    return "/".join(path.resolve().parts[-2:])


def _load_nifti(path: Path, index: int) -> tuple[NDArray[np.float32], ImageGrid, str]:
    """One axial slice, turned from the canonical axes to rows from anterior and columns from the patient's right."""
    volume = _open_nifti(path)
    x_mm, y_mm = (float(step) for step in volume.header.get_zooms()[:2])
    if abs(x_mm - y_mm) > 1e-3 * x_mm:
        raise UnsupportedInputError(f"{path.name}: its pixels are not square; resample the volume first.")
    image = np.asarray(volume.dataobj[..., index], np.float32)
    image_hu = np.ascontiguousarray(np.maximum(image, -1000)[::-1, ::-1].T)
    return image_hu, ImageGrid(len(image_hu), image_hu.shape[1], x_mm), pseudonym(_nifti_name(path))
