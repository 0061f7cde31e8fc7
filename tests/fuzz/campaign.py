"""Many inputs, in a process that may die of one of them."""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.inputs import draw
from tests.fuzz.seeds import Seed, make_seeds, odd_seeds

ROOT = Path(__file__).parents[2]
HARD_SECONDS = 120.0
"""After which a process is ended; with its start for the first input. A call into a library hears no alarm."""


@dataclass
class Summary:
    """What came of a campaign."""

    inputs: int = 0
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    by_seed: dict[str, Counter[str]] = field(default_factory=dict)
    slowest: tuple[float, int] = (0.0, -1)
    largest_mib: tuple[float, int] = (0.0, -1)
    failures: list[tuple[int, str, str, str]] = field(default_factory=list)

    def add(self, line: dict[str, object]) -> None:
        """Count one input."""
        kind, index, name = str(line["kind"]), int(str(line["index"])), str(line["seed"])
        self.inputs += 1
        self.outcomes[kind] += 1
        self.by_seed.setdefault(name, Counter())[kind if not kind.startswith("FAIL") else "FAIL"] += 1
        self.slowest = max(self.slowest, (float(str(line["seconds"])), index))
        self.largest_mib = max(self.largest_mib, (float(str(line["peak_mib"])), index))
        if kind.startswith("FAIL"):
            self.failures.append((index, name, kind, str(line["detail"])))

    def table(self) -> str:
        """Outcomes with their numbers, and the costs, as text."""
        lines = [
            f"{count:8d}  {100 * count / self.inputs:5.1f} %  {kind}" for kind, count in self.outcomes.most_common()
        ]
        lines.append(
            f"{self.inputs} inputs in {self.seconds:.0f} s ({self.inputs / max(self.seconds, 1e-9):.0f} a second); "
            f"slowest {self.slowest[0]:.2f} s (input {self.slowest[1]}), "
            f"most memory {self.largest_mib[0]:.0f} MiB (input {self.largest_mib[1]})"
        )
        first = {}
        for index, name, kind, _ in self.failures:
            first.setdefault(kind, f"  {kind}: first by input {index}, from seed {name}")
        return "\n".join([*lines, f"{len(self.failures)} failures", *first.values()])


def campaign(
    inputs: int, seed: int, *, first: int = 0, odd: Path | None = None, save: Path | None = None, show: bool = False
) -> Summary:
    """Run inputs `first` to `first + inputs`; those that fail are saved in a folder each, with what happened."""
    run = _Campaign(make_seeds() | (odd_seeds(odd) if odd else {}), seed, odd, save, show)
    begin = time.monotonic()
    at, end = first, first + inputs
    with contextlib.suppress(KeyboardInterrupt):  # what came of it so far is told as well
        while at < end:
            at = run.worker(at, end)
    run.summary.seconds = time.monotonic() - begin
    return run.summary


@dataclass
class _Campaign:
    """What one is run with, and what came of it so far."""

    seeds: dict[str, Seed]
    seed: int
    odd: Path | None
    save: Path | None
    show: bool
    summary: Summary = field(default_factory=Summary)

    def worker(self, at: int, end: int) -> int:
        """Run a process until the end or until it dies; returns the number of the next input."""
        command = [sys.executable, "-m", "tests.fuzz", "--worker", "--first", str(at), "--inputs", str(end - at)]
        command += ["--seed", str(self.seed), *(["--odd", str(self.odd)] if self.odd else [])]
        started = at
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            rest, errors = b"", b""
            streams = [process.stdout, process.stderr]
            while streams:
                ready, _, _ = select.select(streams, [], [], HARD_SECONDS)
                if not ready:
                    process.kill()
                    break
                for stream in ready:
                    chunk = stream.read(65536)
                    if not chunk:
                        streams.remove(stream)
                    elif stream is process.stderr:
                        errors = (errors + chunk)[-4000:]
                    else:
                        *lines, rest = (rest + chunk).split(b"\n")
                        for line in lines:
                            self._add(json.loads(line))
                            at += 1
            code = process.wait()
        if at == end:
            return at
        detail = errors.decode(errors="replace")
        if at == started and code > 0:
            raise RuntimeError(f"the fuzzer itself failed:\n{detail}")
        kind = "FAIL hang in a library" if code == -9 else f"FAIL crash (exit {code})"
        name = draw(self.seeds, self.seed, at)[0]
        self._add({"index": at, "seed": name, "kind": kind, "seconds": 0, "peak_mib": 0, "detail": detail})
        return at + 1

    def _add(self, line: dict[str, object]) -> None:
        before = len(self.summary.failures)
        self.summary.add(line)
        if self.show and self.summary.inputs % 1000 == 0:
            text = f"{self.summary.inputs} inputs, {len(self.summary.failures)} failures"
            print(text, file=sys.stderr, flush=True)
        if self.save and len(self.summary.failures) > before:
            self._keep(self.save)

    def _keep(self, folder: Path) -> None:
        """Save the input that failed last."""
        index, _, kind, detail = self.summary.failures[-1]
        _, chosen = draw(self.seeds, self.seed, index)
        for name, content in chosen.files.items():
            file = folder / str(index) / "input" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        (folder / str(index) / "what.txt").write_text(f"{kind}\nsource {chosen.source!r} {chosen.flags}\n{detail}\n")
