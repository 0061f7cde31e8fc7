"""Cases a minute, beside a plain simulation with ASTRA on the CPU; and memory over many cases.

python -m benchmarks.simulation [--json FILE] [--cases N] [--side PX] [--views N] [--bins N]
python -m benchmarks.simulation --memory N

Ours: `simulate_slices` (two scans, two reconstructions), and the same with everything that a case file holds (BHC, LI,
NMAR1 and NMAR2 from raw data and from the stored image), on all cores; without placing and writing.

The peer does what a straightforward script does, and no corrections: one forward projection on ASTRA's `line_fanflat`
for each material of each scan, Beer-Lambert energy by energy in NumPy, Poisson noise, the water correction, and for
the two reconstructions a ramp filter (SciPy) and ASTRA's backprojection, which leaves out the distance weights. ASTRA
runs on one core: its time is divided by the number of cores, as if cases were shared out without loss.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctmar.case_maker import make_cases, write_cases
from ctmar.planning import PlacedCase, PlannedCase
from ctmar.screening import Screened
from ctmar.simulation_settings import SimulationSettings
from ctmar.sources import SourceSlice
from data_sim.acquisition import ScanSettings
from data_sim.geometry import FanFlat, ImageGrid
from data_sim.implants import coverage, fine_masks
from data_sim.materials import linear_attenuation
from data_sim.phantom import phantom_slice
from data_sim.placement import place
from data_sim.projection import astra, filters
from data_sim.scanner import simulate_slices
from data_sim.spectrum import load_spectrum
from data_sim.tissue import split_tissue
from data_sim.water_correction import apply_water_correction, fit_water_correction

SCAN = ScanSettings()
WIDTH_MM = 410.0


def placed_cases(count: int, grid: ImageGrid, settings: SimulationSettings) -> list[PlacedCase]:
    """Hips of titanium and iron in pelvises of the phantom."""
    cases = []
    for number in range(1, count + 1):
        image = phantom_slice("pelvis", grid=grid, seed=number)
        rng = np.random.default_rng((0, number))
        pieces = place("hip", image, grid, rng, ("ti", "fe"))
        if pieces is None:
            raise RuntimeError("the phantom has no room for a hip")
        planned = PlannedCase(number, "hip", Screened(SourceSlice("", _nothing), "", grid, ("hip",)))
        cases.append(PlacedCase(planned, image, grid, "", pieces, rng))
    return cases


def scan_ours(cases: list[PlacedCase], settings: SimulationSettings) -> None:
    """The scans alone."""
    simulate_slices(
        np.stack([case.image_hu for case in cases]),
        cases[0].grid,
        [case.pieces for case in cases],
        [case.rng for case in cases],
        geometry=settings.scanner(),
        settings=SCAN,
        device="cpu",
    )


def scan_peer(case: PlacedCase, geometry: FanFlat) -> None:
    """One case, with ASTRA and NumPy."""
    grid, spectrum = case.grid, load_spectrum(SCAN.kvp, SCAN.detector)
    fine_grid, masks = fine_masks(case.pieces, grid)
    metals = {code: coverage({code: mask}, fine_grid, grid) for code, mask in masks.items()}
    left = 1 - np.clip(sum(metals.values()), 0, 1)
    tissue = dict(zip(("water", "bone"), split_tissue(case.image_hu), strict=True))
    with_metal = {code: image * left for code, image in tissue.items()} | metals
    coefficients = fit_water_correction(spectrum)
    for images in (tissue, with_metal):
        paths = {code: astra.forward(image[None], geometry, grid, cuda=False)[0] for code, image in images.items()}
        intensity = np.zeros(geometry.shape)
        for energy, weight in zip(spectrum.energies_kev, spectrum.weights, strict=True):
            attenuation = np.zeros(geometry.shape)
            for code, path in paths.items():
                attenuation += float(linear_attenuation(code, energy)) * path
            intensity += weight * np.exp(-attenuation)
        counts = np.maximum(case.rng.poisson(SCAN.photons * intensity + SCAN.scatter_photons), 1)
        sinogram = apply_water_correction(-np.log(counts / SCAN.photons), coefficients)
        kernel = filters.ramp_kernel(geometry.bins, geometry.bin_pitch_mm)
        filtered = filters.apply_filter(
            np.ascontiguousarray(sinogram.T), filters.frequency_response(kernel, "hann", 1.0)
        )
        astra.back(np.ascontiguousarray(filtered.T)[None], geometry, grid, cuda=False)


def seconds(work: Callable[[], Any]) -> float:
    """Wall time of the second of two runs: the first compiles."""
    work()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def throughput(count: int, grid: ImageGrid, views: int | None, bins: int | None) -> dict[str, float]:
    """Cases a minute and their ratios."""
    settings = SimulationSettings(geometry="flat", views=views, bins=bins, scan=SCAN)
    geometry = settings.scanner()
    if not isinstance(geometry, FanFlat):
        raise TypeError("the peer needs a flat detector")
    cases = placed_cases(count, grid, settings)
    scan_s = seconds(partial(scan_ours, cases, settings)) / count
    whole_s = seconds(lambda: list(make_cases(cases, settings, device="cpu"))) / count
    peer_s = seconds(partial(scan_peer, cases[0], geometry)) / (os.cpu_count() or 1)
    return {
        "ours, scans, cases a minute": 60 / scan_s,
        "ours, scans and corrections, cases a minute": 60 / whole_s,
        "ASTRA and NumPy, scans, cases a minute": 60 / peer_s,
        "ratio, scans": peer_s / scan_s,
        "ratio, ours with corrections to the peer's scans": peer_s / whole_s,
    }


def memory(count: int) -> list[tuple[int, float, float]]:
    """(cases, resident MiB now, peak MiB) while cases of a small geometry are made and written, ten at a time."""
    settings = SimulationSettings(cases=count, implants=("clip",), views=90, bins=230, scan=SCAN)
    grid = ImageGrid(144, 144, 2.9)
    source = SourceSlice("phantom", partial(_small_slice, grid))
    rows = []
    with TemporaryDirectory() as folder:
        for start in range(0, count, 10):
            screened = Screened(source, "p", grid, ("clip",))
            batch = [PlannedCase(number, "clip", screened) for number in range(start + 1, min(start + 10, count) + 1)]
            write_cases(batch, out=Path(folder), settings=settings, device="cpu")
            for file in Path(folder).iterdir():
                file.unlink()
            done = start + len(batch)
            if start == 0 or done % max(10, count // 10 // 10 * 10) == 0 or done == count:
                rows.append((done, _resident_mib(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
                print(f"{done:6} cases: {rows[-1][1]:7.1f} MiB resident, peak {rows[-1][2]:7.1f} MiB", flush=True)
    return rows


def _small_slice(grid: ImageGrid) -> tuple[NDArray[np.float32], ImageGrid, str]:
    return phantom_slice("pelvis", grid=grid, seed=0), grid, "p"


def _nothing() -> tuple[NDArray[np.float32], ImageGrid, str]:
    raise AssertionError("the slice is in memory already")


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def main() -> None:
    """Print the figures and, if asked, write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--cases", type=int, default=16)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--views", type=int)
    parser.add_argument("--bins", type=int)
    parser.add_argument("--memory", type=int, metavar="N")
    given = parser.parse_args()
    result: dict[str, Any]
    if given.memory:
        result = {"memory": memory(given.memory)}
    else:
        grid = ImageGrid(given.side, given.side, WIDTH_MM / given.side)
        result = throughput(given.cases, grid, given.views, given.bins)
        print(f"{given.side} x {given.side} pixels, {os.cpu_count()} cores, batch of {given.cases}")
        for what, value in result.items():
            print(f"  {what:52} {value:8.1f}")
    if given.json:
        given.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
