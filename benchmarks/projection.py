"""Seconds per slice of the CPU projectors beside those of other libraries, in one run.

    python -m benchmarks.projection [--json FILE] [--quick]

512 x 512 pixels. Fans: 984 views x 920 bins; parallel: 720 views x 512 bins, as wide as the image, since scikit-image
and algotom know nothing else. Our FBP includes the filter; ASTRA's backprojection is that alone. scikit-image and
algotom are left out, saying so, where they are not installed (``pip install ctmar[bench]`` brings algotom).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe, peak_bytes, peak_flops, seconds
from data_sim.geometry import FanArc, FanFlat, Geometry, ImageGrid, Parallel
from data_sim.kernels import thread_count
from data_sim.projection import Projector, astra

GRID = ImageGrid(512, 512, 0.8)
GEOMETRIES: dict[str, Geometry] = {
    "fan-arc": FanArc(),
    "fan-flat": FanFlat(),
    "parallel": Parallel(views=720, bins=512, bin_pitch_mm=0.8),
}
BATCHES = (1, 8, 32)

Seconds = dict[str, float]


def ours(geometry: Geometry, batches: tuple[int, ...]) -> Seconds:
    """Forward and FBP (filter included) per slice, for each batch size."""
    rng = np.random.default_rng(0)
    projector = Projector(geometry, GRID, device="cpu")
    result = {}
    for n in batches:
        images = rng.random((n, *GRID.shape), np.float32)
        sinograms = projector.forward(images)
        result[f"forward, batch {n}"] = seconds(lambda i=images: projector.forward(i)) / n
        result[f"fbp, batch {n}"] = seconds(lambda s=sinograms: projector.fbp(s)) / n
    return result


def astra_cpu(geometry: Geometry) -> Seconds:
    """ASTRA's CPU line models (`line_fanflat`; `linear` for parallel beams): forward, and backprojection alone."""
    rng = np.random.default_rng(0)
    image = rng.random((1, *GRID.shape), np.float32)
    sinogram = rng.random((1, *geometry.shape), np.float32)
    return {
        "forward": seconds(lambda: astra.forward(image, geometry, GRID, cuda=False), 2),
        "backprojection": seconds(lambda: astra.back(sinogram, geometry, GRID, cuda=False), 2),
    }


def parallel_peers(sinogram: np.ndarray[Any, Any]) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """(name, what, work) of other libraries' parallel FBP and projection; `sinogram` is (views, bins)."""
    degrees = np.rad2deg(GEOMETRIES["parallel"].view_angles_rad())
    try:
        from skimage.transform import iradon, radon
    except ImportError:
        print("scikit-image is not installed: left out")
    else:
        image = np.zeros(GRID.shape, np.float32)
        image[128:384, 128:384] = 1
        yield "scikit-image", "radon", lambda: radon(image, degrees, circle=True)
        yield "scikit-image", "iradon", lambda: iradon(sinogram.T, degrees, circle=True)
    try:
        from algotom.rec.reconstruction import fbp_reconstruction
    except ImportError:
        print("algotom is not installed: left out")
    else:
        stack = np.ascontiguousarray(np.repeat(sinogram[:, None], 32, axis=1))
        options = {"angles": np.deg2rad(degrees), "filter_name": None, "apply_log": False, "gpu": False}
        yield "algotom", "fbp", lambda: fbp_reconstruction(sinogram, 255.5, **options)
        yield "algotom", "fbp, 32 slices", lambda: fbp_reconstruction(stack, 255.5, **options)


def work_per_slice(geometry: Geometry) -> dict[str, float]:
    """Multiply-adds of the data (two operations each) and the bytes that have to move once.

    Forward: two a step of each ray within the image. Backprojection: two a pixel and view.
    """
    theta, _ = geometry.line_coordinates()
    length_mm = Projector(geometry, GRID, device="cpu").forward(np.ones(GRID.shape, np.float32))
    steps = (length_mm * np.maximum(np.abs(np.cos(theta)), np.abs(np.sin(theta)))).sum(dtype=float) / GRID.pixel_mm
    data = 4 * (GRID.rows * GRID.cols + geometry.views * geometry.bins)
    return {"forward": 4 * steps, "backprojection": 4 * GRID.rows * GRID.cols * geometry.views, "bytes": data}


