"""One step after the other: batches in, weights moved."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ctmar.config import TrainingSettings
from ctmar.learning.augmentation import Variation, draw, vary, without_artifacts
from ctmar.learning.checkpoint import State, Stateful
from ctmar.learning.distributed import Team
from ctmar.learning.loading import Batch, Loader
from ctmar.learning.losses import LOSSES
from ctmar.learning.optimisation import MovingAverage, make_optimiser, rate
from ctmar.learning.validation import channels_last
from ctmar.network import CHANNELS
from ctmar.network_input import image_names

_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

AfterStep = Callable[[int, int], None]
"""Told after every step: which one of the epoch, from 1, and how many there are."""


class Stepper:
    """A network and all that moves its weights.

    Parameters
    ----------
    network
        On its device; shared with whoever made it.
    settings, team
        How to train, and with whom.
    """

    def __init__(self, network: nn.Module, settings: TrainingSettings, team: Team) -> None:
        self.average = MovingAverage(network, settings.ema)
        self._network, self._settings, self._team = network, settings, team
        self._module: nn.Module = network
        if team.size > 1:
            on_cuda = team.device.type == "cuda"
            self._module = DistributedDataParallel(network, device_ids=[team.device.index] if on_cuda else None)
        self._optimiser = make_optimiser(network, settings)
        self._images = len(image_names(CHANNELS[settings.channels]))
        self._dtype = _PRECISIONS[settings.precision]
        # only float16 underflows: the loss is multiplied before, and gradients divided after the way back
        self._scaler = torch.amp.GradScaler(team.device.type, enabled=self._dtype is torch.float16)

    @property
    def parts(self) -> dict[str, Stateful]:
        """What a checkpoint has to hold."""
        return {
            "network": self._network,
            "optimiser": self._optimiser,
            "scaler": self._scaler,
            "average": self.average,
        }

    @property
    def learning_rate(self) -> float:
        """That of the last step."""
        return float(self._optimiser.param_groups[0]["lr"])

    def epoch(self, loader: Loader, count: int, state: State, *, after_step: AfterStep) -> tuple[float, float]:
        """Go through all patches in random order, from `state.step` on.

        Parameters
        ----------
        loader, count
            The patches, and how many there are.
        state
            Its `step`, `total` and `seconds` are kept up to date for a checkpoint after any step.
        after_step
            Told after every step.

        Returns
        -------
        loss, waiting
            The mean loss over all patches; the share of the time that was spent waiting for data.
        """
        settings, team = self._settings, self._team
        rng = np.random.default_rng([settings.seed, state.epoch])
        order, variation = rng.permutation(count), draw(settings.augmentation, count, rng=rng)
        parts = [order[start : start + settings.batch_size] for start in range(0, count, settings.batch_size)]
        self._module.train()
        # the sum so far is of all processes; the first goes on with it
        own = torch.tensor(state.total if team.first else 0.0, dtype=torch.float64, device=team.device)
        begun = perf_counter()
        before_s, waited_s = state.seconds, loader.waited_s
        steps = len(parts)
        mine = [part[team.rank :: team.size] for part in parts[state.step :]]
        for batch, part in zip(loader(mine), parts[state.step :], strict=True):
            at = state.epoch * steps + state.step
            self._set_rate(at, settings.epochs * steps)
            own += self._step(batch, variation.of(batch.index), len(part)).double()
            self.average.update(at)
            state.step += 1
            if state.step == steps or (settings.checkpoint_steps and state.step % settings.checkpoint_steps == 0):
                state.total = float(team.sum(own))
                state.seconds = before_s + perf_counter() - begun
            after_step(state.step, steps)
        waiting = (loader.waited_s - waited_s) / max(perf_counter() - begun, 1e-9)
        return state.total / count, waiting

    def _step(self, batch: Batch, variation: Variation, size: int) -> Tensor:
        """Move the weights by a batch of `size` patches, of which these are ours; returns the sum of our losses."""
        settings, team = self._settings, self._team
        inputs = vary(channels_last(batch.inputs), variation)
        target = vary(batch.target.float(), variation)
        inputs = without_artifacts(inputs, target, variation, images=self._images)
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        distance = vary(batch.distance_mm.float(), variation, attenuation=False)
        self._optimiser.zero_grad()
        with torch.autocast(team.device.type, self._dtype, enabled=self._dtype is not torch.float32):
            output = self._module(inputs)
        losses = LOSSES[settings.loss](output.float(), target, distance, settings.loss_weight)
        # gradients are averaged over the processes, so this gives that of the mean over the whole batch
        loss = losses.sum() * (team.size / size)
        self._scaler.scale(loss).backward()
        if settings.clip_norm:
            self._scaler.unscale_(self._optimiser)
            nn.utils.clip_grad_norm_(self._network.parameters(), settings.clip_norm)
        self._scaler.step(self._optimiser)
        self._scaler.update()
        return losses.detach().sum()

    def _set_rate(self, step: int, steps: int) -> None:
        factor = rate(step, steps, kind=self._settings.schedule, warmup=self._settings.warmup)
        for group in self._optimiser.param_groups:
            group["lr"] = self._settings.learning_rate * factor
