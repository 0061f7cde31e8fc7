"""Contact sheets of a database: its slices with the metal in place before they are scanned, its images afterwards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ctmar.database import read_images
from ctmar.files import replacing
from ctmar.planning import PlacedCase
from ctmar.report.pictures import SOFT_TISSUE, windowed
from data_sim.implants import coverage, fine_masks

MOST_TILES = 24
"""What fits on a screen."""

_COLUMNS = 6
_TILE_PX = 256
_GAP_PX = 6
_LABEL_PX = 20
_METAL_RGB = (255, 138, 31)


def planned_sheet(cases: Sequence[PlacedCase], path: Path) -> None:
    """Write a PNG of metal-free slices in a soft tissue window, the metal that will be in them in orange."""
    tiles = []
    for case in cases:
        fine_grid, masks = fine_masks(case.pieces, case.grid)
        metal = coverage(masks, fine_grid, case.grid)
        materials = ", ".join(sorted({piece.material for piece in case.pieces}))
        number = case.planned.number
        tiles.append((f"{number}  {case.planned.implant}  {materials}", _overlaid(case.image_hu, metal)))
    _sheet(tiles, path)


def simulated_sheet(files: Sequence[Path], path: Path) -> None:
    """Write a PNG of the uncorrected images of case files in a soft tissue window."""
    tiles = []
    for file in files:
        info, images, _ = read_images(file, folder="image", names=["uncorrected"])
        grey = Image.fromarray(windowed(images["uncorrected"], SOFT_TISSUE)).convert("RGB")
        tiles.append((f"{int(file.stem.rpartition('-')[2])}  {info.implant}  {info.material.replace(',', ', ')}", grey))
    _sheet(tiles, path)


def _overlaid(image_hu: NDArray[np.float32], metal: NDArray[np.float32]) -> Image.Image:
    """The slice with its metal, by the share of each pixel that is metal (0..1)."""
    grey = windowed(image_hu, SOFT_TISSUE).astype(np.float32)[..., None]
    share = metal[..., None]
    return Image.fromarray(np.rint(grey * (1 - share) + np.array(_METAL_RGB, np.float32) * share).astype(np.uint8))


def _sheet(tiles: Sequence[tuple[str, Image.Image]], path: Path) -> None:
    columns = max(1, min(_COLUMNS, len(tiles)))
    rows = max(1, math.ceil(len(tiles) / columns))
    width, height = _TILE_PX + _GAP_PX, _TILE_PX + _LABEL_PX + _GAP_PX
    sheet = Image.new("RGB", (columns * width + _GAP_PX, rows * height + _GAP_PX), (20, 20, 20))
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    for index, (label, picture) in enumerate(tiles):
        left = _GAP_PX + index % columns * width
        top = _GAP_PX + index // columns * height
        draw.text((left + 2, top + 2), label, fill=(225, 225, 225), font=font)
        picture.thumbnail((_TILE_PX, _TILE_PX), Image.Resampling.LANCZOS)
        sheet.paste(picture, (left, top + _LABEL_PX))
    with replacing(path) as partial:
        sheet.save(partial, "PNG", optimize=True)
