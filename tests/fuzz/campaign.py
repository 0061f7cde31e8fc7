"""Many inputs, in a process that may die of one of them."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.inputs import draw
from tests.fuzz.seeds import make_seeds, odd_seeds

ROOT = Path(__file__).parents[2]
HARD_SECONDS = 120.0
"""For the first input this includes the start of the process; a call into a library that hangs is not interrupted earlier."""


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
    summary = Summary()
    begin = time.monotonic()
    at, end = first, first + inputs
    while at < end:
        at = _run_worker(summary, at, end, seed, odd, show=show)
    summary.seconds = time.monotonic() - begin
    if save and summary.failures:
        seeds = make_seeds() | (odd_seeds(odd) if odd else {})
        for index, _, kind, detail in summary.failures:
            _, chosen = draw(seeds, seed, index)
            for name, content in chosen.files.items():
                file = save / str(index) / "input" / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            (save / str(index) / "what.txt").write_text(f"{kind}\nsource {chosen.source!r} {chosen.flags}\n{detail}\n")
    return summary


def _run_worker(summary: Summary, at: int, end: int, seed: int, odd: Path | None, *, show: bool) -> int:
    """Run until the end or until the process dies; returns the number of the next input."""
    command = [sys.executable, "-m", "tests.fuzz", "--worker", "--first", str(at), "--inputs", str(end - at)]
    command += ["--seed", str(seed), *(["--odd", str(odd)] if odd else [])]
    started, counted = at, summary.inputs
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
                        summary.add(json.loads(line))
                        at += 1
                        if show and summary.inputs % 1000 == 0:
                            print(
                                f"{summary.inputs} inputs, {len(summary.failures)} failures",
                                file=sys.stderr,
                                flush=True,
                            )
        code = process.wait()
    if at == end:
        return at
    if at == started and summary.inputs == counted and code > 0:
        raise RuntimeError(f"the fuzzer itself failed:\n{errors.decode(errors='replace')}")
    kind = "FAIL hang in a library" if code == -9 else f"FAIL crash (exit {code})"
    name = draw(make_seeds() | (odd_seeds(odd) if odd else {}), seed, at)[0]
    detail = errors.decode(errors="replace")
    summary.add({"index": at, "seed": name, "kind": kind, "seconds": 0, "peak_mib": 0, "detail": detail})
    return at + 1
