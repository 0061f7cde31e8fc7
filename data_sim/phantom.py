"""Anthropomorphic phantom: axial CT slices of six regions from analytic shapes, one patient a seed.

Ellipse-like blobs and strips of varying width are painted over one another, from skin to bone, with edges
antialiased by their signed distance and a texture that belongs to the patient, not to the scanner (there is
no noise: the virtual scanner adds that). CT numbers are those of textbooks: fat -100, muscle 50, brain 30 to
40, spongy bone 200 to 350, cortex 900 to 1300, dentine 1700, enamel 2400 HU.

Frame: x to the patient's left, y anterior, mm, as in `ImageGrid`; z_mm superior.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage as ndi

from data_sim.canvas import BLUR_MM, Canvas, Image
from data_sim.geometry import ImageGrid
from data_sim.regions import head, legs, trunk


@dataclass(frozen=True)
class _Region:
    draw: Callable[[Canvas], None]
    needs_mm: float


_REGIONS = {
    "pelvis": _Region(trunk.pelvis, 395.0),
    "shoulder": _Region(trunk.shoulder, 395.0),
    "jaw": _Region(head.jaw, 215.0),
    "head": _Region(head.head, 215.0),
    "chest": _Region(trunk.chest, 350.0),
    "knee": _Region(legs.knee, 350.0),
}

REGIONS = tuple(_REGIONS)
"""Regions that the phantom has."""


def phantom_slice(region: str, *, grid: ImageGrid, seed: int, z_mm: float = 0.0) -> Image:
    """One slice of the phantom.

    Parameters
    ----------
    region
        One of `REGIONS`.
    grid
        Must cover the body: 395 mm for pelvis and shoulder, 350 mm for chest and knees, 215 mm for jaw and head.
    seed
        The patient.
    z_mm
        Position along the patient; the anatomy changes smoothly with it.

    Returns
    -------
    float32 (rows, cols)
        HU, air -1000, without noise.

    Raises
    ------
    ValueError
        Where the region is unknown or the grid too small.
    """
    if region not in _REGIONS:
        raise ValueError(f"unknown region {region!r}: expected one of {', '.join(REGIONS)}")
    needs_mm = _REGIONS[region].needs_mm
    if min(grid.shape) * grid.pixel_mm < needs_mm:
        raise ValueError(f"the {region} phantom needs a grid of at least {needs_mm:g} mm")
    canvas = Canvas(grid, seed, z_mm)
    _REGIONS[region].draw(canvas)
    return np.asarray(ndi.gaussian_filter(canvas.hu, BLUR_MM / grid.pixel_mm), np.float32)


def phantom_series(region: str, slices: int, *, grid: ImageGrid, seed: int, spacing_mm: float = 3.0) -> Image:
    """Neighbouring slices of one patient about the middle of the region, shape (slices, rows, cols), HU.

    Slice 0 is the lowest. Raises `ValueError` as `phantom_slice` does.
    """
    z = (np.arange(slices) - (slices - 1) / 2) * spacing_mm
    return np.stack([phantom_slice(region, grid=grid, seed=seed, z_mm=float(at)) for at in z])
