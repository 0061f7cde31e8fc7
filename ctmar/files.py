"""Files and folders that are either the old one or the whole new one, whatever happens while they are written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ctmar.errors import OutputExistsError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a hidden name beside `path` to write to; it becomes `path` when the block ends without an error.

    The folder is created where it is missing. After an error nothing is left behind and `path` is as before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def building(folder: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a hidden folder beside `folder` to fill; it takes its place when the block ends without an error.

    After an error, or where the block is interrupted, nothing is left behind and `folder` is as before.

    Raises
    ------
    OutputExistsError
        Where `folder` exists and is not to be overwritten.
    """
    refuse_existing(folder, overwrite=overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(folder)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        if folder.exists():
            old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
            folder.rename(old)
            partial.rename(folder)
            _remove(old)
        else:
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Raise `OutputExistsError` where `path` is there and is not to be overwritten."""
    if not overwrite and (path.exists() or path.is_symlink()):
        raise OutputExistsError(f"{path}: exists already; choose another name or give --overwrite.")


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
