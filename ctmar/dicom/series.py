"""Find the CT series of a folder, file or zip archive, sort their slices and say what was left out.

Only headers are read here. Slices are never resampled: what is odd about a series becomes a warning.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import UID, CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage
from pydicom.uid import MediaStorageDirectoryStorage as DicomdirStorage

from ctmar.dicom.oddities import oddities
from ctmar.dicom.source import (
    PARSE_ERRORS,
    SourceFile,
    contents,
    optional_number,
    quiet_pydicom,
    read_dataset,
)
from ctmar.errors import NoUsableSeriesError, SeveralSeriesError

MAX_PIXELS = 4096 * 4096
"""Largest matrix that is accepted; CT is 512, 768, 1024 or (ultra-high resolution) 2048 squared."""

_TAGS = [
    "ImageType", "SOPClassUID", "SOPInstanceUID", "Modality", "SeriesDescription", "SeriesInstanceUID",
    "SeriesNumber", "InstanceNumber", "ImagePositionPatient", "ImageOrientationPatient", "GantryDetectorTilt",
    "SamplesPerPixel", "NumberOfFrames", "Rows", "Columns", "PixelSpacing", "RescaleSlope",
    "RescaleIntercept", "RescaleType",
]  # fmt: skip
_NEEDED = (
    "SOPInstanceUID", "SeriesInstanceUID", "Rows", "Columns", "PixelSpacing", "ImagePositionPatient",
    "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept",
)  # fmt: skip
_ENHANCED = (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)

_LISTED = 20


@dataclass(frozen=True)
class SliceFile:
    """One axial CT image: where it is and what its header says of its geometry (patient coordinates, mm)."""

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


@dataclass(frozen=True)
class Series:
    """A CT series, its slices sorted along the normal of the image plane, with what is odd about it."""

    uid: str
    number: int | None
    description: str
    modality: str
    slices: tuple[SliceFile, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Skipped:
    """A file that is no part of any usable series, and why (a phrase without a stop)."""

    path: str
    reason: str


@dataclass(frozen=True)
class Found:
    """All usable CT series of a source, and every file that was left out."""

    source: Path
    series: tuple[Series, ...]
    skipped: tuple[Skipped, ...]


class _NotUsableError(Exception):
    """Carries the reason why a file is skipped."""


def find_series(source: Path) -> Found:
    """The axial CT series in a folder (recursive), a single file or a zip archive.

    Kept are single-frame CT Image Storage objects with a position, an orientation close to axial, a pixel
    spacing and a rescale to HU (PS3.3 section C.8.2.1); of files with the same SOP instance UID the first.

    Raises
    ------
    NoUsableSeriesError
        If the source does not exist. A source without usable series gives an empty result, so that what was
        skipped can be shown; `choose_series` then raises.
    UnsupportedInputError
        If a zip archive is damaged or too large.
    """
    groups: dict[str, list[tuple[SliceFile, FileDataset]]] = defaultdict(list)
    skipped = []
    seen: dict[str, str] = {}
    for file, stream in contents(source):
        if isinstance(stream, str):
            skipped.append(Skipped(file.name, stream))
            continue
        with stream:
            try:
                header, found = _read_header(file, stream)
            except _NotUsableError as reason:
                skipped.append(Skipped(file.name, str(reason)))
                continue
        if found.sop_uid in seen:
            skipped.append(Skipped(file.name, f"the same image (SOP instance UID) as {seen[found.sop_uid]}"))
            continue
        seen[found.sop_uid] = file.name
        groups[str(header.SeriesInstanceUID)].append((found, header))
    series = tuple(_series(uid, members) for uid, members in groups.items())
    return Found(source, tuple(sorted(series, key=lambda s: (s.number or 0, s.uid))), tuple(skipped))


def choose_series(found: Found, *, uid: str | None = None, all_: bool = False) -> list[Series]:
    """The series to work on: the one with `uid`, or all, or the only one there is.

    Raises
    ------
    NoUsableSeriesError
        If there is none, or none with that UID.
    SeveralSeriesError
        If there are several and neither `uid` nor `all_` says which.
    """
    if not found.series:
        reasons = Counter(s.reason.split(" as ")[0] for s in found.skipped).most_common(3)
        why = "; ".join(f"{count} x {reason}" for reason, count in reasons) or "it is empty"
        raise NoUsableSeriesError(f"{found.source}: no usable CT series ({why}); give a folder of axial CT images.")
    listing = ", ".join(f"{s.uid} ({len(s.slices)} slices)" for s in found.series[:_LISTED])
    listing += f" and {len(found.series) - _LISTED} more" if len(found.series) > _LISTED else ""
    if uid is not None:
        chosen = [s for s in found.series if s.uid == uid]
        if not chosen:
            raise NoUsableSeriesError(f"{found.source}: no usable CT series {uid}; there are {listing}.")
        return chosen
    if len(found.series) > 1 and not all_:
        raise SeveralSeriesError(
            f"{found.source}: {len(found.series)} usable CT series; choose with --series UID or --all: {listing}."
        )
    return list(found.series)


def _read_header(file: SourceFile, stream: object) -> tuple[FileDataset, SliceFile]:
    try:
        header = read_dataset(stream, tags=_TAGS)  # type: ignore[arg-type]
        with quiet_pydicom():
            _require_ct(header)
            return header, _slice_file(file, header)
    except PARSE_ERRORS as error:
        raise _NotUsableError(f"damaged or truncated header ({type(error).__name__})") from error


def _require_ct(header: FileDataset) -> None:
    sop_class = UID(str(header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID") or ""))
    if sop_class == DicomdirStorage:
        raise _NotUsableError("a DICOMDIR index, not an image")
    if not sop_class:
        raise _NotUsableError("not a DICOM image")
    modality = str(header.get("Modality") or "")
    if modality != "CT":
        # What stands there in a damaged file may be anything, so only a code is quoted.
        readable = modality.isascii() and modality.isalnum() and len(modality) <= 16
        raise _NotUsableError(f"modality {modality}, not CT" if readable else "no modality, or truncated")
    if sop_class in _ENHANCED or int(header.get("NumberOfFrames") or 1) > 1:
        raise _NotUsableError("enhanced multi-frame CT is not supported; convert it to single-frame CT images")
    if sop_class != CTImageStorage:
        raise _NotUsableError(f"not a CT image but {sop_class.name}")
    if "LOCALIZER" in _values(header, "ImageType"):
        raise _NotUsableError("a localizer (scout)")
    if header.get("SamplesPerPixel", 1) != 1:
        raise _NotUsableError("a colour page, not a CT image")
    missing = [keyword for keyword in _NEEDED if not _values(header, keyword)]
    if missing:
        raise _NotUsableError(f"no {' and no '.join(missing)}")
    if str(header.get("RescaleType") or "US").strip() not in {"HU", "HU_MOD", "US"}:
        raise _NotUsableError("pixels are not Hounsfield units (RescaleType)")


def _slice_file(file: SourceFile, header: FileDataset) -> SliceFile:
    rows, cols = int(header.Rows), int(header.Columns)
    pixel_mm = tuple(float(v) for v in header.PixelSpacing)
    position = np.array([float(v) for v in header.ImagePositionPatient])
    orientation = np.array([float(v) for v in header.ImageOrientationPatient])
    slope, intercept = float(header.RescaleSlope), float(header.RescaleIntercept)
    numbers = (*pixel_mm, *position, *orientation, slope, intercept)
    if (len(pixel_mm), position.size, orientation.size) != (2, 3, 6) or not np.isfinite(numbers).all():
        raise _NotUsableError("malformed spacing, position, orientation or rescale")
    if rows < 2 or cols < 2 or rows * cols > MAX_PIXELS:
        raise _NotUsableError(f"a matrix of {rows} x {cols} pixels is not supported")
    if min(pixel_mm) <= 0 or slope == 0:
        raise _NotUsableError("pixel spacing not positive or rescale slope zero")
    normal = _normal(orientation)
    if abs(normal[2]) < math.sqrt(0.5):
        raise _NotUsableError("a coronal or sagittal reformat, not an axial image")
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
    )


def _series(uid: str, members: Sequence[tuple[SliceFile, Dataset]]) -> Series:
    header = members[0][1]
    slices = sorted(
        (slice_file for slice_file, _ in members),
        key=lambda s: (round(s.along_normal_mm, 3), s.instance_number or 0, s.sop_uid),
    )
    with quiet_pydicom():
        description = _text(header, "SeriesDescription")
        number = optional_number(header, "SeriesNumber")
    return Series(uid, None if number is None else int(number), description, "CT", tuple(slices), oddities(slices))


def _normal(orientation: np.ndarray) -> np.ndarray:
    """Normal of the image plane, from the direction cosines of rows and columns (PS3.3 C.7.6.2.1.1)."""
    normal = np.cross(orientation[:3], orientation[3:])
    length = float(np.linalg.norm(normal))
    if length < 0.9:
        raise _NotUsableError("malformed orientation")
    return normal / length


def _text(header: Dataset, keyword: str) -> str:
    """A text that can be done without, "" where it is absent or malformed."""
    try:
        return str(header.get(keyword) or "")
    except PARSE_ERRORS:
        return ""


def _values(header: Dataset, keyword: str) -> list[object]:
    value = header.get(keyword)
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str | bytes) or not hasattr(value, "__iter__") else list(value)
