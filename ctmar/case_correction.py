"""The correction of simulated cases on either path, from what their files hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ctmar.database import Case, read_info
from ctmar.errors import UnsupportedInputError
from ctmar.methods import Correction, Restorer
from data_sim.projection import Projector
from data_sim.scanner import KERNEL, STORED_HU
from data_sim.units import mu_to_hu

PATHS = ("raw", "dicom")
"""From the measured sinogram, or from the image that a scanner stores; their images are in `FOLDERS`, in this order."""

_CASES_AT_ONCE = 16


def batches_of_files(files: Sequence[Path], skipped: list[tuple[str, str]]) -> Iterator[list[Path]]:
    """Files that share geometry and grid, a few at a time: projections of several slices are several times as fast.

    Those that cannot be read go to `skipped`, with the reason.
    """
    groups: dict[Any, list[Path]] = defaultdict(list)
    for path in files:
        try:
            info = read_info(path)
        except UnsupportedInputError as error:
            skipped.append((path.name, str(error)))
            continue
        groups[info.geometry, info.grid, info.mu_water_per_mm].append(path)
    for group in groups.values():
        for start in range(0, len(group), _CASES_AT_ONCE):
            yield group[start : start + _CASES_AT_ONCE]


def correction_of_cases(
    cases: Sequence[Case],
    path: str,
    restorer: Restorer | None,
    projector: Projector,
) -> tuple[Correction, Mapping[str, np.ndarray]]:
    """The correction of cases of one geometry on a path, and `known_images`, which it does not compute again."""
    known = known_images(cases, path)
    mu_water_per_mm = cases[0].mu_water_per_mm
    metal = np.stack([np.asarray(case.mask_metal) for case in cases])
    shared: dict[str, Any] = {"mu_water_per_mm": mu_water_per_mm, "restorer": restorer, "known": known}
    if path == "raw":
        sinograms = np.stack([case.sinogram_metal for case in cases])
        # of our kernel, whatever made the file's own: see ctmar.raw
        uncorrected_hu = mu_to_hu(projector.fbp(sinograms, window=KERNEL), mu_water_per_mm)
        return Correction(sinograms, uncorrected_hu, metal, projector, **shared), known
    stored_hu = np.clip(np.rint(known["uncorrected"]), *STORED_HU)
    return Correction.of_image(stored_hu, metal, projector, **shared), known


def known_images(cases: Sequence[Case], path: str) -> dict[str, np.ndarray]:
    """Stacks of the images that all of the cases hold for a path."""
    stored = [case.images if path == "raw" else _dicom_images(case) for case in cases]
    names = set.intersection(*(set(images) for images in stored)) - {"reference", "corrected", "cnn", "cnn-mar"}
    return {name: np.stack([images[name] for images in stored]) for name in sorted(names)}


def _dicom_images(case: Case) -> Mapping[str, np.ndarray]:
    """Where a case has none, the uncorrected image from raw data, which a scanner would store."""
    return case.dicom_images or {"uncorrected": case.images["uncorrected"]}
