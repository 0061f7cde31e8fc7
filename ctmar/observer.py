"""A channelized Hotelling observer: how well faint discs can be told from nothing.

Laguerre-Gauss channels, for signals that are round and whose place is known [1]_. The observer learns its template
from some patients and is tested on the others: an observer that is tested on what it has learned from is too good.

References
----------
.. [1] Gallas & Barrett, "Validating the use of channels to estimate the ideal linear observer", JOSA A
   20(9):1725-1738, 2003, equations 19 and 20.
.. [2] Obuchowski, "Nonparametric analysis of clustered ROC curve data", Biometrics 53(2):567-578, 1997.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import eval_laguerre
from scipy.stats import t as student

CHANNELS = 6
FOLDS = 5

Vectors = NDArray[np.float64]


@dataclass(frozen=True)
class Detectability:
    """Area under the ROC curve (0.5: guessing, 1: always right) with its 95 % interval.

    The interval comes from the patients, with Student's t for their number (`clustered_area`).
    From `n` places of `patients` patients. NaN where there are too few to learn from and to test on.
    """

    auc: float
    low: float
    high: float
    n: int
    patients: int


def channel_outputs(
    image_hu: NDArray[np.floating], centre: tuple[float, float], *, pixel_mm: float, width_mm: float
) -> Vectors:
    """Outputs of the channels at a place, HU; the same for any pixel size.

    ``sqrt(2) / a * exp(-pi r^2 / a^2) * L_j(2 pi r^2 / a^2)`` for j = 0 .. 5, with a = `width_mm`, times the image,
    summed over the pixels times their area and divided by a.

    Parameters
    ----------
    image_hu
        (rows, cols).
    centre
        Row and column, pixels; the channels are cut where they have fallen to nothing, at 2.2 `width_mm`.
    pixel_mm, width_mm
        Sizes of a pixel and of the first channel.
    """
    reach = int(np.ceil(2.2 * width_mm / pixel_mm))
    top, left = (round(value) - reach for value in centre)
    rows = np.arange(max(top, 0), min(top + 2 * reach + 1, image_hu.shape[0]))
    cols = np.arange(max(left, 0), min(left + 2 * reach + 1, image_hu.shape[1]))
    part = image_hu[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    r2 = ((rows[:, None] - centre[0]) ** 2 + (cols[None] - centre[1]) ** 2) * pixel_mm**2
    x = 2 * np.pi * r2 / width_mm**2
    envelope = np.sqrt(2) / width_mm * np.exp(-x / 2) * (pixel_mm**2 / width_mm)
    return np.array([np.sum(part * envelope * eval_laguerre(j, x)) for j in range(CHANNELS)], np.float64)


def hotelling_template(present: Vectors, absent: Vectors) -> Vectors:
    """``S^-1 (mean of present - mean of absent)``, S the mean of both covariances; arrays (places, channels)."""
    scatter = (np.cov(present, rowvar=False) + np.cov(absent, rowvar=False)) / 2
    # a share of the mean variance on the diagonal: with few places a direction may have next to none
    scatter = scatter + 1e-6 * np.trace(scatter) / len(scatter) * np.eye(len(scatter))
    template: Vectors = np.linalg.solve(scatter, present.mean(axis=0) - absent.mean(axis=0))
    return template


def observe(present: Vectors, absent: Vectors, patients: Sequence[str], *, seed: int = 0) -> Detectability:
    """How well the observer tells places with a signal from those without, on patients that it has not learned from.

    Parameters
    ----------
    present, absent
        Channel outputs (places, channels) with and without the signal.
    patients
        Of each place: all places of a patient are in the same fold.
    seed
        Of the folds.
    """
    names = sorted(set(patients))
    numbers = np.array([names.index(name) for name in patients], int)
    count, folds = len(names), min(FOLDS, len(names))
    nan = float("nan")
    nothing = Detectability(nan, nan, nan, len(present), count)
    if folds < 2:
        return nothing
    fold = np.random.default_rng(seed).permutation(np.arange(count) % folds)[numbers]
    with_signal, without = np.empty(len(present)), np.empty(len(absent))
    for one in range(folds):
        test = fold == one
        if np.count_nonzero(~test) <= CHANNELS:
            return nothing
        template = hotelling_template(present[~test], absent[~test])
        # on a common scale, so that values of different templates can be compared
        learned = absent[~test] @ template
        scale = learned.std() or 1.0  # 0 where there is no signal at all
        with_signal[test], without[test] = (
            (values[test] @ template - learned.mean()) / scale for values in (present, absent)
        )
    area, error = clustered_area(with_signal, without, numbers)
    half = float(student.ppf(0.975, count - 1)) * error
    return Detectability(area, max(area - half, 0.0), min(area + half, 1.0), len(present), count)


def clustered_area(
    with_signal: NDArray[np.float64], without: NDArray[np.float64], cluster: NDArray[np.intp]
) -> tuple[float, float]:
    """Area under the ROC curve and its standard error, where values of a cluster are alike [2]_.

    Parameters
    ----------
    with_signal, without
        The observer's values, one pair for each place.
    cluster
        Of each place, from 0; at least two.
    """
    difference = with_signal[:, None] - without[None]
    wins = (difference > 0) + 0.5 * (difference == 0)
    area = float(wins.mean())
    # sums over each cluster of what its values contribute, less what they would on average
    first, second = (np.bincount(cluster, wins.mean(axis=axis) - area) for axis in (1, 0))
    variance = np.sum((first + second) ** 2) * len(first) / (len(first) - 1) / len(with_signal) ** 2
    return area, float(np.sqrt(variance))
