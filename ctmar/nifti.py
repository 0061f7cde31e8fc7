"""CT volumes in NIfTI: slices out of any stored orientation, corrected slices back into it, and DICOM series into it.

Inside of the program an axial image is always that of a supine patient seen from the feet: rows from anterior to
posterior, columns from the patient's right to the left, slices upwards. (NIfTI-1.1, nifti1.h: world axes to the right,
to anterior and upwards, RAS.)
"""

from __future__ import annotations

import gzip
import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ctmar.dicom.affine import affine_of
from ctmar.dicom.headers import MAX_PIXELS
from ctmar.dicom.pixels import padding_mask
from ctmar.dicom.series import Series
from ctmar.errors import NoUsableSeriesError, UnsupportedInputError
from ctmar.files import replacing
from ctmar.images import PlainImage
from ctmar.nifti_header import SHEAR, oddities_of_axes, require_one_volume, require_short_header, shear, three_axes
from data_sim.units import HU_AIR

__all__ = ["NiftiVolume", "affine_of", "is_nifti", "open_volume", "write_series_volume", "write_volume"]

_reading = threading.Lock()
"""Held while a volume is inflated, so that threads which ask for slices of it do not all do that."""

_MM = {"meter": 1000.0, "micron": 0.001}


@dataclass(frozen=True)
class NiftiVolume:
    """A volume whose slices are read when they are asked for; `open_volume` makes it.

    Attributes
    ----------
    path
        The file.
    pixel_mm
        Distance between rows and between columns.
    along_normal_mm
        Where every slice lies along the normal of the slices, upwards.
    warnings
        What is odd about its geometry.
    source
        What nibabel has opened.
    axes, reversed_
        The stored axes that are slices, rows and columns, and whether each runs the other way.
    """

    path: Path
    pixel_mm: tuple[float, float]
    along_normal_mm: tuple[float, ...]
    warnings: tuple[str, ...]
    source: Any
    axes: tuple[int, int, int]
    reversed_: tuple[bool, bool, bool]

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        stored = three_axes(self.source.shape)
        return stored[self.axes[0]], stored[self.axes[1]], stored[self.axes[2]]

    def values(self, index: int) -> NDArray[np.float32]:
        """The values of one slice as the file means them, float32 (rows, cols).

        Raises
        ------
        UnsupportedInputError
            Where the file is truncated or damaged behind its header.
        """
        return self._rescaled(self._stored(index))

    def read(self, index: int) -> PlainImage:
        """One slice, counted upwards from 0, in the orientation that the whole program uses.

        Padding is what is no number, or found as in DICOM images that declare none.

        Raises
        ------
        UnsupportedInputError
            As for `values`.
        """
        stored = self._stored(index)
        image_hu = self._rescaled(stored)
        missing = ~np.isfinite(image_hu)
        image_hu[missing] = HU_AIR
        padding = padding_mask(stored, image_hu, Dataset()) | missing
        image_hu[padding] = HU_AIR
        return PlainImage(image_hu, padding, self.pixel_mm)

    def oriented(self, stored: NDArray[Any]) -> NDArray[Any]:
        """A view of an array in the stored shape as (slices, rows, cols)."""
        turned = stored.reshape(three_axes(stored.shape)).transpose(self.axes)
        return turned[tuple(slice(None, None, -1 if backwards else 1) for backwards in self.reversed_)]

    def _rescaled(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        slope, intercept = float(self.source.dataobj.slope), float(self.source.dataobj.inter)
        return (stored.astype(np.float64) * slope + intercept).astype(np.float32)

    def _stored(self, index: int) -> NDArray[Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"slice {index} of {len(self)}")
        try:
            return np.array(self.oriented(_voxels(self.source))[index])
        except Exception as error:  # truncated or damaged behind the header: many kinds
            raise UnsupportedInputError(
                f"{self.path.name}: truncated or damaged ({type(error).__name__}); export it again."
            ) from None


def is_nifti(path: Path) -> bool:
    """Whether a file is NIfTI by its name."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def open_volume(path: Path) -> NiftiVolume:
    """Open a NIfTI file (.nii, .nii.gz) of one CT volume, in any stored orientation; voxels are read later.

    Raises
    ------
    NoUsableSeriesError
        Where there is no such file.
    UnsupportedInputError
        Where it cannot be read, holds several volumes or no numbers, or promises more voxels than it can hold.
    """
    try:
        import nibabel
    except ImportError:
        raise UnsupportedInputError(f"{path.name}: reading NIfTI needs nibabel; pip install ctmar[nifti].") from None
    if not path.is_file():
        raise NoUsableSeriesError(f"{path.name}: no such file.")
    try:
        require_short_header(path)
        with _quiet_nibabel():
            source: Any = nibabel.load(path)
        shape, kind = tuple(source.shape), np.dtype(source.get_data_dtype())
        affine: NDArray[np.float64] = np.array(source.affine, float)
        units = source.header.get_xyzt_units()[0]
        described = bool(source.header["sform_code"]) or bool(source.header["qform_code"])
    except Exception as error:  # nibabel and gzip raise many kinds on damaged files
        raise UnsupportedInputError(
            f"{path.name}: no readable NIfTI file ({type(error).__name__}); export it again."
        ) from None
    require_one_volume(path, shape, kind, source.dataobj.offset)
    affine[:3] *= _MM.get(units, 1.0)
    directions = nibabel.io_orientation(affine) if np.isfinite(affine).all() else np.full((3, 2), np.nan)
    if np.isnan(directions).any():
        raise UnsupportedInputError(f"{path.name}: its affine places no volume in space; export it again.")
    # canonical axes are to the right, to anterior and upwards; wanted are slices upwards, then rows and columns against
    order = [int(np.flatnonzero(directions[:, 0] == axis)[0]) for axis in (2, 1, 0)]
    backwards = [bool(directions[axis, 1] * way < 0) for axis, way in zip(order, (1, -1, -1), strict=True)]
    steps = [affine[:3, axis] * (-1 if back else 1) for axis, back in zip(order, backwards, strict=True)]
    lengths = [float(np.linalg.norm(step)) for step in steps]
    rows, cols = (three_axes(shape)[axis] for axis in order[1:])
    if min(rows, cols) < 2 or rows * cols > MAX_PIXELS:
        raise UnsupportedInputError(f"{path.name}: a matrix of {rows} x {cols} pixels is not supported.")
    normal = np.cross(steps[1], steps[2])
    normal *= np.sign(steps[0] @ normal) / np.linalg.norm(normal)
    lowest = np.array([0.0, 0.0, 0.0, 1.0])
    lowest[order[0]] = three_axes(shape)[order[0]] - 1 if backwards[0] else 0
    start_mm, spacing_mm = float((affine @ lowest)[:3] @ normal), float(steps[0] @ normal)
    return NiftiVolume(
        path,
        (lengths[1], lengths[2]),
        tuple(start_mm + spacing_mm * k for k in range(three_axes(shape)[order[0]])),
        tuple(oddities_of_axes(steps, described=described)),
        source,
        (order[0], order[1], order[2]),
        (backwards[0], backwards[1], backwards[2]),
    )


def write_volume(path: Path, images: Iterable[NDArray[np.floating] | None], *, like: NiftiVolume) -> None:
    """Write corrected slices as a NIfTI file in the orientation, shape, type and scaling of the one they come from.

    Pixels equal to what `like.read` gives, and padding, keep their stored value to the bit; the others are rounded
    and clipped to an integer type. The file appears when it is complete.

    Parameters
    ----------
    path
        .nii, or .nii.gz to compress.
    images
        For every slice, upwards, (rows, cols) in HU; None carries the slice through.

    Raises
    ------
    ValueError
        If the number or the shape of the images is another, or they hold values that are not finite.
    UnsupportedInputError
        Where the source is truncated or damaged.
    """
    kind = np.dtype(like.source.get_data_dtype())
    stored = np.empty(like.source.shape, kind)
    target = like.oriented(stored)
    slope, intercept = float(like.source.dataobj.slope), float(like.source.dataobj.inter)
    for index, (image, out) in enumerate(zip(images, target, strict=True)):
        out[...] = like._stored(index)
        if image is None:
            continue
        if image.shape != out.shape or not np.isfinite(image).all():
            raise ValueError(f"image {index} is {image.shape} and not all finite numbers, the slice {out.shape}")
        before = like.read(index)
        changed = ~before.padding & (image != before.image_hu)
        exact = (image.astype(np.float64) - intercept) / slope
        if kind.kind in "iu":
            exact = np.clip(np.rint(exact), np.iinfo(kind).min, np.iinfo(kind).max)
        out[changed] = exact[changed].astype(kind)
    header = like.source.header.copy()
    image_out = type(like.source)(stored, None, header)
    image_out.header.set_slope_inter(slope, intercept)  # the stored values are scaled already
    _save(path, image_out)


def write_series_volume(
    path: Path, images: Iterable[NDArray[np.floating]], *, series: Series, dtype: str = "float32"
) -> None:
    """Write the images of a DICOM series, in the order of its slices, as a NIfTI volume in HU.

    Voxels are those of the images, none is resampled: the first axis runs along the columns, the second along the
    rows, the third along the slices. A tilted gantry gives a sheared affine, as `affine_of` says.

    Parameters
    ----------
    path
        .nii, or .nii.gz to compress.
    dtype
        "float32", or "int16", in which HU are rounded and clipped.

    Raises
    ------
    UnsupportedInputError
        As `affine_of`, and where nibabel is not installed.
    ValueError
        If the number or the shape of the images is another.
    """
    try:
        import nibabel
    except ImportError:
        raise UnsupportedInputError(f"{path.name}: writing NIfTI needs nibabel; pip install ctmar[nifti].") from None
    affine = affine_of(series)
    first = series.slices[0]
    volume = np.empty((first.cols, first.rows, len(series.slices)), dtype)
    for image, out in zip(images, np.moveaxis(volume, 2, 0), strict=True):
        if image.shape != (first.rows, first.cols):
            raise ValueError(f"an image is {image.shape}, the slice {(first.rows, first.cols)}")
        rounded = np.clip(np.rint(image), -(2**15), 2**15 - 1) if volume.dtype.kind == "i" else image
        out[...] = rounded.T
    out_image = nibabel.Nifti1Image(volume, affine)
    out_image.header.set_xyzt_units("mm")
    out_image.set_sform(affine, code=1)
    # a quaternion cannot hold a shear: readers that prefer it would silently straighten the volume
    out_image.set_qform(affine, code=0 if shear(affine[:3, :3].T) > SHEAR else 1)
    _save(path, out_image)


def _voxels(source: Any) -> NDArray[Any]:
    """All stored voxels: a map of the file, or, where it is compressed, an array; the image keeps it."""
    with _reading:
        if "voxels" not in source.extra:
            source.extra["voxels"] = source.dataobj.get_unscaled()
        return source.extra["voxels"]


@contextmanager
def _quiet_nibabel() -> Iterator[None]:
    """Keep nibabel's remarks on odd headers to itself."""
    logger = logging.getLogger("nibabel.global")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before


def _save(path: Path, image: Any) -> None:
    with replacing(path) as partial, partial.open("wb") as stream:
        if path.name.lower().endswith(".gz"):
            with gzip.GzipFile("", "wb", compresslevel=6, fileobj=stream, mtime=0) as packed:
                image.to_stream(packed)
        else:
            image.to_stream(stream)
