"""Find the CT series of a folder, file or zip archive, sort their slices and say what was left out.

Only headers are read here. Slices are never resampled: what is odd about a series becomes a warning.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from pydicom.dataset import Dataset

from ctmar.dicom.dicomdir import is_dicomdir, listed_contents
from ctmar.dicom.frames import ENHANCED, MultiFrame, WrongFramesError, read_multi_frame, why_not_ct
from ctmar.dicom.headers import MAX_PIXELS, TAGS, NotUsableError, SliceFile, require_ct, slice_of_header, sop_class_of
from ctmar.dicom.oddities import oddities
from ctmar.dicom.source import (
    PARSE_ERRORS,
    SourceFile,
    contents,
    optional_number,
    optional_text,
    quiet_pydicom,
    read_dataset,
)
from ctmar.errors import NoUsableSeriesError, SeveralSeriesError
from ctmar.words import ranges

__all__ = [
    "MAX_PIXELS", "Found", "Series", "Skipped", "SliceFile", "choose_series", "describe", "find_series",
]  # fmt: skip

_LISTED = 20
_DESCRIPTION = 40


@dataclass(frozen=True)
class Series:
    """A CT series, its slices sorted along the normal of the image plane, with what is odd about it.

    A series of multi-frame objects with several stacks, or several moments in time, is as many of these as it has
    parts: their `uid` is the same, `part` counts them from 1.
    """

    uid: str
    number: int | None
    description: str
    modality: str
    slices: tuple[SliceFile, ...]
    warnings: tuple[str, ...]
    part: int | None = None

    @property
    def key(self) -> str:
        """What to choose it by: the series instance UID, with the number of its part where it has several."""
        return self.uid if self.part is None else f"{self.uid}#{self.part}"


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


@dataclass(frozen=True)
class _Candidate:
    """An image with what tells the series that it belongs to."""

    image: SliceFile
    uid: str
    number: int | None
    description: str
    stack: str = ""
    time: str = ""


def find_series(source: Path) -> Found:
    """The axial CT series in a folder (recursive), a single file, a DICOMDIR or a zip archive.

    Kept are CT Image Storage objects and frames of enhanced CT objects with a position, an orientation close to
    axial, a pixel spacing and a rescale to HU (PS3.3 sections C.8.2.1, C.8.15); of files with the same SOP instance
    UID the first. Stacks, and moments in time at the same positions, of multi-frame objects are series of their own.

    Raises
    ------
    NoUsableSeriesError
        If the source does not exist. A source without usable series gives an empty result, so that what was
        skipped can be shown; `choose_series` then raises.
    UnsupportedInputError
        If a zip archive or a DICOMDIR is damaged or too large.
    """
    groups: dict[str, list[_Candidate]] = defaultdict(list)
    skipped: list[Skipped] = []
    seen: dict[str, str] = {}
    for file, stream in listed_contents(source) if is_dicomdir(source) else contents(source):
        if isinstance(stream, str):
            skipped.append(Skipped(file.name, stream))
            continue
        with stream:
            try:
                candidates, left_out = _read_headers(file, stream)
            except NotUsableError as reason:
                skipped.append(Skipped(file.name, str(reason)))
                continue
        skipped.extend(left_out)
        if candidates and candidates[0].image.sop_uid in seen:
            first = seen[candidates[0].image.sop_uid]
            skipped.append(Skipped(file.name, f"the same image (SOP instance UID) as {first}"))
            continue
        for found in candidates:
            seen[found.image.sop_uid] = file.name
            groups[found.uid].append(found)
    series = [part for members in groups.values() for part in _parts(members)]
    return Found(source, tuple(sorted(series, key=lambda s: (s.number or 0, s.uid, s.part or 0))), tuple(skipped))


def choose_series(
    found: Found, *, uid: str | None = None, all_: bool = False, remark: Callable[[Series], str] = lambda _: ""
) -> list[Series]:
    """The series to work on: the one with `uid` (its `key`, too), or all, or the only one there is.

    Where they are listed, each line ends with the `remark` on its series.

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
    chosen = list(found.series)
    if uid is not None:
        chosen = [s for s in found.series if uid in (s.key, s.uid)]
        if not chosen:
            raise NoUsableSeriesError(f"{found.source}: no usable CT series {uid}; there are:{_listing(found.series)}")
    if len(chosen) > 1 and not all_:
        listing = _listing(chosen, remark)
        raise SeveralSeriesError(
            f"{found.source}: {len(chosen)} usable CT series; choose with --series UID or --all:{listing}"
        )
    return chosen


