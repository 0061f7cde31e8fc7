"""Where a training is, in a file from which it goes on as if nothing had happened."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ctmar.config import TrainingSettings
from ctmar.errors import ModelError, UsageError
from ctmar.files import replacing

FREE = (
    "skip_damaged", "memory_gb", "checkpoint_steps", "patience", "pictures", "picture_epochs", "tensorboard",
)  # fmt: skip
"""Settings that may change from one part of a training to the next: they do not touch the weights."""


@dataclass
class State:
    """All that changes as the training goes on, besides what has a state_dict of its own.

    Parameters
    ----------
    epoch, step
        Epochs that are finished; steps that are, of the one under way.
    total
        Sum of the losses of its patches so far.
    best_epoch, best
        Epoch with the lowest validation loss and its weights.
    rows
        The log, a row an epoch.
    seconds
        Since the start of the epoch under way.
    """

    epoch: int = 0
    step: int = 0
    total: float = 0.0
    best_epoch: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    rows: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0


class Stateful(Protocol):
    """Network, optimiser, loss scaler, moving average."""

    def state_dict(self) -> Any:
        """What `load_state_dict` takes."""

    def load_state_dict(self, state_dict: Any) -> Any:
        """Become what `state_dict` was taken of."""


def identity_of(settings: TrainingSettings, digests: tuple[str, ...]) -> str:
    """Tells one training from another: by its settings and its patches."""
    values = {name: value for name, value in asdict(settings).items() if name not in FREE}
    return json.dumps({"settings": values, "data": digests}, sort_keys=True)


def save_checkpoint(path: Path, identity: str, parts: Mapping[str, Stateful], state: State) -> None:
    """Write a checkpoint; the one before stays until this one is complete."""
    content = {name: part.state_dict() for name, part in parts.items()}
    content |= {"identity": identity, "state": dict(vars(state))}
    with replacing(path) as partial:
        torch.save(content, partial)


def load_checkpoint(path: Path, identity: str, parts: Mapping[str, Stateful], device: torch.device) -> State:
    """Put all parts back to where they were.

    Raises
    ------
    ModelError
        Where the file is damaged.
    UsageError
        Where it is of another training; the text says which settings differ.
    """
    try:
        content = torch.load(path, map_location=device, weights_only=True)
        then, now = json.loads(content["identity"]), json.loads(identity)
        state = State(**content["state"])
        different = _differences(then["settings"], now["settings"])
        if not different and then["data"] == now["data"]:
            for name, part in parts.items():
                part.load_state_dict(content[name])
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, AttributeError, pickle.UnpicklingError):
        raise ModelError(f"{path}: the checkpoint is damaged; remove it to start again") from None
    if different:
        raise UsageError(
            f"{path}: is of other settings ({'; '.join(different)}); give those, or remove it to start again"
        )
    if then["data"] != now["data"]:
        raise UsageError(f"{path}: is of another database; remove it to start again")
    return state


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    names = sorted(then.keys() | now.keys())
    return [f"{n}: {then.get(n)} then, {now.get(n)} now" for n in names if then.get(n) != now.get(n)]
