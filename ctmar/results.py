"""What became of a series or volume: the content of report.json, without patient data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

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
    metal_mm2
        Area of the metal.
    measures
        See `ctmar.checks.Checked`.
    """

    number: int
    status: str
    source_uid: str = ""
    derived_uid: str = ""
    metal_mm2: float = 0.0
    measures: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    message: str = ""


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

    def as_report(self) -> dict[str, Any]:
        """All of it but the folder, which is not the final one while the report is written."""
        report = asdict(self)
        del report["folder"]
        return report
