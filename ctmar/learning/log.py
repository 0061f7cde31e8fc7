"""How a training went: a table, and TensorBoard's logs where they are wanted."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ctmar.errors import UsageError
from ctmar.files import replacing, write_csv

LOG = "log.csv"


def write_log(folder: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write `log.csv`, a line an epoch; all of it, so that after an interruption no epoch is in it twice."""
    with replacing(folder / LOG) as partial:
        write_csv(rows, partial)


def require_tensorboard() -> None:
    """Raise `UsageError` where TensorBoard is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise UsageError(
            "TensorBoard is not installed; pip install 'ctmar[tensorboard]', or train without --tensorboard"
        )


class TensorBoard:
    """TensorBoard's logs; nothing happens where they are not wanted.

    Parameters
    ----------
    folder
        Where they go; None for no logs.
    epoch
        Epochs that are finished: what an interrupted training logged beyond them is dropped.
    """

    def __init__(self, folder: Path | None, *, epoch: int) -> None:
        self._writer: Any = None
        if folder is None:
            return
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=epoch + 1)

    def write(self, row: Mapping[str, float], picture: Path | None) -> None:
        """Log an epoch: all numbers, and its sheet of pictures where there is one."""
        if self._writer is None:
            return
        for name, value in row.items():
            if name != "epoch":
                group = "rmse" if name.startswith("rmse_") else "loss" if name.endswith("_loss") else "run"
                self._writer.add_scalar(f"{group}/{name}", value, int(row["epoch"]))
        if picture is not None:
            with Image.open(picture) as sheet:
                self._writer.add_image("samples", np.asarray(sheet), int(row["epoch"]), dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        """End the logs."""
        if self._writer is not None:
            self._writer.close()
