"""A real series corrected in several ways, side by side: the slices with most metal as a picture.

    python -m benchmarks.side_by_side SERIES --out FIGURE.png --ways nmar2 cnn-mar:cnn-mar cnn-mar:default

SERIES is what `ctmar correct` takes; every way is a method, or a method and a model. `--slices N` takes another number
of slices, spread over those with metal; `--window LEVEL,WIDTH` another window, `--side MM` a square around the metal.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ctmar.correction import correct_series
from ctmar.correction_settings import CorrectionSettings
from ctmar.dicom.pixels import read_slice
from ctmar.dicom.series import Series, choose_series, find_series
from ctmar.report.pictures import SOFT_TISSUE, Window, tile_sheet, windowed
from ctmar.restorer import DEFAULT_MODEL, restorer_for

_TILE_PX = 320
_BRIGHT_HU = 2500
"""Where metal is, for the choice of what to show."""


def corrected(series: Series, way: str) -> dict[float, NDArray[np.float32]]:
    """Images in HU of a way's output, by their position along the axis in mm."""
    method, _, model = way.partition(":")
    restorer = restorer_for(method, model or DEFAULT_MODEL)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        correct_series(series, out, CorrectionSettings(method), restorer=restorer)
        (derived,) = choose_series(find_series(out))
        return {round(one.along_normal_mm, 2): read_slice(one).image_hu for one in derived.slices}


def square_of(image_hu: NDArray[np.float32], side_px: int) -> tuple[slice, slice]:
    """A square around the metal of an image, within it."""
    places = np.argwhere(image_hu >= _BRIGHT_HU).mean(axis=0)
    corners = [
        int(np.clip(centre - side_px / 2, 0, max(0, size - side_px)))
        for centre, size in zip(places, image_hu.shape, strict=True)
    ]
    return slice(corners[0], corners[0] + side_px), slice(corners[1], corners[1] + side_px)


def sheet(series: Series, ways: Sequence[str], *, slices: int, window: Window, side_mm: float | None) -> Image.Image:
    """The picture: a row a slice, a column a way, the series as it is first."""
    read = {round(one.along_normal_mm, 2): read_slice(one) for one in series.slices}
    before = {z: found.image_hu for z, found in read.items()}
    metal = {z: int(np.count_nonzero(image >= _BRIGHT_HU)) for z, image in before.items()}
    with_metal = sorted(sorted(metal, key=lambda z: -metal[z])[: max(slices, sum(n > 0 for n in metal.values()) // 2)])
    shown = [with_metal[k] for k in np.linspace(0, len(with_metal) - 1, slices).round().astype(int)]
    columns = {"before": before} | {way: corrected(series, way) for way in ways}
    rows = []
    for z in shown:
        image = before[z]
        side_px = min(image.shape) if side_mm is None else round(side_mm / read[z].pixel_mm[0])
        where = square_of(image, min(side_px, *image.shape))
        tiles = [Image.fromarray(windowed(images[z][where], window)) for images in columns.values()]
        tiles = [tile.resize((_TILE_PX, _TILE_PX), Image.Resampling.LANCZOS) for tile in tiles]
        rows.append((f"{z:.0f} mm", tiles))
    return tile_sheet(list(columns), rows, tile_px=_TILE_PX, label_px=70)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("series", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--ways", nargs="+", default=["nmar2", "cnn-mar:default"])
    parser.add_argument("--slices", type=int, default=3)
    parser.add_argument("--window", default=f"{SOFT_TISSUE.level_hu:g},{SOFT_TISSUE.width_hu:g}")
    parser.add_argument("--side", type=float, metavar="MM")
    given = parser.parse_args()
    level, width = map(float, given.window.split(","))
    window = Window("chosen", "chosen", level, width)
    (series,) = choose_series(find_series(given.series))
    sheet(series, given.ways, slices=given.slices, window=window, side_mm=given.side).save(given.out, optimize=True)


if __name__ == "__main__":
    main()
