"""What the flags of several commands have in common."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctmar.errors import UsageError
from ctmar.words import did_you_mean

if TYPE_CHECKING:
    from ctmar.cluster import Cluster

logger = logging.getLogger(__name__)


def _set_quiet(quiet: bool) -> bool:
    from ctmar.console import be_quiet

    be_quiet(quiet)
    return quiet


def _set_verbose(level: int) -> int:
    if level:
        from ctmar.console import be_verbose

        be_verbose(level)
    return level


Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Config = Annotated[Path | None, typer.Option(help="TOML file with settings; flags win over it.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Only warnings and errors, no progress.", callback=_set_quiet)
]
Verbose = Annotated[
    int,
    typer.Option("--verbose", "-v", count=True, help="Say what is done; -vv for details.", callback=_set_verbose),
]
WHO = "Who does the work"
Workers = Annotated[int, typer.Option(min=1, help="Processes of this machine, by Dask.", rich_help_panel=WHO)]
Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="A Dask scheduler, tcp://HOST:8786, to do the work.",
        rich_help_panel=WHO,
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")]


def methods(incomplete: str) -> list[str]:
    """Names of methods that begin so, for the shell."""
    from ctmar.method_names import METHODS

    return [name for name in METHODS if name.startswith(incomplete)]


def models(incomplete: str) -> list[str]:
    """Names of shipped models that begin so, for the shell, which does not wait for `ctmar.weights` to load torch."""
    shipped = Path(__file__).parents[1] / "models"
    return sorted(path.stem for path in shipped.glob("*.safetensors") if path.stem.startswith(incomplete))


def presets(incomplete: str) -> list[str]:
    """Names of presets that begin so, for the shell."""
    from ctmar.presets import PRESETS

    return [name for name in PRESETS if name.startswith(incomplete)]


def given(**values: Any) -> dict[str, Any]:
    """The flags that were given."""
    return {name: value for name, value in values.items() if value is not None}


def cluster_of(context: typer.Context, workers: int, scheduler: str | None) -> Cluster:
    """Who does the work; without Dask, this process."""
    from ctmar.cluster import Cluster, has_dask
    from ctmar.console import warn

    if workers > 1 and scheduler is None and not has_dask():
        warn("Dask is not installed (pip install 'ctmar[dask]'): one process does the work.")
        workers = 1
    plugins = [str(Path(one).absolute()) if Path(one).is_file() else one for one in context.obj or ()]
    return Cluster(workers, scheduler=scheduler, plugins=plugins)


def names(text: str) -> tuple[str, ...]:
    """A list with commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def nearest(name: str, known: Iterable[str]) -> str:
    """What to say of a name that is not known."""
    known = list(known)
    hint = did_you_mean(name, known, cutoff=0.5)
    return f"; {hint}" if hint else f": expected one of {', '.join(known)}."


def check_device(device: str) -> None:
    """Raise `UsageError` for a device that is unknown or not there."""
    from data_sim.projection import choose_device

    try:
        logger.info("projections on %s (%s)", *choose_device(device))
    except ValueError as error:
        raise UsageError(f"{error}.") from None
