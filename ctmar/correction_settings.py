"""What `ctmar correct` is asked to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from ctmar.detection import DetectionSettings
from ctmar.method_names import DEFAULT_METHOD, known_methods

_DETECTION = asdict(DetectionSettings())


@dataclass(frozen=True)
class CorrectionSettings:
    """How a series, a volume or a case file is corrected.

    Parameters
    ----------
    method
        One of `ctmar.method_names.known_methods`.
    preset
        Name of the preset that filled what was left open, see `ctmar.presets`; for the record.
    strength
        Share of the correction that is taken, 0 to 1.
    adaptive
        Take only the part of the correction that takes streaks away, see `ctmar.blending`; False takes all of it.
    metal
        How metal is found, unless there is a mask.
    mask
        A file of the user's in place of what would be found, or FILE:NAME for a segment or ROI of it, see
        `ctmar.dicom.given_masks.given_metal`.
    seg, difference, preview, report
        Write also: the metal as DICOM SEG; the series of the changes; secondary captures for a quick look;
        report.html.
    include_identifiers
        Name patient and study in report.html.
    strict
        Stop at the first slice that cannot be read or fails its checks, instead of leaving it out or as it was.
    device
        "auto", "cpu" or "cuda".
    overwrite
        Replace an output that exists.
    """

    method: str = DEFAULT_METHOD
    preset: str = "auto"
    strength: float = 1.0
    adaptive: bool = True
    metal: DetectionSettings = field(default_factory=DetectionSettings)
    mask: Path | None = None
    seg: bool = False
    difference: bool = False
    preview: bool = False
    report: bool = False
    include_identifiers: bool = False
    strict: bool = False
    device: str = "auto"
    overwrite: bool = False

    @property
    def blends(self) -> bool:
        """Whether only a part of the change goes in; never of `cnn`, whose image is asked for as it is."""
        return self.adaptive and self.method != "cnn"

    def in_words(self) -> str:
        """What two corrections of one series by one method can differ in, in a few words."""
        parts = [f"strength {self.strength:g}", "adaptive" if self.adaptive else "whole"]
        if self.mask is not None:
            return ", ".join([*parts, "own mask"])
        used = {name: value for name, value in asdict(self.metal).items() if value != _DETECTION[name]}
        return ", ".join([*parts, *(f"metal {name} {value}" for name, value in used.items())])

    def __post_init__(self) -> None:
        if self.method not in known_methods():
            raise ValueError(f"there is no method {self.method!r}: expected one of {', '.join(known_methods())}")
        if self.include_identifiers and not self.report:
            raise ValueError("include_identifiers is about the report: it needs report, too")
        if not 0 <= self.strength <= 1:
            raise ValueError(f"strength must lie in 0..1, not {self.strength:g}")
