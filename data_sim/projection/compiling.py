"""Kernels that compile when they are first used, and say so when it takes a while."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any

from numba import njit

_OPTIONS: dict[str, Any] = {"fastmath": {"nnan", "ninf", "nsz", "arcp", "contract"}, "error_model": "numpy"}
"""Nothing here may change the order of a sum. Division by zero gives infinity, as in numpy: a check would keep loops
from becoming vector instructions."""

_MESSAGE_AFTER_S = 1.0
_lock = threading.RLock()
_log = logging.getLogger(__name__)


def part(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that kernels call, compiled into them with their options."""
    compiled: Callable[..., Any] = njit(**_OPTIONS)(function)
    return compiled


def kernel(signature: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function for one signature when it is first called; later processes load it from numba's disk cache."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @cache
        def compiled() -> Callable[..., Any]:
            with _announced():
                machine_code: Callable[..., Any] = njit(signature, nogil=True, cache=True, **_OPTIONS)(function)
            return machine_code

        @wraps(function)
        def call(*arguments: Any) -> Any:
            with _lock:
                ready = compiled()
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
