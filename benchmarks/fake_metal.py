"""How much a correction changes slices that need none: metal-free ones, with a mask that lies about metal in the air.

    python -m benchmarks.fake_metal DB [--model NAME ...] [--every N]

The reference slices of a database's cases get a disc of 10 mm radius as "metal" in the air beside the patient. From raw
data the measured rays behind it are replaced, from images the slice goes the way of `ctmar correct`; each blended and
whole. Root mean square change in HU over the body, mean and worst.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.machine import describe
from ctmar.correction_settings import CorrectionSettings
from ctmar.database import Case, list_cases, read_case
from ctmar.images import PlainImage
from ctmar.methods import Correction
from ctmar.raw import blended_stack
from ctmar.restorer import DEFAULT_MODEL, NetworkRestorer
from ctmar.slice_correction import correct_slices
from data_sim.projection import Projector
from data_sim.scanner import KERNEL, STORED_HU
from data_sim.units import mu_to_hu

RADIUS_MM = 10.0
METHODS = ("nmar2", "cnn-mar")


def fake(case: Case) -> NDArray[np.bool_] | None:
    """A disc in the air as far from the body as there is room for, None where there is none."""
    grid = case.grid
    x, y = grid.x_mm(), grid.y_mm()[:, None]
    inside = np.hypot(x, y) < min(grid.shape) / 2 * grid.pixel_mm - RADIUS_MM
    room_mm = ndimage.distance_transform_edt(~np.asarray(case.mask_body), sampling=grid.pixel_mm) * inside
    row, col = np.unravel_index(room_mm.argmax(), room_mm.shape)
    if room_mm[row, col] < RADIUS_MM + 2:
        return None
    return np.asarray(np.hypot(x - x[col], y - y[row, 0]) <= RADIUS_MM)


def changes(case: Case, metal: NDArray[np.bool_], restorers: dict[str, NetworkRestorer]) -> dict[str, float]:
    """Root mean square change of the body in HU, by way."""
    body = np.asarray(case.mask_body) & ~metal
    grid, mu_water = case.grid, case.mu_water_per_mm
    projector = Projector(case.geometry, grid, device="cpu")
    assert case.sinogram_reference is not None
    sinogram = case.sinogram_reference[None]
    before = mu_to_hu(projector.fbp(sinogram, window=KERNEL), mu_water)
    stored = np.clip(np.rint(before[0]), *STORED_HU).astype(np.float32)
    image = PlainImage(stored, np.zeros(grid.shape, bool), (grid.pixel_mm, grid.pixel_mm))
    found = {}
    for name, restorer in restorers.items():
        for method in METHODS if name == next(iter(restorers)) else METHODS[1:]:
            label = method if method != "cnn-mar" else f"cnn-mar:{name}"
            raw = Correction(sinogram, before, metal[None], projector, mu_water_per_mm=mu_water, restorer=restorer)
            for adaptive in (True, False):
                settings = CorrectionSettings(method=method, adaptive=adaptive, device="cpu")
                how = "adaptive" if adaptive else "whole"
                found[f"raw, {label}, {how}"] = rms(blended_stack(raw, settings)[0] - before[0], body)
                after = correct_slices([image], [metal], settings, restorer=restorer)[0].image_hu
                change = 0 * stored if after is None else after - stored
                found[f"image, {label}, {how}"] = rms(change, body)
    return found


def rms(change: NDArray[np.float32], body: NDArray[np.bool_]) -> float:
    """Root mean square over the body."""
    return float(np.sqrt(np.mean(change[body].astype(float) ** 2)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", type=Path)
    parser.add_argument("--model", nargs="+", default=[DEFAULT_MODEL])
    parser.add_argument("--every", type=int, default=1)
    given = parser.parse_args()
    restorers = {name: NetworkRestorer(name, device="cpu") for name in given.model}
    rows: dict[str, list[float]] = defaultdict(list)
    for file in list_cases(given.database)[:: given.every]:
        case = read_case(file)
        metal = fake(case)
        for name, value in changes(case, metal, restorers).items() if metal is not None else ():
            rows[name].append(value)
    print(describe(), "\n")
    print("| way | slices | mean, HU | worst, HU |\n|---|---|---|---|")
    for name, values in rows.items():
        print(f"| {name} | {len(values)} | {np.mean(values):.2f} | {max(values):.2f} |")


if __name__ == "__main__":
    main()
