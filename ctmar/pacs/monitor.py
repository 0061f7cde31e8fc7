"""What a node tells those that watch it: log lines in JSON, /metrics for Prometheus, /health. No patient data."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, TextIO
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, make_wsgi_app
from prometheus_client.core import GaugeMetricFamily

from ctmar.errors import UsageError
from ctmar.pacs.spool import Spool

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

_SECONDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000)


def logger_to(stream: TextIO) -> Any:
    """A logger that writes an object of JSON a line: time, level, event, and what belongs to it."""
    return structlog.wrap_logger(
        structlog.WriteLogger(stream),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
    )


class Metrics:
    """Counters since the process began, and the state of the spool when they are asked for."""

    def __init__(self, spool: Spool) -> None:
        self.registry = CollectorRegistry()
        self._spool = spool
        self.received = self._counter("objects_received", "Objects by what became of them", "result")
        self.refused = self._counter("refused", "Objects and associations refused", "reason")
        self.ended = self._counter("series", "Series by how they ended", "result")
        self.sent = self._counter("objects_sent", "Objects sent", "destination")
        self.not_sent = self._counter("sends_failed", "Attempts to send that failed", "destination")
        self.correcting = self._histogram("correction_seconds", "A correction")
        self.latency = self._histogram("latency_seconds", "From the last image received to the last sent")
        self.registry.register(self)

    def _counter(self, name: str, what: str, label: str) -> Counter:
        return Counter(f"ctmar_{name}", what, [label], registry=self.registry)

    def _histogram(self, name: str, what: str) -> Histogram:
        return Histogram(f"ctmar_{name}", what, buckets=_SECONDS, registry=self.registry)

    def collect(self) -> Iterable[Metric]:
        """The state of the spool, as Prometheus asks for it."""
        states = GaugeMetricFamily("ctmar_spool_series", "Series in the spool", labels=["state"])
        for state, count in self._spool.counts().items():
            states.add_metric([state], count)
        yield states
        yield GaugeMetricFamily("ctmar_spool_bytes", "Images received", value=self._spool.size_bytes())


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: every scrape would be a line."""


@contextmanager
def monitored(port: int, metrics: Metrics, health: Callable[[], dict[str, Any]]) -> Iterator[None]:
    """Answer on 127.0.0.1 while the block runs: /metrics, and /health with 200, or 503 where ``ok`` is false.

    Raises
    ------
    UsageError
        Where the port cannot be listened on.
    """
    if not port:
        yield
        return
    prometheus = make_wsgi_app(metrics.registry)

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ.get("PATH_INFO") == "/metrics":
            return prometheus(environ, start)
        if environ.get("PATH_INFO") != "/health":
            start("404 Not Found", [("Content-Type", "text/plain")])
            return [b"/health and /metrics\n"]
        try:
            found = health()
        except Exception as error:  # such as a database that cannot be read
            found = {"ok": False, "error": type(error).__name__}
        start("200 OK" if found["ok"] else "503 Service Unavailable", [("Content-Type", "application/json")])
        return [json.dumps(found).encode()]

    try:
        made = make_server("127.0.0.1", port, answer, server_class=_Server, handler_class=_Silent)
    except OSError as error:
        raise UsageError(f"monitor_port {port} cannot be listened on: {error.strerror}.") from None
    with made as server:
        thread = threading.Thread(target=server.serve_forever, name="monitor", daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
