"""The whole way on the built-in phantom: a metal series as a scanner would send it, a database, correction, scores."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ctmar.console import Bar
from ctmar.correction import correct_series
from ctmar.correction_settings import CorrectionSettings
from ctmar.dicom.pixels import Slice
from ctmar.dicom.series import choose_series, find_series
from ctmar.dicom.synthetic import write_ct_series
from ctmar.evaluation import evaluate, write_results
from ctmar.files import EVALUATION, building
from ctmar.report import WINDOWS, SlicePreview, before_after_sheet, render_report
from ctmar.restorer import NetworkRestorer
from ctmar.simulation import simulate
from ctmar.simulation_settings import SimulationSettings
from ctmar.slice_correction import SliceOutcome
from ctmar.sources import PHANTOM, PHANTOM_GRIDS
from data_sim.acquisition import ScanSettings
from data_sim.geometry import FanArc
from data_sim.implants import Implant
from data_sim.phantom import phantom_series
from data_sim.placement import place
from data_sim.scanner import simulate_slices

_SLICES = 5
_WITH_METAL = slice(1, 4)
_SPACING_MM = 3.0
_PATIENT = 100
"""Not among the phantom's patients in the database."""


def run_demo(out: Path, *, device: str, overwrite: bool, progress: Bar) -> list[dict[str, Any]]:
    """Fill the folder `out`; returns the rows of metrics.json.

    Writes `series/` (a phantom pelvis with hip prostheses, as DICOM), `corrected/` (the same corrected), `db/` (cases
    in all anatomies), metrics.json, metrics.csv, report.html and before-after.png.
    """
    restorer = NetworkRestorer(device=device)
    with building(out, kind=EVALUATION, overwrite=overwrite) as folder:
        progress("scanning a phantom with hip prostheses", 0, 1)
        reference_hu, metal = _write_metal_series(folder / "series", device)
        progress("scanning a phantom with hip prostheses", 1, 1)
        series = choose_series(find_series(folder / "series"))[0]
        shown = _Shown(reference_hu, metal)
        corrected = correct_series(
            series,
            folder / "corrected",
            CorrectionSettings(device=device, report=True),
            restorer=restorer,
            tell=progress,
            sinks=[shown],
        )
        settings = SimulationSettings(
            cases=6, seed=1, implants=("hip", "shoulder", "dental", "spine"), materials=("cocrmo", "ss316l")
        )
        simulate([PHANTOM], folder / "db", settings, device=device, progress=progress)
        rows, _ = evaluate(
            folder / "db", restorer=restorer, device=device, progress=lambda done, n: progress("evaluating", done, n)
        )
        write_results(rows, folder)
        previews = [shown.previews[index] for index in range(_SLICES)]
        before_after_sheet(previews[1:4], folder / "before-after.png", WINDOWS[0])
        render_report(
            folder / "report.html",
            title="ctmar demo",
            results=rows,
            slices=previews,
            settings={"input": "built-in phantom", "method": "cnn-mar", "model": restorer.card.name},
            model_card={"name": restorer.card.name, "sha256": restorer.card.sha256, "path": restorer.card.path},
            by_slice=corrected.slices,
            warnings=["Simulated data: the phantom is made of analytic shapes, not of a patient."],
        )
    return rows


def _write_metal_series(folder: Path, device: str) -> tuple[np.ndarray, np.ndarray]:
    """Write the series; returns its reference images in HU and the metal, (slices, rows, cols)."""
    grid = PHANTOM_GRIDS["pelvis"]
    clean_hu = phantom_series("pelvis", _SLICES, grid=grid, seed=_PATIENT, spacing_mm=_SPACING_MM)
    rng = np.random.default_rng(_PATIENT)
    pieces: Implant = ()
    while not _both_sides(pieces):
        pieces = place("hip", clean_hu[_SLICES // 2], grid, rng, ("ti", "cocrmo")) or ()
    simulated = simulate_slices(
        clean_hu,
        grid,
        [pieces] * _SLICES,
        [np.random.default_rng((_PATIENT, k)) for k in range(_SLICES)],
        geometry=FanArc(),
        settings=ScanSettings(),
        device=device,
    )
    # the prostheses end within the series: its first and last slice are free of metal
    series_hu = np.clip(np.rint(simulated.reference_hu), -1024, 3071)
    series_hu[_WITH_METAL] = simulated.stored_hu[_WITH_METAL]
    write_ct_series(folder, series_hu, pixel_mm=grid.pixel_mm, spacing_mm=_SPACING_MM)
    metal = np.zeros(clean_hu.shape, bool)
    metal[_WITH_METAL] = simulated.metal[_WITH_METAL]
    return simulated.reference_hu, metal


def _both_sides(pieces: Implant) -> bool:
    """Whether there is metal left and right of the middle."""
    x_mm = [float(piece.outline[:, 0].mean()) for piece in pieces]
    return bool(x_mm) and min(x_mm) < 0 < max(x_mm)


@dataclass
class _Shown:
    """Takes every slice of the correction for the report, with what only a simulation knows."""

    reference_hu: np.ndarray
    metal: np.ndarray
    previews: dict[int, SlicePreview] = field(default_factory=dict)

    def add(self, index: int, image: Slice, metal: np.ndarray, outcome: SliceOutcome | None) -> None:
        preview = SlicePreview(
            f"slice {index + 1}", image.image_hu, image.image_hu, self.reference_hu[index], self.metal[index]
        )
        if outcome is not None and outcome.image_hu is not None:
            workings = vars(outcome.workings) if outcome.workings is not None else {}
            preview = replace(preview, after_hu=outcome.image_hu, **workings)
        self.previews[index] = preview
