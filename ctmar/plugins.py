"""A user's own methods and architectures: Python files and installed packages that register them."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ctmar.errors import UsageError

GROUP = "ctmar.plugins"
"""Entry points of this group name modules that are imported when ctmar starts."""


def load_plugins(plugins: Sequence[str] = ()) -> None:
    """Run what registers methods (`ctmar.register_method`) and architectures (`ctmar.register_architecture`).

    Their code can do anything that the user can: load only what you trust.

    Parameters
    ----------
    plugins
        Python files (``NAME.py``) or names of modules, beside those that installed packages announce as entry points
        of the group `GROUP`.

    Raises
    ------
    UsageError
        Where one is not there, or fails.
    """
    for point in importlib.metadata.entry_points(group=GROUP):
        _run(point.value, point.load)
    for name in plugins:
        _run(name, partial(_imported, name))


def _run(name: str, load: Callable[[], object]) -> None:
    try:
        load()
    except (Exception, SystemExit) as error:
        raise UsageError(f"the plugin {name} cannot be loaded ({type(error).__name__}: {error})") from error


def _imported(name: str) -> object:
    if Path(name).is_file() and not name.endswith(".py"):
        raise ImportError("its name does not end in .py")
    if not name.endswith(".py"):
        return importlib.import_module(name)
    path = Path(name)
    if not path.is_file():
        raise ImportError("there is no such file")
    called = f"ctmar_plugin_{path.stem}"  # so that it hides no other module
    spec = importlib.util.spec_from_file_location(called, path)
    if spec is None or spec.loader is None:
        raise ImportError("is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[called] = module  # dataclasses look for their module there
    spec.loader.exec_module(module)
    return module
