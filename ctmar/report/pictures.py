"""From HU to pictures: windows, differences, metal outlines and before/after sheets."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

DIFFERENCE_WIDTH_HU = 400.0
"""A difference picture runs from -200 HU (black) over 0 (grey) to 200 HU (white)."""

WEBP_QUALITY = 85
"""Lossy, for previews: 6 to 30 kB a 512 x 512 picture, mean error below one grey value."""


@dataclass(frozen=True)
class Window:
    """A display window: `level_hu` is mid-grey, `width_hu` runs from black to white."""

    name: str
    label: str
    level_hu: float
    width_hu: float

    def __post_init__(self) -> None:
        if not self.width_hu > 0:
            raise ValueError(f"the width of a window must be positive, not {self.width_hu}")


SOFT_TISSUE = Window("soft", "Soft tissue", 40, 400)
BONE = Window("bone", "Bone", 400, 1800)
LUNG = Window("lung", "Lung", -600, 1500)
BRAIN = Window("brain", "Brain", 40, 80)
WINDOWS = (SOFT_TISSUE, BONE, LUNG, BRAIN)


@dataclass(frozen=True)
class SlicePreview:
    """One slice to show. Images are (rows, cols) arrays in HU, all of one shape; sinogram and trace (views, bins).

    `label` and `notes` are shown to whoever opens the report: no patient data.
    """

    label: str
    before_hu: NDArray[np.floating]
    after_hu: NDArray[np.floating]
    reference_hu: NDArray[np.floating] | None = None
    metal: NDArray[np.bool_] | None = None
    notes: str = ""
    prior_hu: NDArray[np.floating] | None = None
    sinogram: NDArray[np.floating] | None = None
    trace: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        for image in (self.after_hu, self.reference_hu, self.metal, self.prior_hu):
            if image is not None and image.shape != self.before_hu.shape:
                raise ValueError(f"a preview's images differ in shape: {self.before_hu.shape}, {image.shape}")


def windowed(image_hu: ArrayLike, window: Window) -> NDArray[np.uint8]:
    """Grey values 0..255 of an image: (HU - level) / width + 0.5, clipped; NaN is black.

    This is LINEAR_EXACT of DICOM PS3.3, section C.11.2.1.3.2.
    """
    image = np.nan_to_num(np.asarray(image_hu, np.float32), nan=-np.inf)
    grey = np.clip((image - window.level_hu) / window.width_hu + 0.5, 0, 1)
    return np.rint(grey * 255).astype(np.uint8)


def difference(before_hu: ArrayLike, after_hu: ArrayLike) -> NDArray[np.uint8]:
    """Grey values 0..255 of after - before, mid-grey where nothing changed."""
    change = np.asarray(after_hu, np.float32) - np.asarray(before_hu, np.float32)
    return windowed(change, Window("difference", "Difference", 0, DIFFERENCE_WIDTH_HU))


def picture_png(image_hu: ArrayLike, window: Window) -> bytes:
    """A windowed image as the bytes of an 8-bit grey PNG."""
    return _encoded(Image.fromarray(windowed(image_hu, window)), "PNG")


def picture_webp(grey: NDArray[np.uint8], *, longest_side: int = 512) -> bytes:
    """Grey values as the bytes of a small WebP, made smaller where a side exceeds `longest_side`."""
    picture = Image.fromarray(grey)
    picture.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
    return _encoded(picture, "WEBP")


def outline_png(metal: ArrayLike) -> bytes:
    """The metal's outline, orange on transparent, as PNG bytes of the mask's own size.

    The line lies on the pixels just outside the metal, so that the metal itself stays visible.
    """
    inside = np.asarray(metal, bool)
    edge = ndimage.binary_dilation(inside) & ~inside
    picture = Image.fromarray(edge.astype(np.uint8)).convert("P")
    picture.putpalette([0, 0, 0, 255, 138, 31])
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", transparency=0, bits=1, optimize=True)
    return buffer.getvalue()


def tile_sheet(
    titles: Sequence[str],
    rows: Sequence[tuple[str, Sequence[Image.Image]]],
    *,
    tile_px: int,
    label_px: int,
    font_px: int = 13,
    gap_px: int = 4,
) -> Image.Image:
    """Pictures in columns with a title and rows with a label of several lines.

    Parameters
    ----------
    titles
        Above the columns.
    rows
        A label and as many pictures as titles, none larger than `tile_px`.
    tile_px, label_px
        Side of a picture's place; width of the labels.
    """
    step, header = tile_px + gap_px, font_px * 3 // 2 + 1
    picture = Image.new("RGB", (label_px + len(titles) * step, header + len(rows) * step), (20, 20, 20))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(font_px)
    for column, title in enumerate(titles):
        draw.text((label_px + column * step + 2, 3), title, fill=(225, 225, 225), font=font)
    for number, (label, tiles) in enumerate(rows):
        top = header + number * step
        draw.multiline_text((5, top + 5), label, fill=(225, 225, 225), font=font, spacing=font_px // 3)
        for column, tile in enumerate(tiles):
            picture.paste(tile, (label_px + column * step, top))
    return picture


def before_after_sheet(slices: Sequence[SlicePreview], path: Path | str, window: Window) -> None:
    """Write `sheet` as a PNG."""
    sheet(slices, window).save(path, "PNG", optimize=True)


def sheet(slices: Sequence[SlicePreview], window: Window) -> Image.Image:
    """A grey picture with one row a slice and the columns before, after and difference.

    Parameters
    ----------
    slices : slices of equal or different shape
        Each keeps its own pixels; nothing is resampled.
    window : for the first two columns; the third shows -200 to 200 HU

    Raises
    ------
    ValueError
        Where there is no slice.
    """
    if not slices:
        raise ValueError("a sheet needs at least one slice")
    gap, header = 6, 26
    cell_rows = [preview.before_hu.shape[0] for preview in slices]
    cell_cols = max(preview.before_hu.shape[1] for preview in slices)
    width = 3 * cell_cols + 2 * gap
    height = header + sum(cell_rows) + gap * (len(slices) - 1)
    picture = Image.new("L", (width, height), 20)
    draw = ImageDraw.Draw(picture)
    heading, small = ImageFont.load_default(15), ImageFont.load_default(13)
    half = DIFFERENCE_WIDTH_HU / 2
    titles = ("Before", "After", f"After - before, {-half:.0f} to {half:.0f} HU")
    for column, title in enumerate(titles):
        draw.text((column * (cell_cols + gap) + 6, 4), title, fill=225, font=heading)
    top = header
    for preview, rows in zip(slices, cell_rows, strict=True):
        before, after = (windowed(image, window) for image in (preview.before_hu, preview.after_hu))
        for column, grey in enumerate((before, after, difference(preview.before_hu, preview.after_hu))):
            picture.paste(Image.fromarray(grey), (column * (cell_cols + gap), top))
        draw.text((6, top + 4), preview.label, fill=225, font=small, stroke_width=1, stroke_fill=0)
        top += rows + gap
    return picture


def _encoded(picture: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "WEBP":
        picture.save(buffer, kind, quality=WEBP_QUALITY, method=2)  # as small as 4 here, in half the time
    else:
        picture.save(buffer, kind, optimize=True)
    return buffer.getvalue()
