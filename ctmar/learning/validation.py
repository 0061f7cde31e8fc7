"""How good a network is on patients that it does not learn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ctmar.case_correction import PATHS
from ctmar.learning.distributed import Team
from ctmar.learning.loading import Batch, Loader
from ctmar.learning.losses import Loss
from ctmar.learning.patches import Patches

BATCH = 64


@dataclass(frozen=True)
class Scores:
    """The mean loss over all patches, and RMSE in HU, without metal, by path and by path and metal (`rmse_columns`)."""

    loss: float
    rmse_hu: Mapping[str, float]


class Channel(nn.Module):
    """One of the inputs as it is: what a network has to improve on."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, rows, cols) to (batch, 1, rows, cols)."""
        return images[:, self.number, None]


@torch.no_grad()
def validate(network: nn.Module, patches: Patches, loader: Loader, loss: Loss, *, weight: float, team: Team) -> Scores:
    """Score a network on all patches, each process of a team on its part.

    Parameters
    ----------
    network
        (batch, channels, rows, cols) to (batch, 1, rows, cols), 1/cm; always in float32.
    loss, weight
        As in training.
    """
    network.eval()
    parts = np.array_split(np.arange(len(patches)), max(1, -(-len(patches) // BATCH)))[team.rank :: team.size]
    # one row a patch, filled by whoever has it: the sums below do not depend on the number of processes
    table = torch.zeros(len(patches), 3, dtype=torch.float64)
    for batch in loader(parts):
        output = network(channels_last(batch.inputs)).float()
        table[torch.from_numpy(batch.index)] = _row(output, batch, loss, weight).cpu()
    values = team.sum(table).numpy()
    return Scores(float(values[:, 0].mean()), _rmse_hu(patches, values[:, 1], values[:, 2]))


def channels_last(images: Tensor) -> Tensor:
    """Stored images as networks take them: float32, in the layout in which convolutions are fastest."""
    return images.float().contiguous(memory_format=torch.channels_last)


def rmse_columns(patches: Patches) -> list[str]:
    """Names of the RMSE of each path, and of each path and metal, that there are patches of."""
    found = {(int(path), int(metal)) for path, metal in np.unique(patches.labels[["path", "metal"]])}
    paths = [f"rmse_{PATHS[path]}_hu" for path in sorted({path for path, _ in found})]
    metals = sorted((PATHS[path] == "dicom", patches.metals[metal], PATHS[path]) for path, metal in found)
    return paths + [f"rmse_{path}_{metal}_hu" for _, metal, path in metals]


def _row(output: Tensor, batch: Batch, loss: Loss, weight: float) -> Tensor:
    """Loss, sum of squared errors outside of metal in (1/cm)^2, and pixels outside of metal, (batch, 3)."""
    target, distance = batch.target.float(), batch.distance_mm.float()
    outside = (batch.distance_mm > 0).double()
    squared = (outside * (output - target).double() ** 2).sum(dim=(1, 2, 3))
    return torch.stack([loss(output, target, distance, weight).double(), squared, outside.sum(dim=(1, 2, 3))], dim=1)


def _rmse_hu(patches: Patches, squared: NDArray[np.float64], pixels: NDArray[np.float64]) -> dict[str, float]:
    squared_hu = squared * patches.labels["hu"].astype(np.float64) ** 2
    path, metal = patches.labels["path"], patches.labels["metal"]
    result = {}
    for name in rmse_columns(patches):
        _, kind, *rest = name.removesuffix("_hu").split("_", 2)
        which = path == PATHS.index(kind)
        if rest:
            which &= metal == patches.metals.index(rest[0])
        result[name] = float(np.sqrt(squared_hu[which].sum() / max(pixels[which].sum(), 1)))
    return result
