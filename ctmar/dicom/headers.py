"""What the header of a CT image says of its geometry, and why an image is not used."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import UID, CTImageStorage
from pydicom.uid import MediaStorageDirectoryStorage as DicomdirStorage

from ctmar.dicom.frames import ENHANCED
from ctmar.dicom.source import SourceFile, optional_number

MAX_PIXELS = 4096 * 4096
"""Largest matrix that is accepted; CT is 512, 768, 1024 or (ultra-high resolution) 2048 squared."""

TAGS = [
    "ImageType", "SOPClassUID", "SOPInstanceUID", "Modality", "SeriesDescription", "SeriesInstanceUID",
    "SeriesNumber", "InstanceNumber", "ImagePositionPatient", "ImageOrientationPatient", "GantryDetectorTilt",
    "SamplesPerPixel", "NumberOfFrames", "Rows", "Columns", "PixelSpacing", "RescaleSlope",
    "RescaleIntercept", "RescaleType",
]  # fmt: skip
"""All that is needed of a header."""

_NEEDED = (
    "SOPInstanceUID", "SeriesInstanceUID", "Rows", "Columns", "PixelSpacing", "ImagePositionPatient",
    "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept",
)  # fmt: skip


class NotUsableError(Exception):
    """Carries the reason why an image is skipped."""


@dataclass(frozen=True)
class SliceFile:
    """One axial CT image: where it is and what its header says of its geometry (patient coordinates, mm).

    `sop_uid` and `sop_class_uid` are those of the file. An image that is one of the frames of an enhanced CT object
    has its `frame`, from 0.
    """

    file: SourceFile
    sop_uid: str
    instance_number: int | None
    position_mm: tuple[float, ...]
    orientation: tuple[float, ...]
    along_normal_mm: float
    rows: int
    cols: int
    pixel_mm: tuple[float, float]
    tilt_deg: float
    sop_class_uid: str = str(CTImageStorage)
    frame: int | None = None

    @property
    def name(self) -> str:
        """What messages call it: the file, and the number of the frame (from 1, as in DICOM)."""
        return self.file.name if self.frame is None else f"{self.file.name}, frame {self.frame + 1}"

    @property
    def key(self) -> str:
        """What tells the image from every other: its SOP instance UID, and the number of the frame."""
        return self.sop_uid if self.frame is None else f"{self.sop_uid}:{self.frame + 1}"


def sop_class_of(header: FileDataset) -> UID:
    """The kind of object, from the data set or else from the file meta information; empty where neither says it."""
    return UID(str(header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID") or ""))


def require_ct(header: FileDataset) -> None:
    """Raise `NotUsableError` for what is no CT image in one sample per pixel, single or multi-frame."""
    sop_class = sop_class_of(header)
    if sop_class == DicomdirStorage:
        raise NotUsableError("a DICOMDIR index, not an image")
    if not sop_class:
        raise NotUsableError("not a DICOM image")
    modality = str(header.get("Modality") or "")
    if modality != "CT":
        # What stands there in a damaged file may be anything, so only a code is quoted.
        readable = modality.isascii() and modality.isalnum() and len(modality) <= 16
        raise NotUsableError(f"modality {modality}, not CT" if readable else "no modality, or truncated")
    if sop_class not in (CTImageStorage, *ENHANCED):
        raise NotUsableError(f"not a CT image but {sop_class.name}")
    if sop_class == CTImageStorage and int(header.get("NumberOfFrames") or 1) > 1:
        raise NotUsableError("several frames in an object that can only hold one (CT Image Storage)")
    if "LOCALIZER" in _values(header, "ImageType"):
        raise NotUsableError("a localizer (scout)")
    if "SUBTRACTION" in _values(header, "ImageType"):
        raise NotUsableError("a difference of images, not a CT image")
    if header.get("SamplesPerPixel", 1) != 1:
        raise NotUsableError("a colour page, not a CT image")


def slice_of_header(
    file: SourceFile, header: Dataset, *, sop_class_uid: str = str(CTImageStorage), frame: int | None = None
) -> SliceFile:
    """The geometry that the header of a single image, or of a frame turned into one, gives.

    Raises
    ------
    NotUsableError
        Where an attribute is missing or malformed, or the image is not axial or not in HU.
    One of `ctmar.dicom.source.PARSE_ERRORS`
        Where the header is damaged.
    """
    missing = [keyword for keyword in _NEEDED if not _values(header, keyword)]
    if missing:
        raise NotUsableError(f"no {' and no '.join(missing)}")
    if str(header.get("RescaleType") or "US").strip() not in {"HU", "HU_MOD", "US"}:
        raise NotUsableError("pixels are not Hounsfield units (RescaleType)")
    rows, cols = int(header.Rows), int(header.Columns)
    pixel_mm = tuple(float(v) for v in header.PixelSpacing)
    position = np.array([float(v) for v in header.ImagePositionPatient])
    orientation = np.array([float(v) for v in header.ImageOrientationPatient])
    slope, intercept = float(header.RescaleSlope), float(header.RescaleIntercept)
    numbers = (*pixel_mm, *position, *orientation, slope, intercept)
    if (len(pixel_mm), position.size, orientation.size) != (2, 3, 6) or not np.isfinite(numbers).all():
        raise NotUsableError("malformed spacing, position, orientation or rescale")
    if rows < 2 or cols < 2 or rows * cols > MAX_PIXELS:
        raise NotUsableError(f"a matrix of {rows} x {cols} pixels is not supported")
    if min(pixel_mm) <= 0 or slope == 0:
        raise NotUsableError("pixel spacing not positive or rescale slope zero")
    normal = _normal(orientation)
    if abs(normal[2]) < math.sqrt(0.5):
        raise NotUsableError("a coronal or sagittal reformat, not an axial image")
    number = optional_number(header, "InstanceNumber")
    return SliceFile(
        file=file,
        sop_uid=str(header.SOPInstanceUID),
        instance_number=None if number is None else int(number),
        position_mm=tuple(position.tolist()),
        orientation=tuple(orientation.tolist()),
        along_normal_mm=float(position @ normal),
        rows=rows,
        cols=cols,
        pixel_mm=(pixel_mm[0], pixel_mm[1]),
        tilt_deg=optional_number(header, "GantryDetectorTilt") or 0.0,
        sop_class_uid=sop_class_uid,
        frame=frame,
    )


def _normal(orientation: np.ndarray) -> np.ndarray:
    """Normal of the image plane, from the direction cosines of rows and columns (PS3.3 C.7.6.2.1.1)."""
    normal = np.cross(orientation[:3], orientation[3:])
    length = float(np.linalg.norm(normal))
    if length < 0.9:
        raise NotUsableError("malformed orientation")
    return normal / length


def _values(header: Dataset, keyword: str) -> list[object]:
    value = header.get(keyword)
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str | bytes) or not hasattr(value, "__iter__") else list(value)
