"""A DICOM series from end to end: slices a second beside a plain pipeline, and memory by the length of the series.

python -m benchmarks.correction [--slices N] [--metal N] [--peer N] [--method NAME] [--model NAME] [--json FILE]
python -m benchmarks.correction --memory 50,200,1000 [--json FILE]

Ours: `correct_series`, from headers to the last file written, on all cores. Slices with metal cost what a whole series
takes longer than one without.

The peer does what a plain script does, one slice after the other: read with pydicom, the same corrections and the same
network in torch, but with ASTRA's CPU projections (`line_fanflat`, one core), then write. A few slices are timed. Torch
uses all cores in both; in the second ratio all of the peer's time is divided by the number of cores, as if slices were
shared out without loss. `--peer 0` leaves it out.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

from benchmarks.machine import describe
from ctmar.correction import correct_series
from ctmar.correction_settings import CorrectionSettings
from ctmar.dicom.series import choose_series, find_series
from ctmar.dicom.synthetic import ct_dataset, save
from ctmar.methods import Correction
from ctmar.restorer import DEFAULT_MODEL, NetworkRestorer, restorer_for
from ctmar.segmentation import metal_mask
from data_sim.acquisition import ScanSettings
from data_sim.geometry import FanArc, FanFlat, ImageGrid
from data_sim.phantom import phantom_slice
from data_sim.placement import place
from data_sim.projection import astra, filters
from data_sim.scanner import simulate_slices
from data_sim.units import MU_WATER_PER_MM

GRID = ImageGrid(512, 512, 0.8)
FLAT = FanFlat()
SPACING_MM = 2.0


def write_series(folder: Path, slices: int, metal: int) -> None:
    """A pelvis of the phantom as a DICOM series; hip prostheses in `metal` slices in its middle."""
    rng = np.random.default_rng(0)
    clean = phantom_slice("pelvis", grid=GRID, seed=1)
    pieces = place("hip", clean, GRID, rng, ("cocrmo",))
    if pieces is None:
        raise RuntimeError("the phantom has no room for a hip")
    scanned = simulate_slices(
        clean[None], GRID, [pieces], [rng], geometry=FanArc(), settings=ScanSettings(), device="cpu"
    )
    images = [np.clip(image[0], -1024, 3071) for image in (scanned.reference_hu, scanned.uncorrected_hu)]
    first = (slices - metal) // 2
    for k in range(slices):
        image = images[first <= k < first + metal]
        dataset = ct_dataset(image, z_mm=SPACING_MM * k, number=k + 1, pixel_mm=GRID.pixel_mm)
        save(dataset, folder / f"{k:04d}.dcm")


def seconds_of_ours(source: Path, method: str, restorer: NetworkRestorer | None) -> float:
    """Wall time of a whole series."""
    settings = CorrectionSettings(method=method, device="cpu")
    with TemporaryDirectory() as folder:
        start = time.perf_counter()
        result = correct_series(
            choose_series(find_series(source))[0], Path(folder) / "out", settings, restorer=restorer
        )
        took = time.perf_counter() - start
    if result.failed:
        raise RuntimeError(f"{len(result.failed)} slices failed")
    return took


class PlainProjector:
    """ASTRA's CPU projections as `Correction` uses a projector."""

    grid, geometry = GRID, FLAT

    def forward(self, images: NDArray[Any], *, rays: object = None) -> NDArray[np.float32]:
        """All rays: ASTRA knows no other."""
        return astra.forward(np.asarray(images, np.float32), FLAT, GRID, cuda=False)

    def fbp(self, sinograms: NDArray[np.float32], *, window: str) -> NDArray[np.float32]:
        """A filter and ASTRA's backprojection, which leaves out the distance weights."""
        kernel = filters.ramp_kernel(FLAT.bins, FLAT.bin_pitch_mm)
        response = filters.frequency_response(kernel, window, 1.0)
        bins_first = [filters.apply_filter(np.ascontiguousarray(one.T), response) for one in sinograms]
        return astra.back(np.stack([one.T for one in bins_first]), FLAT, GRID, cuda=False)


