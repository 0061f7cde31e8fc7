"""What became of a series or volume: the content of report.json, without patient data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ctmar.errors import UnsupportedInputError
from ctmar.words import ranges

CORRECTED = "corrected"
NO_METAL = "no metal"
FAILED = "failed"
UNREADABLE = "unreadable"


@dataclass(frozen=True)
class SliceResult:
    """What became of one slice.

    Attributes
    ----------
    number
        Counted from 1 along the normal.
    status
        "corrected", "no metal" (pixels identical), "failed" (pixels identical, `message` says why) or "unreadable"
        (left out).
    source_uid, derived_uid
        SOP instance UIDs, "" where there is none.
    file
        Where the slice came from; for messages alone, since people call files after patients.
    instance_number, along_normal_mm
        Of the source, to find the slice in a viewer.
    metal_mm2
        Area of the metal.
    measures
        See `ctmar.checks.Checked`.
    """

    number: int
    status: str
    source_uid: str = ""
    derived_uid: str = ""
    instance_number: int | None = None
    along_normal_mm: float | None = None
    metal_mm2: float = 0.0
    measures: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    message: str = ""
    file: str = ""

    def in_words(self) -> str:
        """One line, without patient data."""
        words = f"slice {self.number}: {self.message or self.status}"
        if self.metal_mm2:
            words += f", metal {self.metal_mm2:.0f} mm2"
        if "mean_change_hu" in self.measures:
            words += f", mean change {self.measures['mean_change_hu']:.1f} HU"
        return "; ".join([words, *self.warnings])


@dataclass(frozen=True)
class SeriesResult:
    """What became of a series or volume.

    Attributes
    ----------
    source_uid, derived_uid
        Series instance UIDs; "" where the source is no DICOM series.
    metal
        How metal was found: threshold, pieces kept and left out.
    """

    source_uid: str
    derived_uid: str
    method: str
    model: str | None
    model_sha256: str | None
    version: str
    folder: str
    slices: tuple[SliceResult, ...]
    warnings: tuple[str, ...]
    metal: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def corrected(self) -> int:
        """How many slices were corrected."""
        return sum(s.status == CORRECTED for s in self.slices)

    @property
    def failed(self) -> tuple[SliceResult, ...]:
        """Slices that were left out or carried through because something went wrong."""
        return tuple(s for s in self.slices if s.status in (FAILED, UNREADABLE))

    def about_slices(self, *, files: bool = False) -> list[str]:
        """What there is to say of slices, those that failed first, the same of several in one sentence.

        With `files` the names of files that cannot be read are given, which may be those of patients.
        """
        said: dict[str, list[int]] = {}
        for one in sorted(self.slices, key=lambda s: (s.status not in (FAILED, UNREADABLE), s.number)):
            failure = f"{one.file}: {one.message}" if files and one.status == UNREADABLE and one.file else one.message
            for text in (failure, *one.warnings):
                if text:
                    said.setdefault(text, []).append(one.number)
        return [f"Slice{'s' * (len(at) > 1)} {ranges(sorted(at))}: {text}" for text, at in said.items()]

    def as_report(self) -> dict[str, Any]:
        """All of it but the names of folder and files."""
        report = {**asdict(self), "warnings": [*self.about_slices(), *self.warnings]}
        for names in (report, *report["slices"]):
            names.pop("folder", None)
            names.pop("file", None)
        return report


def read_report(path: Path) -> SeriesResult:
    """A result from its report.json; its warnings are those of the report, about slices included.

    Raises
    ------
    UnsupportedInputError
        Where it cannot be read.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        values = {field.name: found[field.name] for field in fields(SeriesResult) if field.name in found}
        slices = tuple(SliceResult(**one) for one in found["slices"])
        return SeriesResult(**{**values, "folder": str(path.parent), "slices": slices})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnsupportedInputError(f"{path}: is no report of ctmar ({type(error).__name__}).") from None
