"""One self-contained HTML page for a corrected series, an evaluation or a demo.

The page needs no network (its content security policy forbids any), holds its pictures as lossy 8-bit
previews and everything else as text. Nothing of the patient goes in unless a caller puts it into a label.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from ctmar import __version__
from ctmar.metrics import METRICS, summarise
from ctmar.report.pictures import WINDOWS, SlicePreview, difference, outline_png, picture_webp, windowed

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

METHODS = {
    "uncorrected": "Uncorrected",
    "bhc": "BHC",
    "li": "LI",
    "nmar1": "NMAR1",
    "nmar2": "NMAR2",
    "cnn": "CNN image",
    "cnn-mar": "CNN-MAR",
}


EncodedSlice = Mapping[str, Any]
"""A preview that is compressed already, see `encode`."""


def render_report(
    path: Path | str,
    *,
    title: str,
    results: Sequence[Mapping[str, Any]] | None,
    slices: Iterable[SlicePreview | EncodedSlice],
    settings: Mapping[str, Any],
    model_card: Mapping[str, Any] | None,
    warnings: Sequence[str],
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
        Taken one at a time, so a generator keeps memory small, as does `encode` beforehand. A slice adds 0.1 to
        0.3 MB. The page opens at the slice with most metal.
    settings, model_card : names and values, shown as tables; a mapping in them is shown as ``outer.inner``
    warnings : sentences, shown on top

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
    page = environment.get_template("page.html").stream(
        title=title,
        version=__version__,
        warnings=list(warnings),
        tables=_tables(results or []),
        slices=encoded,
        first_slice=max(range(len(encoded)), key=lambda k: encoded[k]["metal_pixels"], default=0),
        windows=WINDOWS,
        settings=_flatten(settings),
        model_card=_flatten(model_card or {}),
    )
    target = Path(path)
    partial = target.with_name(target.name + ".part")
    partial.write_text("".join(page), encoding="utf-8")
    partial.replace(target)


def encode(preview: SlicePreview) -> EncodedSlice:
    """A slice as the page's script wants it: pictures by name, each a data URL, or one for each window."""
    images = {"before": preview.before_hu, "after": preview.after_hu, "reference": preview.reference_hu}
    pictures: dict[str, Any] = {
        name: {window.name: _data_url(picture_webp(windowed(image, window)), "webp") for window in WINDOWS}
        for name, image in images.items()
        if image is not None
    }
    pictures["difference"] = _data_url(picture_webp(difference(preview.before_hu, preview.after_hu)), "webp")
    if preview.metal is not None and preview.metal.any():
        pictures["outline"] = _data_url(outline_png(preview.metal), "png")
    rows, cols = preview.before_hu.shape
    return {
        "label": preview.label,
        "notes": preview.notes,
        "aspect": cols / rows,
        "metal_pixels": 0 if preview.metal is None else int(np.count_nonzero(preview.metal)),
        "pictures": pictures,
    }


def _data_url(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _tables(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One table for each path: heading, columns, means and cases, all as text ready to print."""
    if not results:
        return []
    if not all("case" in row for row in results):
        raise ValueError("a row of metrics lacks case")
    shared = set.intersection(*(set(row) for row in results))
    metrics = [name for name in COLUMNS if name in shared or name in METRICS]
    means = summarise(results, metrics=metrics)
    scale = max((row["rmse_body_hu"] for row in means if row["rmse_body_hu"] > 0), default=1.0)

    def cells(row: Mapping[str, Any]) -> list[str]:
        return [_number(row[name], COLUMNS[name][2]) for name in metrics]

    tables = []
    for path in dict.fromkeys(row["path"] for row in means):
        of_path = [row for row in results if row["path"] == path]
        tables.append(
            {
                "heading": PATHS.get(path, path),
                "columns": [COLUMNS[name][:2] for name in metrics],
                "means": [
                    {
                        "method": METHODS.get(row["method"], row["method"]),
                        "cells": cells(row),
                        "bar": np.nan_to_num(100 * row["rmse_body_hu"] / scale),
                        "n": row["n"],
                    }
                    for row in means
                    if row["path"] == path
                ],
                "cases": [
                    {
                        "case": row["case"],
                        "method": METHODS.get(row["method"], row["method"]),
                        "cells": cells(row),
                    }
                    for row in of_path
                ],
                "n_cases": len({row["case"] for row in of_path}),
                "has_li": any(row["method"] == "li" for row in of_path),
            }
        )
    return tables


def _number(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}" if math.isfinite(value) else "–"


def _flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """(name, text) rows of a mapping, inner mappings as ``outer.inner``."""
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += _flatten(value, f"{prefix}{name}.")
        elif isinstance(value, (list, tuple)):
            rows.append((f"{prefix}{name}", ", ".join(map(str, value))))
        else:
            rows.append((f"{prefix}{name}", "–" if value is None else str(value)))
    return rows
