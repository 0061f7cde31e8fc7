"""Databases in, a trained network with its card out.

On a CPU everything follows from the settings: two runs, or one run interrupted and resumed, give the same
weights bit for bit. On CUDA, and with another number of processes, the order of sums differs, so they agree to
rounding only.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import tomli_w
import torch
from numpy.typing import NDArray
from torch import nn

from ctmar import __version__
from ctmar.config import TrainingSettings
from ctmar.database import list_cases
from ctmar.errors import UsageError
from ctmar.files import claimed, remove_partial, replacing
from ctmar.learning.checkpoint import State, identity_of, load_checkpoint, save_checkpoint
from ctmar.learning.distributed import Team, joined
from ctmar.learning.loading import Loader
from ctmar.learning.log import TensorBoard, require_tensorboard, write_log
from ctmar.learning.losses import LOSSES, UNITS
from ctmar.learning.output import TrainingFiles
from ctmar.learning.patches import Patches
from ctmar.learning.pictures import choose_patches, sample_sheet
from ctmar.learning.split import Split, split_cases
from ctmar.learning.steps import Stepper
from ctmar.learning.store import shared_patches
from ctmar.learning.validation import Channel, Scores, rmse_columns, validate
from ctmar.network import ARCHITECTURES, CHANNELS, untrained
from ctmar.network_input import image_names
from ctmar.unet import seeing_another_image
from ctmar.weights import ModelCard, load_model, model_path, read_card, save_model

logger = logging.getLogger(__name__)


class Progress(Protocol):
    """What wants to know how far the training is."""

    def __call__(self, epoch: int, epochs: int, step: int, steps: int) -> None:
        """Told after every step; epochs and their steps count from 1."""
        ...


def train(
    databases: Sequence[Path],
    out: Path,
    settings: TrainingSettings,
    *,
    device: str = "auto",
    resume: bool = False,
    progress: Progress | None = None,
) -> ModelCard:
    """Train a network on databases and write it.

    The weights with the lowest validation loss are those kept. Beside them is a folder, OUT.training, with the log,
    pictures, and what an interrupted training goes on from (`ctmar.learning.output`). Under torchrun all processes call
    this with the same arguments; the first of them writes.

    Parameters
    ----------
    databases
        Folders of case files.
    out
        Weights file to write, .safetensors; the card is written beside it.
    settings
        How to train.
    device
        ``auto`` (CUDA where there is one), ``cpu`` or ``cuda``.
    resume
        Go on from the checkpoint where there is one; with any number of processes.
    progress
        Told about every step.

    Raises
    ------
    NoUsableSeriesError
        Where a database holds no cases, or too few to validate.
    OutputExistsError
        Where `out` is there, or a checkpoint that `resume` was not asked to go on from.
    UnsupportedInputError
        Where a case cannot be used.
    UsageError
        For an impossible device or architecture, a checkpoint of other settings or data, a learning rate that
        diverges, or TensorBoard logs without TensorBoard.
    WorkerLostError
        Where another process of the training has ended.
    """
    files = TrainingFiles(out)
    with joined(device) as team:
        if not team.first:
            patches, checks = shared_patches(None, settings, files.patches, team)
            _Run(settings, team, files, patches, checks, None).go(resume=resume, progress=progress)
            team.wait()
            return read_card(out)
        if settings.arch not in ARCHITECTURES:
            raise UsageError(f"there is no architecture {settings.arch!r}; known are {', '.join(ARCHITECTURES)}")
        files.check(resume=resume)
        if settings.tensorboard:
            require_tensorboard()
        split = split_cases([case for one in databases for case in list_cases(one)], settings)
        with _kept(files.folder), claimed(files.folder):
            remove_partial(files.folder)
            patches, checks = shared_patches(split, settings, files.patches, team)
            run = _Run(settings, team, files, patches, checks, split)
            inputs = run.go(resume=resume, progress=progress)
            card = run.finish(inputs)
        team.wait()
        return card


class _Run:
    """A training under way.

    Parameters
    ----------
    settings, team, files
        How, with whom, and where to.
    patches, checks
        To train on, and to validate on.
    split
        Where they are from; only the first process knows.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        team: Team,
        files: TrainingFiles,
        patches: Patches,
        checks: Patches,
        split: Split | None,
    ) -> None:
        self._settings, self._team, self._files = settings, team, files
        self._patches, self._checks, self._split = patches, checks, split
        self._loaders = Loader(patches, team.device), Loader(checks, team.device)
        network, self._evaluated = self._network(), self._network()
        if settings.init:
            network.load_state_dict(_weights_of(settings))
        self._after = read_card(model_path(settings.after)) if settings.after else None
        self._seen_before = _seen_before(settings)  # now: the files may be others when this training ends
        self._stepper = Stepper(network, settings, team)
        self._identity = identity_of(settings, (patches.digest, checks.digest))
        self._state = State()

    def go(self, *, resume: bool, progress: Progress | None) -> dict[str, float]:
        """Train to the end; returns the validation loss of each input as it is."""
        settings, team, files = self._settings, self._team, self._files
        if resume and files.checkpoint.exists():
            self._state = load_checkpoint(files.checkpoint, self._identity, self._stepper.parts, team.device)
            logger.info("resuming after epoch %d, step %d", self._state.epoch, self._state.step)
        state = self._state

        def after_step(step: int, steps: int) -> None:
            if team.first and step < steps and settings.checkpoint_steps and step % settings.checkpoint_steps == 0:
                self._save()
            if progress is not None:
                progress(state.epoch + 1, settings.epochs, step, steps)

        shown = choose_patches(self._checks, settings.pictures) if team.first else None
        folder = files.folder / "tensorboard" if team.first and settings.tensorboard else None
        if team.first:
            _write_settings(settings, files.folder)
        with closing(TensorBoard(folder, epoch=state.epoch)) as board:
            while state.epoch < settings.epochs and not self._is_stuck():
                begun = perf_counter() - state.seconds
                loss, waiting = self._stepper.epoch(self._loaders[0], len(self._patches), state, after_step=after_step)
                self._evaluated.load_state_dict(self._stepper.average.weights)
                scores = self._validate(self._evaluated)
                if not math.isfinite(loss + scores.loss):
                    raise UsageError(f"the loss is no longer finite: lower lr, which is {settings.learning_rate:g}")
                better = self._close_epoch(loss, scores, seconds=perf_counter() - begun, waiting=waiting)
                if team.first and shown is not None:
                    self._write_epoch(shown, board, better=better)
        names = CHANNELS[settings.channels]
        return {name: self._validate(Channel(names.index(name))).loss for name in image_names(names)}

    def finish(self, inputs: Mapping[str, float]) -> ModelCard:
        """Write the weights of the best and of the last epoch; remove what only an unfinished training needs."""
        files, out = self._files, self._files.out
        self._evaluated.load_state_dict(self._stepper.average.weights)
        save_model(files.last, self._evaluated, self._card(f"{out.stem}-last", self._state.epoch, inputs))
        self._evaluated.load_state_dict(self._state.best)
        card = save_model(out, self._evaluated, self._card(out.stem, self._state.best_epoch, inputs))
        files.remove_unfinished()
        return card

    def _network(self) -> nn.Module:
        network = untrained(self._settings.arch, CHANNELS[self._settings.channels], self._settings.seed)
        # Convolutions of 32 features are faster with the channels last, on CPUs and on tensor cores.
        return network.to(self._team.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _validate(self, network: nn.Module) -> Scores:
        loss, weight = LOSSES[self._settings.loss], self._settings.loss_weight
        return validate(network, self._checks, self._loaders[1], loss, weight=weight, team=self._team)

    def _is_stuck(self) -> bool:
        return 0 < self._settings.patience <= self._state.epoch - self._state.best_epoch

    def _close_epoch(self, loss: float, scores: Scores, *, seconds: float, waiting: float) -> bool:
        """Take an epoch into the state; returns whether it is the best so far."""
        state = self._state
        better = not state.best or scores.loss < state.rows[state.best_epoch - 1]["validation_loss"]
        state.epoch += 1
        state.step, state.total, state.seconds = 0, 0.0, 0.0
        state.rows.append(
            {
                "epoch": state.epoch,
                "lr": self._stepper.learning_rate,
                "train_loss": loss,
                "validation_loss": scores.loss,
                **scores.rmse_hu,
                "seconds": round(seconds, 3),
                "waiting": round(waiting, 4),
            }
        )
        if better:
            state.best_epoch = state.epoch
            state.best = {name: value.detach().clone() for name, value in self._evaluated.state_dict().items()}
        unit = UNITS[self._settings.loss]
        logger.info("epoch %d: training %.3e, validation %.3e %s", state.epoch, loss, scores.loss, unit)
        return better

    def _write_epoch(self, shown: NDArray[np.intp], board: TensorBoard, *, better: bool) -> None:
        state, files, settings = self._state, self._files, self._settings
        picture = None
        if len(shown) and state.epoch % settings.picture_epochs == 0:
            picture = files.picture(state.epoch)
            sample_sheet(self._evaluated, self._checks, shown, CHANNELS[settings.channels], picture)
        if better:
            save_model(files.best, self._evaluated, self._card(files.out.stem, state.epoch, {}))
        write_log(files.folder, state.rows)
        board.write(state.rows[-1], picture)
        self._save()  # last: from here on the epoch is done

    def _save(self) -> None:
        save_checkpoint(self._files.checkpoint, self._identity, self._stepper.parts, self._state)

    def _card(self, name: str, epoch: int, inputs: Mapping[str, float]) -> ModelCard:
        settings, state, split = self._settings, self._state, self._split
        row = state.rows[epoch - 1]
        metrics: dict[str, Any] = {
            "unit": f"{settings.loss}, mean per pixel, {UNITS[settings.loss]}",
            "best_epoch": state.best_epoch,
            "epoch": epoch,
            "training": row["train_loss"],
            "validation": row["validation_loss"],
            "validation_rmse_hu": {column: row[column] for column in rmse_columns(self._checks)},
            "validation_of_inputs": dict(inputs),
            "curve": [[one["train_loss"], one["validation_loss"]] for one in state.rows],
        }
        return ModelCard(
            name=name,
            arch=settings.arch,
            channels=CHANNELS[settings.channels],
            path=settings.path,
            use=settings.use,
            after=model_path(settings.after).stem if self._after else "",
            after_sha256=self._after.sha256 if self._after else "",
            settings=asdict(settings),
            data=self._provenance(split) if split else {},
            metrics=metrics,
            version=__version__,
            date=datetime.now(UTC).date().isoformat(),
        )

    def _provenance(self, split: Split) -> dict[str, Any]:
        return {
            "split_by": split.by,
            "cases_trained": len(split.train),
            "cases_validated": len(split.validation),
            "patches_trained": len(self._patches),
            "patches_validated": len(self._checks),
            "patients_trained": list(split.train_patients),
            "patients_validated": list(split.validation_patients),
            "patients_before": self._seen_before,
            "patients_held_out": sorted(self._settings.exclude_patients),
        }


def _weights_of(settings: TrainingSettings) -> dict[str, torch.Tensor]:
    """Those of the model to begin with.

    Raises
    ------
    ModelError
        Where it cannot be read.
    UsageError
        Where it is of another architecture or sees other channels; but a U-Net may begin with one that lacks its last
        image.
    """
    begun, card = load_model(settings.init)
    names = CHANNELS[settings.channels]
    if card.arch == settings.arch == "unet" and card.channels == names[:-1]:
        return seeing_another_image(begun.state_dict())
    if (card.arch, card.channels) != (settings.arch, names):
        raise UsageError(
            f"{settings.init} is a {card.arch!r} network of {', '.join(card.channels)}:"
            " a training can begin with a model only of its own architecture and channels;"
            " a U-Net may see one more image, the last."
        )
    return begun.state_dict()


@contextmanager
def _kept(folder: Path) -> Iterator[None]:
    """A folder that is there; it is gone again if nothing came of it."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):
            folder.rmdir()


def _write_settings(settings: TrainingSettings, folder: Path) -> None:
    """`training.toml`, which `--config` takes."""
    values = {name: value for name, value in asdict(settings).items() if value is not None}
    with replacing(folder / "training.toml") as partial:
        partial.write_text(tomli_w.dumps(values), encoding="utf-8")


def _seen_before(settings: TrainingSettings) -> list[str]:
    """Patients of the models that a training begins with or refines."""
    before = [read_card(model_path(name)) for name in (settings.init, settings.after) if name]
    return sorted({patient for card in before for patient in card.patients_seen})
