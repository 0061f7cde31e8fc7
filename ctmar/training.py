"""The training loop: a database in, weights with their card out.

On a CPU everything follows from the settings: two runs, or one run interrupted and resumed, give the same
weights bit for bit. On CUDA the order of sums is free, so they agree to rounding only.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ctmar import __version__
from ctmar.config import TrainingSettings
from ctmar.database import list_cases
from ctmar.errors import ModelError, OutputExistsError, UnsupportedInputError, UsageError
from ctmar.files import replacing
from ctmar.network import CHANNELS, build
from ctmar.patches import Patches, sample_patches
from ctmar.split import Split, split_cases
from ctmar.weights import SUFFIX, ModelCard, save_model

logger = logging.getLogger(__name__)

CHECKPOINT_SUFFIX = ".checkpoint"
VALIDATION_BATCH = 64
WARM_UP = 0.05
"""Share of all steps in which the learning rate rises."""


class Progress(Protocol):
    """What wants to know how far the training is."""

    def __call__(self, epoch: int, epochs: int, batch: int, batches: int, loss: float) -> None:
        """Told after every step; epochs and batches count from 1, `loss` is the batch's, (1/cm)^2."""
        ...


@dataclass
class _State:
    """All that changes from epoch to epoch, besides network and optimiser."""

    epoch: int = 0
    best_epoch: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    curve: list[list[float]] = field(default_factory=list)


