"""report.json and report.html of a corrected series or volume; without patient data."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctmar.correction_settings import CorrectionSettings
from ctmar.images import Image
from ctmar.report.encoding import EncodedSlice, encode
from ctmar.report.html import render_report
from ctmar.report.pictures import SlicePreview
from ctmar.results import SeriesResult
from ctmar.slice_correction import SliceOutcome

_PIECES = 20
"""So many pieces of metal are listed, the largest; report.json has all."""

NOT_SETTINGS = ("overwrite", "mask", "difference", "preview", "seg", "report", "include_identifiers", "strict")


@dataclass
class Previews:
    """Keeps compressed pictures of some of the slices that `ctmar.pipeline` hands on, for the report.

    Attributes
    ----------
    wanted, explained
        Which slices, from 0; of which also the prior and the sinogram.
    encoded
        What was kept.
    """

    wanted: Collection[int]
    explained: Collection[int] = ()
    encoded: dict[int, EncodedSlice] = field(default_factory=dict)

    def add(self, index: int, image: Image, metal: NDArray[np.bool_], outcome: SliceOutcome | None) -> None:
        """Keep one slice if it is wanted."""
        if index not in self.wanted:
            return
        preview = SlicePreview(f"slice {index + 1}", image.image_hu, image.image_hu, metal=metal)
        if outcome is not None:
            after = image.image_hu if outcome.image_hu is None else outcome.image_hu
            notes = ", ".join(text for text in (outcome.checked.failure, *outcome.checked.warnings) if text)
            preview = replace(preview, after_hu=after, notes=notes)
            if index in self.explained and outcome.workings is not None:
                preview = replace(preview, **vars(outcome.workings))
        self.encoded[index] = encode(preview)


def write_json(path: Path, result: SeriesResult, settings: CorrectionSettings) -> None:
    """Write report.json: settings, metal, and what became of every slice, by UID."""
    path.write_text(json.dumps({"settings": _shown(settings), **result.as_report()}, indent=1), encoding="utf-8")


def write_html(
    path: Path,
    result: SeriesResult,
    settings: CorrectionSettings,
    previews: Previews,
    card: Mapping[str, Any] | None,
    *,
    patient: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write report.html; of the patient it says what `patient` holds."""
    render_report(
        path,
        title="Metal artifact reduction",
        results=None,
        slices=[previews.encoded[index] for index in sorted(previews.encoded)],
        settings={
            **_shown(settings),
            "slices": len(result.slices),
            "slices corrected": result.corrected,
            "slices failed": len(result.failed),
            "source series": result.source_uid,
            "derived series": result.derived_uid,
        },
        model_card={k: v for k, v in card.items() if not isinstance(v, Mapping)} if card else None,
        warnings=[*result.about_slices(), *result.warnings],
        by_slice=result.slices,
        patient=patient,
        metal={
            **{name: result.metal[name] for name in ("source", "threshold_hu", "grow_hu")},
            "pieces": len(result.metal["components"]),
            **{f"piece {k}": _piece(one) for k, one in enumerate(result.metal["components"][:_PIECES], start=1)},
            "bright pieces left out": len(result.metal["left_out"]),
            **{f"left out {k}": _piece(one) for k, one in enumerate(result.metal["left_out"][:_PIECES], start=1)},
        },
    )


def _piece(component: Mapping[str, Any]) -> str:
    first, last = component["slices"]
    reason = component.get("reason") or ""
    where = f"slice {first}" if first == last else f"slices {first} to {last}"
    text = f"{where}: {component['volume_mm3']:.0f} mm³, up to {component['peak_hu']:.0f} HU"
    return f"{text}; {reason}" if reason else text


def _shown(settings: CorrectionSettings) -> dict[str, Any]:
    """Settings without the names of files, which may be those of patients."""
    values = {name: value for name, value in asdict(settings).items() if name not in NOT_SETTINGS}
    return {**values, "own_mask": settings.mask is not None}
