"""Training patches out of a database: where the artifacts are, and some from everywhere else."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import ndimage

from ctmar.database import FOLDERS, read_images
from ctmar.errors import UnsupportedInputError
from ctmar.learning.first_results import results_of_first
from ctmar.method_names import NEEDS_NETWORK
from ctmar.methods import Restorer
from ctmar.network_input import MM_PER_CM, image_names, network_channels
from ctmar.segmentation import dilate

logger = logging.getLogger(__name__)

REFERENCE = "reference"
SOURCES = {"raw": FOLDERS[:1], "dicom": FOLDERS[1:], "both": FOLDERS}
"""Folders of the case file that each training path learns from."""

FARTHEST_MM = 255
"""Distances from the metal are kept in whole mm, up to this; slices without metal have it everywhere."""

MIXED = "mixed"
"""What a case with several metals is counted under."""


@dataclass(frozen=True, eq=False)
class Patches:
    """Patches, what they should become, and where they come from.

    Images are in 1/cm and float16, which halves the memory (10,000 patches with 3 channels: 369 MB) and adds an
    error of about 1e-9 (1/cm)^2, far below any loss that is reached.

    Parameters
    ----------
    records
        (patches,) of `record_type`; in memory, or mapped from a file.
    metals
        What the records' `metal` stands for.
    """

    records: NDArray[np.void]
    metals: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.records)

    @property
    def inputs(self) -> NDArray[np.float16]:
        """(patches, channels, rows, cols), 1/cm."""
        return self.records["inputs"]

    @property
    def targets(self) -> NDArray[np.float16]:
        """(patches, 1, rows, cols), 1/cm."""
        return self.records["target"]

    @cached_property
    def labels(self) -> NDArray[np.void]:
        """`hu`, `path` and `metal` of all records, in memory: in a file they are far apart."""
        labels = np.empty(len(self), [("hu", np.float32), ("path", np.uint8), ("metal", np.uint8)])
        for name in labels.dtype.names or ():
            labels[name] = self.records[name]
        return labels

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all patches: tells those of one database from those of another."""
        digest = hashlib.sha256()
        for start in range(0, len(self), 256):
            digest.update(self.records[start : start + 256].tobytes())
        return digest.hexdigest()


def record_type(channels: int, patch: int) -> np.dtype[np.void]:
    """One patch, in one piece so that a file of them is read in one go.

    `distance_mm` is that to the metal, rounded up: 0 in the metal, at most `FARTHEST_MM`. `hu` is how many HU one 1/cm
    is; `path` and `metal` are places in `ctmar.case_correction.PATHS` and in `Patches.metals`.
    """
    return np.dtype(
        [
            ("inputs", np.float16, (channels, patch, patch)),
            ("target", np.float16, (1, patch, patch)),
            ("distance_mm", np.uint8, (1, patch, patch)),
            ("hu", np.float32),
            ("path", np.uint8),
            ("metal", np.uint8),
        ]
    )


