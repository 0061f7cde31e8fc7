"""Losses by name.

Every loss gives one number a patch, the mean over its pixels, so that the mean over a batch does not depend on how
the batch is shared among processes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from ctmar.network_input import MM_PER_CM
from data_sim.units import MU_WATER_PER_MM

NEAR_MM = 20.0
"""Over this distance from the metal the additional weight of `near_metal` falls to 1/e."""

CHARBONNIER_PER_CM = 1e-3
"""About 5 HU: smaller errors count by their square, larger ones by their size."""

_ROUND_PER_CM = 5e-4
"""About 2.6 HU: below it `rmse` is round, so that its gradient is bounded."""

_TISSUE_PER_CM = 0.7 * MU_WATER_PER_MM * MM_PER_CM
"""-300 HU."""

Loss = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""Output and target (batch, 1, rows, cols) in 1/cm, distance to the metal in mm, weight -> (batch,)."""


def mse(output: Tensor, target: Tensor, distance_mm: Tensor, weight: float) -> Tensor:
    """Squared error, (1/cm)^2: the paper's (Zhang & Yu 2018, equation 9)."""
    return _mean((output - target) ** 2)


def rmse(output: Tensor, target: Tensor, distance_mm: Tensor, weight: float) -> Tensor:
    """Root mean square error of a patch outside of the metal, 1/cm.

    As methods are judged: the mean over cases of each case's RMSE. The worst cases, of gold, do not drown the others
    as they do in the mean square.
    """
    outside = (distance_mm > 0).to(target.dtype)
    squared = (outside * (output - target) ** 2).sum(dim=(1, 2, 3)) / outside.sum(dim=(1, 2, 3)).clamp(min=1)
    return torch.sqrt(squared + _ROUND_PER_CM**2) - _ROUND_PER_CM


def l1(output: Tensor, target: Tensor, distance_mm: Tensor, weight: float) -> Tensor:
    """Absolute error, 1/cm."""
    return _mean((output - target).abs())


def charbonnier(output: Tensor, target: Tensor, distance_mm: Tensor, weight: float) -> Tensor:
    """``sqrt(e^2 + c^2) - c``, 1/cm: the absolute error, smooth at 0 (Charbonnier et al., IEEE ICIP 1994)."""
    return _mean(torch.sqrt((output - target) ** 2 + CHARBONNIER_PER_CM**2) - CHARBONNIER_PER_CM)


def near_metal(output: Tensor, target: Tensor, distance_mm: Tensor, weight: float) -> Tensor:
    """Squared error of which tissue near the metal counts more, (1/cm)^2.

    Pixels whose target is above -300 HU count ``1 + weight * exp(-distance / 20 mm)``, others once: what is read in a
    picture is the tissue beside the implant, not streaks in the air around the patient.
    """
    tissue = (target > _TISSUE_PER_CM).to(target.dtype)
    return _mean((1 + weight * tissue * torch.exp(-distance_mm / NEAR_MM)) * (output - target) ** 2)


def edge(output: Tensor, target: Tensor, distance_mm: Tensor, weight: float) -> Tensor:
    """Squared error, and `weight` times that of the differences of neighbours along rows and columns, (1/cm)^2.

    The gradient difference loss of Mathieu et al., ICLR 2016 (equation 6), with signed differences: streaks have
    edges that the target lacks, smoothed images lack edges that it has.
    """
    error = output - target
    return _mean(error**2) + weight * (_mean(error.diff(dim=2) ** 2) + _mean(error.diff(dim=3) ** 2))


LOSSES: Mapping[str, Loss] = MappingProxyType(
    {"mse": mse, "rmse": rmse, "l1": l1, "charbonnier": charbonnier, "near-metal": near_metal, "edge": edge}
)
"""Losses by the name that settings give them."""

UNITS: Mapping[str, str] = MappingProxyType(
    {
        "mse": "(1/cm)^2",
        "rmse": "1/cm",
        "l1": "1/cm",
        "charbonnier": "1/cm",
        "near-metal": "(1/cm)^2",
        "edge": "(1/cm)^2",
    }
)


def _mean(values: Tensor) -> Tensor:
    return values.mean(dim=(1, 2, 3))
