"""Stored values to Hounsfield units and back, and which pixels are padding and not tissue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset
from scipy import ndimage

from ctmar.dicom.decoding import declared_padding, decode
from ctmar.dicom.frames import read_frame
from ctmar.dicom.headers import SliceFile
from ctmar.dicom.source import MAX_IMAGE_BYTES, PARSE_ERRORS, quiet_pydicom, read_dataset
from ctmar.errors import UnsupportedInputError
from data_sim.units import HU_AIR

_LOWEST_TISSUE_HU = -1024.0
"""12-bit scanners store nothing below; a field of exactly this value in a corner is padding."""

_TISSUE_HU = -900.0

_IMPOSSIBLE_HU = -1200.0
"""No noise reaches from air down to here over a whole corner of the image."""


@dataclass(frozen=True)
class Slice:
    """A decoded axial image.

    Attributes
    ----------
    file
        Where it came from.
    dataset
        The whole source data set; not to be changed.
    stored : ndarray, integer, (rows, cols)
        Stored pixel values.
    image_hu : ndarray, float32, (rows, cols)
        Hounsfield units; `data_sim.units.HU_AIR` in the padding.
    padding : ndarray, bool, (rows, cols)
        Pixels that hold no measurement.
    slope, intercept
        HU = slope * stored + intercept (PS3.3 section C.11.1.1.2).
    pixel_mm
        Distance between rows and between columns.
    """

    file: SliceFile
    dataset: FileDataset
    stored: NDArray[np.integer]
    image_hu: NDArray[np.float32]
    padding: NDArray[np.bool_]
    slope: float
    intercept: float
    pixel_mm: tuple[float, float]


def read_slice(slice_file: SliceFile) -> Slice:
    """Read and decode one slice, in any transfer syntax that pydicom and its plugins know.

    A frame of a multi-frame object becomes a classic image (`ctmar.dicom.flattening`); only its own pixels are read.

    Raises
    ------
    UnsupportedInputError
        If the file or its pixel data are damaged, truncated, too large or in an encoding that cannot be read.
    """
    try:
        dataset = _read(slice_file)
        with quiet_pydicom():
            stored = decode(dataset, slice_file)
            slope, intercept = float(dataset.RescaleSlope), float(dataset.RescaleIntercept)
            image_hu = (stored.astype(np.float64) * slope + intercept).astype(np.float32)
            padding = padding_mask(stored, image_hu, dataset)
    except PARSE_ERRORS as error:
        raise UnsupportedInputError(
            f"{slice_file.name}: damaged or truncated ({type(error).__name__}); fetch it again from its source."
        ) from None  # pydicom's text would quote values
    image_hu[padding] = HU_AIR
    return Slice(slice_file, dataset, stored, image_hu, padding, slope, intercept, slice_file.pixel_mm)


def to_stored(corrected_hu: NDArray[np.floating], source: Slice) -> NDArray[np.integer]:
    """Stored values of corrected Hounsfield units, in the source's type and within its Bits Stored.

    Parameters
    ----------
    corrected_hu : ndarray, float, (rows, cols)
    source
        Gives slope, intercept, padding and the values of pixels that have not changed.

    Returns
    -------
    ndarray, integer, (rows, cols)

    Raises
    ------
    ValueError
        If `corrected_hu` has another shape or holds values that are not finite.
    """
    if corrected_hu.shape != source.stored.shape:
        raise ValueError(f"corrected_hu has shape {corrected_hu.shape}, the slice {source.stored.shape}")
    if not np.isfinite(corrected_hu).all():
        raise ValueError("corrected_hu holds values that are not finite")
    bits = int(source.dataset.BitsStored)
    signed = np.issubdtype(source.stored.dtype, np.signedinteger)
    lowest, highest = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    exact = np.rint((corrected_hu.astype(np.float64) - source.intercept) / source.slope)
    stored = np.clip(exact, lowest, highest).astype(source.stored.dtype)
    untouched = source.padding | (corrected_hu == source.image_hu)
    return np.where(untouched, source.stored, stored)


def padding_mask(stored: NDArray[np.integer], image_hu: NDArray[np.float32], dataset: Dataset) -> NDArray[np.bool_]:
    """Pixels outside of what was reconstructed.

    Declared: Pixel Padding Value, or the range from it to Pixel Padding Range Limit, both inclusive and in
    stored units (PS3.3 section C.7.5.1.1.2); a declared value that is tissue (0 HU is met) counts only in
    regions that reach a corner. Undeclared: a region that reaches a corner of the image and either is far
    below air or has one constant value of at most -1024 HU. (In noisy air clipped at -1024 HU fewer pixels
    are clipped than the 59 % at which clusters of the square lattice percolate, so such a region does not
    spread into air.)

    Parameters
    ----------
    stored : ndarray, integer, (rows, cols)
    image_hu : ndarray, float32, (rows, cols)
        All pixels rescaled, padding too.
    dataset
        Holds Pixel Representation and the padding attributes, if any.

    Returns
    -------
    ndarray, bool, (rows, cols)
    """
    mask = np.zeros(stored.shape, bool)
    declared = declared_padding(dataset)
    if declared:
        padded = (stored >= declared[0]) & (stored <= declared[1])
        mask |= padded & ((image_hu < _TISSUE_HU) | _corner_regions(padded))
    mask |= _corner_regions(image_hu < _IMPOSSIBLE_HU)
    for block in (np.s_[:3, :3], np.s_[:3, -3:], np.s_[-3:, :3], np.s_[-3:, -3:]):
        corner = stored[block]
        if np.all(corner == corner[0, 0]) and image_hu[block][0, 0] <= _LOWEST_TISSUE_HU:
            mask |= _corner_regions(stored == corner[0, 0])
    return mask


def _corner_regions(candidates: NDArray[np.bool_]) -> NDArray[np.bool_]:
    labels, _ = ndimage.label(candidates)
    corners = np.unique(labels[[0, 0, -1, -1], [0, -1, 0, -1]])
    return np.isin(labels, corners[corners > 0])


def _read(slice_file: SliceFile) -> FileDataset:
    if slice_file.frame is not None:
        with quiet_pydicom():
            return read_frame(slice_file.file, slice_file.frame)
    with slice_file.file.open(most_bytes=MAX_IMAGE_BYTES) as stream:
        return read_dataset(stream)
