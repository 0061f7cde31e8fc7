"""report.json and report.html of a corrected series or volume; without patient data."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctmar.correction_settings import CorrectionSettings
from ctmar.images import Image
from ctmar.report.html import EncodedSlice, encode, render_report
from ctmar.report.pictures import SlicePreview
from ctmar.results import SeriesResult
from ctmar.slice_correction import SliceOutcome

NOT_SETTINGS = ("overwrite", "mask", "difference", "preview", "seg", "report", "strict")


@dataclass
class Previews:
    """Keeps compressed pictures of some of the slices that `ctmar.pipeline` hands on, for the report."""

    wanted: Collection[int]
    encoded: dict[int, EncodedSlice] = field(default_factory=dict)

    def add(self, index: int, image: Image, metal: NDArray[np.bool_], outcome: SliceOutcome | None) -> None:
        """Keep one slice if it is wanted."""
        if index not in self.wanted or outcome is None or outcome.image_hu is None:
            return
        notes = ", ".join(outcome.checked.warnings)
        preview = SlicePreview(f"slice {index + 1}", image.image_hu, outcome.image_hu, metal=metal, notes=notes)
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
) -> None:
    """Write report.html."""
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
            **{f"metal {name}": result.metal[name] for name in ("source", "threshold_hu", "grow_hu")},
            "metal pieces": len(result.metal["components"]),
            "bright pieces left out": len(result.metal["left_out"]),
            "source series": result.source_uid,
            "derived series": result.derived_uid,
        },
        model_card={k: v for k, v in card.items() if not isinstance(v, Mapping)} if card else None,
        warnings=[*result.about_slices(), *result.warnings],
    )


def _shown(settings: CorrectionSettings) -> dict[str, Any]:
    """Settings without the names of files, which may be those of patients."""
    values = {name: value for name, value in asdict(settings).items() if name not in NOT_SETTINGS}
    return {**values, "own_mask": settings.mask is not None}
