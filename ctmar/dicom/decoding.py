"""Pixel data to stored values, whatever they are encoded in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset
from pydicom.pixels import get_decoder
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGExtended12Bit, RLELossless

from ctmar.dicom.codestreams import require_size
from ctmar.dicom.headers import MAX_PIXELS, SliceFile
from ctmar.dicom.source import PARSE_ERRORS
from ctmar.errors import UnsupportedInputError

_DECODED_AS = {
    UID("1.2.840.10008.1.2.4.53"): JPEGExtended12Bit,  # spectral selection, processes 6 and 8
    UID("1.2.840.10008.1.2.4.55"): JPEGExtended12Bit,  # full progression, processes 10 and 12
}
"""Retired JPEG syntaxes that pydicom has no decoder for, and the one whose library reads their code streams too."""

_NAMES = {
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
}
"""Syntaxes that are younger than pydicom's list of names."""

_PYLIBJPEG = "pylibjpeg[libjpeg,openjpeg,rle]"
"""What decodes compressed pixels, as pip calls it."""


def decode(dataset: FileDataset, slice_file: SliceFile) -> NDArray[np.integer]:
    """Stored values of a single image, in the type that Bits Allocated and Pixel Representation give.

    What a file keeps in the unused bits of its words (retired overlays, missing signs) is taken away from every pixel
    that is not the declared padding, and values that stand in the upper bits of their words come down
    (PS3.5 section 8.1.1).

    Parameters
    ----------
    dataset
        With its pixel data; a Transfer Syntax UID that is missing is added.
    slice_file
        What its header said when the series was found.

    Returns
    -------
    ndarray, integer, (rows, cols)

    Raises
    ------
    UnsupportedInputError
        If the pixels are damaged, truncated, of another kind, or in an encoding that cannot be read.
    """
    name = slice_file.name
    syntax = _transfer_syntax(dataset)
    _require_integers(dataset, name)
    # The header is read again here: what was checked before may have been another file.
    shape = (dataset.get("Rows"), dataset.get("Columns"))
    if shape != (slice_file.rows, slice_file.cols) or slice_file.rows * slice_file.cols > MAX_PIXELS:
        raise UnsupportedInputError(f"{name}: its header has changed while it was in use; start again.")
    try:
        decoder = get_decoder(_DECODED_AS.get(syntax, syntax))
    except NotImplementedError:
        raise UnsupportedInputError(
            f"{name}: transfer syntax {_named(syntax)} cannot be decoded: neither pydicom nor pylibjpeg "
            "has a decoder for it; have it sent as Explicit VR Little Endian by the system that wrote it."
        ) from None
    plugin = _plugin(syntax)
    if not decoder.is_available or (plugin and plugin not in decoder.available_plugins):
        raise UnsupportedInputError(f"{name}: transfer syntax {_named(syntax)} needs {_PYLIBJPEG}.")
    try:
        # pydicom compares the syntax with the decoder's
        dataset.file_meta.TransferSyntaxUID = decoder.UID
        if syntax.is_encapsulated:
            require_size(dataset.PixelData, syntax, *shape, word_bytes=int(dataset.BitsAllocated) // 8)
        # words as they are: what pydicom takes for unused bits can be padding, which is written back
        keep = {"correct_unused_bits": False}
        pixels, _ = decoder.as_array(dataset, decoding_plugin=plugin, **keep)  # type: ignore[arg-type]
    except (*PARSE_ERRORS, RuntimeError, MemoryError):
        raise UnsupportedInputError(
            f"{name}: pixel data cannot be decoded (transfer syntax {_named(syntax)}): truncated or damaged; "
            "fetch it again from its source."
        ) from None
    finally:
        dataset.file_meta.TransferSyntaxUID = syntax
    if pixels.shape != shape:
        raise UnsupportedInputError(f"{name}: decodes to {pixels.shape} pixels, its header says {shape}.")
    return _within_bits(np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("=")), dataset, name)


