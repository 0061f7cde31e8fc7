"""Several processes on one training, as torchrun starts them.

Each takes its part of every batch; torch's DistributedDataParallel adds up the gradients. Without torchrun there is one
process, and nothing here does anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed

from ctmar.errors import UsageError, WorkerLostError
from ctmar.learning.device import choose_device

_PATIENCE = timedelta(hours=12)
"""How long processes wait for each other: the first samples the patches while the others wait."""


@dataclass(frozen=True)
class Team:
    """Which of how many processes this is, and its device."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until all are here.

        Raises
        ------
        WorkerLostError
            Where another one has ended.
        """
        self.sum(torch.zeros(1))

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, on the device that `values` is on.

        Raises
        ------
        WorkerLostError
            Where another one has ended.
        """
        if self.size == 1:
            return values
        total = values.to(self.device, copy=True)
        try:
            distributed.all_reduce(total)
        except RuntimeError:
            raise WorkerLostError("another process of this training has ended; its own message says why") from None
        return total.to(values.device)


@contextmanager
def joined(device: str) -> Iterator[Team]:
    """Join the other processes of a torchrun; alone without it.

    Raises
    ------
    UsageError
        Where the environment that torchrun sets is incomplete, or there are more processes than CUDA devices.
    """
    size = _number("WORLD_SIZE", 1)
    if size == 1:
        yield Team(0, 1, choose_device(device))
        return
    rank, local = _number("RANK", -1), _number("LOCAL_RANK", -1)
    if rank < 0 or local < 0:
        raise UsageError("WORLD_SIZE is set but RANK or LOCAL_RANK is not; start several processes with torchrun")
    target = choose_device(device, index=local)
    if target.type == "cuda":
        if local >= torch.cuda.device_count():
            raise UsageError(f"there are {torch.cuda.device_count()} CUDA devices; give torchrun no more processes")
        torch.cuda.set_device(target)
    distributed.init_process_group("nccl" if target.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield Team(rank, size, target)
    finally:
        distributed.destroy_process_group()


def is_first() -> bool:
    """Whether this process is the one that speaks."""
    return _number("WORLD_SIZE", 1) == 1 or _number("RANK", 0) == 0


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return default
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"the environment variable {name} must be a number, not {text!r}") from None
