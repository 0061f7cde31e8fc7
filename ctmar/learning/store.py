"""The patches of a training, in memory or in files that all its processes read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctmar import __version__
from ctmar.config import TrainingSettings
from ctmar.errors import UnsupportedInputError
from ctmar.files import PATCHES, building
from ctmar.learning.distributed import Team
from ctmar.learning.patches import Patches, record_type, sample_patches
from ctmar.learning.split import Split
from ctmar.network import CHANNELS
from ctmar.restorer import NetworkRestorer
from ctmar.weights import model_path, read_card

_PARTS = ("training", "validation")
_INDEX = "patches.json"
_DECIDING = (
    "channels", "path", "patch", "patch_grid", "patches", "hard_fraction", "validation_fraction", "seed",
    "skip_damaged",
)  # fmt: skip
"""Settings that patches depend on, besides the split."""


def make_patches(split: Split, settings: TrainingSettings, folder: Path) -> tuple[Patches, Patches]:
    """Patches to train on and to validate on, in memory where `fits_memory` says so, else in files in `folder`.

    Files that an interrupted training left are used again if they are of the same cases and settings.

    Raises
    ------
    UnsupportedInputError
        Where a case cannot be read, or no image is as large as a patch.
    """
    counts = _counts(settings)
    if fits_memory(settings):
        return (
            _sample(split.train, counts[0], settings, seed=settings.seed),
            _sample(split.validation, counts[1], settings, seed=settings.seed + 1),
        )
    return store_patches(split, settings, folder)


def store_patches(split: Split, settings: TrainingSettings, folder: Path) -> tuple[Patches, Patches]:
    """As `make_patches`, always in files."""
    key = _key(split, settings)
    with suppress(OSError, ValueError, KeyError, TypeError):
        if json.loads((folder / _INDEX).read_text(encoding="utf-8"))["key"] == key:
            return open_patches(folder)
    parts = zip(_PARTS, (split.train, split.validation), _counts(settings), strict=True)
    with building(folder, kind=PATCHES, overwrite=True) as partial:
        index: dict[str, Any] = {"key": key}
        for seed, (name, cases, count) in enumerate(parts, start=settings.seed):
            records = _new_file(partial / f"{name}.npy", count, settings)
            patches = _sample(cases, count, settings, seed=seed, records=records)
            records.flush()
            index[name] = {"count": len(patches), "metals": patches.metals, "digest": patches.digest}
        (partial / _INDEX).write_text(json.dumps(index), encoding="utf-8")
    return open_patches(folder)


def open_patches(folder: Path) -> tuple[Patches, Patches]:
    """What `store_patches` has written, mapped into memory for reading."""
    index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
    parts = []
    for name in _PARTS:
        records = np.load(folder / f"{name}.npy", mmap_mode="r")[: index[name]["count"]]
        patches = Patches(records, tuple(index[name]["metals"]))
        vars(patches)["digest"] = index[name]["digest"]  # so that a large file is not read for it again
        parts.append(patches)
    return parts[0], parts[1]


def fits_memory(settings: TrainingSettings) -> bool:
    """Whether all patches take no more than `settings.memory_gb`."""
    each = record_type(len(CHANNELS[settings.channels]), settings.patch).itemsize
    return sum(_counts(settings)) * each <= settings.memory_gb * 1e9


def shared_patches(
    split: Split | None, settings: TrainingSettings, folder: Path, team: Team
) -> tuple[Patches, Patches]:
    """As `make_patches`, for all processes of a team: the first, which has the split, samples into files."""
    if team.size == 1:
        if split is None:
            raise ValueError("the first process needs the split")
        return make_patches(split, settings, folder)
    if split is not None:
        store_patches(split, settings, folder)
    team.wait()
    return open_patches(folder)


def _counts(settings: TrainingSettings) -> tuple[int, int]:
    shares = (1 - settings.validation_fraction, settings.validation_fraction)
    training, validation = (max(1, round(settings.patches * share)) for share in shares)
    return training, validation


def _sample(
    cases: Sequence[Path],
    count: int,
    settings: TrainingSettings,
    *,
    seed: int,
    records: NDArray[np.void] | None = None,
) -> Patches:
    try:
        return sample_patches(
            cases,
            count,
            names=CHANNELS[settings.channels],
            path=settings.path,
            patch=settings.patch,
            grid=settings.patch_grid,
            hard_fraction=settings.hard_fraction,
            seed=seed,
            skip_damaged=settings.skip_damaged,
            first=NetworkRestorer(settings.after) if settings.after else None,
            records=records,
        )
    except ValueError as error:
        raise UnsupportedInputError(f"{cases[0].parent}: {error}; choose a smaller patch") from None


def _new_file(path: Path, count: int, settings: TrainingSettings) -> np.memmap[Any, np.dtype[np.void]]:
    dtype = record_type(len(CHANNELS[settings.channels]), settings.patch)
    records = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(count,))
    # where the disk is full, this raises; a write into mapped memory would take the process down
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return records


def _key(split: Split, settings: TrainingSettings) -> str:
    values = asdict(settings)
    cases = []
    for case in (*split.train, None, *split.validation):
        status = case.stat() if case else None
        cases.append([case.name, status.st_size, status.st_mtime_ns] if case and status else None)
    first = read_card(model_path(settings.after)).sha256 if settings.after else ""
    content = [__version__, first, {name: values[name] for name in _DECIDING}, cases]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
