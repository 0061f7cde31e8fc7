"""Seconds per slice of the CPU projectors beside ASTRA's, in one run: python -m benchmarks.projection [--json FILE]."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from data_sim.geometry import FanArc, FanFlat, Geometry, ImageGrid, Parallel
from data_sim.projection import Projector, astra

GRID = ImageGrid(512, 512, 0.8)
BATCHES = (1, 8, 32)


def seconds(work: Callable[[], Any], repeats: int = 3) -> float:
    """Median wall time after one run that is not counted (compilation, caches)."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def ours(geometry: Geometry) -> dict[str, float]:
    """Forward and FBP (filter included) per slice, for each batch size."""
    rng = np.random.default_rng(0)
    projector = Projector(geometry, GRID, device="cpu")
    result = {}
    for n in BATCHES:
        images = rng.random((n, *GRID.shape), np.float32)
        sinograms = projector.forward(images)
        result[f"forward, batch {n}"] = seconds(lambda i=images: projector.forward(i)) / n
        result[f"fbp, batch {n}"] = seconds(lambda s=sinograms: projector.fbp(s)) / n
    return result


def astra_cpu(geometry: FanFlat | Parallel) -> dict[str, float]:
    """ASTRA's CPU line models: forward and plain backprojection, without a filter."""
    rng = np.random.default_rng(0)
    image = rng.random((1, *GRID.shape), np.float32)
    sinogram = rng.random((1, *geometry.shape), np.float32)
    return {
        "forward": seconds(lambda: astra.forward(image, geometry, GRID, cuda=False), 1),
        "backprojection": seconds(lambda: astra.back(sinogram, geometry, GRID, cuda=False), 1),
    }


def main() -> None:
    """Print the table and, if asked, write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    file = parser.parse_args().json
    ours_s = {g.type: ours(g) for g in (FanArc(), FanFlat(), Parallel())}
    astra_s = {g.type: astra_cpu(g) for g in (FanFlat(), Parallel())}
    print(f"512 x 512 pixels, {os.cpu_count()} cores; seconds per slice")
    for name, row in ours_s.items():
        for what, value in row.items():
            print(f"  ours  {name:9} {what:20} {value:8.4f}")
    for name, row in astra_s.items():
        for what, value in row.items():
            print(f"  ASTRA {name:9} {what:20} {value:8.4f}")
    flat = astra_s["fan-flat"]
    ratios = {
        "fan_arc_forward_vs_astra_cpu": flat["forward"] / ours_s["fan-arc"]["forward, batch 32"],
        "fan_arc_fbp_vs_astra_cpu": flat["backprojection"] / ours_s["fan-arc"]["fbp, batch 32"],
        "fan_arc_forward_batch_1_vs_astra_cpu": flat["forward"] / ours_s["fan-arc"]["forward, batch 1"],
    }
    for what, value in ratios.items():
        print(f"  ratio {what} {value:.1f}")
    if file:
        file.write_text(json.dumps({"ratios": ratios, "seconds": {"ours": ours_s, "astra": astra_s}}, indent=1))


if __name__ == "__main__":
    main()
