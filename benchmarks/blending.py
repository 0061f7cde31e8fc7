"""How corrected images are put together: difference or replacement, blending, and the metal mask. Tables in Markdown.

    python -m benchmarks.blending paths DB [DB ...]      # Difference, replacement and mixtures, on both paths
    python -m benchmarks.blending strength DB [DB ...]   # Adaptive blending, the whole change, and nothing
    python -m benchmarks.blending masks DB [DB ...]      # Threshold and growth of the metal mask, on the DICOM path

DB are folders of simulated cases. `--methods nmar2,cnn-mar` chooses the methods, `--every N` takes every Nth case,
`--unseen` leaves out patients that the shipped model was trained or validated on. Errors are RMSE in HU over the body
without the metal (true or found), near is up to 20 mm from it; noise and sharpness are measured far from it, beside the
reference's: the median deviation of what a Gaussian of 1.5 mm leaves in flat soft tissue, and the regression on the
reference at edges. On the DICOM path metal is found by threshold, as `ctmar correct` does.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ctmar import raw
from ctmar.blending import supported_change
from ctmar.correction_settings import CorrectionSettings
from ctmar.database import Case, list_cases, read_case, read_info
from ctmar.detection import detect_in_image
from ctmar.method_names import NEEDS_NETWORK
from ctmar.methods import Correction, Restorer
from ctmar.metrics import paper_ssim
from ctmar.restorer import NetworkRestorer
from ctmar.segmentation import metal_mask
from ctmar.square_grid import reprojection_geometry
from data_sim.projection import Projector
from data_sim.units import mu_to_hu

NEAR_MM = 20.0
MASKS = ((2500, 1), (2500, 0), (2500, 2), (2000, 0), (2000, 1), (3000, 0), (3000, 1))
"""Threshold in HU and growth in pixels; the first is what others are compared with."""

SINOGRAMS = ("bhc", "li", "nmar1", "nmar2")
"""Methods that yield a corrected sinogram."""

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Corrected:
    """One case corrected on one path: HU, (rows, cols)."""

    before: Image
    metal: Mask
    ramp: Image  # the change of the sinogram, reconstructed with the bare ramp
    hann: Image
    again_ramp: Image  # the uncorrected sinogram, reconstructed
    again_hann: Image


def correction_of(case: Case, path: str, metal: Mask | None, restorer: Restorer | None) -> Correction:
    """Either path of one case; without a mask, the true one from raw data and a threshold on the DICOM path."""
    if path == "raw":
        settings = CorrectionSettings(device="cpu")
        own = case if metal is None else replace(case, mask_metal=metal)
        return raw.correction_of(raw.prepare(own, settings), settings, restorer=restorer)
    stored = case.dicom_images["uncorrected"]
    found = metal_mask(stored, pixel_mm=case.grid.pixel_mm) if metal is None else metal
    projector = Projector(reprojection_geometry(case.grid), case.grid, device="cpu")
    return Correction.of_image(
        stored[None], found[None], projector, mu_water_per_mm=case.mu_water_per_mm, restorer=restorer
    )


def corrected(case: Case, path: str, method: str, restorer: Restorer | None) -> Corrected:
    """What all mixtures are made of. FBP is linear, so that FBP(p') = FBP(p) + FBP(p' - p).

    Methods that end with an image have one change only.
    """
    correction = correction_of(case, path, None, restorer)
    if method not in SINOGRAMS:
        before = correction.uncorrected_hu[0]
        whole = correction.image(method)[0] - before
        return Corrected(before, correction.metal[0], whole, whole, before, before)
    changed = correction._corrected_sinogram(method) - correction.sinogram
    metal = correction.metal[0]

    def change(window: str) -> Image:
        hu = correction.projector.fbp(changed[0], window=window) * np.float32(1000 / case.mu_water_per_mm)
        return np.where(metal, np.float32(0), hu)

    def again(window: str) -> Image:
        return mu_to_hu(correction.projector.fbp(correction.sinogram[0], window=window), case.mu_water_per_mm)

    return Corrected(
        correction.uncorrected_hu[0], metal, change("ram-lak"), change("hann"), again("ram-lak"), again("hann")
    )


def mixtures(parts: Corrected, path: str, pixel_mm: float) -> dict[str, Image]:
    """Images by name; metal as it was."""

    def low(image: Image, mm: float) -> Image:
        return ndimage.gaussian_filter(image, mm / pixel_mm)

    before, distance_mm = parts.before, ndimage.distance_transform_edt(~parts.metal, sampling=pixel_mm)
    difference = before + (parts.hann if path == "raw" else parts.ramp)
    near = np.exp(-((distance_mm / 10) ** 2))
    images = {
        "uncorrected": before,
        "difference, ramp": before + parts.ramp,
        "difference, Hann": before + parts.hann,
        "replacement, ramp": parts.again_ramp + parts.ramp,
        "replacement, Hann": parts.again_hann + parts.hann,
        "replacement below 1 mm, original above": low(parts.again_hann + parts.hann, 1) + before - low(before, 1),
        "replacement below 2 mm, original above": low(parts.again_hann + parts.hann, 2) + before - low(before, 2),
        "difference, original's detail near metal": difference
        + near * (before - low(before, 1) - difference + low(difference, 1)),
        "difference, adaptive": before + supported_change(before, difference - before, parts.metal, pixel_mm=pixel_mm),
    }
    return {name: np.where(parts.metal, before, image).astype(np.float32) for name, image in images.items()}


def figures(case: Case, metal: Mask, image: Image) -> tuple[float, ...]:
    """RMSE over the body, near and far; SSIM; noise and sharpness beside the reference's."""
    reference, pixel_mm = case.images["reference"], case.grid.pixel_mm
    excluded = np.asarray(case.mask_metal) | metal
    distance_mm = ndimage.distance_transform_edt(~excluded, sampling=pixel_mm)
    body = np.asarray(case.mask_body) & ~excluded
    far = body & (distance_mm > NEAR_MM)
    slope = ndimage.gaussian_gradient_magnitude(reference, 1.5 / pixel_mm) / pixel_mm
    flat, edge = far & (slope < 6) & (np.abs(reference) < 150), far & (slope > 60)
    fine, true = (i - ndimage.gaussian_filter(i, 1.5 / pixel_mm) for i in (image, reference))
    noise = np.median(np.abs(fine[flat])) / np.median(np.abs(true[flat])) if flat.sum() > 200 else np.nan
    sharpness = (fine * true)[edge].sum() / (true**2)[edge].sum() if edge.sum() > 100 else np.nan
    regions = (body, body & (distance_mm <= NEAR_MM), far)
    ssim = paper_ssim(image + 1000, reference + 1000, np.asarray(case.mask_metal))
    return (*(rmse(image, reference, region) for region in regions), ssim, float(noise), float(sharpness))


