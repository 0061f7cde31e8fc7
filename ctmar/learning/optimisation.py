"""How weights move: optimiser, learning rate over the steps, moving average."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ctmar.config import TrainingSettings


def make_optimiser(network: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    """The optimiser that the settings name."""
    if settings.optimiser == "sgd":
        return torch.optim.SGD(network.parameters(), settings.learning_rate, momentum=0.9)
    return torch.optim.Adam(network.parameters(), settings.learning_rate)


def rate(step: int, steps: int, *, kind: str = "cosine", warmup: float = 0.05) -> float:
    """Factor of the learning rate at a step: a straight rise, then half a cosine from 1 down to 0, or 1 throughout.

    Without the rise, Adam's first steps undo what `CnnMar.initialise` set up.
    """
    rise = min(1.0, (step + 1) / (warmup * steps)) if warmup else 1.0
    return rise * (0.5 * (1 + math.cos(math.pi * step / steps)) if kind == "cosine" else 1.0)


class MovingAverage:
    """The exponential moving average of a network's weights.

    ``average += (1 - d) * (weights - average)`` after every step, d = min(decay, (1 + step) / (10 + step)): at first
    the average follows quickly, so that the untrained weights are soon forgotten.

    Parameters
    ----------
    network
        Its weights now are the average's beginning.
    decay
        0 keeps no average: `weights` are then the network's own.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._network, self._decay = network, decay
        self._average = {name: value.detach().clone() for name, value in network.state_dict().items()} if decay else {}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step `step`, counted from 0."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, value in self._network.state_dict().items():
            if not self._decay:
                return
            if value.is_floating_point():
                self._average[name].lerp_(value, 1 - decay)
            else:
                self._average[name].copy_(value)

    @property
    def weights(self) -> dict[str, Tensor]:
        """What is to be validated and kept."""
        return self._average or dict(self._network.state_dict())

    def state_dict(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return self._average

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """From a checkpoint."""
        for name, value in state.items():
            self._average[name].copy_(value)
