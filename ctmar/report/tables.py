"""Tables as those of Zhang & Yu 2018, from the rows of an evaluation, in Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ctmar.method_names import METHODS, NEEDS_NETWORK
from ctmar.statistics import GROUPS, group_means

Row = Mapping[str, Any]

LABELS = {
    "uncorrected": "Uncorrected", "bhc": "BHC", "li": "LI", "nmar1": "NMAR1", "nmar2": "NMAR2", "tv": "TV",
    "ebhc": "EBHC", "cnn": "CNN", "cnn-mar": "CNN-MAR", "cnn-mar-blended": "CNN-MAR, blended", "limit": "limit",
}  # fmt: skip

_PATHS = {"raw": "From raw data", "dicom": "From images alone"}


def table_of_cases(
    rows: Sequence[Row], metric: str, *, path: str, cases: Mapping[str, str] | None = None, digits: int = 1
) -> str:
    """One line a case, one column a method: Table 1 (``rmse_hu``) and Table 2 (``ssim``, 3 digits) of the paper.

    Parameters
    ----------
    rows
        As `ctmar.evaluation.evaluate` gives them.
    metric
        The column to show.
    path
        ``raw`` or ``dicom``; the two are never in one table.
    cases
        Which, with their labels; by default all under their own names.
    digits
        After the point.

    Raises
    ------
    ValueError
        Where there is no row of such a case on that path.
    """
    values = {(row["case"], row["method"]): row[metric] for row in rows if row["path"] == path}
    labels = cases if cases is not None else {case: case for case in dict.fromkeys(case for case, _ in values)}
    methods = _methods(method for case, method in values if case in labels)
    if not methods:
        raise ValueError(f"there is no such case on the path {path!r}")
    lines = [
        [label, *(_number(values.get((case, method)), digits) for method in methods)] for case, label in labels.items()
    ]
    return _markdown(["case", *(LABELS.get(method, method) for method in methods)], lines)


def table_of_models(results: Mapping[str, Sequence[Row]], *, path: str, cases: Mapping[str, str] | None = None) -> str:
    """Table 3 of the paper: RMSE / SSIM of the CNN image and of CNN-MAR, for networks of 2, 3 and 5 channels.

    Parameters
    ----------
    results
        By what to call each network, the rows of an evaluation of the same cases with it.
    path, cases
        As for `table_of_cases`.

    Raises
    ------
    ValueError
        Where there is no row of such a case on that path.
    """
    values = {
        (model, row["case"], row["method"]): row
        for model, rows in results.items()
        for row in rows
        if row["path"] == path and row["method"] in NEEDS_NETWORK
    }
    labels = cases if cases is not None else {case: case for case in dict.fromkeys(case for _, case, _ in values)}
    if not any(case in labels for _, case, _ in values):
        raise ValueError(f"there is no such case with a network on the path {path!r}")
    lines = []
    for case, label in labels.items():
        cells = []
        for model in results:
            image, corrected = (values.get((model, case, method)) for method in NEEDS_NETWORK)
            cells.append(f"{_pair(image)} → {_pair(corrected)}")
        lines.append([label, *cells])
    return _markdown(["case", *results], lines)


def table_of_means(estimates: Sequence[Row], *, path: str, metric: str, digits: int = 1) -> str:
    """One line a group, one column a method: means with their intervals.

    Parameters
    ----------
    estimates
        As `ctmar.statistics.group_means` gives them.

    Raises
    ------
    ValueError
        Where there is none of that path and metric.
    """
    chosen = [row for row in estimates if (row["path"], row["metric"]) == (path, metric)]
    if not chosen:
        raise ValueError(f"there is no mean of {metric!r} on the path {path!r}")
    values = {(row["group"], row["method"]): row for row in chosen}
    methods = _methods(row["method"] for row in chosen)
    lines = []
    for group in dict.fromkeys(row["group"] for row in chosen):
        known = [values[group, method] for method in methods if (group, method) in values]
        cells = [_interval(values.get((group, method)), digits) for method in methods]
        lines.append([group, str(known[0]["n"]), str(known[0]["patients"]), *cells])
    return _markdown(["group", "cases", "patients", *(LABELS.get(method, method) for method in methods)], lines)


def table_of_lesions(rows: Sequence[Row]) -> str:
    """One line a method, one column a path: area under the observer's ROC curve with its interval.

    Parameters
    ----------
    rows
        As `ctmar.detectability.detectability` gives them, at least one.
    """
    values = {(row["method"], row["path"]): {**row, "mean": row["auc"]} for row in rows}
    paths = list(dict.fromkeys(row["path"] for row in rows))
    lines = [
        [LABELS.get(method, method), *(_interval(values.get((method, path)), 3) for path in paths)]
        for method in _methods(row["method"] for row in rows)
    ]
    return _markdown(["method", *(_PATHS[path] for path in paths)], lines)


def write_tables(rows: Sequence[Row], path: Path, *, channels: Mapping[str, int], lesions: Sequence[Row] = ()) -> None:
    """Write a Markdown file: means over the cases and their groups, then the paper's tables, for each path.

    Parameters
    ----------
    rows
        As `ctmar.evaluation.evaluate` gives them.
    path
        Where the file goes.
    channels
        How many channels each of the models evaluated has, by name, the first model first. Where there are several
        models, Table 3 sets them beside each other.
    lesions
        As for `table_of_lesions`; without any that table is left out.
    """
    parts = ["# Evaluation"]
    by_group = [group_means(rows, by=group, metrics=("rmse_body_hu", "ssim")) for group in GROUPS]
    for kind in dict.fromkeys(row["path"] for row in rows):
        parts.append(f"## {_PATHS[kind]}")
        for metric, title, digits in (("rmse_body_hu", "RMSE in the body, HU", 1), ("ssim", "SSIM", 3)):
            parts.append(f"### {title}: means, with 95 % intervals over patients (of one patient: over cases)")
            parts += [table_of_means(means, path=kind, metric=metric, digits=digits) for means in by_group]
        parts.append("### RMSE in the image, HU (as Table 1 of Zhang & Yu 2018)")
        parts.append(table_of_cases(rows, "rmse_hu", path=kind))
        parts.append("### SSIM (as Table 2)")
        parts.append(table_of_cases(rows, "ssim", path=kind, digits=3))
        if len(channels) > 1:
            parts.append("### Networks: RMSE / SSIM of the CNN image and of CNN-MAR (as Table 3)")
            parts.append(table_of_models(_by_model(rows, channels), path=kind))
    if lesions:
        one = lesions[0]
        disc = f"discs of {one['contrast_hu']:g} HU and {one['radius_mm']:g} mm radius beside the metal"
        parts.append(f"## Faint lesions: {disc}, {one['n']} places in {one['patients']} patients")
        parts.append("Area under the ROC curve of a model observer: 0.5 is guessing, 1 always right.\n")
        parts.append(table_of_lesions(lesions))
    path.write_text("\n".join(parts) + "\n", encoding="utf-8")


def _by_model(rows: Sequence[Row], channels: Mapping[str, int]) -> dict[str, list[Row]]:
    """Rows of each model with the plain names of its methods, by what to call it."""
    results: dict[str, list[Row]] = {}
    for number, (name, count) in enumerate(channels.items()):
        suffix = f"@{name}" if number else ""
        wanted = {f"{method}{suffix}": method for method in NEEDS_NETWORK}
        results[f"{name} ({count} channels)"] = [
            {**row, "method": wanted[row["method"]]} for row in rows if row["method"] in wanted
        ]
    return results


def _methods(names: Any) -> list[str]:
    """In the order of the paper's tables, then others as they come; the limit last."""
    found = list(dict.fromkeys(names))
    rank = {name: place for place, name in enumerate(METHODS)} | {"limit": len(METHODS) + len(found)}
    return sorted(found, key=lambda name: rank.get(name, len(METHODS)))


def _number(value: Any, digits: int) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _pair(row: Row | None) -> str:
    return "–" if row is None else f"{_number(row['rmse_hu'], 1)} / {_number(row['ssim'], 3)}"


def _interval(row: Row | None, digits: int) -> str:
    if row is None or row["n"] == 0:
        return "–"
    mean, low, high = (_number(row[name], digits) for name in ("mean", "low", "high"))
    return mean if low == "–" else f"{mean} ({low} to {high})"


def _markdown(heading: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---"] + ["---:"] * (len(heading) - 1)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heading, rule, *lines)) + "\n"