def seconds_of_peer(files: list[Path], method: str, restorer: NetworkRestorer | None) -> float:
    """Wall time a slice with metal."""
    start = time.perf_counter()
    with TemporaryDirectory() as folder:
        for file in files:
            dataset = pydicom.dcmread(file)
            image = (dataset.pixel_array * dataset.RescaleSlope + dataset.RescaleIntercept).astype(np.float32)[None]
            correction = Correction.of_image(
                image,
                metal_mask(image, pixel_mm=GRID.pixel_mm),
                PlainProjector(),  # type: ignore[arg-type]
                mu_water_per_mm=MU_WATER_PER_MM,
                restorer=restorer,
            )
            stored = np.rint((correction.image(method)[0] - dataset.RescaleIntercept) / dataset.RescaleSlope)
            dataset.PixelData = np.clip(stored, 0, 4095).astype("<u2").tobytes()
            dataset.save_as(Path(folder) / file.name)
    return (time.perf_counter() - start) / len(files)


def throughput(slices: int, metal: int, peer: int, method: str, model: str) -> dict[str, float]:
    """Slices a second and ratios; without slices for the peer, only ours."""
    restorer = restorer_for(method, model, device="cpu")
    with TemporaryDirectory() as folder:
        write_series(Path(folder) / "warm", 16, 8)
        write_series(Path(folder) / "clean", slices, 0)
        write_series(Path(folder) / "metal", slices, metal)
        seconds_of_ours(Path(folder) / "warm", method, restorer)
        clean_s = seconds_of_ours(Path(folder) / "clean", method, restorer)
        metal_s = seconds_of_ours(Path(folder) / "metal", method, restorer)
        ours_s = (metal_s - clean_s) / metal + clean_s / slices
        ours = {
            "whole series, s": metal_s,
            "whole series, slices a second": slices / metal_s,
            "slices without metal, slices a second": slices / clean_s,
            "ours, s a slice with metal": ours_s,
        }
        if not peer:
            return ours
        first = (slices - metal) // 2
        files = sorted((Path(folder) / "metal").iterdir())[first : first + peer]
        peer_s = seconds_of_peer(files, method, restorer)
    return ours | {
        "ASTRA CPU and torch, s a slice with metal": peer_s,
        "ratio on slices with metal": peer_s / ours_s,
        "ratio, the peer credited with all cores": peer_s / (os.cpu_count() or 1) / ours_s,
    }


def memory(slices: int, method: str, model: str) -> float:
    """Peak MiB of this process after a series of which three in ten slices hold metal."""
    restorer = restorer_for(method, model, device="cpu")
    with TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-c", _WRITE.format(folder=folder, slices=slices)], check=True)
        seconds_of_ours(Path(folder) / "series", method, restorer)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


_WRITE = """
from pathlib import Path
from benchmarks.correction import write_series
write_series(Path({folder!r}) / "series", {slices}, {slices} * 3 // 10)
"""


def main() -> None:
    """Print the figures and, if asked, write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--metal", type=int, default=60)
    parser.add_argument("--peer", type=int, default=3)
    parser.add_argument("--method", default="cnn-mar")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--memory", metavar="N,N,...")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    print(describe())
    result: dict[str, float] = {}
    if given.memory and "," not in given.memory:
        result = {f"peak MiB, {given.memory} slices": memory(int(given.memory), given.method, given.model)}
    elif given.memory:
        for count in given.memory.split(","):  # each in a process of its own: the peak of one is never given back
            with TemporaryDirectory() as folder:
                out = Path(folder) / "memory.json"
                again = [sys.executable, "-m", "benchmarks.correction", "--memory", count, "--method", given.method]
                again += ["--model", given.model]
                subprocess.run([*again, "--json", str(out)], check=True, stdout=subprocess.DEVNULL)
                result |= json.loads(out.read_text())
    else:
        result = throughput(given.slices, given.metal, given.peer, given.method, given.model)
        print(f"{given.slices} slices of 512 x 512, {given.metal} with metal, {given.method}, model {given.model}")
    for what, value in result.items():
        print(f"  {what:48} {value:9.2f}")
    if given.json:
        given.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
