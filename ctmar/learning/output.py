"""What a training writes, and where."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from ctmar.errors import OutputExistsError, UsageError
from ctmar.weights import SUFFIX

FOLDER_SUFFIX = ".training"


@dataclass(frozen=True)
class TrainingFiles:
    """What a training writes: the weights, and beside them a folder that tells how it went.

    Parameters
    ----------
    out
        Weights file, .safetensors.
    """

    out: Path

    @property
    def folder(self) -> Path:
        """With log.csv, training.toml, pictures/, tensorboard/; during training the rest, too."""
        return self.out.with_suffix(FOLDER_SUFFIX)

    @property
    def checkpoint(self) -> Path:
        """From which an interrupted training goes on."""
        return self.folder / "last.checkpoint"

    @property
    def best(self) -> Path:
        """The best weights so far, while the training goes on."""
        return self.folder / f"best{SUFFIX}"

    @property
    def last(self) -> Path:
        """The weights of the last epoch."""
        return self.folder / f"last{SUFFIX}"

    @property
    def patches(self) -> Path:
        """Patches that do not fit in memory, or are shared by processes."""
        return self.folder / "patches"

    def picture(self, epoch: int) -> Path:
        """The sheet of an epoch."""
        return self.folder / "pictures" / f"epoch-{epoch:04d}.png"

    def check(self, *, resume: bool) -> None:
        """See that nothing is in the way.

        Raises
        ------
        OutputExistsError
            Where the weights are there, or an earlier training that `resume` was not asked to go on with.
        UsageError
            Where the name does not end in .safetensors.
        """
        if self.out.suffix != SUFFIX:
            raise UsageError(f"{self.out}: a model is written to a file whose name ends in {SUFFIX}")
        if self.out.exists():
            raise OutputExistsError(f"{self.out}: is there already; remove it or choose another name")
        if self.checkpoint.exists() and not resume:
            raise OutputExistsError(f"{self.folder}: an interrupted training; go on with --resume, or remove it")
        if self.last.exists() and not self.checkpoint.exists():
            raise OutputExistsError(f"{self.folder}: holds the log of an earlier training; remove or rename it")

    def remove_unfinished(self) -> None:
        """Remove what only an unfinished training needs."""
        shutil.rmtree(self.patches, ignore_errors=True)
        for path in (self.best, self.best.with_suffix(".json"), self.checkpoint):
            path.unlink(missing_ok=True)
