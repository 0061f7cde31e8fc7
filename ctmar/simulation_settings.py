"""What `ctmar simulate` is asked for: settings, and the file that rebuilds a database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import tomli_w

from ctmar import __version__
from ctmar.config import settings_from
from ctmar.errors import UsageError
from ctmar.method_names import METHODS, NEEDS_NETWORK
from ctmar.shapes import fingerprints
from ctmar.words import did_you_mean
from data_sim.acquisition import ScanSettings
from data_sim.field_of_view import narrowed
from data_sim.geometry import FanArc, FanFlat, Geometry, Parallel
from data_sim.materials import METALS
from data_sim.placement import IMPLANTS, OWN

SETTINGS_FILE = "simulation.toml"
_PROVENANCE = ("version", "sources", "shapes_sha256")

_GEOMETRIES: Mapping[str, type[FanArc] | type[FanFlat] | type[Parallel]] = {
    "arc": FanArc,
    "flat": FanFlat,
    "parallel": Parallel,
}


@dataclass(frozen=True)
class SimulationSettings:
    """What `ctmar simulate` makes; the same settings, sources and seed give the same database.

    Attributes
    ----------
    cases, seed
        How many, and what they are drawn from.
    implants, materials
        Families (`data_sim.placement.IMPLANTS`) and metals (`data_sim.materials.METALS`) to draw from.
    patients, exclude_patients
        Pseudonyms (as in `index.csv`) of the only ones to simulate, and of those to leave out: test patients are kept
        apart already when the databases are made.
    shapes
        Masks of the user's own metal, see `ctmar.shapes`; where there are any, the family "own" is drawn too.
    scan
        Tube, photons and detector.
    geometry, views, bins
        "arc", "flat" or "parallel", and another number of views or bins than the geometry's own.
    bin_offset
        Shift of the detector in bins; a quarter is the usual one.
    fov_mm
        Diameter of a field of view that is smaller than the scanner's, instead of `bins`; see
        `data_sim.field_of_view.narrowed`.
    images
        Methods (`ctmar.method_names.METHODS`) whose images every case holds on both paths, for networks to learn from.
    arc_deg
        What parallel views cover, 180 (their default) or 360 degrees; fans always turn once.
    """

    cases: int = 100
    seed: int = 0
    implants: tuple[str, ...] = tuple(IMPLANTS)
    materials: tuple[str, ...] = ("ti", "fe", "cu", "au")
    shapes: tuple[str, ...] = ()
    patients: tuple[str, ...] = ()
    exclude_patients: tuple[str, ...] = ()
    scan: ScanSettings = field(default_factory=ScanSettings)
    geometry: Literal["arc", "flat", "parallel"] = "arc"
    views: int | None = None
    bins: int | None = None
    bin_offset: float = 0.0
    fov_mm: float | None = None
    arc_deg: Literal[180, 360] | None = None
    images: tuple[str, ...] = ("uncorrected", "bhc", "li", "nmar1", "nmar2")

    def __post_init__(self) -> None:
        if self.cases < 1:
            raise ValueError(f"cases must be at least 1, not {self.cases}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, not {self.seed}")
        for what, names, known in (
            ("implant", self.implants, (*IMPLANTS, *([OWN] if self.shapes else []))),
            ("material", self.materials, tuple(METALS)),
            ("image", self.images, tuple(m for m in METHODS if m not in NEEDS_NETWORK)),
        ):
            if not names:
                raise ValueError(f"at least one {what} is needed: any of {', '.join(known)}")
            for name in names:
                if name not in known:
                    hint = did_you_mean(name, known) or f"expected one of {', '.join(known)}"
                    hint = "it needs --shapes FILE" if name == OWN else hint
                    raise ValueError(f"unknown {what} {name!r}: {hint}")
        if "uncorrected" not in self.images:
            raise ValueError("images must include uncorrected")
        if self.bins is not None and self.bins < 2:
            raise ValueError(f"bins must be at least 2, not {self.bins}")
        if self.bins is not None and self.fov_mm is not None:
            raise ValueError("bins and fov_mm both set the width of the detector: give one of them")
        if self.arc_deg == 180 and self.geometry != "parallel":
            raise ValueError("arc_deg 180 is for parallel beams: fans turn once")
        self.scan.beam(self.scanner())

    @property
    def families(self) -> tuple[str, ...]:
        """What to draw from: the implants, and the user's own shapes where there are any."""
        return tuple(dict.fromkeys((*self.implants, *([OWN] if self.shapes else []))))

    def wants(self, patient: str) -> bool:
        """Whether a patient, by pseudonym, is to be simulated."""
        return patient not in self.exclude_patients and (not self.patients or patient in self.patients)

    def scanner(self) -> Geometry:
        """The geometry that these settings describe."""
        counts = {name: n for name, n in (("views", self.views), ("bins", self.bins)) if n is not None}
        geometry: Geometry = _GEOMETRIES[self.geometry](**counts, bin_offset=self.bin_offset)
        if isinstance(geometry, Parallel) and self.arc_deg is not None:
            geometry = replace(geometry, arc_rad=float(np.deg2rad(self.arc_deg)))
        return geometry if self.fov_mm is None else narrowed(geometry, self.fov_mm)


def settings_text(sources: Sequence[str], settings: SimulationSettings) -> str:
    """The content of `simulation.toml`: version, sources and every setting, in the form that `read_request` reads.

    Raises
    ------
    UsageError
        Where a file of `settings.shapes` is missing.
    """
    values = {"version": __version__, "sources": list(map(str, sources)), **asdict(settings)}
    if settings.shapes:
        values["shapes_sha256"] = fingerprints(settings.shapes)
    return tomli_w.dumps(_without_none(values))


def read_request(
    values: Mapping[str, Any], *, sources: Sequence[str], overrides: Mapping[str, Any], scan: Mapping[str, Any]
) -> tuple[list[str], SimulationSettings]:
    """Sources and settings from a TOML file and from flags, which win.

    Parameters
    ----------
    values
        As `ctmar.config.load_toml` gives them: of a file of one's own, or of a database's `simulation.toml`.
    sources
        From the command line; where there are none, those of the file are taken.
    overrides, scan
        Settings from flags, those of the scan apart.

    Raises
    ------
    UsageError
        Where there is no source, or a setting makes no sense.
    """
    given = {name: value for name, value in values.items() if name not in _PROVENANCE}
    written = values.get("sources", [])
    if not (isinstance(written, list) and all(isinstance(source, str) for source in written)):
        raise UsageError("simulation: sources must be a list of texts.")
    chosen = list(sources) or written
    if not chosen:
        raise UsageError("simulation: give at least one source: DICOM, NIfTI or the word phantom.")
    of_file = given.get("scan", {})
    if not isinstance(of_file, Mapping):
        raise UsageError("simulation: scan must be a table, [scan].")
    settings = settings_from(
        SimulationSettings, {**given, "scan": {**of_file, **scan}}, overrides=overrides, origin="simulation"
    )
    return chosen, settings


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    """TOML has no null: what is None is left out, at every level."""
    kept = {key: value for key, value in values.items() if value is not None}
    return {key: _without_none(value) if isinstance(value, Mapping) else value for key, value in kept.items()}
