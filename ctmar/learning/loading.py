"""Batches on their device, fetched while the device is busy with those before."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctmar.learning.patches import Patches

_FIELDS = ("inputs", "target", "distance_mm")
_THREADS = 2
_AHEAD = 6
"""Batches that are being fetched or wait."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Some patches on their device: as stored (float16 and uint8), with their numbers."""

    inputs: Tensor
    target: Tensor
    distance_mm: Tensor
    index: NDArray[np.intp]


class Loader:
    """Patches to batches.

    Patches in memory go to a CUDA device as a whole. Those in a file are read by threads, a few batches ahead.

    Parameters
    ----------
    patches
        Where they come from.
    device
        Where they go.

    Attributes
    ----------
    waited_s
        Seconds for which whoever asked had to wait for batches.
    """

    def __init__(self, patches: Patches, device: torch.device) -> None:
        self._records, self._device = patches.records, device
        self._mapped = isinstance(patches.records, np.memmap)
        self._resident: list[Tensor] = []
        self.waited_s = 0.0
        if device.type == "cuda" and not self._mapped:
            self._resident = [tensor.to(device) for tensor in _tensors(patches.records)]

    def __call__(self, parts: Sequence[NDArray[np.intp]]) -> Iterator[Batch]:
        """One batch for each array of patch numbers, in that order."""
        batches = self._ahead(parts) if self._mapped else map(self._fetch, parts)
        while True:
            start = perf_counter()
            batch = next(batches, None)
            self.waited_s += perf_counter() - start
            if batch is None:
                return
            yield batch

    def _ahead(self, parts: Sequence[NDArray[np.intp]]) -> Iterator[Batch]:
        with ThreadPoolExecutor(_THREADS) as pool:
            waiting: deque[Future[Batch]] = deque()
            for part in parts:
                waiting.append(pool.submit(self._fetch, part))
                if len(waiting) >= _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _fetch(self, index: NDArray[np.intp]) -> Batch:
        if self._resident:
            where = torch.from_numpy(index).to(self._device)
            inputs, target, distance = (tensor[where] for tensor in self._resident)
        else:
            inputs, target, distance = _tensors(self._records[index])
            if self._device.type == "cuda":
                parts = (tensor.pin_memory() for tensor in (inputs, target, distance))
                inputs, target, distance = (tensor.to(self._device, non_blocking=True) for tensor in parts)
        return Batch(inputs, target, distance, index)


def _tensors(records: NDArray[np.void]) -> list[Tensor]:
    return [torch.from_numpy(np.ascontiguousarray(records[name])) for name in _FIELDS]
