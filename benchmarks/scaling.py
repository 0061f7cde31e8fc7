"""How the cost of projections grows with the image and with the stack, as a picture.

    python -m benchmarks.scaling --out docs/figures/projection-scaling.png [--json FILE]

Needs matplotlib (``pip install ctmar[bench]``). Fan arc; views and bins grow with the image, so that a slice of n x n
pixels costs n^3 operations.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from benchmarks.machine import describe, seconds
from data_sim.geometry import FanArc, ImageGrid
from data_sim.projection import Projector

SIZES = (128, 256, 512, 1024)
STACKS = (1, 2, 4, 8, 16, 32, 64, 128)


def measure(pixels: int, slices: int) -> tuple[float, float]:
    """Seconds of forward projection and FBP of a stack."""
    scale = pixels / 512
    scan = FanArc(views=round(984 * scale), bins=round(920 * scale), bin_pitch_rad=0.001 / scale)
    projector = Projector(scan, ImageGrid(pixels, pixels, 0.8 / scale), device="cpu")
    images = np.random.default_rng(0).random((slices, pixels, pixels), np.float32)
    sinograms = projector.forward(images)
    return seconds(lambda: projector.forward(images), 2), seconds(lambda: projector.fbp(sinograms), 2)


def main() -> None:
    """Measure, draw, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    by_size = {n: measure(n, 8) for n in SIZES}
    by_stack = {n: measure(256, n) for n in STACKS}
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, table, label, power in (
        (axes[0], by_size, "pixels along an edge (8 slices)", 3),
        (axes[1], by_stack, "slices (256 x 256)", 1),
    ):
        x = np.array(list(table))
        for values, name in zip(np.array(list(table.values())).T, ("forward", "FBP"), strict=True):
            axis.loglog(x, values, "o-", label=name)
        last = table[x[-1]][0]
        axis.loglog(x, last * (x / x[-1]) ** float(power), "k:", label=f"n^{power}" if power > 1 else "n")
        axis.set(xlabel=label, ylabel="seconds", xticks=x, xticklabels=x)
        axis.minorticks_off()
        axis.legend()
    figure.suptitle(f"Projection on the CPU: {describe()}")
    figure.savefig(arguments.out, dpi=100)
    for name, table in (("pixels", by_size), ("slices", by_stack)):
        for n, (forward, fbp) in table.items():
            print(f"  {n:5} {name}: forward {forward:8.4f} s, FBP {fbp:8.4f} s")
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"pixels": by_size, "slices": by_stack}, indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
