"""Reading ahead and writing behind: what keeps files and arithmetic busy at the same time, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def read_ahead(
    read: Callable[[Item], Result], items: Iterable[Item], *, depth: int, threads: int = 1
) -> Generator[Result, None, None]:
    """What `read` gives for every item, in their order, with up to `depth` results waiting.

    An error of `read` is raised where its result would have come.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="read") as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(read, item))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


class WriteBehind:
    """Calls that another thread makes in their order, with up to `depth` of them waiting.

    An error of a call is raised by the next one, or when the block ends.
    """

    def __init__(self, *, depth: int) -> None:
        self._depth = depth
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="write")
        self._waiting: deque[Future[Any]] = deque()

    def __call__(self, call: Callable[..., Any], *arguments: Any) -> None:
        """Have `call(*arguments)` made; waits while too many calls are."""
        self._waiting.append(self._pool.submit(call, *arguments))
        while len(self._waiting) > self._depth or (self._waiting and self._waiting[0].done()):
            self._waiting.popleft().result()

    def __enter__(self) -> Self:
        """Start."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for the calls; after an error those that have not begun are dropped."""
        self._pool.shutdown(cancel_futures=kind is not None)
        if kind is None:
            while self._waiting:
                self._waiting.popleft().result()
