"""What `ctmar simulate` is asked for: settings, and the file that rebuilds a database."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import tomli_w

from ctmar import __version__
from ctmar.config import settings_from
from ctmar.errors import UsageError
from data_sim.acquisition import ScanSettings
from data_sim.geometry import FanArc, FanFlat, Geometry, Parallel
from data_sim.implants import IMPLANTS
from data_sim.materials import METALS

SETTINGS_FILE = "simulation.toml"

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
        Families (`data_sim.implants.IMPLANTS`) and metals (`data_sim.materials.METALS`) to draw from.
    scan
        Tube, photons and detector.
    geometry, views, bins
        "arc", "flat" or "parallel", and another number of views or bins than the geometry's own.
    """

    cases: int = 100
    seed: int = 0
    implants: tuple[str, ...] = IMPLANTS
    materials: tuple[str, ...] = ("ti", "fe", "cu", "au")
    scan: ScanSettings = field(default_factory=ScanSettings)
    geometry: Literal["arc", "flat", "parallel"] = "arc"
    views: int | None = None
    bins: int | None = None

    def __post_init__(self) -> None:
        if self.cases < 1:
            raise ValueError(f"cases must be at least 1, not {self.cases}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, not {self.seed}")
        for what, names, known in (
            ("implant", self.implants, IMPLANTS),
            ("material", self.materials, tuple(METALS)),
        ):
            if not names:
                raise ValueError(f"at least one {what} is needed: any of {', '.join(known)}")
            for name in names:
                if name not in known:
                    near = difflib.get_close_matches(name, known, n=1)
                    hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"
                    raise ValueError(f"unknown {what} {name!r}: {hint}")
        self.scanner()

    def scanner(self) -> Geometry:
        """The geometry that these settings describe."""
        counts = {name: n for name, n in (("views", self.views), ("bins", self.bins)) if n is not None}
        return _GEOMETRIES[self.geometry](**counts)


def settings_text(sources: Sequence[str], settings: SimulationSettings) -> str:
    """The content of `simulation.toml`: version, sources and every setting, in the form that `read_request` reads."""
    values = {"version": __version__, "sources": list(map(str, sources)), **asdict(settings)}
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
    given = {name: value for name, value in values.items() if name not in ("version", "sources")}
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
