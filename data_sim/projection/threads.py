"""Kernels on all cores: plain threads, since the kernels release the interpreter's lock.

numba's own parallel loops would do, but its default thread pool breaks when two threads enter it, and they take
several times as long to compile.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numba


def count() -> int:
    """How many threads projections use: NUMBA_NUM_THREADS, or what `numba.set_num_threads` set, or all cores."""
    return int(numba.get_num_threads())


def in_threads(kernel: Callable[..., Any], items: int, at_once: int, *arguments: Any) -> None:
    """Call ``kernel(first, stop, *arguments)`` over ``range(items)`` in pieces of `at_once`."""
    starts = range(0, items, at_once)
    if count() == 1 or len(starts) <= 1:
        kernel(0, items, *arguments)
        return
    work = _pool(os.getpid(), count()).map(lambda i: kernel(i, min(i + at_once, items), *arguments), starts)
    for _ in work:
        pass


@lru_cache(maxsize=4)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """One pool a process: threads do not survive a fork."""
    return ThreadPoolExecutor(threads, thread_name_prefix="projection")
