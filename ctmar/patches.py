"""Training patches out of a database: where the artifacts are, and some from everywhere else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ctmar.database import read_images
from ctmar.network_input import network_channels

REFERENCE = "reference"
SOURCES = {"raw": ("image",), "dicom": ("dicom_path",), "both": ("image", "dicom_path")}
"""Folders of the case file that each training path learns from."""


@dataclass(frozen=True, eq=False)
class Patches:
    """Patches and what they should become.

    Both in 1/cm and float16, which halves the memory (10,000 patches with 3 channels: 328 MB) and adds an
    error of about 1e-9 (1/cm)^2, far below any loss that is reached.

    Parameters
    ----------
    inputs
        (patches, channels, rows, cols).
    targets
        (patches, 1, rows, cols).
    """

    inputs: NDArray[np.float16]
    targets: NDArray[np.float16]

    def __len__(self) -> int:
        return len(self.inputs)

    def input_errors(self) -> list[float]:
        """Mean squared error of each channel as it is, (1/cm)^2: what a network has to improve on."""
        sums = np.zeros(self.inputs.shape[1])
        for patch, target in zip(self.inputs, self.targets, strict=True):
            sums += np.square(patch.astype(np.float32) - target).mean(axis=(1, 2))
        return [float(value) for value in sums / max(len(self), 1)]


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


def choose_corners(
    errors: NDArray[np.float64], count: int, *, hard_fraction: float, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Which patches to take: the hardest of each channel in equal parts, the rest at random, none twice.

    Zhang & Yu 2018, section III-B, take 20 % by each of three channels and 40 % at random.

    Parameters
    ----------
    errors
        As `window_errors` gives them.
    count
        How many; all there are where there are fewer.
    hard_fraction
        Share of the hardest, in 0..1.
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
    each = round(count * hard_fraction / len(errors))
    for channel in flat:
        order = np.argsort(-channel, kind="stable")
        free[order[free[order]][:each]] = False
    hard = np.flatnonzero(~free)[:count]
    random = rng.choice(np.flatnonzero(free), count - len(hard), replace=False)
    return np.stack(np.unravel_index(np.concatenate([hard, random]), errors.shape[1:]), axis=1)


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
) -> Patches:
    """Take patches from all cases alike.

    Patches that show nothing but air are taken like others. Fewer than `count` come back where the images
    have no more places for patches. Memory is that of the result and one case.

    Parameters
    ----------
    cases
        Case files.
    count
        How many patches in all.
    names
        Input images, in the order of the channels.
    path
        ``raw``, ``dicom`` or ``both``; with ``both`` every case counts twice.
    patch, grid
        Side of a patch and spacing of their corners, pixels.
    hard_fraction
        Share of the patches with the largest errors.
    seed
        The same arguments always give the same patches.

    Raises
    ------
    UnsupportedInputError
        Where a case cannot be read or lacks an image.
    ValueError
        Where there is not a single patch: images smaller than a patch.
    """
    rng = np.random.default_rng(seed)
    sources = [(case, folder) for case in cases for folder in SOURCES[path]]
    counts = rng.permutation([count // len(sources) + (k < count % len(sources)) for k in range(len(sources))])
    inputs = np.empty((count, len(names), patch, patch), np.float16)
    targets = np.empty((count, 1, patch, patch), np.float16)
    filled = 0
    for (case, folder), wanted in zip(sources, counts, strict=True):
        if wanted == 0:
            continue
        info, images_hu, metal = read_images(case, folder=folder, names=[*names, REFERENCE])
        if min(info.grid.shape) < patch:
            continue
        stack = network_channels(images_hu, metal, [*names, REFERENCE], info.mu_water_per_mm)
        errors = window_errors(stack[:-1], stack[-1], patch=patch, grid=grid)
        corners = choose_corners(errors, int(wanted), hard_fraction=hard_fraction, rng=rng) * grid
        for row, col in corners:
            window = stack[:, row : row + patch, col : col + patch]
            inputs[filled], targets[filled] = window[:-1], window[-1:]
            filled += 1
    if filled == 0:
        raise ValueError(f"no image is as large as a patch of {patch} x {patch} pixels")
    return Patches(inputs[:filled], targets[:filled])
