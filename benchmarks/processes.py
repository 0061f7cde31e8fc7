"""Processes that tests and benchmarks begin and end: a Dask scheduler with workers, under a supervisor."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end(process: subprocess.Popen[bytes], *, seconds: float = 20) -> None:
    """End a process, by force if it takes its time."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@dataclass
class Processes:
    """Those that run now; the first is the scheduler."""

    address: str
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)
    starts: int = 0


@contextmanager
def scheduler_and_workers(
    count: int, folder: Path, *, environment: dict[str, str] | None = None
) -> Iterator[Processes]:
    """One scheduler on a free port of this machine and `count` workers of one thread, until the block ends."""
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    program = "import sys; from distributed.cli.dask_{0} import main; sys.argv[0] = 'dask-{0}'; main()"
    scheduler = ["--host", "127.0.0.1", "--port", str(port), "--no-dashboard", "--no-show"]
    worker = [address, "--nthreads", "1", "--no-dashboard", "--death-timeout", "60", "--local-directory", str(folder)]
    commands = [[sys.executable, "-c", program.format("scheduler"), *scheduler]]
    commands += [[sys.executable, "-c", program.format("worker"), *worker]] * count
    given = {**os.environ, **(environment or {})}
    found, ended = Processes(address), threading.Event()

    def start(command: Sequence[str]) -> subprocess.Popen[bytes]:
        found.starts += 1
        with (folder / "dask.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env=given)

    def supervise() -> None:
        while not ended.wait(0.2):
            for index, process in enumerate(found.running):
                if process.poll() is not None:
                    found.running[index] = start(commands[index])

    found.running = [start(command) for command in commands]
    supervisor = threading.Thread(target=supervise)
    supervisor.start()
    try:
        yield found
    finally:
        ended.set()
        supervisor.join()
        for process in reversed(found.running):
            process.terminate()
        for process in found.running:
            end(process)
