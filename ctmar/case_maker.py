"""Cases that share a grid: placed, scanned, corrected by the classical methods on both paths, written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ctmar.database import Case, write_case
from ctmar.methods import Correction
from ctmar.metrics import body_mask
from ctmar.planning import PlacedCase, PlannedCase, place_case
from ctmar.segmentation import dilate, metal_mask
from ctmar.simulation_settings import SimulationSettings
from data_sim.implants.own import Shape
from data_sim.projection import Projector
from data_sim.scanner import simulate_slices
from data_sim.units import MU_WATER_PER_MM

_BLUR_PX = 3


def write_cases(
    batch: Sequence[PlannedCase], *, out: Path, settings: SimulationSettings, device: str, shapes: Sequence[Shape] = ()
) -> list[tuple[str, str]]:
    """Make cases that share a grid and write them into `out`; returns (name, reason) of those that failed."""
    placed, failed = [], []
    for case in batch:
        found = place_case(case, settings, shapes)
        if isinstance(found, str):
            failed.append((case.name, found))
        else:
            placed.append(found)
    for name, made in make_cases(placed, settings, device=device):
        write_case(out / f"{name}.h5", made)
    return failed


def make_cases(
    placed: Sequence[PlacedCase], settings: SimulationSettings, *, device: str
) -> Iterator[tuple[str, Case]]:
    """Scan and correct cases that share a grid; yields each with its name."""
    if not placed:
        return
    geometry, grid = settings.scanner(), placed[0].grid
    simulated = simulate_slices(
        np.stack([case.image_hu for case in placed]),
        grid,
        [case.pieces for case in placed],
        [case.rng for case in placed],
        geometry=geometry,
        settings=settings.scan,
        device=device,
    )
    projector = Projector(geometry, grid, device=device)
    # what a segmentation would find: the metal and its blurred edge, but not the bright streaks beyond
    bright = metal_mask(simulated.uncorrected_hu, pixel_mm=grid.pixel_mm)
    metal = simulated.metal | (dilate(simulated.metal, _BLUR_PX) & bright)
    raw = Correction(
        simulated.sinogram_metal,
        simulated.uncorrected_hu,
        metal,
        projector,
        mu_water_per_mm=MU_WATER_PER_MM,
    ).images(settings.images)
    dicom = Correction.of_image(simulated.stored_hu, metal, projector, mu_water_per_mm=MU_WATER_PER_MM).images(
        settings.images
    )
    for index, case in enumerate(placed):
        reference_hu = simulated.reference_hu[index]
        yield (
            case.planned.name,
            Case(
                geometry=geometry,
                grid=grid,
                mu_water_per_mm=MU_WATER_PER_MM,
                seed=settings.seed,
                implant=case.planned.implant,
                material=",".join(sorted({piece.material for piece in case.pieces})),
                patient=case.patient,
                source=case.planned.screened.slice.name,
                sinogram_metal=simulated.sinogram_metal[index],
                sinogram_reference=simulated.sinogram_reference[index],
                mask_metal=metal[index],
                mask_body=body_mask(reference_hu),
                images={name: stack[index] for name, stack in raw.items()} | {"reference": reference_hu},
                dicom_images={name: stack[index] for name, stack in dicom.items()},
            ),
        )