def _listing(series: Sequence[Series], remark: Callable[[Series], str] = lambda _: "") -> str:
    """A line for each, after a line break."""
    lines = [describe(one) + remark(one) for one in series[:_LISTED]]
    lines += [f"and {len(series) - _LISTED} more"] if len(series) > _LISTED else []
    return "".join(f"\n  {line}" for line in lines)


def describe(series: Series) -> str:
    """A series in one line: UID, number, description, slices, matrix, pixel size and spacing; all of it printable."""
    first, steps = series.slices[0], np.diff([s.along_normal_mm for s in series.slices])
    number = "no number" if series.number is None else f"number {series.number}"
    words = " ".join("".join(c if c.isprintable() else " " for c in series.description).split())
    shown = words if len(words) <= _DESCRIPTION else f"{words[: _DESCRIPTION - 3].rstrip()}..."
    rows_mm, cols_mm = first.pixel_mm
    size = f"{rows_mm:.3g} mm" if np.isclose(rows_mm, cols_mm, rtol=1e-3) else f"{rows_mm:.3g} x {cols_mm:.3g} mm"
    count = f"{len(series.slices)} slice{'s' if len(series.slices) != 1 else ''}"
    spacing = f", {float(np.median(steps)):.3g} mm apart" if len(steps) else ""
    return f'{series.key}: {number}, "{shown}", {count}{spacing}, {first.rows} x {first.cols} pixels of {size}'


def _read_headers(file: SourceFile, stream: BinaryIO) -> tuple[list[_Candidate], list[Skipped]]:
    """The image of a file, or those of its frames that can be used, and what was left out of them."""
    try:
        header = read_dataset(stream, tags=TAGS)
        with quiet_pydicom():
            require_ct(header)
            if sop_class_of(header) in ENHANCED:
                stream.seek(0)
                return _read_frames(file, read_multi_frame(stream))
            return [_candidate(slice_of_header(file, header), header)], []
    except WrongFramesError as error:
        raise NotUsableError(str(error)) from None
    except PARSE_ERRORS as error:
        raise NotUsableError(f"damaged or truncated header ({type(error).__name__})") from error


def _read_frames(file: SourceFile, found: MultiFrame) -> tuple[list[_Candidate], list[Skipped]]:
    candidates = []
    reasons: dict[str, list[int]] = defaultdict(list)
    sop_class = str(sop_class_of(found.dataset))
    for frame in range(found.frames):
        try:
            header, detail = found.header(frame)
            reason = why_not_ct(header, detail)
            if reason:
                raise NotUsableError(reason)
            image = slice_of_header(file, header, sop_class_uid=sop_class, frame=frame)
        except NotUsableError as error:
            reasons[str(error)].append(frame + 1)
            continue
        stack, time = str(detail.get("StackID") or ""), str(detail.get("TemporalPositionIndex") or "")
        offset = str(header.get("TemporalPositionTimeOffset") or "")
        candidates.append(_candidate(image, header, stack, time or offset))
    return candidates, [Skipped(f"{file.name}, {_frames(n)}", reason) for reason, n in reasons.items()]


def _candidate(image: SliceFile, header: Dataset, stack: str = "", time: str = "") -> _Candidate:
    number = optional_number(header, "SeriesNumber")
    return _Candidate(
        image,
        str(header.SeriesInstanceUID),
        None if number is None else int(number),
        optional_text(header, "SeriesDescription"),
        stack,
        time,
    )


def _parts(members: Sequence[_Candidate]) -> Iterator[Series]:
    """A series, or what it consists of: stacks, and moments in time where these share positions."""
    parts: dict[tuple[str, str], list[_Candidate]] = defaultdict(list)
    for stack in dict.fromkeys(found.stack for found in members):
        of_stack = [found for found in members if found.stack == stack]
        moving = len({found.image.position_mm for found in of_stack}) < len(of_stack)
        for found in of_stack:
            parts[stack, found.time if moving else ""].append(found)
    for part, found_in_part in enumerate(parts.values(), start=1):
        slices = sorted(
            (found.image for found in found_in_part),
            key=lambda s: (round(s.along_normal_mm, 3), s.instance_number or 0, s.sop_uid),
        )
        first = found_in_part[0]
        yield Series(
            first.uid,
            first.number,
            first.description,
            "CT",
            tuple(slices),
            oddities(slices),
            part if len(parts) > 1 else None,
        )


def _frames(numbers: Sequence[int]) -> str:
    """Ascending numbers of frames in words: frames 1-3, 7."""
    return f"frame{'s' if len(numbers) > 1 else ''} {ranges(numbers)}"
