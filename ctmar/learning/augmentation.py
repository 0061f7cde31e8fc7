"""Patches varied anew in every epoch.

What is drawn depends on seed, epoch and the patch alone: an interrupted training needs no generator's state, and any
number of processes sees the same patches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ctmar.config import AugmentationSettings

_TURNS = {"none": 1, "paper": 2, "all": 4}


@dataclass(frozen=True, eq=False)
class Variation:
    """What happens to every patch in one epoch, arrays (patches,).

    Quarter turns against the clock; mirrored left to right; degrees against the clock; factor of the size; factor of
    the attenuation; whether its images become the reference (`without_artifacts`).
    """

    turns: NDArray[np.int8]
    flips: NDArray[np.bool_]
    degrees: NDArray[np.float32]
    scale: NDArray[np.float32]
    intensity: NDArray[np.float32]
    clean: NDArray[np.bool_]

    def of(self, index: NDArray[np.intp]) -> Variation:
        """That of some patches."""
        return Variation(*(values[index] for values in vars(self).values()))


def draw(settings: AugmentationSettings, count: int, *, rng: np.random.Generator) -> Variation:
    """Draw the variation of `count` patches; everything is drawn, used or not, so that options do not shift others."""
    around = rng.uniform(-1, 1, (3, count)).astype(np.float32)
    return Variation(
        turns=rng.integers(0, 4, count, dtype=np.int8) % np.int8(_TURNS[settings.turns]),
        flips=(rng.random(count) < 0.5) & settings.flips,
        degrees=np.float32(settings.max_degrees) * around[0],
        scale=1 + np.float32(settings.max_scale) * around[1],
        intensity=1 + np.float32(settings.max_intensity) * around[2],
        clean=rng.random(count) < settings.clean,
    )


def vary(images: Tensor, variation: Variation, *, attenuation: bool = True) -> Tensor:
    """Patches (batch, channels, side, side), float32, as `variation` (batch,) says.

    Interpolated bilinearly, reflected at the borders. Where `attenuation` is False, as for maps of distance, values are
    those of the nearest pixel and not multiplied.
    """
    turns = torch.from_numpy(variation.turns).to(images.device)
    for quarter in range(1, 4):
        if (variation.turns == quarter).any():
            images = _where(turns == quarter, torch.rot90(images, quarter, (2, 3)), images)
    if variation.flips.any():
        images = _where(torch.from_numpy(variation.flips).to(images.device), images.flip(3), images)
    if variation.degrees.any() or (variation.scale != 1).any():
        grid = functional.affine_grid(_matrices(variation).to(images.device), list(images.shape), align_corners=False)
        mode = "bilinear" if attenuation else "nearest"
        images = functional.grid_sample(images, grid, mode=mode, padding_mode="reflection", align_corners=False)
    if attenuation and (variation.intensity != 1).any():
        images = images * torch.from_numpy(variation.intensity).to(images.device)[:, None, None, None]
    return images


def without_artifacts(inputs: Tensor, target: Tensor, variation: Variation, *, images: int) -> Tensor:
    """Inputs (batch, channels, side, side) whose last `images` channels are the target where `variation` says so."""
    if not variation.clean.any():
        return inputs
    perfect = torch.cat([inputs[:, :-images], target.expand(-1, images, -1, -1)], dim=1)
    return _where(torch.from_numpy(variation.clean).to(inputs.device), perfect, inputs)


def _where(which: Tensor, those: Tensor, others: Tensor) -> Tensor:
    return torch.where(which[:, None, None, None], those, others)


def _matrices(variation: Variation) -> Tensor:
    """(batch, 2, 3): from places in the result to places in the patch, in x to the right and y down."""
    angle = np.deg2rad(variation.degrees)
    cos, sin = np.cos(angle) / variation.scale, np.sin(angle) / variation.scale
    zero = np.zeros_like(cos)
    rows = np.stack([np.stack([cos, -sin, zero], axis=1), np.stack([sin, cos, zero], axis=1)], axis=1)
    return torch.from_numpy(rows.astype(np.float32))
