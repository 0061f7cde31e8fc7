"""Slices as the report's script wants them: HU that survive compression, so that any window can be chosen.

HU are kept in steps of `STEP_HU` from `LOWEST_HU` on, two bytes a pixel in the red and green of a lossless WebP (50 to
100 kB for 512 x 512 pixels), which every browser decodes. What changed is kept as a difference of such steps: for most
slices it is empty or smooth, and then small.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ctmar.report.pictures import SlicePreview, outline_png, picture_webp

STEP_HU = 4
LOWEST_HU = -1024
LEVELS = 1024
"""-1024 to 3068 HU, which is what 12-bit scanners store."""

LONGEST_SIDE = 512

EncodedSlice = Mapping[str, Any]
"""A slice that is compressed already, see `encode`."""


def encode(preview: SlicePreview) -> EncodedSlice:
    """A slice as JSON can hold it: texts, numbers, and pictures as data URLs.

    ``before``, and ``reference`` and ``prior`` where there are any, are levels; ``after`` is the difference of its
    levels to those of ``before``, plus `LEVELS`, and None where nothing changed.
    """
    factor = -(-max(preview.before_hu.shape) // LONGEST_SIDE)
    before = levels(preview.before_hu, factor)
    change = levels(preview.after_hu, factor).astype(np.int32) - before
    pictures: dict[str, str | None] = {
        "before": levels_url(before),
        "after": levels_url((change + LEVELS).astype(np.uint16)) if change.any() else None,
    }
    for name, image in (("reference", preview.reference_hu), ("prior", preview.prior_hu)):
        if image is not None:
            pictures[name] = levels_url(levels(image, factor))
    if preview.metal is not None and preview.metal.any():
        pictures["outline"] = _data_url(outline_png(preview.metal), "png")
    if preview.sinogram is not None and preview.trace is not None:
        pictures["sinogram"] = _data_url(picture_webp(_stretched(preview.sinogram)), "webp")
        pictures["trace"] = _data_url(outline_png(preview.trace), "png")
    rows, cols = preview.before_hu.shape
    return {
        "label": preview.label,
        "notes": preview.notes,
        "aspect": cols / rows,
        "focus": _middle_of(preview.metal),
        "metal_pixels": 0 if preview.metal is None else int(np.count_nonzero(preview.metal)),
        "pictures": pictures,
    }


def _middle_of(metal: NDArray[np.bool_] | None) -> tuple[float, float]:
    """Where the metal is, from the left and from the top in percent; the middle of the image without any."""
    if metal is None or not metal.any():
        return 50.0, 50.0
    row, col = np.argwhere(metal).mean(axis=0)
    return round(100 * (col + 0.5) / metal.shape[1], 1), round(100 * (row + 0.5) / metal.shape[0], 1)


def levels(image_hu: NDArray[np.floating], factor: int = 1) -> NDArray[np.uint16]:
    """Steps of an image in HU, NaN as the lowest; averaged over squares of `factor` pixels a side."""
    hu = np.nan_to_num(np.asarray(image_hu, np.float32), nan=LOWEST_HU)
    if factor > 1:
        rows, cols = (side // factor for side in hu.shape)
        hu = hu[: rows * factor, : cols * factor].reshape(rows, factor, cols, factor).mean(axis=(1, 3))
    return np.rint(np.clip((hu - LOWEST_HU) / STEP_HU, 0, LEVELS - 1)).astype(np.uint16)


def levels_url(values: NDArray[np.uint16]) -> str:
    """Whole numbers below 65536 as a data URL: low byte in red, high byte in green."""
    colours = np.zeros((*values.shape, 3), np.uint8)
    colours[..., 0], colours[..., 1] = values & 255, values >> 8
    buffer = io.BytesIO()
    Image.fromarray(colours).save(buffer, "WEBP", lossless=True, quality=50, method=4)
    return _data_url(buffer.getvalue(), "webp")


def _stretched(sinogram: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Grey values from nothing to the 99.9th percentile, so that metal does not leave the rest black."""
    most = float(np.percentile(sinogram, 99.9)) or 1.0
    return np.rint(255 * np.clip(sinogram / most, 0, 1)).astype(np.uint8)


def _data_url(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
