"""The node at work: what is complete is corrected, what is corrected is sent, what is old is forgotten."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from ctmar import __version__
from ctmar.batch import cached_restorer
from ctmar.cluster import Cluster
from ctmar.correction import correct_series
from ctmar.correction_settings import CorrectionSettings
from ctmar.dicom.series import choose_series, find_series
from ctmar.errors import CtmarError, in_words
from ctmar.files import claimed, remove
from ctmar.pacs.monitor import Metrics, logger_to, monitored
from ctmar.pacs.receiver import Receiver
from ctmar.pacs.sender import DamagedError, NotSentError, send
from ctmar.pacs.settings import ServeSettings
from ctmar.pacs.spool import FAILED, IGNORED, Entry, Spool

_TICK_S = 0.5
_PURGE_S = 600.0
_LATE_S = 60.0
_CROWDED = 0.8
"""Share of the spool's room from which on series that are done are forgotten at once."""


@dataclass(frozen=True)
class _Work:
    """A series to correct, as a worker gets it."""

    source: Path
    out: Path
    settings: CorrectionSettings
    model: str


@dataclass(frozen=True)
class _Corrected:
    """What became of it: slices, how many were corrected and how many failed; or an error.

    After one that is `final` another attempt is in vain; one that `waits` was none.
    """

    slices: int = 0
    corrected: int = 0
    failed: int = 0
    error: str = ""
    waits: bool = False
    final: bool = False


def serve(
    settings: ServeSettings, stream: TextIO, *, cluster: Cluster, stopped: threading.Event, retry_failed: bool = False
) -> None:
    """Receive, correct and send until `stopped` is set.

    Parameters
    ----------
    settings
        See `ServeSettings`.
    stream
        Where the log goes.
    cluster
        Who corrects.
    retry_failed
        Try again what was given up before.

    Raises
    ------
    ModelError
        Where the model of a rule cannot be used.
    OutputExistsError
        Where another node uses the spool.
    UsageError
        Where the address cannot be listened on.
    """
    log = logger_to(stream)
    load_models(settings)
    settings.spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    with claimed(settings.spool):
        spool = Spool(settings.spool)
        if retry_failed:
            log.info("failed series wait again", series=spool.retry_failed())
        metrics = Metrics(spool)
        receiver = Receiver(settings, spool, metrics, log)
        node = _Node(settings, spool, receiver, cluster, metrics, log, stopped)
        loops: list[Callable[[], bool]] = [node.look_after, node.send_one]
        loops += [node.correct_one] * max(1, settings.workers if settings.scheduler is None else cluster.size)
        threads = [threading.Thread(target=node.repeat, args=(loop,), daemon=True) for loop in loops]

        def health() -> dict[str, Any]:
            ok = receiver.listens and node.works and all(thread.is_alive() for thread in threads)
            return {"ok": ok, "version": __version__, "series": spool.counts(), "spool_bytes": spool.size_bytes()}

        try:
            receiver.start()
            for thread in threads:
                thread.start()
            with monitored(settings.monitor_port, metrics, health):
                log.info("listening", address=settings.address, port=settings.port, ae_title=settings.ae_title)
                while not stopped.wait(_TICK_S):
                    pass
        finally:
            stopped.set()
            receiver.stop()
            for thread in threads:
                if thread.is_alive():
                    thread.join(1)  # a correction is begun again when the node comes back
            node.leave()
            log.info("stopped", series=spool.counts())


def load_models(settings: ServeSettings) -> None:
    """Load the models of all rules.

    Raises
    ------
    ModelError
        Where one cannot be used.
    """
    for rule in settings.rules:
        cached_restorer(rule.correction(settings.device).method, rule.model, settings.device)


