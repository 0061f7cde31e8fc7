"""What is in a database: metal, artifacts and photon starvation by family of implants, as a table in Markdown.

python -m benchmarks.database DB
"""

from __future__ import annotations

import argparse
import tomllib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ctmar.database import list_cases, read_case
from ctmar.metrics import rmse_hu
from ctmar.segmentation import metal_path_mm, metal_trace
from ctmar.simulation_settings import SETTINGS_FILE, read_request
from data_sim.acquisition import starved_share
from data_sim.projection import Projector

COLUMNS = ("metal, mm²", "raw data: RMSE, HU", "stored image: RMSE, HU", "starved rays, %")


def statistics(folder: Path) -> dict[str, list[tuple[str, Sequence[float]]]]:
    """(patient, figures of `COLUMNS`) of every case, by family."""
    _, settings = read_request(
        tomllib.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8")), sources=(), overrides={}, scan={}
    )
    found = defaultdict(list)
    for path in list_cases(folder):
        case = read_case(path)
        if case.mask_metal is None or case.mask_body is None:
            raise ValueError(f"{path}: has no masks")
        reference, body = case.images["reference"], case.mask_body & ~case.mask_metal
        trace = metal_trace(metal_path_mm(case.mask_metal[None], Projector(case.geometry, case.grid, device="cpu")))[0]
        row = (
            float(case.mask_metal.sum()) * case.grid.pixel_mm**2,
            rmse_hu(case.images["uncorrected"], reference, mask=body),
            rmse_hu(case.dicom_images["uncorrected"], reference, mask=body),
            100 * starved_share(case.sinogram_metal, trace, settings.scan, geometry=case.geometry),
        )
        found[case.implant or "?"].append((case.patient or "?", row))
    return dict(sorted(found.items()))


def main() -> None:
    """Print the table: median (least to most) of the cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", type=Path)
    found = statistics(parser.parse_args().database)
    print("| family | cases | patients | " + " | ".join(COLUMNS) + " |")
    print("|---|---|---|" + "---|" * len(COLUMNS))
    everything = [case for cases in found.values() for case in cases]
    for name, cases in {**found, "all": everything}.items():
        values = np.array([row for _, row in cases]).T
        cells = [f"{np.median(v):.0f} ({v.min():.0f} to {v.max():.0f})" for v in values]
        print(f"| `{name}` | {len(cases)} | {len({patient for patient, _ in cases})} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
