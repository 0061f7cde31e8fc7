"""The user's own metal masks, in place of the threshold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctmar.errors import UnsupportedInputError, UsageError


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
    if not path.is_file():
        raise UsageError(f"{path}: there is no such mask file.")
    name = path.name.lower()
    try:
        if name.endswith(".npy"):
            mask = np.load(path, allow_pickle=False)
        elif name.endswith((".nii", ".nii.gz")):
            mask = _read_nifti(path)
        elif name.endswith(".png"):
            from PIL import Image

            with Image.open(path) as picture:
                mask = np.asarray(picture.convert("L"))
        else:
            raise UsageError(f"{path}: a mask is a .npy, .nii, .nii.gz or .png file.")
    except (OSError, ValueError, EOFError) as error:
        raise UnsupportedInputError(f"{path}: no readable mask ({type(error).__name__}); export it again.") from None
    if mask.ndim == 2:
        mask = mask[None]
    if mask.shape != shape:
        raise UsageError(f"{path}: the mask is {mask.shape}, the images are {shape} (slices, rows, columns).")
    return np.nan_to_num(mask) != 0


def _read_nifti(path: Path) -> NDArray[np.float32]:
    """(slices, rows, cols) with rows from anterior and columns from the patient's right."""
    try:
        import nibabel
    except ImportError:
        raise UnsupportedInputError(f"{path}: reading NIfTI needs nibabel; pip install ctmar[nifti].") from None
    try:
        volume = nibabel.as_closest_canonical(nibabel.load(path))
    except nibabel.filebasedimages.ImageFileError:
        raise UnsupportedInputError(f"{path}: no readable NIfTI file; export it again.") from None
    return np.asarray(volume.dataobj, np.float32)[::-1, ::-1].T
