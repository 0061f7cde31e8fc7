"""Compiled kernels: machine code at first use, with a message, and its work on all cores."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, lru_cache, wraps
from typing import Any

import numba

_FAST = {"nnan", "ninf", "nsz", "arcp", "contract"}
_MESSAGE_AFTER_S = 3.0
_lock = threading.RLock()
os.register_at_fork(after_in_child=_lock._at_fork_reinit)  # type: ignore[attr-defined]  # another thread may hold it
_log = logging.getLogger(__name__)


def part(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that kernels call, compiled into them with their options."""
    compiled: Callable[..., Any] = numba.njit(fastmath=_FAST, error_model="numpy")(function)
    return compiled


def kernel(signature: str, *, reorder: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function for one signature when it is first called; later processes load it from numba's disk cache.

    Division by zero gives infinity, as in numpy: a check would keep loops from becoming vector instructions.

    Parameters
    ----------
    signature
        ``LANES`` in it stands for the type of the last argument, a tuple of as many numbers as a block has lanes; the
        function is compiled for each width that is used.
    reorder
        Whether the terms of a sum may be added in another order, the same in every call.
    """
    options: dict[str, Any] = {"fastmath": _FAST | {"reassoc"} if reorder else _FAST, "error_model": "numpy"}

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @cache
        def compiled(lanes: int) -> Callable[..., Any]:
            of_width = signature.replace("LANES", f"UniTuple(float64, {lanes})")
            with _announced():
                machine_code: Callable[..., Any] = numba.njit(of_width, nogil=True, cache=True, **options)(function)
            return machine_code

        @wraps(function)
        def call(*arguments: Any) -> Any:
            with _lock:
                ready = compiled(len(arguments[-1]) if "LANES" in signature else 0)
            return ready(*arguments)

        return call

    return decorate


@contextmanager
def _announced() -> Iterator[None]:
    timer = threading.Timer(_MESSAGE_AFTER_S, _say_once)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@cache
def _say_once() -> None:
    _log.warning("Compiling projection kernels for this processor: up to 20 s, once after an installation.")


def thread_count() -> int:
    """How many threads kernels use: NUMBA_NUM_THREADS, or what `numba.set_num_threads` set, or all cores."""
    return int(numba.get_num_threads())


def in_threads(kernel_: Callable[..., Any], items: int, at_once: int, *arguments: Any) -> None:
    """Call ``kernel_(first, stop, *arguments)`` over ``range(items)`` in pieces of `at_once`.

    numba's own parallel loops would do, but its default thread pool breaks when two threads enter it, and they take
    several times as long to compile.
    """
    starts = range(0, items, at_once)
    if thread_count() == 1 or len(starts) <= 1:
        kernel_(0, items, *arguments)
        return
    pool = _pool(os.getpid(), thread_count())
    for _ in pool.map(lambda i: kernel_(i, min(i + at_once, items), *arguments), starts):
        pass


@lru_cache(maxsize=4)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """One pool a process: threads do not survive a fork."""
    return ThreadPoolExecutor(threads, thread_name_prefix="kernels")
