"""Small series, case files and models for the tests of the pipeline and of the command line."""

import hashlib
from pathlib import Path

import h5py
import numpy as np

from ctmar.dicom.synthetic import ct_dataset, save
from ctmar.network import CHANNELS, build
from ctmar.weights import ModelCard, save_model
from data_sim.geometry import FanArc, ImageGrid
from data_sim.projection import Projector
from data_sim.units import MU_WATER_PER_MM

SIDE = 64
GRID = ImageGrid(SIDE, SIDE, 1.0)

GEOMETRY = FanArc(views=120, bins=128, bin_pitch_rad=0.0013)
"""Sees the corners of GRID (45 mm from the centre: 0.076 rad), in a hundredth of the default's time."""

MARKER = "SECRET"
"""In the patient's name and ID of every small series: it must not be found in anything but DICOM files."""

METAL = (1, 2)
"""Slices of the small series that hold metal, from 0."""


def small_volumes(slices: int = 4, *, metal: tuple[int, ...] = METAL) -> tuple[np.ndarray, np.ndarray]:
    """A water disc in air and padding with two metal pins and their streaks; and the same without: HU."""
    rows, cols = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    radius = np.hypot(rows, cols)
    clean = np.where(radius < 24, 0.0, -1000.0)
    clean[np.hypot(rows - 10, cols) < 5] = 600
    clean = np.stack([clean + k for k in range(slices)])
    pins = (np.hypot(rows, cols + 8) < 2) | (np.hypot(rows, cols - 8) < 2)
    projector = Projector(GEOMETRY, GRID, device="cpu")
    path_mm = projector.forward(pins[None])
    # beam hardening as it is met first: the measured attenuation falls behind with the square of the metal's path
    streaks = projector.fbp(-0.02 * path_mm**2)[0] * 1000 / MU_WATER_PER_MM
    dirty = clean.copy()
    for k in metal:
        dirty[k] += streaks
        dirty[k][pins] = 3000
    for volume in (clean, dirty):
        volume[:, radius >= 31] = -1024
    return np.rint(dirty), np.rint(clean)


def write_small_series(
    folder: Path,
    volume_hu: np.ndarray | None = None,
    *,
    series_uid: str = "2.25.2001",
    pixel_mm: float | tuple[float, float] = 1.0,
) -> list[Path]:
    """Write a series (`small_volumes` unless given) of a patient whose name is `MARKER`."""
    volume = small_volumes()[0] if volume_hu is None else volume_hu
    files = []
    for k, image in enumerate(volume, start=1):
        dataset = ct_dataset(image, z_mm=2.0 * k, number=k, series_uid=series_uid, pixel_mm=pixel_mm)
        dataset.PatientName, dataset.PatientID = f"{MARKER}^NAME", f"{MARKER}-4711"
        files.append(save(dataset, folder / f"{k:04d}.dcm"))
    return files


def write_tiny_model(folder: Path, *, patients: tuple[str, ...] = ()) -> Path:
    """An initialised network, which gives nearly its LI channel."""
    network = build("cnn", CHANNELS[3])
    network.initialise(0)
    path = folder / "tiny.safetensors"
    card = ModelCard(name="tiny", arch="cnn", channels=CHANNELS[3], data={"patients_trained": list(patients)})
    save_model(path, network, card)
    return path


def write_foreign_case(path: Path, *, mask: bool = False, pin_mm: tuple[float, float] | None = (8.0, 4.0)) -> None:
    """A case file as another program would write it, with only what case-format.md calls needed.

    Parallel projections, exact: a disc of water of 20 mm radius, and in it at (x, y) a pin of 2.5 mm.
    """
    mu_water, mu_pin, views, bins, side = 0.0192, 0.25, 90, 80, 48
    angles = np.pi * np.arange(views)[:, None] / views
    offset = (np.arange(bins) - (bins - 1) / 2)[None]

    def chord(radius: float, x: float, y: float) -> np.ndarray:
        centre = x * np.cos(angles) + y * np.sin(angles)
        return 2 * np.sqrt(np.clip(radius**2 - (offset - centre) ** 2, 0, None))

    sinogram = mu_water * chord(20, 0, 0)
    if pin_mm:
        sinogram += (mu_pin - mu_water) * chord(2.5, *pin_mm)
    with h5py.File(path, "w") as file:
        file.attrs["format"] = "ctmar-case"
        file.attrs["version"] = 1
        file.attrs["mu_water_per_mm"] = mu_water
        file.attrs["geometry"] = (
            f'{{"type": "parallel", "views": {views}, "bins": {bins}, "bin_pitch_mm": 1.0, '
            '"arc_rad": 3.141592653589793}'
        )
        file.attrs["image_grid"] = f'{{"rows": {side}, "cols": {side}, "pixel_mm": 1.0}}'
        file["sinogram/metal"] = sinogram.astype(np.float32)
        if mask and pin_mm:
            rows, cols = np.mgrid[:side, :side]
            x, y = cols - (side - 1) / 2, (side - 1) / 2 - rows
            file["mask/metal"] = (np.hypot(x - pin_mm[0], y - pin_mm[1]) <= 3).astype(np.uint8)


def tree(folder: Path) -> dict[str, str]:
    """Every file and folder below, hidden ones too, with the SHA-256 of its content."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }
