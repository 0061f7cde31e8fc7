"""The user's own metal masks, in place of the threshold: arrays and NIfTI; `ctmar.dicom.given_masks` has DICOM's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctmar.errors import CtmarError, UnsupportedInputError, UsageError
from ctmar.nifti import is_nifti, open_volume

MOST_PIXELS = 2**28
"""A thousand slices of 512 x 512 pixels."""

NEAR_VOXELS = 0.25
"""Grids that agree to this share of a voxel are the same; headers round."""

_VOXELS_AT_ONCE = 2**25


def read_mask(path: Path, shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Metal, bool (slices, rows, cols), from a NumPy (.npy), NIfTI (.nii, .nii.gz) or, for one slice, PNG file.

    Slices are in the order in which a series is corrected: along its normal, upwards. NIfTI volumes are turned from
    their own axes to that order of a supine patient; `read_nifti_mask` and `ctmar.dicom.given_masks` place them by
    their affine. Whatever is not 0 is metal.

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


def split_choice(given: str | Path) -> tuple[Path, str | None]:
    """File and chosen label of ``FILE:label``; a file that has a colon in its name is found as it is."""
    path = Path(given)
    if path.exists():
        return path, None
    name, colon, choice = str(given).rpartition(":")
    return (Path(name), choice) if colon and choice and Path(name).exists() else (path, None)


def read_nifti_mask(path: Path, affine: NDArray[np.float64], shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    """A NIfTI mask on the voxel grid of a NIfTI image, whatever orientation the mask is stored in.

    Parameters
    ----------
    path
        The mask; whatever is not 0 is metal.
    affine : float (4, 4)
        Of the image: voxel indices to patient coordinates (right, anterior, superior), mm.
    shape
        Of the image, in the order of its indices.

    Returns
    -------
    bool, `shape`

    Raises
    ------
    UsageError
        Where the file is missing or its grid is another, saying what differs.
    UnsupportedInputError
        Where it cannot be read.
    """
    mask, own_affine = load_nifti(path)
    axes, flips = turned_axes(path, np.linalg.inv(own_affine) @ np.asarray(affine, float), mask.shape, shape)
    turned = mask.transpose(axes)
    return np.ascontiguousarray(turned[tuple(slice(None, None, -1 if flip else 1) for flip in flips)])


def load_nifti(path: Path) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """A NIfTI mask as it is stored, bool (i, j, k), and its affine to right, anterior, superior in mm.

    Raises
    ------
    UsageError
        Where the file is missing.
    UnsupportedInputError
        Where it cannot be read, has other than three axes or an affine that cannot be inverted.
    """
    if not path.is_file():
        raise UsageError(f"{path}: there is no such mask file.")
    nibabel = _nibabel(path)
    try:
        volume = nibabel.load(path)
        refuse_large(path, volume.shape)
        shape = tuple(int(n) for n in volume.shape)
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        if len(shape) != 3 or min(shape) < 1:
            raise UnsupportedInputError(f"{path}: a mask has three axes, not {len(shape)}; export it again.")
        affine = np.asarray(volume.affine, float)
        if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            raise UnsupportedInputError(f"{path}: its header places no voxel (affine); export it again.")
        mask = np.zeros(shape, bool)
        # Scaled values are float64, of a whole volume gigabytes; every part of a compressed file is read from its
        # start, so that there are few.
        step = max(1, _VOXELS_AT_ONCE // max(1, shape[0] * shape[1]))
        for first in range(0, shape[2], step):
            part = np.asarray(volume.dataobj[:, :, first : first + step]).reshape(shape[0], shape[1], -1)
            mask[:, :, first : first + step] = np.nan_to_num(part) != 0
    except CtmarError:
        raise
    except Exception as error:  # damaged files make nibabel raise many kinds, also some of its own
        raise UnsupportedInputError(f"{path}: no readable mask ({type(error).__name__}); export it again.") from None
    return mask, affine


def turned_axes(
    path: Path, to_mask: NDArray[np.float64], mask_shape: Sequence[int], shape: Sequence[int]
) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """How a mask's axes are permuted, then flipped, to lie on an image's.

    Parameters
    ----------
    to_mask : float (4, 4)
        Image voxel to mask voxel.

    Returns
    -------
    axes, flips
        The mask's axis for every axis of the image, and whether it runs backwards.

    Raises
    ------
    UsageError
        Where the two grids do not coincide to a quarter of a voxel anywhere, naming the difference.
    """
    linear = to_mask[:3, :3]
    axes = tuple(int(a) for a in np.argmax(np.abs(linear), axis=0))
    steps = np.abs(linear[list(axes), range(3)])
    if len(set(axes)) < 3:
        raise UsageError(f"{path}: the mask is rotated against the image; resample it to the image's grid.")
    if tuple(mask_shape[a] for a in axes) != tuple(shape):
        raise UsageError(
            f"{path}: the mask has {' x '.join(str(mask_shape[a]) for a in axes)} voxels along the axes of the image, "
            f"the image {' x '.join(map(str, shape))}; resample it to the image's grid."
        )
    flips = tuple(bool(linear[a, k] < 0) for k, a in enumerate(axes))
    expected = np.zeros((3, 4))
    for k, (a, flip) in enumerate(zip(axes, flips, strict=True)):
        expected[a, k] = -1 if flip else 1
        expected[a, 3] = shape[k] - 1 if flip else 0
    corners = np.array(
        [[i, j, k, 1] for i in (0, shape[0] - 1) for j in (0, shape[1] - 1) for k in (0, shape[2] - 1)], float
    )
    off = corners @ (to_mask[:3] - expected).T
    worst = float(np.abs(off).max())
    if worst > NEAR_VOXELS:
        if float(np.abs(steps * np.asarray(shape) - np.asarray(shape)).max()) > NEAR_VOXELS:
            what = "its voxels are of another size (" + " x ".join(f"{1 / s:.4g}" for s in steps) + " of the image's)"
        elif float(np.ptp(off, axis=0).max()) < NEAR_VOXELS:
            what = f"it is shifted by {worst:.2f} voxels"
        else:
            what = f"it is rotated or sheared, by up to {worst:.2f} voxels"
        raise UsageError(f"{path}: the mask does not lie on the image's grid: {what}; resample it to that grid.")
    return axes, flips


def _nibabel(path: Path) -> Any:
    try:
        import nibabel
    except ImportError:
        raise UnsupportedInputError(f"{path}: reading NIfTI needs nibabel; pip install ctmar[nifti].") from None
    return nibabel


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
        elif is_nifti(path):
            volume = open_volume(path)
            refuse_large(path, volume.shape)
            mask, pixel_mm = np.stack([volume.values(index) for index in range(len(volume))]), volume.pixel_mm
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
