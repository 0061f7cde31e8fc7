"""Means over cases with their uncertainty, by metal, size and region, and differences between methods.

Slices of one patient are alike, so that the uncertainty comes from the patients: the bootstrap [1]_ draws patients,
each with all of its cases. Where all cases are of one patient it draws cases, and `unit` says so.

References
----------
.. [1] Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13 (percentile intervals); Field & Welsh,
   "Bootstrapping clustered data", J. R. Statist. Soc. B 69(3):369-390, 2007 (the cluster bootstrap).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctmar.files import write_csv

SAMPLES = 2000
LEVEL = 0.95
SIZES_MM2 = (("small", 100.0), ("medium", 500.0), ("large", float("inf")))
"""Classes of the metal's area in the slice: up to 1 cm^2 (clips, fillings, screws), up to 5 cm^2, beyond."""

GROUPS = ("all", "material", "size", "region", "implant")
"""What cases are grouped by: metal, size, region of the body (`REGIONS`) and the implant's family."""

REGIONS: Mapping[str, str] = {
    "hip": "hip",
    "hips": "hip",
    "knee": "knee",
    "shoulder": "shoulder",
    "shoulder-screws": "shoulder",
    "shoulder-joint": "shoulder",
    "spine": "spine",
    "dental": "teeth",
    "fillings": "teeth",
    "dental-implant": "teeth",
    "head-clip": "head",
    "coil": "head",
    "sternum": "chest",
    "pacemaker": "chest",
    "port": "chest",
    "clip": "soft tissue",
    "marker": "soft tissue",
}
"""Where implants of a family are; those that can be anywhere (plates, random shapes, one's own) are `ANYWHERE`."""

ANYWHERE = "anywhere"

