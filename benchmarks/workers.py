"""Series corrected and cases simulated by one process, by one Dask worker, and by several.

python -m benchmarks.workers [--series N] [--slices N] [--cases N] [--workers N] [--method NAME]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.lost_workers import command, write_series
from benchmarks.processes import scheduler_and_workers
from data_sim.geometry import ImageGrid

_THREADS = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
GRID = ImageGrid(512, 512, 0.8)


def timed(arguments: list[str]) -> float:
    """Seconds of a program."""
    begin = time.monotonic()
    subprocess.run(arguments, check=True, capture_output=True)
    return time.monotonic() - begin


def main() -> None:
    """Print seconds and ratios: one process with all cores; one Dask worker of one core; several."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("series", 4), ("slices", 10), ("cases", 8), ("workers", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--method", default="nmar2")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_series(folder / "source", given.series, given.slices, grid=GRID)
        write_series(folder / "warm", 1, 1, grid=GRID)
        timed([sys.executable, "-m", "ctmar", "correct", str(folder / "warm"), "--out", str(folder / "w")])
        series = f"{given.series} series of {given.slices} slices of 512 x 512"
        works = {
            f"correct, {series}, {given.method}": lambda out: command(
                folder / "source", out, "--method", given.method
            ),
            f"simulate, {given.cases} cases of the phantom": lambda out: [
                sys.executable, "-m", "ctmar", "simulate", "phantom", "--out", str(out), "--cases", str(given.cases),
                "--seed", "1", "--implants", "hip",
            ],
        }  # fmt: skip
        for index, (what, work) in enumerate(works.items()):
            print(what, flush=True)
            seconds = timed(work(folder / f"{index}-alone"))
            print(f"  one process, {os.cpu_count()} cores: {seconds:.1f} s", flush=True)
            one = 0.0
            for workers in (1, given.workers):
                scratch = folder / f"scratch-{index}-{workers}"
                scratch.mkdir()
                with scheduler_and_workers(workers, scratch, environment=dict.fromkeys(_THREADS, "1")) as processes:
                    time.sleep(10)  # workers begin, which on a cluster they have done long ago
                    out = folder / f"{index}-{workers}"
                    seconds = timed([*work(out), "--scheduler", processes.address])
                one = one or seconds
                print(f"  {workers} worker(s) of one core: {seconds:.1f} s, {one / seconds:.2f} x one", flush=True)


if __name__ == "__main__":
    main()