def rmse(image: Image, reference: Image, region: Mask) -> float:
    """Root mean square error, NaN over nothing."""
    return float(np.sqrt(np.mean((image[region] - reference[region]) ** 2))) if region.any() else float("nan")


def cases(arguments: argparse.Namespace, seen: set[str]) -> Iterator[Case]:
    """The cases that were asked for."""
    files = [file for folder in arguments.databases for file in list_cases(folder)]
    if arguments.unseen:
        files = [file for file in files if read_info(file).patient not in seen]
    for file in files[:: arguments.every]:
        yield read_case(file)


def geometric(values: NDArray[np.float64]) -> str:
    """Geometric mean with its 95 % interval (bootstrap over cases)."""
    draws = np.random.default_rng(0).integers(0, len(values), (2000, len(values)))
    low, high = np.exp(np.percentile(np.log(values)[draws].mean(axis=1), (2.5, 97.5)))
    return f"{np.exp(np.log(values).mean()):.3f} ({low:.3f} to {high:.3f})"


def print_images(found: dict[str, list[tuple[float, ...]]], whole: str) -> None:
    """Means, and ratios to the image `whole`."""
    print("| image | body | near | far | SSIM | noise | sharpness | body, beside whole difference | worse than none |")
    print("|---|---|---|---|---|---|---|---|---|")
    base, before = np.array(found[whole]), np.array(found["uncorrected"])
    for name, rows in found.items():
        values = np.array(rows)
        mean = np.nanmean(values[:, :4], axis=0)
        noise, sharpness = np.nanmedian(values[:, 4:], axis=0)
        print(
            f"| {name} | {mean[0]:.1f} | {mean[1]:.1f} | {mean[2]:.1f} | {mean[3]:.3f} | {noise:.2f} | {sharpness:.2f} "
            f"| {geometric(values[:, 0] / base[:, 0])} | {int((values[:, 0] > before[:, 0] + 0.05).sum())} |"
        )


def print_masks(arguments: argparse.Namespace, method: str, seen: set[str], restorer: Restorer | None) -> None:
    """Masks by threshold and growth, and that of the detection, before blending and after."""
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for case in cases(arguments, seen):
        stored, pixel_mm = case.dicom_images["uncorrected"], case.grid.pixel_mm
        masks = {
            f"{hu} HU, grown by {grow} px": metal_mask(stored, threshold_hu=hu, pixel_mm=pixel_mm, dilation=grow)
            for hu, grow in MASKS
        }
        masks["detection"] = detect_in_image(stored, (pixel_mm, pixel_mm)).masks[0]
        body = np.asarray(case.mask_body) & ~np.asarray(case.mask_metal)
        for name, metal in masks.items():
            change = correction_of(case, "dicom", metal, restorer).image(method)[0] - stored
            kept = supported_change(stored, change, metal, pixel_mm=pixel_mm)
            images = (stored + change, stored + kept)
            found[name].append(tuple(rmse(i, case.images["reference"], body) for i in images))  # type: ignore[arg-type]
    print("| mask | body | adaptive | body, beside the first | adaptive, beside the first's |")
    print("|---|---|---|---|---|")
    base = np.array(next(iter(found.values())))
    for name, rows in found.items():
        values = np.array(rows)
        ratios = " | ".join(geometric(values[:, i] / base[:, i]) for i in (0, 1))
        print(f"| {name} | {values[:, 0].mean():.1f} | {values[:, 1].mean():.1f} | {ratios} |")


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("paths", "strength", "masks"))
    parser.add_argument("databases", type=Path, nargs="+")
    parser.add_argument("--methods", default="nmar2,cnn-mar")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--unseen", action="store_true")
    arguments = parser.parse_args(argv)
    network = NetworkRestorer(device="cpu")
    seen = set(network.card.patients_seen)
    for method in arguments.methods.split(","):
        restorer = network if method in NEEDS_NETWORK else None
        if arguments.what == "masks":
            print(f"\nDICOM, {method}\n")
            print_masks(arguments, method, seen, restorer)
            continue
        for path in ("dicom", "raw"):
            whole = "difference, Hann" if path == "raw" else "difference, ramp"
            found: dict[str, list[tuple[float, ...]]] = defaultdict(list)
            for case in cases(arguments, seen):
                parts = corrected(case, path, method, restorer)
                images = mixtures(parts, path, case.grid.pixel_mm) if parts.metal.any() else {}
                for name, image in images.items():
                    if arguments.what == "paths" or name in ("uncorrected", whole, "difference, adaptive"):
                        found[name].append(figures(case, parts.metal, image))
            print(f"\n{path}, {method}: {len(found[whole])} cases\n")
            print_images(found, whole)


if __name__ == "__main__":
    main()
