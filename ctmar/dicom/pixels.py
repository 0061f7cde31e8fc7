"""Stored values to Hounsfield units and back, and which pixels are padding and not tissue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from scipy import ndimage

from ctmar.dicom.series import MAX_PIXELS, SliceFile
from ctmar.dicom.source import PARSE_ERRORS, quiet_pydicom, read_dataset
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

    Raises
    ------
    UnsupportedInputError
        If the file or its pixel data are damaged, truncated, too large or in an encoding that cannot be read.
    """
    name = slice_file.file.name
    with slice_file.file.open() as stream:
        try:
            dataset = read_dataset(stream)
        except PARSE_ERRORS as error:
            raise UnsupportedInputError(
                f"{name}: damaged or truncated ({type(error).__name__}); fetch it again from its source."
            ) from None  # pydicom's text would quote values
    with quiet_pydicom():
        stored = _decode(dataset, slice_file)
        slope, intercept = float(dataset.RescaleSlope), float(dataset.RescaleIntercept)
        image_hu = (stored.astype(np.float64) * slope + intercept).astype(np.float32)
        padding = padding_mask(stored, image_hu, dataset)
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
    limits = [_stored_value(dataset, k) for k in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    declared = [limit for limit in limits if limit is not None]
    if limits[0] is not None:
        padded = (stored >= min(declared)) & (stored <= max(declared))
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


def _stored_value(dataset: Dataset, keyword: str) -> int | None:
    """A padding attribute as a stored value; signed data are often padded with an unsigned 63536."""
    value = dataset.get(keyword)
    if not isinstance(value, int):
        return None
    bits = int(dataset.BitsAllocated)
    signed = dataset.get("PixelRepresentation") == 1
    return value - (1 << bits) if signed and value >= 1 << (bits - 1) else value


def _decode(dataset: FileDataset, slice_file: SliceFile) -> NDArray[np.integer]:
    name = slice_file.file.name
    syntax = _transfer_syntax(dataset)
    if "PixelData" not in dataset:
        raise UnsupportedInputError(f"{name}: truncated, or without integer pixel data; fetch it again.")
    # The header is read again here: what was checked before may have been another file.
    shape = (dataset.get("Rows"), dataset.get("Columns"))
    if shape != (slice_file.rows, slice_file.cols) or slice_file.rows * slice_file.cols > MAX_PIXELS:
        raise UnsupportedInputError(f"{name}: its header has changed while it was in use; start again.")
    if not syntax.is_encapsulated and dataset.get("HighBit") != int(dataset.get("BitsStored") or 0) - 1:
        # pydicom takes the lowest bits whatever High Bit says: values would be read 2^n times too large
        raise UnsupportedInputError(
            f"{name}: its High Bit is not one below its Bits Stored, as in every CT image; export it again."
        )
    try:
        pixels = dataset.pixel_array
    except NotImplementedError:
        raise UnsupportedInputError(
            f"{name}: transfer syntax {syntax.name} ({syntax}) cannot be decoded by pydicom with python-gdcm "
            "and pylibjpeg; convert it to Explicit VR Little Endian, for example with dcmtk's dcmdjpeg."
        ) from None
    except (*PARSE_ERRORS, RuntimeError, MemoryError):
        raise UnsupportedInputError(
            f"{name}: pixel data cannot be decoded (transfer syntax {syntax.name}); they are truncated or "
            "damaged, or python-gdcm or pylibjpeg is not installed."
        ) from None
    if pixels.shape != shape:
        raise UnsupportedInputError(f"{name}: decodes to {pixels.shape} pixels, its header says {shape}.")
    return np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("="))


def _transfer_syntax(dataset: FileDataset) -> UID:
    if "TransferSyntaxUID" not in dataset.file_meta:
        # A file without preamble: pydicom has guessed the encoding, and decoding the pixels needs to know it.
        implicit, _ = dataset.original_encoding
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    return UID(str(dataset.file_meta.TransferSyntaxUID))
