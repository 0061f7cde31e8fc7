"""The command line: flags, exit codes and messages; everything else is imported when a command needs it."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated

import typer

from ctmar import __version__
from ctmar.commands.correct import correct
from ctmar.commands.demo import demo
from ctmar.commands.evaluate import evaluate
from ctmar.commands.info import info
from ctmar.commands.serve import serve
from ctmar.commands.simulate import simulate
from ctmar.commands.train import train
from ctmar.errors import CtmarError, in_words
from ctmar.files import is_full
from ctmar.plugins import load_plugins

app = typer.Typer(
    name="ctmar",
    help="Simulate, learn and remove metal artifacts in CT. Not for diagnostic use.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


class _Stopped(BaseException):
    """A signal asked the program to end; no handler of ordinary errors is to take it for one."""


def _stop(number: int, _: object) -> None:
    for other in (signal.SIGINT, signal.SIGTERM):
        signal.signal(other, signal.SIG_IGN)  # one is enough: a second would interrupt the cleaning up
    raise _Stopped(number)


def main() -> None:
    """Run the command line; every error that a user can meet ends in one sentence and its exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    from ctmar.console import fail

    try:
        app(prog_name="ctmar")
    except CtmarError as error:
        fail(str(error))
        sys.exit(error.exit_code)
    except _Stopped as stopped:
        fail("interrupted; no half-written file was left behind. simulate and train go on with --resume.")
        sys.exit(128 + int(stopped.args[0]))
    except OSError as error:
        if "CTMAR_DEBUG" in os.environ:
            raise
        while not error.strerror and isinstance(error.__cause__, OSError):
            error = error.__cause__  # pydicom raises its own, which says nothing but the name of an attribute
        what = f"{error.filename or 'a file'}: {error.strerror or type(error).__name__}"
        room = " Make room, then repeat the command (simulate and train: with --resume)." if is_full(error) else ""
        fail(f"{what}; no half-written file was left behind.{room}")
        sys.exit(1)
    except Exception as error:
        if "CTMAR_DEBUG" in os.environ:
            raise
        fail(f"{in_words(error)}; set CTMAR_DEBUG=1 for the traceback.")
        sys.exit(1)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    plugin: Annotated[
        list[str] | None,
        typer.Option(help="Python file or module that registers methods or networks of your own. Repeatable."),
    ] = None,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit
    load_plugins(plugin or ())
    context.obj = tuple(plugin or ())  # for the workers of a command


for _command in (simulate, train, correct, evaluate, serve, demo, info):
    app.command()(_command)
