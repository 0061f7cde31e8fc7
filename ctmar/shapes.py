"""Masks of a user's own metal as implants to simulate: PNG, .npy, NIfTI, DICOM SEG, .mat."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctmar.dicom.source import quiet_pydicom
from ctmar.errors import CtmarError, UnsupportedInputError, UsageError
from ctmar.masks import read_planes, refuse_large
from data_sim.implants.own import Shape, shape_of

MOST_BYTES = 2**29
"""A mask larger than this on disk is none."""

MOST_PARTS = 200
"""More parts than this in one slice are noise, not an implant."""

LEAST_MM2 = 0.5
PIXEL_MM = (0.02, 5.0)
_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"

Planes = tuple[NDArray[np.bool_], tuple[float, float] | None]


def read_shapes(files: Sequence[str]) -> list[Shape]:
    """Every slice with metal of every file as a shape.

    Parameters
    ----------
    files
        Paths, each alone or with its pixel size in mm behind a colon: ``stem.png:0.7``. A pixel size that is given
        goes before the file's own; PNG and .npy have none. A .mat file holds an array ``metal`` or ``mask`` (or one
        array only), also within a struct, and beside it ``pixel_size`` in cm, as the data that Zhang and Yu
        published with CNN-MAR have it, or ``pixel_mm``. Of a DICOM SEG all segments are taken, as its frames are
        stored.

    Raises
    ------
    UsageError
        Where a file is missing, of another kind, holds no metal, or has no pixel size and none is given.
    UnsupportedInputError
        Where it cannot be read, its pixels are not square, or a slice is full of specks.
    """
    return [shape for file in files for shape in _shapes(*_split(file))]


def fingerprints(files: Sequence[str]) -> list[str]:
    """SHA-256 of each file, so that a database knows when a mask has changed under its name.

    Raises
    ------
    UsageError
        Where a file is missing.
    """
    paths = [_split(file)[0] for file in files]
    for path in paths:
        if not path.is_file():
            raise UsageError(f"{path}: there is no such mask file.")
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def _split(file: str) -> tuple[Path, float | None]:
    """Path and pixel size of ``path:mm``; a file that has a colon in its name is found as it is."""
    if Path(file).exists():
        return Path(file), None
    name, colon, size = file.rpartition(":")
    try:
        pixel_mm = float(size)
    except ValueError:
        return Path(file), None
    if not colon:
        return Path(file), None
    if not PIXEL_MM[0] <= pixel_mm <= PIXEL_MM[1]:
        raise UsageError(f"{name}: pixels of {size} mm; give {PIXEL_MM[0]:g} to {PIXEL_MM[1]:g} mm.")
    return Path(name), pixel_mm


def _shapes(path: Path, given_mm: float | None) -> Iterator[Shape]:
    planes, own_mm = _planes(path)
    pixel_mm = given_mm or _square(path, own_mm)
    count = 0
    for plane in planes:
        if plane.sum() * pixel_mm**2 < LEAST_MM2:
            continue
        _refuse_specks(path, plane)
        yield shape_of(plane, pixel_mm)
        count += 1
    if not count:
        raise UsageError(f"{path}: the mask holds no metal of at least {LEAST_MM2:g} mm2.")


def _square(path: Path, own_mm: tuple[float, float] | None) -> float:
    if own_mm is None:
        raise UsageError(f"{path}: says no pixel size; give it in mm behind a colon, {path.name}:0.7.")
    height, width = own_mm
    if not all(np.isfinite(own_mm)) or not all(PIXEL_MM[0] <= size <= PIXEL_MM[1] for size in own_mm):
        raise UnsupportedInputError(f"{path}: pixels outside {PIXEL_MM[0]:g} to {PIXEL_MM[1]:g} mm; give their size.")
    if abs(height - width) > 1e-3 * width:
        raise UnsupportedInputError(f"{path}: its pixels are not square; resample the mask first.")
    return width


def _refuse_specks(path: Path, plane: NDArray[np.bool_]) -> None:
    from scipy.ndimage import label

    parts, gaps = label(plane, structure=np.ones((3, 3)))[1], label(~np.pad(plane, 1))[1]
    if max(parts, gaps) > MOST_PARTS:
        raise UnsupportedInputError(f"{path}: a slice has over {MOST_PARTS} parts or holes; clean the mask first.")


def _planes(path: Path) -> Planes:
    """Mask (slices, rows, cols) and the height and width of its pixels, mm."""
    if path.is_file() and path.stat().st_size > MOST_BYTES:
        raise UnsupportedInputError(f"{path}: larger than {MOST_BYTES // 2**20} MiB; cut the mask to the metal.")
    reader = {".mat": _read_mat, ".dcm": _read_segmentation}.get(path.suffix.lower())
    if reader is None:
        if not path.name.lower().endswith((".npy", ".nii", ".nii.gz", ".png")):
            raise UsageError(f"{path}: a shape is a .png, .npy, .nii, .nii.gz, .mat or DICOM SEG (.dcm) file.")
        return read_planes(path)
    if not path.is_file():
        raise UsageError(f"{path}: there is no such mask file.")
    try:
        return reader(path)
    except CtmarError:
        raise
    except Exception as error:  # damaged files make these readers raise many kinds
        raise UnsupportedInputError(f"{path}: no readable mask ({type(error).__name__}); export it again.") from None


# ------------------------------------------------------------------------------------------------------ .mat


def _read_mat(path: Path) -> Planes:
    from scipy.io import loadmat, whosmat

    try:
        for _, shape, _ in whosmat(path):
            refuse_large(path, shape)
        content = loadmat(path)
    except NotImplementedError:
        raise UnsupportedInputError(f"{path}: a MATLAB 7.3 file; save it with -v7.") from None
    arrays = dict(_arrays(content))
    named = [name for name in ("metal", "mask") if name in arrays]
    images = [name for name, values in arrays.items() if values.ndim in (2, 3) and min(values.shape[:2]) > 1]
    if not named and len(images) != 1:
        raise UsageError(f"{path}: holds no array named metal or mask.")
    mask = arrays[(named or images)[0]]
    if mask.ndim == 3:
        mask = np.moveaxis(mask, 2, 0)  # MATLAB stacks slices along the last axis
    elif mask.ndim == 2:
        mask = mask[None]
    if mask.ndim != 3 or mask.dtype.kind not in "buif":
        raise UnsupportedInputError(f"{path}: a mask has two or three axes of numbers; export it again.")
    return np.nan_to_num(mask) != 0, _mat_pixel_mm(arrays)


def _arrays(content: Any) -> Iterator[tuple[str, NDArray[Any]]]:
    """Arrays by name, those of structs of one element too."""
    for name, values in content.items():
        if name.startswith("__") or not isinstance(values, np.ndarray):
            continue
        if values.dtype.names and values.size == 1:
            yield from _arrays({field: values.flat[0][field] for field in values.dtype.names})
        elif values.dtype.kind in "buif":
            yield name, values


def _mat_pixel_mm(arrays: dict[str, NDArray[Any]]) -> tuple[float, float] | None:
    for name, unit_mm in (("pixel_mm", 1.0), ("pixel_size", 10.0)):
        if name in arrays and arrays[name].size in (1, 2):
            sizes = arrays[name].ravel().astype(float) * unit_mm
            return float(sizes[0]), float(sizes[-1])
    return None


# ------------------------------------------------------------------------------------------------ DICOM SEG


def _read_segmentation(path: Path) -> Planes:
    import pydicom

    with quiet_pydicom():
        dataset = pydicom.dcmread(path)
        if dataset.file_meta.get("MediaStorageSOPClassUID", dataset.get("SOPClassUID")) != _SEGMENTATION:
            raise UsageError(f"{path}: no DICOM segmentation; give a SEG, NIfTI, PNG, .npy or .mat file.")
        frames = int(dataset.get("NumberOfFrames", 1))
        refuse_large(path, (frames, int(dataset.Rows), int(dataset.Columns)))
        values = dataset.pixel_array
        height_mm, width_mm = _seg_pixel_mm(dataset)
    most = float(dataset.get("MaximumFractionalValue", 1))
    mask = values.reshape(-1, *values.shape[-2:]) >= (0.5 * most if most > 1 else 1)
    return mask, (height_mm, width_mm)


def _seg_pixel_mm(dataset: Any) -> tuple[float, float]:
    """PixelSpacing of the shared functional groups, or of the first frame's (PS3.3 section C.7.6.16.2.1)."""
    groups = [
        *dataset.get("SharedFunctionalGroupsSequence", []),
        *list(dataset.get("PerFrameFunctionalGroupsSequence", []))[:1],
    ]
    for group in groups:
        if "PixelMeasuresSequence" in group:
            height_mm, width_mm = group.PixelMeasuresSequence[0].PixelSpacing
            return float(height_mm), float(width_mm)
    raise ValueError("no pixel spacing")
