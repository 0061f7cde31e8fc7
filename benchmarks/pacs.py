"""Series from an Orthanc through `ctmar serve` and back, while the node is killed; what is lost, twice, and how long.

python -m benchmarks.pacs [--series N] [--slices N] [--kills N] [--senders N] [--workers N] [--method NAME]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.error
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.lost_workers import write_series
from benchmarks.processes import end, free_port
from tests.conformance.orthanc import Orthanc, running

_SECONDS = 300.0
_TOML = """\
spool = "{spool}"
port = {port}
monitor_port = {monitor}
quiet_s = 1
timeout_s = 30
retry_s = 0.5
min_free_gb = 0.05
max_object_mb = {largest}
workers = {workers}

[[peers]]
ae_title = "ORTHANC"
hosts = ["127.0.0.1"]

[[destinations]]
ae_title = "ORTHANC"
host = "127.0.0.1"
port = {destination}

[[rules]]
method = "{method}"
"""


@dataclass
class Node:
    """The service as a process: begun, killed, begun again."""

    config: Path
    log: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0

    def start(self) -> None:
        """Begin it, and wait until it listens."""
        heard = self._listening()
        self.starts += 1
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "ctmar", "serve", "--config", str(self.config)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        end = time.monotonic() + 60
        while self._listening() == heard:
            if time.monotonic() > end or self.process.poll() is not None:
                raise RuntimeError(self.log.read_text()[-2000:])
            time.sleep(0.05)

    def kill(self) -> None:
        """As a power cut would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def events(self) -> list[dict[str, object]]:
        """Its log."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def _listening(self) -> int:
        return sum(event["event"] == "listening" for event in self.events())


@contextmanager
def node(
    folder: Path, *, destination: int, method: str = "li", workers: int = 1, largest_mb: float = 1024, port: int = 0
) -> Iterator[Node]:
    """A node that sends to a port of this machine, until the block ends."""
    port = port or free_port()
    spool = folder / "spool"
    text = _TOML.format(
        spool=spool, port=port, monitor=free_port(), largest=largest_mb, workers=workers, destination=destination,
        method=method,
    )  # fmt: skip
    (folder / "serve.toml").write_text(text)
    found = Node(folder / "serve.toml", folder / "node.log", port)
    found.start()
    try:
        yield found
    finally:
        assert found.process is not None
        end(found.process)


@dataclass(frozen=True)
class Result:
    """What came back.

    `derived` counts the derived series by their number of images; `latencies_s` are from the last image received to the
    last one sent.
    """

    seconds: float
    starts: int
    derived: dict[int, int]
    sources: int
    latencies_s: list[float] = field(default_factory=list)


def run(folder: Path, *, series: int, slices: int, kills: int, senders: int, workers: int, method: str) -> Result:
    """Push series of an Orthanc through a node on several associations at a time; kill the node on the way."""
    port = free_port()
    write_series(folder / "source", series, slices)
    (folder / "orthanc").mkdir()
    with running(folder / "orthanc", modalities={"CTMAR": port}) as orthanc:
        orthanc.store_by_rest(sorted((folder / "source").rglob("*.dcm")))
        sources = {one["ID"] for one in orthanc.json("/series?expand")}
        with node(folder, destination=orthanc.dicom_port, port=port, workers=workers, method=method) as service:
            begin = time.monotonic()
            with ThreadPoolExecutor(senders) as pool:
                sent = [pool.submit(_send, orthanc, one) for one in sorted(sources)]
                for kill in range(1, kills + 1):
                    _wait(orthanc, sources, series * kill // (kills + 1), slices)
                    service.kill()
                    service.start()
                for one in sent:
                    one.result()
            _wait(orthanc, sources, series, slices)
            seconds = time.monotonic() - begin
            time.sleep(3)  # for what might come twice
            events = service.events()
            starts = service.starts
        counts = _derived(orthanc, sources)
    latencies = [float(str(event["latency_s"])) for event in events if event["event"] == "done"]
    return Result(seconds, starts, {n: counts.count(n) for n in sorted(set(counts))}, len(sources), latencies)


def _send(orthanc: Orthanc, series: str) -> None:
    """Send until it is there, as a router does."""
    end = time.monotonic() + _SECONDS
    while True:
        try:
            orthanc.send_series(series, "CTMAR")
        except (urllib.error.URLError, OSError):
            if time.monotonic() > end:
                raise
            time.sleep(0.5)
        else:
            return


def _derived(orthanc: Orthanc, sources: set[str]) -> list[int]:
    """Images of every series that is not a source."""
    return [len(one["Instances"]) for one in orthanc.json("/series?expand") if one["ID"] not in sources]


def _wait(orthanc: Orthanc, sources: set[str], count: int, slices: int) -> None:
    """Until so many derived series are whole."""
    end = time.monotonic() + _SECONDS
    while sum(n >= slices for n in _derived(orthanc, sources)) < count:
        if time.monotonic() > end:
            raise RuntimeError(f"{count} series did not come back: {_derived(orthanc, sources)}")
        time.sleep(0.1)


def main() -> None:
    """Print what came back, and how fast."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("series", 50), ("slices", 4), ("kills", 3), ("senders", 4), ("workers", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--method", default="nmar2")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = run(Path(folder), **vars(given))
    images = given.slices * given.series
    print(f"{result.sources} series sent, {result.starts} starts of the node, {result.seconds:.1f} s")
    print(f"derived series by their number of images: {result.derived}")
    print(f"{60 * given.series / result.seconds:.0f} series, {60 * images / result.seconds:.0f} images a minute")
    ordered = sorted(result.latencies_s)
    if ordered:
        print(f"latency: median {ordered[len(ordered) // 2]:.1f} s, longest {ordered[-1]:.1f} s")


if __name__ == "__main__":
    main()
