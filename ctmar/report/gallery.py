"""The worst cases of a method, as a sheet: a mean hides failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ctmar.evaluation import shown_case
from ctmar.files import replacing
from ctmar.methods import Restorer
from ctmar.report.pictures import SOFT_TISSUE, SlicePreview, Window, difference, tile_sheet, windowed
from ctmar.report.tables import LABELS
from ctmar.statistics import worst_cases
from ctmar.workings import Workings

WORST = 10

_TILE_PX = 256
_GAP_PX = 6
_LABEL_PX = 210


@dataclass(frozen=True, eq=False)
class Failure:
    """A case to show: what to write beside it, and its images in HU, (rows, cols), by what to write above them.

    The first is the uncorrected one, the last that of the method.
    """

    label: str
    images_hu: Mapping[str, NDArray[np.floating]]
    reference_hu: NDArray[np.floating]
    name: str = ""
    metal: NDArray[np.bool_] | None = None
    workings: Workings | None = None

    def preview(self) -> SlicePreview:
        """For a report."""
        before, *_, after = self.images_hu.values()
        first, *rest = self.label.splitlines()
        workings = vars(self.workings) if self.workings is not None else {}
        return SlicePreview(first, before, after, self.reference_hu, self.metal, ", ".join(rest), **workings)


def failure_gallery(
    source: Path,
    rows: Sequence[Mapping[str, Any]],
    out: Path,
    *,
    method: str = "cnn-mar",
    path: str = "raw",
    metric: str = "rmse_body_hu",
    count: int = WORST,
    restorer: Restorer | None = None,
    device: str = "auto",
) -> list[Failure]:
    """Write a PNG of the cases with the largest error of a method; returns them, the worst first.

    Columns: uncorrected, LI, the method, the reference, the method's error from -200 to 200 HU.

    Parameters
    ----------
    source
        Folder of case files, or one of them, as evaluated.
    rows
        As `ctmar.evaluation.evaluate` gave them.
    out
        Where the PNG goes.
    method, path, metric, count
        Which images, by what, and how many.
    restorer, device
        As for the evaluation.

    Raises
    ------
    ValueError
        Where no row is of that method and path.
    """
    worst = worst_cases(rows, method=method, path=path, metric=metric, count=count)
    if not worst:
        raise ValueError(f"no case was scored with the method {method!r} on the path {path!r}")
    shown = list(dict.fromkeys(("uncorrected", "li", method)))
    failures = []
    for place, row in enumerate(worst, start=1):
        file = source if source.is_file() else source / f"{row['case']}.h5"
        case = shown_case(file, methods=shown, kind=path, restorer=restorer, device=device)
        label = (
            f"{place}.  {row['case']}\n{row.get('implant') or 'implant unknown'}\n{row.get('material') or ''}\n"
            f"{row.get('metal_mm2', 0):.0f} sq. mm of metal\n{metric} {row[metric]:.1f}"
        )
        named = {LABELS.get(name, name): case.images_hu[name] for name in shown}
        failures.append(Failure(label, named, case.reference_hu, str(row["case"]), case.metal, case.workings))
    gallery_sheet(failures, out)
    return failures


def gallery_sheet(failures: Sequence[Failure], path: Path, *, window: Window = SOFT_TISSUE) -> None:
    """Write a PNG with a row for each case: its images, the reference, and the last image's error.

    Raises
    ------
    ValueError
        Where there is no case, or they do not have the same images.
    """
    if not failures or any(one.images_hu.keys() != failures[0].images_hu.keys() for one in failures):
        raise ValueError("a gallery needs at least one case, and the same images of all")
    titles = [*failures[0].images_hu, "reference", "error, -200 to 200 HU"]
    rows = []
    for one in failures:
        images = [*one.images_hu.values(), one.reference_hu]
        greys = [windowed(image, window) for image in images] + [difference(one.reference_hu, images[-2])]
        tiles = [Image.fromarray(grey) for grey in greys]
        for tile in tiles:
            tile.thumbnail((_TILE_PX, _TILE_PX), Image.Resampling.LANCZOS)
        rows.append((one.label, tiles))
    sheet = tile_sheet(titles, rows, tile_px=_TILE_PX, label_px=_LABEL_PX, font_px=14, gap_px=_GAP_PX)
    with replacing(path) as partial:
        sheet.save(partial, "PNG", optimize=True)