def train(
    database: Path,
    out: Path,
    settings: TrainingSettings,
    *,
    device: str = "auto",
    resume: bool = False,
    progress: Progress | None = None,
) -> ModelCard:
    """Train a network on a database and write it.

    After every epoch a checkpoint is written beside `out`, so that an interrupted run loses at most one
    epoch; the weights with the lowest validation loss are those kept. The loss is the squared difference to
    the reference, mean over the pixels, (1/cm)^2.

    Parameters
    ----------
    database
        Folder of case files.
    out
        Weights file to write, .safetensors; the card is written beside it.
    settings
        How to train.
    device
        ``auto`` (CUDA where there is one), ``cpu`` or ``cuda``.
    resume
        Go on from the checkpoint where there is one.
    progress
        Told about every step.

    Raises
    ------
    NoUsableSeriesError
        Where the database holds no cases, or too few to validate.
    OutputExistsError
        Where `out` is there, or a checkpoint that `resume` was not asked to go on from.
    UnsupportedInputError
        Where a case cannot be used.
    UsageError
        For an impossible device, a checkpoint of other settings or data, or a learning rate that diverges.
    """
    checkpoint = _check_output(out, resume=resume)
    target = choose_device(device)
    split = split_cases(list_cases(database), settings)
    names = CHANNELS[settings.channels]
    patches = _sample(split.train, 1 - settings.validation_fraction, settings, seed=settings.seed)
    checks = _sample(split.validation, settings.validation_fraction, settings, seed=settings.seed + 1)

    network = build(settings.arch, settings.channels)
    network.initialise(settings.seed)
    # Convolutions of 32 features are faster with the channels last, on CPUs and on tensor cores.
    network = network.to(target, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = _optimiser(network, settings)
    identity = {"settings": asdict(settings), "data": _fingerprint(patches, checks)}
    state = _State()
    if resume and checkpoint.exists():
        state = _load_checkpoint(checkpoint, network, optimiser, identity, target)
        logger.info("resuming after epoch %d", state.epoch)

    data = _tensors(patches, target)
    check_data = _tensors(checks, target)
    while state.epoch < settings.epochs:
        train_loss = _run_epoch(network, optimiser, data, settings, epoch=state.epoch, progress=progress)
        validation_loss = _mean_squared_error(network, check_data)
        if not math.isfinite(train_loss + validation_loss):
            raise UsageError(f"the loss is no longer finite: lower lr, which is {settings.learning_rate:g}")
        state.epoch += 1
        state.curve.append([train_loss, validation_loss])
        if not state.best or validation_loss < state.curve[state.best_epoch - 1][1]:
            state.best_epoch = state.epoch
            state.best = {name: value.detach().clone() for name, value in network.state_dict().items()}
        _save_checkpoint(checkpoint, network, optimiser, identity, state)
        logger.info(
            "epoch %d of %d: training %.3e, validation %.3e (1/cm)^2",
            state.epoch, settings.epochs, train_loss, validation_loss,
        )  # fmt: skip

    network.load_state_dict(state.best)
    metrics: dict[str, Any] = {
        "unit": "mean squared error per pixel, (1/cm)^2",
        "best_epoch": state.best_epoch,
        "training": state.curve[state.best_epoch - 1][0],
        "validation": state.curve[state.best_epoch - 1][1],
        "validation_of_inputs": dict(zip(names, checks.input_errors(), strict=True)),
        "curve": state.curve,
    }
    card = ModelCard(
        name=out.stem,
        arch=settings.arch,
        channels=names,
        path=settings.path,
        settings=asdict(settings),
        data=_provenance(split, patches, checks, settings),
        metrics=metrics,
        version=__version__,
        date=datetime.now(UTC).date().isoformat(),
    )
    card = save_model(out, network, card)
    checkpoint.unlink(missing_ok=True)
    return card


def choose_device(name: str) -> torch.device:
    """The device that ``auto``, ``cpu`` or ``cuda`` means here.

    Raises
    ------
    UsageError
        For another name, or for cuda where torch has none.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"device must be auto, cpu or cuda, not {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("torch finds no CUDA device here; use --device cpu or auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def schedule(step: int, steps: int) -> float:
    """Factor of the learning rate at a step: a straight rise, then half a cosine from 1 down to 0.

    Without the rise, Adam's first steps undo what `CnnMar.initialise` set up.
    """
    rise = min(1.0, (step + 1) / (WARM_UP * steps))
    return rise * 0.5 * (1 + math.cos(math.pi * step / steps))


def _check_output(out: Path, *, resume: bool) -> Path:
    """Where the checkpoint of `out` goes, once nothing is in the way."""
    if out.suffix != SUFFIX:
        raise UsageError(f"{out}: a model is written to a file whose name ends in {SUFFIX}")
    if out.exists():
        raise OutputExistsError(f"{out}: is there already; remove it or choose another name")
    checkpoint = out.with_suffix(CHECKPOINT_SUFFIX)
    if checkpoint.exists() and not resume:
        raise OutputExistsError(f"{checkpoint}: an interrupted training; go on with --resume, or remove it")
    return checkpoint


def _sample(cases: Sequence[Path], share: float, settings: TrainingSettings, *, seed: int) -> Patches:
    try:
        return sample_patches(
            cases,
            max(1, round(settings.patches * share)),
            names=CHANNELS[settings.channels],
            path=settings.path,
            patch=settings.patch,
            grid=settings.patch_grid,
            hard_fraction=settings.hard_fraction,
            seed=seed,
        )
    except ValueError as error:
        raise UnsupportedInputError(f"{cases[0].parent}: {error}; choose a smaller patch") from None


def _fingerprint(*parts: Patches) -> str:
    """Tells the patches of one database from those of another."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.inputs.data)
        digest.update(part.targets.data)
    return digest.hexdigest()


def _tensors(patches: Patches, device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(patches.inputs).to(device), torch.from_numpy(patches.targets).to(device)


def _optimiser(network: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    if settings.optimiser == "sgd":
        return torch.optim.SGD(network.parameters(), settings.learning_rate, momentum=0.9)
    return torch.optim.Adam(network.parameters(), settings.learning_rate)


def _run_epoch(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    data: tuple[Tensor, Tensor],
    settings: TrainingSettings,
    *,
    epoch: int,
    progress: Progress | None,
) -> float:
    """One pass over the patches in random order, half of them turned by 90 degrees; the mean loss."""
    inputs, targets = data
    # Seeded by the epoch, so that a resumed run needs no generator's state.
    rng = np.random.default_rng([settings.seed, epoch])
    order = torch.from_numpy(rng.permutation(len(inputs))).to(inputs.device)
    turned = torch.from_numpy(rng.random(len(inputs)) < 0.5).to(inputs.device)
    batches = math.ceil(len(inputs) / settings.batch_size)
    network.train()
    total = 0.0
    for batch, index in enumerate(order.split(settings.batch_size)):
        rate = settings.learning_rate * schedule(epoch * batches + batch, settings.epochs * batches)
        for group in optimiser.param_groups:
            group["lr"] = rate
        turn = turned[index]
        image, target = (_turned(tensor[index].float(), turn) for tensor in (inputs, targets))
        optimiser.zero_grad()
        loss = nn.functional.mse_loss(network(image.contiguous(memory_format=torch.channels_last)), target)
        loss.backward()
        optimiser.step()
        value = loss.item()
        total += value * len(index)
        if progress is not None:
            progress(epoch + 1, settings.epochs, batch + 1, batches, value)
    return total / len(inputs)


def _turned(images: Tensor, turn: Tensor) -> Tensor:
    """`images` with those that `turn` marks rotated by 90 degrees."""
    return torch.where(turn[:, None, None, None], torch.rot90(images, 1, (2, 3)), images)


@torch.no_grad()
def _mean_squared_error(network: nn.Module, data: tuple[Tensor, Tensor]) -> float:
    network.eval()
    total = 0.0
    for image, target in zip(*(tensor.split(VALIDATION_BATCH) for tensor in data), strict=True):
        output = network(image.float().contiguous(memory_format=torch.channels_last))
        total += nn.functional.mse_loss(output, target.float(), reduction="sum").item()
    return total / data[1].numel()


def _save_checkpoint(
    path: Path,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    identity: Mapping[str, Any],
    state: _State,
) -> None:
    content = {
        "identity": json.dumps(identity, sort_keys=True),
        "network": network.state_dict(),
        "optimiser": optimiser.state_dict(),
        "state": vars(state),
    }
    with replacing(path) as partial:
        torch.save(content, partial)


def _load_checkpoint(
    path: Path,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    identity: Mapping[str, Any],
    device: torch.device,
) -> _State:
    try:
        content = torch.load(path, map_location=device, weights_only=True)
        same = content["identity"] == json.dumps(identity, sort_keys=True)
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError):
        raise ModelError(f"{path}: the checkpoint is damaged; remove it to start again") from None
    if not same:
        raise UsageError(f"{path}: is of other settings or another database; remove it to start again")
    network.load_state_dict(content["network"])
    optimiser.load_state_dict(content["optimiser"])
    return _State(**content["state"])


def _provenance(split: Split, patches: Patches, checks: Patches, settings: TrainingSettings) -> dict[str, Any]:
    return {
        "split_by": split.by,
        "cases_trained": len(split.train),
        "cases_validated": len(split.validation),
        "patches_trained": len(patches),
        "patches_validated": len(checks),
        "patients_trained": list(split.train_patients),
        "patients_validated": list(split.validation_patients),
        "patients_held_out": sorted(settings.exclude_patients),
    }
