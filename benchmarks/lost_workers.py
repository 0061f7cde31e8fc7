"""Correct many series by Dask while a worker is killed and the scheduler restarted; compare with a serial run.

python -m benchmarks.lost_workers [--series N] [--slices N] [--method NAME]
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom

from benchmarks.processes import scheduler_and_workers
from ctmar.dicom.synthetic import write_ct_series
from data_sim.geometry import ImageGrid
from data_sim.phantom import phantom_slice

GRID = ImageGrid(160, 160, 2.6)
PIN_MM = 8.0


@dataclass(frozen=True)
class Result:
    """Seconds of the serial run and of the disturbed one; how many series and files; which of them differ."""

    serial_s: float
    disturbed_s: float
    starts: int
    series: int
    files: int
    differing: list[str]


def write_series(folder: Path, count: int, slices: int, *, grid: ImageGrid = GRID) -> None:
    """Series of phantom pelvises with a pin that a scanner would clip."""
    for number in range(count):
        volume = np.stack([phantom_slice("pelvis", grid=grid, seed=number % 6, z_mm=2.0 * k) for k in range(slices)])
        radius_mm = np.hypot(grid.x_mm()[None] - 60 + number, grid.y_mm()[:, None])
        volume[:, radius_mm < PIN_MM] = 3071
        write_ct_series(folder / f"{number:03d}", volume, pixel_mm=grid.pixel_mm, series_uid=f"1.2.826.0.1.9.{number}")


def command(source: Path, out: Path, *flags: str) -> list[str]:
    """The program on all series of a folder."""
    return [sys.executable, "-m", "ctmar", "correct", str(source), "--all", "--out", str(out), *flags]


def content(out: Path) -> dict[str, bytes | str]:
    """Pixels of every image, and what the reports say besides UIDs and times."""
    found: dict[str, bytes | str] = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if path.suffix == ".dcm":
            found[name] = pydicom.dcmread(path).PixelData
        elif path.name == "report.json":
            report = json.loads(path.read_text())
            report["seconds"] = report["derived_uid"] = None
            report["slices"] = [{**one, "derived_uid": None} for one in report["slices"]]
            found[name] = json.dumps(report)
        elif path.is_file():
            found[name] = "" if path.name == "batch.json" else path.read_bytes()
    return found


def run(folder: Path, *, series: int, slices: int, method: str) -> Result:
    """Correct in one process; then by two workers, one of which is killed, under a scheduler that is restarted."""
    source, serial, shared = folder / "source", folder / "serial", folder / "shared"
    write_series(source, series, slices)
    begin = time.monotonic()
    subprocess.run(command(source, serial, "--method", method), check=True, capture_output=True)
    serial_s = time.monotonic() - begin
    (folder / "scratch").mkdir()
    with scheduler_and_workers(2, folder / "scratch") as processes:
        begin = time.monotonic()
        flags = ("--method", method, "--scheduler", processes.address)
        with (
            (folder / "log").open("wb") as log,
            subprocess.Popen(command(source, shared, *flags), stderr=log) as client,
        ):
            _wait_for(shared, series // 5, client)
            processes.running[1].send_signal(signal.SIGKILL)
            _wait_for(shared, series // 2, client)
            processes.running[0].send_signal(signal.SIGKILL)
        disturbed_s = time.monotonic() - begin
        if client.returncode:
            raise RuntimeError((folder / "log").read_text())
        starts = processes.starts
    one, other = content(serial), content(shared)
    differing = [name for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name)]
    return Result(serial_s, disturbed_s, starts, len(list(shared.glob("series-*"))), len(other), differing)


def _wait_for(out: Path, count: int, client: subprocess.Popen[bytes]) -> None:
    """Until so many series are there, or the program has ended."""
    while len(list(out.glob("series-*"))) < count and client.poll() is None:
        time.sleep(0.02)


def main() -> None:
    """Print what was done and what differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=20)
    parser.add_argument("--slices", type=int, default=5)
    parser.add_argument("--method", default="nmar2")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = run(Path(folder), series=given.series, slices=given.slices, method=given.method)
    print(f"one process {result.serial_s:.1f} s; two workers, disturbed, {result.disturbed_s:.1f} s")
    print(f"{result.starts} processes started; {result.series} series, {result.files} files")
    print(f"files that differ: {', '.join(result.differing) or 'none'}")


if __name__ == "__main__":
    main()
