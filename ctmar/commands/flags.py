"""What the flags of several commands have in common."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from ctmar.errors import UsageError

Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Config = Annotated[Path | None, typer.Option(help="TOML file with settings; flags win over it.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")]


def given(**values: Any) -> dict[str, Any]:
    """The flags that were given."""
    return {name: value for name, value in values.items() if value is not None}


def names(text: str) -> tuple[str, ...]:
    """A list with commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def nearest(name: str, known: Iterable[str]) -> str:
    """What to say of a name that is not known."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f": expected one of {', '.join(known)}."


def keep_source(source: Path, out: Path) -> None:
    """Refuse to write into the source, to replace it, or to replace a folder that it lies in."""
    target, origin = out.resolve(), source.resolve()
    if origin in target.parents:
        raise UsageError(f"{out}: lies in the source, which is never written to; choose another output.")
    if out.exists() and target in (origin, *origin.parents):
        raise UsageError(f"{out}: is or holds the source, which is never overwritten; choose another output.")


def check_device(device: str) -> None:
    """Raise `UsageError` for a device that is unknown or not there."""
    from data_sim.projection import choose_device

    try:
        choose_device(device)
    except ValueError as error:
        raise UsageError(f"{error}.") from None
