"""Tables as those of Zhang & Yu 2018, from the rows of an evaluation, in Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ctmar.methods import METHODS

Row = Mapping[str, Any]

LABELS = {
    "uncorrected": "Uncorrected", "bhc": "BHC", "li": "LI", "nmar1": "NMAR1", "nmar2": "NMAR2", "cnn": "CNN",
    "cnn-mar": "CNN-MAR", "limit": "limit",
}  # fmt: skip


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


def table_of_channels(
    results: Mapping[int, Sequence[Row]], *, path: str, cases: Mapping[str, str] | None = None
) -> str:
    """Table 3 of the paper: RMSE / SSIM of the CNN image and of CNN-MAR, for networks of 2, 3 and 5 channels.

    Parameters
    ----------
    results
        By number of channels, the rows of an evaluation of the same cases with such a network.
    path, cases
        As for `table_of_cases`.

    Raises
    ------
    ValueError
        Where there is no row of such a case on that path.
    """
    values = {
        (channels, row["case"], row["method"]): row
        for channels, rows in results.items()
        for row in rows
        if row["path"] == path and row["method"] in ("cnn", "cnn-mar")
    }
    labels = cases if cases is not None else {case: case for case in dict.fromkeys(case for _, case, _ in values)}
    if not any(case in labels for _, case, _ in values):
        raise ValueError(f"there is no such case with a network on the path {path!r}")
    lines = []
    for case, label in labels.items():
        cells = []
        for channels in results:
            image, corrected = (values.get((channels, case, method)) for method in ("cnn", "cnn-mar"))
            cells.append(f"{_pair(image)} → {_pair(corrected)}")
        lines.append([label, *cells])
    return _markdown(["case", *(f"{channels} channels" for channels in results)], lines)


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