def run(batches: tuple[int, ...]) -> dict[str, Any]:
    """All figures of a run."""
    machine = {"flops": peak_flops(), "bytes": peak_bytes(), "what": describe(), "threads": thread_count()}
    print(f"{machine['what']}; {thread_count()} threads")
    print(f"float32 matrix product {machine['flops'] / 1e9:.0f} GFLOP/s, copy {machine['bytes'] / 1e9:.1f} GB/s")
    result: dict[str, Any] = {"machine": machine, "seconds": {"ours": {}, "astra": {}, "peers": {}}, "roofline": {}}
    for name, geometry in GEOMETRIES.items():
        result["seconds"]["ours"][name] = _show(f"ours {name}", ours(geometry, batches))
    for name in ("fan-flat", "parallel"):
        result["seconds"]["astra"][name] = _show(f"ASTRA CPU {name}", astra_cpu(GEOMETRIES[name]))
    sinogram = Projector(GEOMETRIES["parallel"], GRID, device="cpu").forward(np.ones(GRID.shape, np.float32))
    for name, what, work in parallel_peers(sinogram):
        value = seconds(work, 1) / (32 if "32 slices" in what else 1)
        result["seconds"]["peers"].update(_show(f"{name} parallel", {f"{name} {what}": value}))
    for name, geometry in GEOMETRIES.items():
        need = work_per_slice(geometry)
        best = result["seconds"]["ours"][name]
        for what, key in (("forward", "forward"), ("backprojection", "fbp")):
            limit = max(need[what] / machine["flops"], need["bytes"] / machine["bytes"])
            share = limit / best[f"{key}, batch {batches[-1]}"]
            result["roofline"][f"{name} {what}"] = {"flop": need[what], "bytes": need["bytes"], "share": share}
            print(
                f"  {name:9} {what:14} {need[what] / 1e9:5.2f} GFLOP, {need['bytes'] / 1e6:.1f} MB a slice:"
                f" at least {limit * 1e3:5.1f} ms, reached {share:.0%}"
            )
    result["ratios"] = ratios(result["seconds"], batches)
    for what, value in result["ratios"].items():
        print(f"  ratio {what:45} {value:6.1f}")
    return result


def ratios(s: dict[str, Any], batches: tuple[int, ...]) -> dict[str, float]:
    """How many times faster than the peer, per slice."""
    arc, parallel, flat = s["ours"]["fan-arc"], s["ours"]["parallel"], s["astra"]["fan-flat"]
    most = batches[-1]
    peers = [value for name, value in s["peers"].items() if "fbp" in name or "iradon" in name]
    fastest = min([s["astra"]["parallel"]["backprojection"], *peers])
    return {
        "fan_arc_forward_vs_astra_cpu": flat["forward"] / arc[f"forward, batch {most}"],
        "fan_arc_fbp_vs_astra_cpu": flat["backprojection"] / arc[f"fbp, batch {most}"],
        "parallel_fbp_vs_fastest_peer": fastest / parallel[f"fbp, batch {most}"],
        "fan_arc_forward_batch_1_vs_astra_cpu": flat["forward"] / arc["forward, batch 1"],
        "fan_arc_fbp_batch_1_vs_astra_cpu": flat["backprojection"] / arc["fbp, batch 1"],
        "parallel_fbp_batch_1_vs_fastest_peer": fastest / parallel["fbp, batch 1"],
    }


def _show(title: str, values: Seconds) -> Seconds:
    for what, value in values.items():
        print(f"  {title:22} {what:24} {value * 1e3:8.1f} ms")
    return values


def main() -> None:
    """Print the tables and, if asked, write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--quick", action="store_true", help="batches of 1 and 8 only")
    arguments = parser.parse_args()
    result = run(BATCHES[:2] if arguments.quick else BATCHES)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
