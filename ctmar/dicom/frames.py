"""Multi-frame CT objects: what their frames are, and one of them at a time as a classic image with its pixels."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO

from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
)

from ctmar.dicom.flattening import classic_image
from ctmar.dicom.source import SourceFile, read_dataset

ENHANCED = (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)

MAX_FRAMES = 10_000

_UNDEFINED = 0xFFFFFFFF

_NOT_CT_VALUES = frozenset({
    # value 4 of Frame Type (PS3.3 section C.8.16.1.4 and C.8.15.3.1.2): what is no image in HU any longer
    "DIVISION", "MASKED", "MULTIPLICATION", "QUANTITY", "STD_DEVIATION", "SUBTRACTION",
    "CTP", "MTT", "RBF", "RBV", "RCBF", "RCBV", "TTP", "T0", "TMAX", "PEAK_ENHANCEMENT", "PERMEABILITY",
    "MAT_FRACTIONAL", "MAT_SPECIFIC", "EFF_ATOMIC_NUM", "ELECTRON_DENSITY", "MAT_VALUE_BASED",
    # and projections of the volume, in which a metal artifact has lost its rays
    "MAXIMUM", "MINIMUM",
})  # fmt: skip
_PROJECTIONS = frozenset({"MAX_IP", "MIN_IP", "VOLUME_RENDER", "SURFACE_RENDER", "CURVED_MPR"})


class WrongFramesError(ValueError):
    """Frames are missing or not described; its text can be shown, since it quotes nothing of the file but numbers."""


@dataclass(frozen=True)
class MultiFrame:
    """An enhanced CT object without its pixels, and where in the file these are.

    Attributes
    ----------
    dataset
        All attributes but the pixels.
    frames
        How many the header promises.
    start, length
        Where the value of Pixel Data begins and how long it is, in bytes; no length where it is encapsulated.
    held
        The bytes that `start` refers to, where they are not those of the file: inflated from an archive or a deflated
        data set.
    """

    dataset: FileDataset
    frames: int
    start: int
    length: int | None
    held: bytes | None = None

    @property
    def frame_bytes(self) -> int:
        """Length of a frame that is not compressed."""
        return int(self.dataset.Rows) * int(self.dataset.Columns) * int(self.dataset.BitsAllocated) // 8

    def header(self, frame: int) -> tuple[FileDataset, Dataset]:
        """A frame as a classic image without pixels, and what had no place in that; see `classic_image`."""
        return classic_image(self.dataset, frame)

    def image(self, frame: int, stream: BinaryIO) -> FileDataset:
        """A frame as a classic image with its own pixels, in the transfer syntax of the object.

        Raises
        ------
        One of `ctmar.dicom.source.PARSE_ERRORS`
            Where the frame is missing or its offsets are malformed.
        """
        classic, _ = self.header(frame)
        stream = stream if self.held is None else io.BytesIO(self.held)
        if self.length is None:
            stream.seek(self.start)
            tables = (self.dataset.get("ExtendedOffsetTable"), self.dataset.get("ExtendedOffsetTableLengths"))
            extended = (bytes(tables[0]), bytes(tables[1])) if tables[0] and tables[1] else None
            data = get_frame(stream, frame, number_of_frames=self.frames, extended_offsets=extended)
            if not data:
                raise EOFError("the frame is empty")
            classic.add_new("PixelData", "OB", encapsulate([data]))
            classic["PixelData"].is_undefined_length = True
        else:
            stream.seek(self.start + frame * self.frame_bytes)
            data = stream.read(self.frame_bytes)
            if len(data) < self.frame_bytes:
                raise EOFError("the frame is missing")
            classic.add_new("PixelData", "OB" if self.dataset.BitsAllocated == 8 else "OW", data)
        return classic


def read_multi_frame(stream: BinaryIO) -> MultiFrame:
    """Parse an enhanced CT object without reading its pixels, unless it is deflated.

    Raises
    ------
    ValueError
        With a phrase that tells what is wrong, where frames are missing or not described.
    One of `ctmar.dicom.source.PARSE_ERRORS`
        Where it is damaged.
    """
    dataset = read_dataset(stream, pixels=False)
    syntax = UID(str(dataset.file_meta.get("TransferSyntaxUID") or ""))
    frames = int(dataset.get("NumberOfFrames") or 1)
    described = len(dataset.get("PerFrameFunctionalGroupsSequence") or [])
    if frames > MAX_FRAMES:
        raise WrongFramesError(f"more than {MAX_FRAMES} frames")
    if described != frames:
        raise WrongFramesError(f"the header promises {frames} frames and describes {described}")
    if dataset.get("BitsAllocated") not in (8, 16, 32):
        raise WrongFramesError("pixels of other than 8, 16 or 32 bits")
    if syntax == DeflatedExplicitVRLittleEndian:
        stream.seek(0)
        data = bytes(read_dataset(stream).PixelData)
        found = MultiFrame(dataset, frames, 0, len(data), data)
    else:
        start, length = _find_pixels(stream, dataset)
        found = MultiFrame(dataset, frames, start, None if length == _UNDEFINED else length)
        if found.length is not None:
            found = MultiFrame(dataset, frames, start, min(found.length, stream.seek(0, io.SEEK_END) - start))
    if found.length is not None and found.length < frames * found.frame_bytes:
        raise WrongFramesError(f"truncated: {frames} frames promised, {found.length // found.frame_bytes} present")
    return found


def read_frame(file: SourceFile, frame: int) -> FileDataset:
    """One frame of an enhanced CT object as a classic image with its pixels; the object's header is parsed once.

    Raises
    ------
    UnsupportedInputError
        Where the file cannot be opened.
    One of `ctmar.dicom.source.PARSE_ERRORS`
        Where it is damaged or the frame is missing.
    """
    status = file.path.stat()
    found = _remembered(file, status.st_mtime_ns, status.st_size)
    if found.held is not None:
        return found.image(frame, io.BytesIO())
    with file.open() as stream:
        return found.image(frame, stream)


def why_not_ct(classic: Dataset, detail: Dataset) -> str | None:
    """Why a frame is none of CT values (a phrase without a stop), or None where it is; see `MultiFrame.header`."""
    values = [str(value).strip() for value in detail.get("FrameType") or classic.get("ImageType") or []]
    if "LOCALIZER" in values:
        return "a localizer (scout)"
    for value in values[2:]:
        if value in _NOT_CT_VALUES:
            return f"a map or projection ({value}), not a CT image"
    technique = str(detail.get("VolumeBasedCalculationTechnique") or "").strip()
    return f"a map or projection ({technique}), not a CT image" if technique in _PROJECTIONS else None


@lru_cache(maxsize=2)
def _remembered(file: SourceFile, _modified_ns: int, _size: int) -> MultiFrame:
    """The parsed object while the file is as it was; the two last arguments tell that."""
    with file.open() as stream:
        found = read_multi_frame(stream)
        if file.member is None or found.held is not None:
            return found
        stream.seek(0)
        return MultiFrame(found.dataset, found.frames, found.start, found.length, stream.read())


def _find_pixels(stream: BinaryIO, dataset: FileDataset) -> tuple[int, int]:
    """Where the value of Pixel Data begins, and its length; the stream stands at its tag."""
    implicit, little_endian = dataset.original_encoding
    order = "<" if little_endian else ">"
    head = stream.read(8 if implicit else 12)
    group, element = struct.unpack(f"{order}HH", head[:4])
    if (group, element) in {(0x7FE0, 0x0008), (0x7FE0, 0x0009)}:
        raise WrongFramesError("floating-point pixels, which CT images do not have; convert them to 16-bit integers")
    if (group, element) != (0x7FE0, 0x0010):
        raise WrongFramesError("truncated, or without pixels")
    return stream.tell(), struct.unpack(f"{order}I", head[-4:])[0]
