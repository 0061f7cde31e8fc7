"""Tiny databases for tests: discs with streaks that a network can learn to remove."""

from pathlib import Path

import numpy as np

from ctmar.database import Case, write_case
from data_sim.geometry import FanArc, ImageGrid

NAMES = ("uncorrected", "bhc", "li", "nmar1", "nmar2")
MU_WATER = 0.0193


def toy_case(seed: int = 0, *, patient: str = "p1", side: int = 96) -> Case:
    """A disc of water and bone; the inputs are the reference plus streaks of known, per-channel strength."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:side, :side] - (side - 1) / 2
    radius = np.hypot(rows, cols)
    reference = np.where(radius < 0.4 * side, rng.uniform(-50, 50), -1000.0)
    reference[np.hypot(rows - 10, cols) < 8] = 700
    metal = np.hypot(rows + 12, cols - rng.uniform(-10, 10)) < 3
    streaks = np.sin(rng.uniform(0.5, 1.5) * (rows + rng.uniform(-1, 1) * cols)) * (radius < 0.45 * side)
    strengths = dict(zip(NAMES, (400, -250, 150, 120, 90), strict=True))
    images = {name: reference + strength * streaks + 3000 * metal for name, strength in strengths.items()}
    softer = {name: reference + 1.5 * strengths[name] * streaks for name in NAMES}
    geometry = FanArc(views=12, bins=20, source_isocentre_mm=500.0, bin_pitch_rad=0.02)
    return Case(
        geometry=geometry,
        grid=ImageGrid(side, side, 2.0),
        mu_water_per_mm=MU_WATER,
        sinogram_metal=rng.random(geometry.shape, np.float32),
        sinogram_reference=rng.random(geometry.shape, np.float32),
        mask_metal=metal,
        mask_body=radius < 0.4 * side,
        images={name: image.astype(np.float32) for name, image in {**images, "reference": reference}.items()},
        dicom_images={name: image.astype(np.float32) for name, image in softer.items()},
        seed=seed,
        implant="pin",
        material="ti",
        patient=patient,
        source="toy",
    )


def write_toy_database(folder: Path, patients: tuple[str, ...] = ("p1", "p2", "p3", "p4")) -> Path:
    """One case for every entry of `patients`."""
    for number, patient in enumerate(patients, start=1):
        write_case(folder / f"case-{number:06d}.h5", toy_case(number, patient=patient))
    return folder
