"""`ctmar train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ctmar.commands.flags import Config, Device, Quiet, Verbose, given


def train(
    databases: Annotated[list[Path], typer.Argument(help="Folders made by ctmar simulate.")],
    out: Annotated[Path, typer.Option(help="Weights to write, .safetensors; the card is put beside them.")],
    arch: Annotated[str | None, typer.Option(help="cnn (the paper's) or unet [cnn].")] = None,
    channels: Annotated[
        int | None, typer.Option(help="2, 3 or 5 input images; 6: with metal and TV; 7: and EBHC [3].")
    ] = None,
    path: Annotated[str | None, typer.Option(help="raw, dicom or both [both].")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the patches [60].")] = None,
    patches: Annotated[int | None, typer.Option(help="Patches to learn from and to validate on [10000].")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Patches a step [16].")] = None,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate.")] = None,
    precision: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16 [float32].")] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many epochs without improvement [0: never].")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="What everything is drawn from [0].")] = None,
    skip_damaged: Annotated[
        bool | None, typer.Option("--skip-damaged", help="Leave out case files that cannot be used.")
    ] = None,
    tensorboard: Annotated[bool | None, typer.Option("--tensorboard", help="Write TensorBoard logs, too.")] = None,
    device: Device = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint.")] = False,
    config: Config = None,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Train a network on databases; patients are split, never slices.

    Several processes: `torchrun --nproc-per-node 4 --no-python ctmar train ...`

    Example: `ctmar train db --out my-model.safetensors --epochs 30`
    """
    from ctmar.config import TrainingSettings, load_toml, settings_from
    from ctmar.console import be_verbose, note, progress_bar, warn
    from ctmar.learning.distributed import is_first
    from ctmar.learning.training import train as run

    flags = given(arch=arch, channels=channels, path=path, epochs=epochs, batch_size=batch_size, lr=lr)
    flags |= given(patches=patches, precision=precision, patience=patience, seed=seed)
    flags |= given(skip_damaged=skip_damaged, tensorboard=tensorboard)
    settings = settings_from(TrainingSettings, load_toml(config) if config else {}, overrides=flags, origin="training")
    if not is_first():
        run(databases, out, settings, device=device, resume=resume)
        return
    if not (quiet or verbose):
        be_verbose(1, names=["ctmar.learning.training"])  # a line an epoch, for hours in a file as well
    with progress_bar() as bar:
        bar("sampling patches", 0, 1)
        total = 0

        def tell(epoch: int, epochs: int, step: int, steps: int) -> None:
            nonlocal total
            if not total:
                bar("sampling patches", 1, 1)
            total = epochs * steps
            bar("training", (epoch - 1) * steps + step, total)

        card = run(databases, out, settings, device=device, resume=resume, progress=tell)
    metrics = card.metrics
    note(f"{out}: validation {metrics['validation']:.3e} at epoch {metrics['best_epoch']} ({metrics['unit']})")
    rmse = metrics["validation_rmse_hu"]
    errors = ", ".join(f"{name[5:-3].replace('_', ' ')} {value:.1f}" for name, value in rmse.items())
    note(f"RMSE over its validation patches in HU: {errors}")
    best, loss = min(metrics["validation_of_inputs"].items(), key=lambda item: item[1])
    if metrics["validation"] >= loss:
        warn(f"the network is no better than its input {best}: train it longer, or on more; do not use it as it is.")
    inputs = ", ".join(f"{name} {value:.3e}" for name, value in metrics["validation_of_inputs"].items())
    note(f"the inputs have: {inputs}")