def window_errors(
    channels: NDArray[np.float32], target: NDArray[np.float32], *, patch: int, grid: int
) -> NDArray[np.float64]:
    """Summed squared error of every patch that could be taken.

    Parameters
    ----------
    channels, target
        (channels, rows, cols) and (rows, cols), 1/cm.
    patch, grid
        Side of a patch and spacing of their corners, pixels; `patch` is a multiple of `grid`.

    Returns
    -------
    numpy.ndarray
        (channels, grid rows, grid cols); entry (c, i, j) is of the patch whose corner is (i grid, j grid).
    """
    rows, cols = (side // grid for side in target.shape)
    squared = np.square(channels - target, dtype=np.float64)[:, : rows * grid, : cols * grid]
    cells = squared.reshape(len(channels), rows, grid, cols, grid).sum(axis=(2, 4))
    side = patch // grid
    return sliding_window_view(cells, (side, side), axis=(1, 2)).sum(axis=(3, 4))


def hard_shares(counts: NDArray[np.intp], channels: int, hard_fraction: float) -> NDArray[np.intp]:
    """How many of each case's patches are the hardest of each channel.

    Rounded along the running totals, so that a database of any size has the share that was asked for: a case of a
    large one gives few patches, and rounding case by case gives 75 or 0 % where 60 are wanted.

    Parameters
    ----------
    counts
        Patches of each case, in an order without meaning (the remainders follow it).
    channels, hard_fraction
        How many channels share the hardest; their share of all patches, 0..1.

    Returns
    -------
    numpy.ndarray
        (cases, channels). No row sums to more than its count, and the sums over all cases are within 1 of
        ``hard_fraction * sum(counts) / channels``.
    """
    totals = np.concatenate([[0], np.cumsum(counts)]) * hard_fraction / channels
    # floor(x + (c + 0.5) / C) over all c sums to floor(C x + 0.5) (Hermite's identity): the channels take turns
    phases = (np.arange(channels) + 0.5) / channels
    return np.diff(np.floor(totals[:, None] + phases), axis=0).astype(np.intp)


def choose_corners(
    errors: NDArray[np.float64], count: int, *, hard: Sequence[int], rng: np.random.Generator
) -> NDArray[np.intp]:
    """Which patches to take: the hardest of each channel, the rest at random, none twice.

    Zhang & Yu 2018, section III-B, take 20 % by each of three channels and 40 % at random.

    Parameters
    ----------
    errors
        As `window_errors` gives them.
    count
        How many; all there are where there are fewer.
    hard
        How many of the hardest of each channel.
    rng
        Source of the random ones.

    Returns
    -------
    numpy.ndarray
        (count, 2) grid positions (row, col).
    """
    flat = errors.reshape(len(errors), -1)
    count = min(count, flat.shape[1])
    free = np.ones(flat.shape[1], bool)
    for channel, most in zip(flat, hard, strict=True):
        order = np.argsort(-channel, kind="stable")
        free[order[free[order]][:most]] = False
    chosen = np.flatnonzero(~free)[:count]
    random = rng.choice(np.flatnonzero(free), count - len(chosen), replace=False)
    return np.stack(np.unravel_index(np.concatenate([chosen, random]), errors.shape[1:]), axis=1)


def sample_patches(
    cases: Sequence[Path],
    count: int,
    *,
    names: Sequence[str],
    path: str = "raw",
    patch: int = 64,
    grid: int = 8,
    hard_fraction: float = 0.6,
    seed: int = 0,
    skip_damaged: bool = False,
    first: Restorer | None = None,
    records: NDArray[np.void] | None = None,
) -> Patches:
    """Take patches from all cases alike.

    Patches that show nothing but air are taken like others. Fewer than `count` come back where the images
    have no more places for patches. Memory is that of the result and one case, and of what `results_of_first` keeps.

    Parameters
    ----------
    cases
        Case files.
    count
        How many patches in all.
    names
        Maps, then input images, in the order of the channels.
    path
        ``raw``, ``dicom`` or ``both``; with ``both`` every case counts twice.
    patch, grid
        Side of a patch and spacing of their corners, pixels.
    hard_fraction
        Share of the patches with the largest errors.
    seed
        The same arguments always give the same patches.
    skip_damaged
        Go on without a case that cannot be read, with a warning.
    first
        The network whose images are among `names`; they are computed here.
    records
        Where to put them, (count,) of `record_type`; by default new memory.

    Raises
    ------
    UnsupportedInputError
        Where a case cannot be read or lacks an image.
    ValueError
        Where there is not a single patch: images smaller than a patch.
    """
    rng = np.random.default_rng(seed)
    sources = [(case, folder) for case in cases for folder in SOURCES[path]]
    each = [count // len(sources) + (k < count % len(sources)) for k in range(len(sources))]
    counts: NDArray[np.intp] = rng.permutation(each)
    order = rng.permutation(len(sources))
    images = image_names(names)
    hard = np.empty((len(sources), len(images)), np.intp)
    hard[order] = hard_shares(counts[order], len(images), hard_fraction)
    if records is None:
        records = np.empty(count, record_type(len(names), patch))
    metals: dict[str, int] = {}
    filled = 0
    stored = [name for name in images if name not in NEEDS_NETWORK]
    wanted = [number for number in range(len(sources)) if counts[number]]
    results = results_of_first([sources[number] for number in wanted], stored, first) if first else repeat({})
    for number, result in zip(wanted, results, strict=False):
        case, folder = sources[number]
        try:
            info, images_hu, metal = read_images(case, folder=folder, names=[*stored, REFERENCE])
            if isinstance(result, str):
                raise UnsupportedInputError(result)
        except UnsupportedInputError as error:
            if not skip_damaged:
                raise
            logger.warning("left out: %s", error)
            continue
        if min(info.grid.shape) < patch:
            continue
        stack = network_channels({**images_hu, **result}, metal, [*names, REFERENCE], info.mu_water_per_mm)
        distance = distance_mm(metal, info.grid.pixel_mm)
        errors = window_errors(stack[-1 - len(images) : -1], stack[-1], patch=patch, grid=grid)
        corners = choose_corners(errors, int(counts[number]), hard=hard[number], rng=rng) * grid
        name = MIXED if "," in info.material else info.material or "unknown"
        for row, col in corners:
            window = stack[:, row : row + patch, col : col + patch]
            record = records[filled]
            record["inputs"], record["target"] = window[:-1], window[-1:]
            record["distance_mm"] = distance[row : row + patch, col : col + patch]
            record["hu"] = 1000 / (info.mu_water_per_mm * MM_PER_CM)
            record["path"] = FOLDERS.index(folder)
            record["metal"] = metals.setdefault(name, len(metals))
            filled += 1
    if filled == 0:
        raise ValueError(f"no image is as large as a patch of {patch} x {patch} pixels")
    return Patches(records[:filled], tuple(metals))


def distance_mm(metal: NDArray[np.bool_], pixel_mm: float) -> NDArray[np.uint8]:
    """Distance of every pixel to what networks see as metal (the mask grown by a cross), see `record_type`."""
    grown = dilate(metal)
    if not grown.any():
        return np.full(metal.shape, FARTHEST_MM, np.uint8)
    return np.minimum(np.ceil(ndimage.distance_transform_edt(~grown, sampling=pixel_mm)), FARTHEST_MM).astype(np.uint8)
