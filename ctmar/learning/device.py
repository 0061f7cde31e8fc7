"""Where networks run."""

from __future__ import annotations

import torch

from ctmar.errors import UsageError


def choose_device(name: str, *, index: int | None = None) -> torch.device:
    """The device that ``auto``, ``cpu`` or ``cuda`` means here; `index` chooses among several of CUDA.

    Raises
    ------
    UsageError
        For another name, or for cuda where torch has none.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"device must be auto, cpu or cuda, not {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("torch finds no CUDA device here; use --device cpu or auto")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda") if index is None else torch.device("cuda", index)
