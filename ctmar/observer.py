"""A channelized Hotelling observer: how well faint discs can be told from nothing.

Laguerre-Gauss channels, for signals that are round and whose place is known [1]_. The observer learns its template
from some patients and is tested on the others: an observer that is tested on what it has learned from is too good.

References
----------
.. [1] Gallas & Barrett, "Validating the use of channels to estimate the ideal linear observer", JOSA A
   20(9):1725-1738, 2003, equations 19 and 20.
.. [2] Bamber, "The area above the ordinal dominance graph and the area below the receiver operating characteristic
   graph", J. Math. Psychol. 12(4):387-415, 1975.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import eval_laguerre

CHANNELS = 6
FOLDS = 5
SAMPLES = 2000

Vectors = NDArray[np.float64]


@dataclass(frozen=True)
class Detectability:
    """Area under the ROC curve (0.5: guessing, 1: always right) with its 95 % interval over the patients.

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
        Of each place: all places of a patient are in the same fold, and drawn together for the interval.
    seed
        Of folds and interval.
    """
    names = sorted(set(patients))
    numbers = np.array([names.index(name) for name in patients], int)
    count, folds = len(names), min(FOLDS, len(names))
    nothing = Detectability(*[float("nan")] * 3, n=len(present), patients=count)
    if folds < 2:
        return nothing
    rng = np.random.default_rng(seed)
    fold = rng.permutation(np.arange(count) % folds)[numbers]
    wins = np.zeros((len(present), len(absent)))
    counted = fold[:, None] == fold[None]  # values of different templates cannot be compared
    for one in range(folds):
        test = fold == one
        if np.count_nonzero(~test) <= CHANNELS:
            return nothing
        template = hotelling_template(present[~test], absent[~test])
        with_signal, without = present[test] @ template, absent[test] @ template
        difference = with_signal[:, None] - without[None]
        wins[np.ix_(test, test)] = (difference > 0) + 0.5 * (difference == 0)

    # Bamber's: the area is the share of pairs in the right order, here summed up for each pair of patients
    of_patient = (numbers[:, None] == np.arange(count)).astype(np.float64)
    right, pairs = (of_patient.T @ values.astype(np.float64) @ of_patient for values in (wins, counted))

    def areas(times_drawn: NDArray[np.float64]) -> NDArray[np.float64]:
        shares: NDArray[np.float64] = ((times_drawn @ right) * times_drawn).sum(axis=1)
        return shares / ((times_drawn @ pairs) * times_drawn).sum(axis=1)

    drawn = rng.multinomial(count, np.full(count, 1 / count), SAMPLES).astype(np.float64)
    low, high = np.quantile(areas(drawn), [0.025, 0.975])
    return Detectability(float(areas(np.ones((1, count)))[0]), float(low), float(high), len(present), count)
