"""Work shared out to Dask workers, of this machine or of a scheduler that is there; or done by this process."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from ctmar import __version__
from ctmar.errors import UsageError, WorkerLostError, WorkersDifferError
from ctmar.files import is_full
from ctmar.plugins import load_plugins

if TYPE_CHECKING:
    from distributed import Client, Future, LocalCluster

A = TypeVar("A")
B = TypeVar("B")

logger = logging.getLogger(__name__)

_RETRIES = 2
"""How often an item that failed is tried again, on any worker."""

_AHEAD = 4
"""Items handed out a worker: the others stay here, so that a million of them do not fill the scheduler."""

_LOSSES = 10
"""How often the scheduler may be lost over one item."""

_LOOK_S = 5.0
"""How often to look whether there are workers at all."""

_RESTART_S = 20.0
"""What workers of this machine may take to be there again."""

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def has_dask() -> bool:
    """Whether work can be shared out (the extra `dask`)."""
    return importlib.util.find_spec("distributed") is not None


class Cluster:
    """Who does the work; used as a context, at whose end nobody works on.

    Parameters
    ----------
    workers
        How many processes of this machine share its cores; 1 is this one. They begin when there is work for them.
    scheduler
        Address of a Dask scheduler whose workers do the work instead, such as ``tcp://host:8786``.
    plugins
        What workers load first, see `ctmar.plugins.load_plugins`.
    patience_s
        How long to wait for a scheduler that does not answer, or that has no workers.

    Raises
    ------
    UsageError
        For workers without Dask.
    """

    def __init__(
        self, workers: int = 1, *, scheduler: str | None = None, plugins: Sequence[str] = (), patience_s: float = 120
    ) -> None:
        if (workers > 1 or scheduler) and not has_dask():
            raise UsageError("workers need Dask: pip install 'ctmar[dask]', or leave --workers and --scheduler out.")
        self._workers, self._scheduler = workers, scheduler
        self._plugins, self._patience_s = tuple(plugins), patience_s
        self._local: LocalCluster | None = None
        self._client: Client | None = None
        self._lock = threading.RLock()
        self._started = False
        self._scratch = tempfile.gettempdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._local is not None and kind is not None:
            _kill(self._local)
        self._close()

    def start(self) -> None:
        """Begin the workers now, in the main thread, for threads that will have work for them."""
        if not self.alone:
            self._started = True
            self._connected()

    @property
    def alone(self) -> bool:
        """Whether this process does the work."""
        return self._scheduler is None and self._workers <= 1

    @property
    def size(self) -> int:
        """How many items are worked on at a time."""
        if self._scheduler is None:
            return self._workers
        return max(1, sum(self._connected().nthreads().values()))

    def each(
        self, function: Callable[[A], B], items: Sequence[A], *, lost: Callable[[A, Exception], B] | None = None
    ) -> Iterator[B]:
        """Results in the order of the items.

        An item that raises an error is tried again twice; one whose worker dies twice more, by itself. Where the
        scheduler is lost, its return is waited for, and what was not done is handed out again. So an item may be worked
        on more than once, even at the same time.

        Parameters
        ----------
        function, items
            Both are pickled, as are the results.
        lost
            Makes the result of an item that cannot be worked on; without it, and for a full disk, its error ends all.

        Raises
        ------
        WorkerLostError
            Where workers die at an item, or the scheduler is lost for good.
        """
        if self.alone or (self._scheduler is None and not self._started and len(items) <= 1):
            for item in items:
                try:
                    result = function(item)
                except Exception as error:
                    if lost is None or _ends_all(error):
                        raise
                    result = lost(item, error)
                yield result
            return
        task = _Task(__version__, self._plugins, function)
        waiting: deque[_HandedOut[A]] = deque()
        left = iter(items)
        try:
            while True:
                ahead = _AHEAD * self.size - len(waiting)
                waiting.extend(_HandedOut(item, self._submit(task, item)) for item in islice(left, max(0, ahead)))
                if not waiting:
                    return
                first = waiting[0]
                try:
                    result = self._result(first.future)
                except _SchedulerLostError:
                    first.losses += 1
                    if first.losses > _LOSSES:
                        raise WorkerLostError("results do not come through; see the logs of the workers.") from None
                    logger.warning("the scheduler was lost; what was not done is handed out again")
                    for one in waiting:
                        if one is first or one.future.cancelled():
                            one.future = self._submit(task, one.item)
                    continue
                except _KilledError:
                    if first.alone < _RETRIES:  # all that its worker had is suspected: each is tried by itself
                        self._let_finish(waiting)
                        first.future, first.alone = self._submit(task, first.item), first.alone + 1
                        continue
                    killed = WorkerLostError(
                        "its workers were killed, probably for lack of memory; use fewer --workers."
                    )
                    if lost is None:
                        raise killed from None
                    result = lost(first.item, killed)
                except Exception as error:
                    if lost is None or _ends_all(error):
                        raise
                    result = lost(first.item, error)
                waiting.popleft()
                yield result
        finally:
            if waiting and self._client is not None:
                with suppress(Exception):
                    self._client.cancel([one.future for one in waiting])

    def _submit(self, task: _Task[A, B], item: A) -> Future:
        while True:
            client = self._connected()
            try:
                return client.submit(task, item, pure=False, retries=_RETRIES)
            except Exception:  # the connection ended just now
                if client.status == "running":
                    raise

    def _let_finish(self, handed_out: Iterable[_HandedOut[A]]) -> None:
        for one in handed_out:
            with suppress(Exception):  # comes up again when it is this one's turn
                self._result(one.future)

    def _result(self, future: Future) -> Any:
        """What a worker made of an item, however long it takes, as long as there are workers."""
        from distributed import KilledWorker

        workers_seen = time.monotonic()
        while True:
            try:
                return future.result(timeout=_LOOK_S)
            except CancelledError:
                raise _SchedulerLostError from None
            except KilledWorker:
                raise _KilledError from None
            except TimeoutError:
                if future.status == "error":
                    raise  # it is the item's own
            except Exception:
                if future.status == "error":
                    raise
                raise _SchedulerLostError from None  # it was done, but its result did not come through
            if self._connected().nthreads():
                workers_seen = time.monotonic()
            elif self._local is not None and time.monotonic() > workers_seen + _RESTART_S:
                self._close()  # its workers died so quickly that they were not restarted
                raise _KilledError
            elif time.monotonic() > workers_seen + self._patience_s:
                raise WorkerLostError(f"{self._scheduler}: the scheduler has no workers any more; go on with --resume.")

    def _connected(self) -> Client:
        """The client, once it is connected to a scheduler that has workers."""
        from distributed import Client

        with self._lock:
            if self._client is None:
                try:
                    target = self._scheduler or self._begun()
                    self._client = Client(target, timeout=self._patience_s, set_as_default=False)
                except (OSError, ValueError) as error:
                    raise WorkerLostError(
                        f"{self._scheduler}: no scheduler answers ({type(error).__name__})."
                    ) from None
                self._wait_for_workers()
            elif self._client.status != "running":
                end = time.monotonic() + self._patience_s + 5  # it reconnects for so long by itself
                while self._client.status != "running":
                    if self._client.status == "closed" or time.monotonic() > end:
                        raise WorkerLostError("the scheduler is lost; once there is one, go on with --resume.")
                    time.sleep(0.1)
                self._wait_for_workers()
            return self._client

    def _close(self) -> None:
        with self._lock:
            with suppress(Exception):  # they are gone either way
                if self._client is not None:
                    self._client.close(timeout=5)
                if self._local is not None:
                    self._local.close(timeout=5)
            self._client = self._local = None

    def _wait_for_workers(self) -> None:
        assert self._client is not None
        try:
            self._client.wait_for_workers(1, timeout=self._patience_s)
        except TimeoutError:
            where = self._scheduler or "this machine"
            raise WorkerLostError(f"{where}: the scheduler has no workers; start some, then go on.") from None

    def _begun(self) -> LocalCluster:
        import dask
        from distributed import LocalCluster

        threads = str(max(1, (os.cpu_count() or 1) // self._workers))
        with dask.config.set({"distributed.scheduler.allowed-failures": 0}), _interrupts_ignored():
            self._local = LocalCluster(
                n_workers=self._workers,
                threads_per_worker=1,
                security=True,  # on loopback, but other users of this machine are there, too
                dashboard_address="127.0.0.1:0",  # any port; none makes it take a fixed one
                silence_logs=logging.CRITICAL,
                env=dict.fromkeys(_THREADS, threads),
                local_directory=self._scratch,
            )
        return self._local


def _ends_all(error: Exception) -> bool:
    """Whether every other item would fail likewise."""
    return is_full(error) or isinstance(error, WorkersDifferError | WorkerLostError)


ALONE = Cluster()
"""This process does the work."""


@dataclass
class _HandedOut(Generic[A]):
    """An item that a worker has, or had when the scheduler was lost."""

    item: A
    future: Future
    alone: int = 0
    losses: int = 0


class _KilledError(Exception):
    """The workers that were at an item died."""


class _SchedulerLostError(Exception):
    """The scheduler was lost, and with it what it knew."""


@dataclass(frozen=True)
class _Task(Generic[A, B]):
    """A function as a worker calls it: by the same version, and with the same plugins."""

    version: str
    plugins: tuple[str, ...]
    function: Callable[[A], B]

    def __call__(self, item: A) -> B:
        if self.version != __version__:
            raise WorkersDifferError(f"the workers have ctmar {__version__}, this is {self.version}: install the same.")
        _load_once(self.plugins)
        return self.function(item)


_loaded: set[tuple[str, ...]] = set()
_loading = threading.Lock()


def _load_once(plugins: tuple[str, ...]) -> None:
    with _loading:
        if plugins not in _loaded:
            try:
                load_plugins(plugins)
            except UsageError as error:
                raise WorkersDifferError(f"where the workers are, {error}") from error
            _loaded.add(plugins)


def _kill(cluster: LocalCluster) -> None:
    """End workers at once: they would otherwise finish what they are at."""
    for nanny in cluster.workers.values():
        nanny.auto_restart = False
        if nanny.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(nanny.pid, signal.SIGKILL)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes that begin within have no ear for Ctrl-C: the one that began them ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