MIXED = "mixed"
METRICS = (
    "rmse_hu", "rmse_body_hu", "rmse_near_hu", "rmse_far_hu", "ssim", "ssim_body", "streak_hu", "streak_range_hu",
    "noise_ratio", "sharpness_ratio", "bone_dice", "bone_volume_ratio", "metal_dice", "metal_volume_ratio",
)  # fmt: skip
"""What `group_means` averages, where rows have it."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Estimate:
    """A mean with its percentile interval, from `n` cases of `patients` patients.

    `unit` is what was drawn: ``patient`` or ``case``. With a single unit there is no interval: both ends are NaN.
    """

    mean: float
    low: float
    high: float
    n: int
    patients: int
    unit: str


def bootstrap_mean(
    values: Sequence[float], patients: Sequence[str], *, seed: int = 0, samples: int = SAMPLES, level: float = LEVEL
) -> Estimate:
    """The mean of values over cases, with an interval.

    Parameters
    ----------
    values
        One for each case; NaN is left out.
    patients
        Of each case.
    seed
        The same arguments always give the same interval.
    samples, level
        Bootstrap samples; share of them inside the interval.

    Raises
    ------
    ValueError
        Where there are not as many patients as values, or `level` is not between 0 and 1.
    """
    if len(values) != len(patients):
        raise ValueError(f"{len(values)} values but {len(patients)} patients")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
    array = np.asarray(values, np.float64)
    known = np.isfinite(array)
    array, names = array[known], [name for name, keep in zip(patients, known, strict=True) if keep]
    if not len(array):
        return Estimate(float("nan"), float("nan"), float("nan"), 0, 0, "patient")
    count = len(set(names))
    unit = "patient" if count > 1 else "case"
    keys: Sequence[Hashable] = names if count > 1 else range(len(array))
    low, high = _interval(array, keys, seed=seed, samples=samples, level=level)
    return Estimate(float(array.mean()), low, high, len(array), count, unit)


def group_means(
    rows: Iterable[Row], *, by: str = "all", metrics: Sequence[str] = METRICS, seed: int = 0
) -> list[dict[str, Any]]:
    """Means of every path and method over groups of cases.

    Parameters
    ----------
    rows
        As `ctmar.evaluation.evaluate` gives them, with ``implant``, ``material``, ``patient`` and ``metal_mm2``.
    by
        One of `GROUPS`.
    metrics
        Which columns; one that no row has is left out.

    Returns
    -------
    list of dict
        ``by``, ``group``, ``path``, ``method``, ``metric``, then the fields of `Estimate`; groups in alphabetical order
        (sizes in theirs), paths and methods in the order in which they first come.
    """
    grouped: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        grouped[group_of(row, by), row["path"], row["method"]].append(row)
    names = [name for name, _ in SIZES_MM2]
    order = {key: place for place, key in enumerate(grouped)}

    def place(key: tuple[str, str, str]) -> tuple[int, str, int]:
        return (names.index(key[0]) if by == "size" else 0, key[0], order[key])

    result = []
    for key in sorted(grouped, key=place):
        members = grouped[key]
        for metric in metrics:
            if any(metric in row for row in members):
                values = [_number(row.get(metric)) for row in members]
                estimate = bootstrap_mean(values, [_patient(row) for row in members], seed=seed)
                labels = dict(zip(("group", "path", "method"), key, strict=True))
                result.append({"by": by, **labels, "metric": metric, **vars(estimate)})
    return result


def paired_difference(
    rows: Iterable[Row], metric: str, method: str, other: str, *, path: str, seed: int = 0
) -> Estimate:
    """The mean of `method` less `other` over the cases that have both: an interval without 0 tells them apart.

    Cases differ far more than methods do; the difference within each case is free of that.
    """
    values: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        if row["path"] == path and row["method"] in (method, other):
            values[row["case"]][row["method"]] = row
    both = [pair for pair in values.values() if len(pair) == 2]
    differences = [_number(pair[method].get(metric)) - _number(pair[other].get(metric)) for pair in both]
    return bootstrap_mean(differences, [_patient(pair[method]) for pair in both], seed=seed)


def worst_cases(
    rows: Iterable[Row], *, method: str, path: str, metric: str = "rmse_body_hu", count: int = 10
) -> list[Row]:
    """Rows of the cases with the largest `metric` of a method, the worst first."""
    mine = [row for row in rows if (row["path"], row["method"]) == (path, method) and np.isfinite(_number(row[metric]))]
    return sorted(mine, key=lambda row: (-row[metric], row["case"]))[:count]


def group_of(row: Row, by: str) -> str:
    """The group of a row's case.

    Raises
    ------
    ValueError
        Where `by` is none of `GROUPS`.
    """
    if by == "all":
        return "all"
    if by == "size":
        return size_class(_number(row.get("metal_mm2")))
    if by == "material":
        return MIXED if "," in str(row.get(by) or "") else str(row.get(by) or "unknown")
    if by == "region":
        return REGIONS.get(str(row.get("implant") or ""), ANYWHERE)
    if by == "implant":
        return str(row.get(by) or "unknown")
    raise ValueError(f"cannot group by {by!r}: expected one of {', '.join(GROUPS)}")


def size_class(metal_mm2: float) -> str:
    """The class of `SIZES_MM2` that an area of metal falls into."""
    return next((name for name, most in SIZES_MM2 if metal_mm2 <= most), SIZES_MM2[-1][0])


def write_statistics(rows: Sequence[Row], folder: Path) -> None:
    """Write `statistics.csv`: `group_means` of all groups, one line a mean."""
    write_csv([line for by in GROUPS for line in group_means(rows, by=by)], folder / "statistics.csv")


def _interval(
    values: NDArray[np.float64], keys: Sequence[Hashable], *, seed: int, samples: int, level: float
) -> tuple[float, float]:
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    cluster = np.array([numbers[key] for key in keys])
    count = len(numbers)
    if count < 2:
        return float("nan"), float("nan")
    sums, sizes = np.bincount(cluster, values, count), np.bincount(cluster, minlength=count)
    drawn = np.random.default_rng(seed).integers(0, count, (samples, count))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _patient(row: Row) -> str:
    """The patient; a case of nobody known counts as a patient of its own."""
    return str(row.get("patient") or f"case {row['case']}")


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
