"""What people see in the terminal: messages and progress on stderr, tables and JSON on stdout."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

err = Console(stderr=True, highlight=False, emoji=False)
out = Console(highlight=False, emoji=False)


class Bar(Protocol):
    """A progress bar: what is going on, how much is done, of how much."""

    def __call__(self, what: str, done: int, total: int) -> None:
        """Move the bar, or start it."""
        ...


_quiet = False


def be_quiet(quiet: bool = True) -> None:
    """From now on, warnings and errors only."""
    global _quiet  # noqa: PLW0603  # as the consoles: what a process says has one place
    _quiet = quiet


def be_verbose(level: int, *, names: Iterable[str] = ("ctmar", "data_sim")) -> None:
    """From now on, what the packages log, on stderr: with 1 what they do, from 2 on also details for developers."""
    handler = _Lines()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    for name in names:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.INFO if level == 1 else logging.DEBUG)
        logger.propagate = False


class _Lines(logging.Handler):
    """Log records on stderr, above a progress bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        err.print(self.format(record), markup=False, soft_wrap=True)


class _Rate(ProgressColumn):
    """Steps a second, or seconds a step where that is more than one."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        return Text(f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each", style="progress.data.speed")


@contextmanager
def progress_bar() -> Iterator[Bar]:
    """A bar on stderr that disappears when the work is done; nothing is drawn where stderr is no terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal or _quiet) as bar:
        tasks: dict[str, Any] = {}

        def update(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield update


def note(text: str) -> None:
    """A line for people."""
    if not _quiet:
        err.print(text, markup=False, soft_wrap=True)


def warn(text: str) -> None:
    """A line that should not be overlooked."""
    err.print(f"[yellow]warning:[/yellow] {_plain(text)}", soft_wrap=True)


def fail(text: str) -> None:
    """The sentence that ends a command."""
    err.print(f"[red]ctmar:[/red] {_plain(text)}", soft_wrap=True)


def print_json(value: object) -> None:
    """The machine-readable result."""
    json.dump(value, sys.stdout, indent=1, default=str)
    sys.stdout.write("\n")


def print_metrics(rows: Iterable[Mapping[str, Any]]) -> None:
    """Means by path and method."""
    table = Table(title="Mean over the cases; metal pixels excluded")
    for name, justify in (("path", "left"), ("method", "left"), ("RMSE HU", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for name in ("RMSE body HU", "SSIM", "cases"):
        table.add_column(name, justify="right")
    before = None
    for row in rows:
        if before not in (None, row["path"]):
            table.add_section()
        before = row["path"]
        figures = (f"{row['rmse_hu']:.1f}", f"{row['rmse_body_hu']:.1f}", f"{row['ssim']:.3f}", str(row["n"]))
        table.add_row(str(row["path"]), str(row["method"]), *figures)
    out.print(table)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
