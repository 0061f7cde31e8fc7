"""Kill a simulation at random times, resume it each time, and compare with one that ran through, file by file.

python -m benchmarks.interruptions [--kills N] [--cases N] [--workers N] [--seed N]
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ctmar.dicom.synthetic import write_ct_series
from data_sim.geometry import ImageGrid
from data_sim.phantom import phantom_slice

GRID = ImageGrid(144, 144, 2.9)
COMMAND = (sys.executable, "-c", "from ctmar.cli import main; main()", "simulate")
FLAGS = ("--seed", "5", "--implants", "clip,random", "--views", "90", "--bins", "230", "--device", "cpu", "--dicom")


def write_source(folder: Path) -> None:
    """Two patients of the phantom as DICOM, small enough to be screened at once."""
    for seed in (0, 1):
        image = phantom_slice("pelvis", grid=GRID, seed=seed, z_mm=0.0)
        series = f"1.2.826.0.1.{seed + 1}"
        write_ct_series(folder / str(seed), image[None], pixel_mm=GRID.pixel_mm, series_uid=series)


def start(source: Path, out: Path, cases: int, workers: int) -> subprocess.Popen[bytes]:
    """The command, which also resumes what is there."""
    flags = (*FLAGS, "--cases", str(cases), "--workers", str(workers), "--resume", "--out", str(out))
    return subprocess.Popen((*COMMAND, str(source), *flags), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    """Wait for the command; raises RuntimeError with its message where it fails."""
    _, message = process.communicate()
    if process.returncode:
        raise RuntimeError(message.decode())


def files(folder: Path) -> dict[str, bytes]:
    """Every file below, hidden ones too, with its content."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def run(folder: Path, *, kills: int, cases: int, workers: int, seed: int) -> tuple[list[float], list[str], int]:
    """Returns the seconds after which the command was killed, the files that differ, and how many there are."""
    source, whole, broken = folder / "source", folder / "whole", folder / "broken"
    write_source(source)
    finish(start(source, whole, 1, 1))  # compiles and caches the kernels
    shutil.rmtree(whole)
    begin = time.monotonic()
    finish(start(source, whole, cases, workers))
    seconds = time.monotonic() - begin
    chance = random.Random(seed)
    times: list[float] = []
    while len(times) < kills:
        process = start(source, broken, cases, workers)
        after = chance.uniform(0, seconds)
        try:
            process.communicate(timeout=after)
            shutil.rmtree(broken)  # it was quicker: begin again
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()  # ends when every worker that holds the other end of stderr has ended, too
            times.append(after)
    finish(start(source, broken, cases, workers))
    one, other = files(whole), files(broken)
    differing = [name for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name)]
    return times, differing, len(one)


def main() -> None:
    """Print what was done and what differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        times, differing, count = run(
            Path(folder), kills=given.kills, cases=given.cases, workers=given.workers, seed=given.seed
        )
    print(f"killed {len(times)} times, after {', '.join(f'{t:.1f}' for t in times)} s")
    print(f"{count} files, {len(differing)} of them differ from a run without interruption{':' if differing else ''}")
    for name in differing:
        print(f"  {name}")


if __name__ == "__main__":
    main()
