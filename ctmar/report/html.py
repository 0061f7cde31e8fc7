"""One self-contained HTML page for a corrected series, an evaluation or a demo.

The page needs no network (its content security policy forbids any) and holds its pictures as HU in steps
(`ctmar.report.encoding`), so that any window can be chosen. Nothing of the patient goes in unless a caller puts it into
a label.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ctmar import __version__
from ctmar.metrics import METRICS, summarise
from ctmar.report.encoding import LEVELS, LOWEST_HU, STEP_HU, EncodedSlice, encode
from ctmar.report.pictures import WINDOWS, SlicePreview
from ctmar.report.tables import LABELS
from ctmar.results import FAILED, UNREADABLE, SliceResult

COLUMNS = {
    "rmse_hu": ("RMSE, whole image", "HU", 1),
    "rmse_body_hu": ("RMSE, body", "HU", 1),
    "ssim": ("SSIM", "", 3),
    "streak_hu": ("Streaks", "HU", 1),
    "bone_dice": ("Bone Dice", "", 3),
}
"""Heading, unit and decimals of each metric that a report knows; others in a row are not shown."""

PATHS = {
    "raw": "From raw data (sinogram corrected)",
    "dicom": "From images alone (image reprojected, then corrected)",
}

METHODS = LABELS | {"cnn": "CNN image"}
"""Labels of methods, as in the tables, where an image is one among several."""

PAIRS = {
    "before after": "Before | After",
    "after reference": "After | Reference",
    "prior after": "Prior | After",
    "before difference": "Before | Difference",
}
"""What may be compared; with an image that no slice has, it is left out."""

_SLICE_NUMBERS = (
    "Slice", "Image number", "Position (mm)", "Metal (mm²)", "Mean change (HU)", "Largest change (HU)",
)  # fmt: skip

_PLOT_WIDTH, _PLOT_HEIGHT = 800, 130


def render_report(
    path: Path | str,
    *,
    title: str,
    results: Sequence[Mapping[str, Any]] | None,
    slices: Iterable[SlicePreview | EncodedSlice],
    settings: Mapping[str, Any],
    model_card: Mapping[str, Any] | None,
    warnings: Sequence[str],
    by_slice: Sequence[SliceResult] = (),
    metal: Mapping[str, Any] = MappingProxyType({}),
    patient: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write the report.

    Parameters
    ----------
    path : where the HTML goes; an existing file is replaced
    title : heading of the page
    results : rows of ``case``, ``path``, ``method``, ``rmse_hu``, ``rmse_body_hu``, ``ssim``
        As in `metrics.json`. Further columns that every row has and `COLUMNS` knows are shown too. None or
        empty: no table.
    slices : previews in the order in which they are to be paged through
        Taken one at a time, so a generator keeps memory small, as does `encode` beforehand. A slice without metal adds
        0.1 MB, one with metal 0.2 to 0.4 MB. The page opens at the slice with most metal.
    settings, model_card, metal, patient : names and values, shown as tables; a mapping in them as ``outer.inner``
    warnings : sentences, shown on top
    by_slice : what became of every slice of a series, plotted and as a table; `slices` whose label is
        ``slice NUMBER`` are those of that number

    Raises
    ------
    ValueError
        Where a row of `results` lacks a key.
    """
    environment = Environment(
        loader=PackageLoader("ctmar.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    encoded = [encode(one) if isinstance(one, SlicePreview) else one for one in slices]
    pictures = {name for one in encoded for name in one["pictures"]}
    available = pictures | {"difference"}
    page = environment.get_template("page.html").stream(
        title=title,
        version=__version__,
        warnings=list(warnings),
        tables=_tables(results or []),
        slices=encoded,
        first_slice=max(range(len(encoded)), key=lambda k: encoded[k]["metal_pixels"], default=0),
        windows=WINDOWS,
        pairs=[(value, label) for value, label in PAIRS.items() if available.issuperset(value.split())],
        has_outline="outline" in pictures,
        has_sinogram="sinogram" in pictures,
        scale={"step": STEP_HU, "lowest": LOWEST_HU, "levels": LEVELS},
        plot=_plot(by_slice, [one["label"] for one in encoded]) if by_slice else None,
        slice_headings=[*((name, True) for name in _SLICE_NUMBERS), ("What became of it", False)],
        by_slice=[_slice_row(one) for one in by_slice],
        patient=_flatten(patient),
        settings=_flatten(settings),
        model_card=_flatten(model_card or {}),
        metal=_flatten(metal),
    )
    target = Path(path)
    partial = target.with_name(target.name + ".part")
    partial.write_text("".join(page), encoding="utf-8")
    partial.replace(target)


def _slice_row(one: SliceResult) -> list[str]:
    change, most = (one.measures.get(name) for name in ("mean_change_hu", "largest_change_hu"))
    numbers = (
        (float(one.number), 0),
        (one.instance_number, 0),
        (one.along_normal_mm, 1),
        (one.metal_mm2 or None, 0),
        (change, 1),
        (most, 0),
    )
    texts = [one.status, one.message, *one.warnings]
    cells = ["–" if value is None else _number(value, decimals) for value, decimals in numbers]
    return [*cells, "; ".join(text for text in texts if text)]


def _plot(results: Sequence[SliceResult], labels: Sequence[str]) -> dict[str, Any]:
    """Bars of the metal's area and a line of the mean change, in the coordinates of the drawing."""
    most_mm2 = max((one.metal_mm2 for one in results), default=0.0) or 1.0
    changes = [one.measures.get("mean_change_hu", 0.0) for one in results]
    most_hu = max(changes, default=0.0) or 1.0
    width, height = _PLOT_WIDTH / len(results), _PLOT_HEIGHT
    shown = {label: place for place, label in enumerate(labels)}
    bars, points = [], []
    for place, (one, change) in enumerate(zip(results, changes, strict=True)):
        failed = one.status in (FAILED, UNREADABLE)
        tall = height if failed else height * one.metal_mm2 / most_mm2
        bars.append(
            {
                "x": round(place * width, 2),
                "y": round(height - tall, 2),
                "width": round(width, 2),
                "height": round(tall, 2),
                "failed": failed,
                "number": one.number,
                "slice": shown.get(f"slice {one.number}"),
            }
        )
        points.append(f"{(place + 0.5) * width:.1f} {height - height * change / most_hu:.1f}")
    return {
        "bars": bars,
        "line": "M" + " L".join(points),
        "width": _PLOT_WIDTH,
        "height": _PLOT_HEIGHT,
        "most_mm2": _number(most_mm2, 0),
        "most_hu": _number(most_hu, 1),
    }


def _tables(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One table for each path: heading, columns, means and cases, all as text ready to print."""
    if not results:
        return []
    if not all("case" in row for row in results):
        raise ValueError("a row of metrics lacks case")
    shared = set.intersection(*(set(row) for row in results))
    metrics = [name for name in COLUMNS if name in shared or name in METRICS]
    means = summarise(results, metrics=metrics)

    numbers = [(f"{name} ({unit})" if unit else name, True) for name, unit, _ in map(COLUMNS.__getitem__, metrics)]

    def cells(row: Mapping[str, Any]) -> list[str]:
        return [_number(row[name], COLUMNS[name][2]) for name in metrics]

    def method(row: Mapping[str, Any]) -> str:
        return METHODS.get(row["method"], str(row["method"]))

    tables = []
    for path in dict.fromkeys(row["path"] for row in means):
        of_path = [row for row in results if row["path"] == path]
        tables.append(
            {
                "heading": PATHS.get(path, path),
                "headings": [("Method", False), *numbers, ("Cases", True)],
                "means": [[method(row), *cells(row), row["n"]] for row in means if row["path"] == path],
                "case_headings": [("Case", False), ("Method", False), *numbers],
                "cases": [[row["case"], method(row), *cells(row)] for row in of_path],
                "n_cases": len({row["case"] for row in of_path}),
                "has_li": any(row["method"] == "li" for row in of_path),
            }
        )
    return tables


def _number(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}" if math.isfinite(value) else "–"


def _flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """(name, text) rows of a mapping, inner mappings as ``outer.inner``; empty texts are left out."""
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if value == "":
            continue
        if isinstance(value, Mapping):
            rows += _flatten(value, f"{prefix}{name}.")
        elif isinstance(value, (list, tuple)):
            rows.append((f"{prefix}{name}", ", ".join(map(str, value))))
        else:
            rows.append((f"{prefix}{name}", "–" if value is None else str(value)))
    return rows