def declared_padding(dataset: Dataset) -> tuple[int, int] | None:
    """Lowest and highest stored value that the header calls padding, both inclusive, or None.

    Pixel Padding Value, or the range from it to Pixel Padding Range Limit (PS3.3 section C.7.5.1.1.2).
    """
    value, limit = (_stored_value(dataset, k) for k in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    if value is None:
        return None
    other = value if limit is None else limit
    return min(value, other), max(value, other)


def _stored_value(dataset: Dataset, keyword: str) -> int | None:
    """A padding attribute as a stored value; signed data are often padded with an unsigned 63536."""
    value = dataset.get(keyword)
    if not isinstance(value, int):
        return None
    bits = int(dataset.BitsAllocated)
    signed = dataset.get("PixelRepresentation") == 1
    return value - (1 << bits) if signed and value >= 1 << (bits - 1) else value


def _plugin(syntax: UID) -> str:
    """The plugin of pydicom that decodes it, "" where none is needed.

    gdcm, which pydicom would ask first, ends the whole process at many damaged code streams; on damaged run lengths
    pylibjpeg-rle ends in a panic of its Rust code, which is no `Exception`.
    """
    if not syntax.is_encapsulated:
        return ""
    return "pydicom" if syntax == RLELossless else "pylibjpeg"


def _named(syntax: UID) -> str:
    name = _NAMES.get(syntax, syntax.name)
    return syntax if name == syntax else f"{name} ({syntax})"


def _require_integers(dataset: Dataset, name: str) -> None:
    if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
        raise UnsupportedInputError(
            f"{name}: its pixels are floating-point numbers, which CT images do not have and the derived image could "
            "not keep; convert them to 16-bit integers."
        )
    if "PixelData" not in dataset:
        raise UnsupportedInputError(f"{name}: truncated, or without pixel data; fetch it again from its source.")
    allocated, stored = dataset.get("BitsAllocated"), dataset.get("BitsStored")
    if allocated not in (8, 16, 32) or not isinstance(stored, int) or not 1 <= stored <= allocated:
        readable = isinstance(allocated, int) and isinstance(stored, int)
        what = f"{stored} bits stored in {allocated}" if readable else "no number of bits"
        raise UnsupportedInputError(f"{name}: pixels with {what} are not supported; convert them to 16-bit integers.")


def _within_bits(pixels: NDArray[np.integer], dataset: Dataset, name: str) -> NDArray[np.integer]:
    """Values of Bits Stored bits, with their sign; declared padding stays as it is, to be written back the same."""
    bits, width = int(dataset.BitsStored), 8 * pixels.dtype.itemsize
    if bits >= width:
        return pixels
    below = int(dataset.get("HighBit", bits - 1)) + 1 - bits
    if 0 < below <= width - bits:
        pixels = _from_upper_bits(pixels, bits, below, name)
    fitting = (pixels << (width - bits)) >> (width - bits)
    padding = declared_padding(dataset)
    if padding:
        return np.where((pixels >= padding[0]) & (pixels <= padding[1]), pixels, fitting)
    return fitting


def _from_upper_bits(pixels: NDArray[np.integer], bits: int, below: int, name: str) -> NDArray[np.integer]:
    """Values that High Bit places `below` bits higher than CT has them; writers that get it wrong are told by them."""
    if not (pixels & ((1 << below) - 1)).any():
        return pixels >> below
    if pixels.min() < -(1 << (bits - 1)) or pixels.max() >= 1 << bits:
        raise UnsupportedInputError(
            f"{name}: its High Bit is not one below its Bits Stored, and the pixels fit neither; export it again."
        )
    return pixels


def _transfer_syntax(dataset: FileDataset) -> UID:
    if "TransferSyntaxUID" not in dataset.file_meta:
        # A file without preamble: pydicom has guessed the encoding, and decoding the pixels needs to know it.
        implicit, _ = dataset.original_encoding
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    return UID(str(dataset.file_meta.TransferSyntaxUID))
