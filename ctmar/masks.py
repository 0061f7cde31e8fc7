"""The user's own metal masks, in place of the threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctmar.errors import CtmarError, UnsupportedInputError, UsageError

MOST_PIXELS = 2**28
"""A thousand slices of 512 x 512 pixels."""


def read_mask(path: Path, shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Metal, bool (slices, rows, cols), from a NumPy (.npy), NIfTI (.nii, .nii.gz) or, for one slice, PNG file.

    Slices are in the order in which a series is corrected: along its normal, upwards. NIfTI volumes are turned from
    their own axes to that order. Whatever is not 0 is metal.

    Raises
    ------
    UsageError
        Where the file is missing or its shape is not that of the images.
    UnsupportedInputError
        Where it cannot be read.
    """
    mask, _ = read_planes(path)
    if mask.shape != shape:
        raise UsageError(f"{path}: the mask is {mask.shape}, the images are {shape} (slices, rows, columns).")
    return mask


def refuse_large(path: Path, shape: Sequence[int]) -> None:
    """Raise `UnsupportedInputError` before an array of an absurd size is read; compressed files may promise any."""
    if math.prod(shape) > MOST_PIXELS:
        raise UnsupportedInputError(f"{path}: more than {MOST_PIXELS // 2**20} million pixels; cut it to the metal.")


def read_planes(path: Path) -> tuple[NDArray[np.bool_], tuple[float, float] | None]:
    """A mask of whatever shape, bool (slices, rows, cols), and the height and width of its pixels in mm if known.

    Raises
    ------
    UsageError
        Where the file is missing or of another kind.
    UnsupportedInputError
        Where it cannot be read or has not two or three axes.
    """
    if not path.is_file():
        raise UsageError(f"{path}: there is no such mask file.")
    name = path.name.lower()
    pixel_mm = None
    try:
        if name.endswith(".npy"):
            refuse_large(path, np.load(path, mmap_mode="r", allow_pickle=False).shape)
            mask = np.load(path, allow_pickle=False)
        elif name.endswith((".nii", ".nii.gz")):
            mask, pixel_mm = _read_nifti(path)
        elif name.endswith(".png"):
            from PIL import Image

            with Image.open(path) as picture:
                mask = np.asarray(picture.convert("L"))
        else:
            raise UsageError(f"{path}: a mask is a .npy, .nii, .nii.gz or .png file.")
    except CtmarError:
        raise
    except Exception as error:  # damaged files make these readers raise many kinds, also some of their own
        raise UnsupportedInputError(f"{path}: no readable mask ({type(error).__name__}); export it again.") from None
    if mask.ndim == 2:
        mask = mask[None]
    if mask.ndim != 3 or mask.dtype.kind not in "buif":
        raise UnsupportedInputError(f"{path}: a mask has two or three axes of numbers; export it again.")
    return np.nan_to_num(mask) != 0, pixel_mm


def _read_nifti(path: Path) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """(slices, rows, cols) with rows from anterior and columns from the patient's right; a pixel's height and width."""
    try:
        import nibabel
    except ImportError:
        raise UnsupportedInputError(f"{path}: reading NIfTI needs nibabel; pip install ctmar[nifti].") from None
    volume = nibabel.as_closest_canonical(nibabel.load(path))
    refuse_large(path, volume.shape)
    width_mm, height_mm = (float(step) for step in volume.header.get_zooms()[:2])
    return np.asarray(volume.dataobj, np.float32)[::-1, ::-1].T, (height_mm, width_mm)
def mask_of_series(path, series, name=None):
    from ctmar.detection import Detection
    first = series.slices[0]
    return Detection(list(read_mask(path, (len(series.slices), first.rows, first.cols))))
