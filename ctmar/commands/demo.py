"""`ctmar demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ctmar.commands.flags import Device, Quiet, Verbose, check_device


def demo(
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder if it exists.")] = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """The whole way with nothing but this program: phantom, simulation, correction, evaluation.

    Example: `ctmar demo --out demo-out`
    """
    from ctmar.console import note, print_metrics, progress_bar
    from ctmar.demo import run_demo
    from ctmar.metrics import summarise

    check_device(device)
    with progress_bar() as bar:
        rows = run_demo(out, device=device, overwrite=overwrite, progress=bar)
    print_metrics(summarise(rows))
    note(f"{out}: corrected/*.dcm, metrics.json, report.html (not for diagnostic use)")
