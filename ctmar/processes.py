"""Work shared out to other processes, which never outlive this one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from ctmar.errors import WorkerLostError

A = TypeVar("A")
B = TypeVar("B")

_BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def each(function: Callable[[A], B], items: Sequence[A], *, workers: int) -> Iterator[B]:
    """Results in the order of the items, from this process or from `workers` others that share the cores.

    After an error, or when the caller stops taking results, the others are killed at once: what they were writing
    is left under the hidden name that `ctmar.files.replacing` gives it.

    Raises
    ------
    WorkerLostError
        Where one of the others has died.
    """
    if workers <= 1 or len(items) <= 1:
        yield from map(function, items)
        return
    threads = max(1, (os.cpu_count() or 1) // workers)
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(min(workers, len(items)), context, initializer=_prepare, initargs=(threads,))
    done = False
    try:
        with _blas_threads(threads):
            results = pool.map(function, items)
        yield from results
        done = True
    except BrokenProcessPool:
        raise WorkerLostError(
            "a worker process was killed, probably for lack of memory; use fewer --workers and go on with --resume."
        ) from None
    finally:
        if not done:
            for process in set(multiprocessing.active_children()) - others:
                process.kill()
        pool.shutdown(wait=True, cancel_futures=True)


def _prepare(threads: int) -> None:
    """Run in every worker: its share of the cores, no ear for Ctrl-C, and an end with the process that began it."""
    import numba

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    numba.set_num_threads(min(threads, numba.get_num_threads()))
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # a worker waits for work on a pipe whose other end it holds itself: it would never see that nobody is left
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


@contextmanager
def _blas_threads(threads: int) -> Iterator[None]:
    """What a process that starts within takes as the number of its BLAS threads."""
    before = {name: os.environ.get(name) for name in _BLAS_THREADS}
    os.environ.update(dict.fromkeys(_BLAS_THREADS, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
