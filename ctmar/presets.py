"""Settings by region, and the metal mask that they ask for.

Measured on simulated images (docs/blending.md), one set of values was the best for hips, spines, teeth and heads, so
that all presets are the same today. The names are there for whoever measures something better for a region.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ctmar.segmentation import METAL_THRESHOLD_HU, dilate, metal_mask

CORE_THRESHOLD_HU = 3000.0
"""Just below 3071 HU, where 12-bit scanners saturate: metal gets there, its halo and bone between metal do not."""


@dataclass(frozen=True)
class Preset:
    """What a region asks for.

    Attributes
    ----------
    metal_threshold_hu
        A region that reaches it holds metal.
    core_threshold_hu
        Where a region reaches this, too, only that part of it is metal.
    dilation
        Pixels by which the mask is grown.
    strength
        See `ctmar.blending.blend`.
    adaptive
        See `ctmar.blending.blend`.
    reason
        What was measured.
    """

    metal_threshold_hu: float = METAL_THRESHOLD_HU
    core_threshold_hu: float = CORE_THRESHOLD_HU
    dilation: int = 0
    strength: float = 1.0
    adaptive: bool = True
    reason: str = ""


PRESETS = {
    "auto": Preset(reason="the best of what was tried in 25 of 25 cases of hips, spines, teeth and heads"),
    "hip": Preset(reason="as auto: 8 % less error in 7 of 7 cases, no other setting was better"),
    "spine": Preset(reason="as auto: 13 % less error in 6 of 6 cases, no other setting was better"),
    "dental": Preset(reason="as auto: 19 % less error in 6 of 6 cases, no other setting was better"),
    "head": Preset(reason="as auto: 32 % less error in 6 of 6 cases, no other setting was better"),
}
"""By name, in the order in which they are offered. Errors are those of NMAR2 before blending, against a mask at
2500 HU grown by 1 mm."""


def preset_mask(image_hu: NDArray[np.float32], preset: Preset, *, pixel_mm: float) -> NDArray[np.bool_]:
    """The metal of one slice (rows, cols), or of a stack (slices, rows, cols), slice by slice.

    Connected regions of at least 1 mm2 at the threshold; of one in which at least 1 mm2 reaches the core threshold,
    only what reaches that. So thin metal that never gets there is found, and the halo of dense metal is not.
    """
    wide = metal_mask(image_hu, threshold_hu=preset.metal_threshold_hu, pixel_mm=pixel_mm, dilation=0)
    core = metal_mask(image_hu, threshold_hu=preset.core_threshold_hu, pixel_mm=pixel_mm, dilation=0)
    return dilate(np.where(_regions_with(wide, core), core, wide), preset.dilation)


def _regions_with(wide: NDArray[np.bool_], core: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Those regions of a mask, slice by slice with 8 neighbours, in which the other mask lies."""
    structure = np.zeros((3,) * wide.ndim, bool)
    structure[(1,) * (wide.ndim - 2)] = True
    labels, _ = ndimage.label(wide, structure)
    return np.isin(labels, np.unique(labels[core & wide])) & wide
