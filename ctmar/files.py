"""Files and folders that are either the old one or the whole new one, whatever happens while they are written.

And the one format that many of them have: a table with a heading.
"""

from __future__ import annotations

import csv
import errno
import fcntl
import os
import shutil
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ctmar.errors import OutputExistsError, UsageError

CORRECTION = ("report.json",)
BATCH = ("batch.json", *CORRECTION)
EVALUATION = ("metrics.json",)
PATCHES = ("patches.json",)
"""What the folders hold that a command writes: it may replace those of its own kind alone."""


def write_csv(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write a table whose columns are the keys of the first row; there must be one."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a hidden name beside `path` to write to; it becomes `path` when the block ends without an error.

    Folders above it are created where they are missing. After an error nothing is left behind and `path` is as before.
    """
    partial = _partial(path)
    with _parents(path):
        try:
            yield partial
            partial.replace(path)
        except OSError as error:
            error.filename = error.filename or str(path)  # a full disk is met by a write, which knows no name
            raise
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def building(folder: Path, *, kind: Sequence[str], overwrite: bool = False) -> Iterator[Path]:
    """Give a hidden folder beside `folder` to fill; it takes its place when the block ends without an error.

    `kind` is what a folder holds that may be replaced, such as `CORRECTION`.

    After an error, or where the block is interrupted, nothing is left behind and `folder` is as before.

    Raises
    ------
    OutputExistsError
        Where `folder` exists and is not to be overwritten.
    """
    refuse_existing(folder, kind=kind, overwrite=overwrite)
    partial = _partial(folder)
    with _parents(folder):
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir()
            yield partial
            _swap(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keep other processes that ask likewise out of a folder; the claim ends with the block, or with the process.

    Raises
    ------
    OutputExistsError
        Where another process has claimed it.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no locks
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OutputExistsError(f"{folder}: another process is writing to it; wait for it or end it.") from None
        yield
    finally:
        os.close(handle)


def remove_partial(folder: Path) -> None:
    """Remove what an interrupted `replacing` or `building` left behind in a folder."""
    for leftover in folder.glob(".*.partial"):
        remove(leftover)


def refuse_existing(path: Path, *, kind: Sequence[str], overwrite: bool) -> None:
    """Raise `OutputExistsError` where `path` is there and must not be overwritten.

    A folder without anything in it may be; one that is not empty has to hold an output of this kind, see `building`.
    """
    empty = path.is_dir() and not path.is_symlink() and not any(path.iterdir())
    if not overwrite and not empty and (path.exists() or path.is_symlink()):
        more = "go on with --resume, " if any(path.glob(BATCH[0])) else ""
        raise OutputExistsError(f"{path}: exists already; {more}choose another name or give --overwrite.")
    if path.resolve() in (Path.cwd(), *Path.cwd().parents, Path.home(), *Path.home().parents):
        raise OutputExistsError(f"{path}: is or holds the current or the home folder, which is never replaced.")
    if path.is_dir() and not empty and not any(any(path.glob(mark)) for mark in kind):
        raise OutputExistsError(
            f"{path}: holds something else than this command writes, and only that is replaced; choose another name, "
            "or remove it yourself."
        )


def keep_source(source: Path, out: Path) -> None:
    """Refuse to write into the source, to replace it, or to replace a folder that it lies in."""
    target, origin = out.resolve(), source.resolve()
    if origin in target.parents:
        raise UsageError(f"{out}: lies in the source, which is never written to; choose another output.")
    if out.exists() and target in (origin, *origin.parents):
        raise UsageError(f"{out}: is or holds the source, which is never overwritten; choose another output.")


def keep_files(files: Iterable[Path], out: Path) -> None:
    """Refuse an output that is, or holds, files of the source, also where these are linked from elsewhere."""
    target = out.resolve()
    for file in {one.resolve() for one in files}:
        if file == target or target in file.parents:
            raise UsageError(f"{out}: holds files of the source, which are never overwritten; choose another output.")


def is_full(error: Exception) -> bool:
    """Whether an error says that nothing more can be written where it went."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def _parents(path: Path) -> Iterator[None]:
    """Make the folders above `path`; after an error those that were missing are gone again."""
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for folder in made:
            with suppress(OSError):  # never made, or someone else has put something there meanwhile
                folder.rmdir()
        raise


def _swap(partial: Path, folder: Path) -> None:
    """Put the new folder in the place of the old one, or the old one back."""
    if not (folder.exists() or folder.is_symlink()):
        partial.rename(folder)
        return
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    folder.rename(old)
    try:
        partial.rename(folder)
    except BaseException:
        old.rename(folder)
        raise
    remove(old)


def _partial(path: Path) -> Path:
    # several machines can write to one folder, and several threads of a process
    writer = f"{socket.gethostname()}.{os.getpid()}.{threading.get_ident()}"
    return path.with_name(f".{path.name}.{writer}.partial")


def remove(path: Path) -> None:
    """Remove a file, a link or a folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