class _Node:
    """What the threads of a node do."""

    def __init__(
        self,
        settings: ServeSettings,
        spool: Spool,
        receiver: Receiver,
        cluster: Cluster,
        metrics: Metrics,
        log: Any,
        stopped: threading.Event,
    ) -> None:
        self._settings, self._spool, self._receiver, self._cluster = settings, spool, receiver, cluster
        self._metrics, self._log, self._stopped = metrics, log, stopped
        self._purged = 0.0
        self._looked = time.monotonic()
        self._lock = threading.Lock()
        self._at: dict[str, Entry] = {}

    def repeat(self, step: Callable[[], bool]) -> None:
        """Do a step again and again, at once where there was something to do; no error ends it."""
        while not self._stopped.is_set():
            try:
                busy = step()
            except Exception as error:
                self._log.error("error", step=getattr(step, "__name__", ""), error=in_words(error))
                busy = False
            if not busy:
                self._stopped.wait(_TICK_S)

    def look_after(self) -> bool:
        """See which series are complete, and forget what is old."""
        settings = self._settings
        with self._lock:
            self._spool.unstick(self._at)
        ready = self._spool.complete(
            quiet_s=settings.quiet_s, timeout_s=settings.timeout_s, still_open=self._receiver.carried()
        )
        for series in ready:
            self._log.info("complete", series=series)
        crowded = self._spool.size_bytes() > _CROWDED * settings.max_spool_gb * 1e9
        if crowded or time.monotonic() > self._purged + _PURGE_S:
            self._purged = time.monotonic()
            keep_s = 0.0 if crowded else 3600 * settings.keep_h
            self._spool.purge(keep_s=keep_s, keep_failed_s=3600 * settings.keep_failed_h)
            for left in self._spool.receiving.iterdir():  # of associations that broke off
                if time.time() - left.stat().st_mtime > settings.timeout_s:
                    remove(left)
        self._looked = time.monotonic()
        return False

    @property
    def works(self) -> bool:
        """Whether it has looked after everything of late without an error."""
        return time.monotonic() - self._looked < _LATE_S

    def leave(self) -> None:
        """Let what is being corrected wait for the next start; an attempt that is stopped was none."""
        with self._lock:
            for entry in self._at.values():
                self._spool.again(entry, "the node was stopped", counted=False)

    def correct_one(self) -> bool:
        """Correct a series that is complete."""
        with self._lock:
            entry = None if self._stopped.is_set() else self._spool.next_waiting()
            if entry is None:
                return False
            self._at[entry.id] = entry
        try:
            self._correct_entry(entry)
        finally:
            with self._lock:
                self._at.pop(entry.id, None)
        return True

    def _correct_entry(self, entry: Entry) -> None:
        rule = self._settings.rule_for(entry.station, entry.description, entry.protocol)
        why = "made by ctmar" if entry.own else "no rule matches" if rule is None else "by rule"
        if rule is None or rule.action == "ignore" or entry.own:
            self._end(entry, IGNORED, why)
            return
        if entry.attempts > self._settings.attempts:
            self._end(entry, FAILED, "given up after several attempts")
            return
        name = f"{entry.id}-{entry.generation}-{entry.attempts}-{time.time_ns()}"
        out = self._spool.corrected / name
        work = _Work(
            self._spool.source_of(entry.id), out.absolute(), rule.correction(self._settings.device), rule.model
        )
        begin = time.monotonic()
        try:
            (result,) = self._cluster.each(_correct, [work], lost=lambda _, error: _Corrected(error=in_words(error)))
        except (OSError, CtmarError) as error:  # no room, no workers, or those of another version
            result = _Corrected(error=in_words(error), waits=True)
        if result.error:
            if out.exists():
                shutil.rmtree(out)
            self._not_corrected(entry, result)
            return
        seconds = time.monotonic() - begin
        self._metrics.correcting.observe(seconds)
        found = {"slices": result.slices, "corrected": result.corrected, "failed": result.failed}
        if not result.corrected and rule.without_metal == "ignore":
            shutil.rmtree(out)
            self._end(entry, IGNORED, "nothing was corrected", **found)
            return
        to = [one.ae_title for one in self._settings.destinations_of(rule)]
        if self._spool.send(entry, name, to):
            self._log.info("corrected", series=entry.id, seconds=round(seconds, 1), to=to, **found)
        else:
            self._log.info("images came meanwhile", series=entry.id)

    def _not_corrected(self, entry: Entry, result: _Corrected) -> None:
        if result.final or (entry.attempts >= self._settings.attempts and not result.waits):
            self._end(entry, FAILED, result.error)
            return
        self._log.warning("not corrected", series=entry.id, attempt=entry.attempts, error=result.error)
        self._spool.again(entry, result.error, counted=not result.waits)
        self._stopped.wait(self._settings.retry_s)

    def _end(self, entry: Entry, state: str, why: str, **more: Any) -> None:
        self._spool.end(entry, state, why)
        self._metrics.ended.labels(state).inc()
        say = self._log.error if state == FAILED else self._log.info
        say(state, series=entry.id, why=why, **more)

    def send_one(self) -> bool:
        """Send what one destination lacks of a series."""
        found = self._spool.next_to_send()
        if found is None:
            return False
        entry, title, files = found
        destination = next((one for one in self._settings.destinations if one.ae_title == title), None)
        try:
            if destination is None:
                raise NotSentError("is no destination any more")
            for file in send(files, destination, self._settings):
                self._spool.sent(entry, title, file)
                self._metrics.sent.labels(title).inc()
        except DamagedError as error:
            self._log.warning("what was corrected is gone", series=entry.id, why=str(error))
            self._spool.again(entry, "what was corrected is gone")
            return True
        except Exception as error:  # whatever it is must not hold up other series and destinations
            why = str(error) if isinstance(error, NotSentError) else in_words(error)
            attempt = self._spool.send_later(entry, title, retry_s=self._settings.retry_s, why=why)
            self._metrics.not_sent.labels(title).inc()
            self._log.warning("not sent", series=entry.id, to=title, why=why, attempt=attempt)
            return True
        if self._spool.conclude(entry, title):
            latency = time.time() - entry.received
            self._metrics.latency.observe(latency)
            self._metrics.ended.labels("done").inc()
            self._log.info("done", series=entry.id, latency_s=round(latency, 1))
        return True


def _correct(work: _Work) -> _Corrected:
    """Correct a series, or each of its stacks, into the folder `out`; run by a worker."""
    settings = work.settings
    restorer = cached_restorer(settings.method, work.model, settings.device)
    if work.out.exists():  # of a worker that died at it
        remove(work.out)
    try:
        series = choose_series(find_series(work.source), all_=True)
        targets = [work.out / f"{number:03d}" for number in range(1, len(series) + 1)]
        results = [
            correct_series(one, to, settings, restorer=restorer) for one, to in zip(series, targets, strict=True)
        ]
    except CtmarError as error:
        return _Corrected(error=str(error).replace(str(work.source), "the series"), final=True)
    return _Corrected(
        sum(len(one.slices) for one in results),
        sum(one.corrected for one in results),
        sum(len(one.failed) for one in results),
    )
