"""Which cases a network learns from and which choose its best weights: whole patients on either side."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ctmar.config import TrainingSettings
from ctmar.database import read_info
from ctmar.errors import NoUsableSeriesError, UnsupportedInputError

logger = logging.getLogger(__name__)

_MOST_NAMED = 5


@dataclass(frozen=True)
class Split:
    """Case files to learn from and to choose the best weights by, and the patients they are of.

    `by` is ``patient``, or ``case`` where all cases are of one patient.
    """

    train: tuple[Path, ...]
    validation: tuple[Path, ...]
    train_patients: tuple[str, ...]
    validation_patients: tuple[str, ...]
    by: str


def split_patients(
    patients: Iterable[str], *, validation_fraction: float, seed: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split into patients to train on and patients to validate on; both sorted, never empty.

    Parameters
    ----------
    patients
        One for each case, so they may repeat.
    validation_fraction
        Share of the patients to validate on, rounded to whole ones.
    seed
        The same patients and seed always give the same split, whatever their order.

    Raises
    ------
    ValueError
        Where there are fewer than two patients.
    """
    names = sorted(set(patients))
    if len(names) < 2:
        raise ValueError("a split needs at least two patients")
    count = min(max(round(validation_fraction * len(names)), 1), len(names) - 1)
    chosen = np.random.default_rng(seed).permutation(len(names))[:count]
    validation = {names[index] for index in chosen}
    return tuple(n for n in names if n not in validation), tuple(sorted(validation))


def split_cases(cases: Sequence[Path], settings: TrainingSettings) -> Split:
    """Split case files by patient, leaving out `settings.exclude_patients`.

    `settings.validation_patients` are validated on where there are any, else a share that `split_patients` draws.

    The paper splits patches at random, so that overlapping ones are on both sides; a loss measured that way
    says little about the next patient. Where all cases are of one patient they are split by case, with a
    warning, and `Split.by` says so.

    Raises
    ------
    NoUsableSeriesError
        Where fewer than two cases remain, or none to train or to validate on.
    UnsupportedInputError
        Where cases cannot be read and `settings.skip_damaged` does not leave them out.
    """
    patient_of: dict[Path, str] = {}
    damaged: list[str] = []
    for case in cases:
        try:
            patient_of[case] = read_info(case).patient
        except UnsupportedInputError as error:
            damaged.append(str(error))
    if damaged and not settings.skip_damaged:
        raise UnsupportedInputError(_what_is_damaged(damaged, len(cases)))
    for text in damaged:
        logger.warning("left out: %s", text)
    for name in ("exclude_patients", "validation_patients"):
        for patient in sorted(set(getattr(settings, name)) - set(patient_of.values())):
            logger.warning("%s names %r, of whom there is no case", name, patient)
    groups = {case: name for case, name in patient_of.items() if name not in settings.exclude_patients}
    if len(groups) < 2:
        raise NoUsableSeriesError(
            f"{len(groups)} case(s) to train on: at least two are needed, one of them to validate with"
        )
    if settings.validation_patients:
        return _split(groups, patient_of, set(groups.values()) - set(settings.validation_patients), by="patient")
    by = "patient"
    if len(set(groups.values())) < 2:
        logger.warning("all cases are of one patient: validating on the same patient, so the loss is too good")
        by = "case"
        groups = {case: case.name for case in groups}
    train_groups, _ = split_patients(
        groups.values(), validation_fraction=settings.validation_fraction, seed=settings.seed
    )
    return _split(groups, patient_of, set(train_groups), by=by)


def _split(groups: Mapping[Path, str], patient_of: Mapping[Path, str], train_groups: Set[str], *, by: str) -> Split:
    train = tuple(case for case, group in groups.items() if group in train_groups)
    validation = tuple(case for case, group in groups.items() if group not in train_groups)
    if not train or not validation:
        raise NoUsableSeriesError(
            f"{len(train)} case(s) to train on and {len(validation)} to validate on: at least one is needed of both"
        )
    return Split(
        train=train,
        validation=validation,
        train_patients=tuple(sorted({patient_of[case] for case in train})),
        validation_patients=tuple(sorted({patient_of[case] for case in validation})),
        by=by,
    )


def _what_is_damaged(damaged: Sequence[str], count: int) -> str:
    rest = f" and {len(damaged) - _MOST_NAMED} more" if len(damaged) > _MOST_NAMED else ""
    return (
        f"{len(damaged)} of {count} case files cannot be used: {'; '.join(damaged[:_MOST_NAMED])}{rest}."
        " Simulate them again, or leave them out with --skip-damaged"
    )
