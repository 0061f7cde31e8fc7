"""Which slices can be simulated from: no metal in or near them, a whole patient, room for an implant."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ctmar.errors import CtmarError
from ctmar.metrics import BODY_ABOVE_HU, body_mask
from ctmar.segmentation import metal_mask
from ctmar.sources import SourceSlice
from data_sim.geometry import ImageGrid
from data_sim.implants.own import Shape
from data_sim.placement import IMPLANTS, suitable

METAL_FREE_BELOW_HU = 3000.0
"""Enamel reaches 2800 HU in metal-free slices; real metal saturates 12-bit scanners at 3071."""

METAL_REACH_MM = 10.0
"""Metal seldom ends where its values fall below the threshold: slices of the same series this near go with it."""

MOST_CUT_OFF = 0.3
"""Share of the patient's outline that the edge of the field of view may make up. Arms that leave a chest's field
come to 0.2; a shoulder girdle in a neck's field has 0.7."""

NOT_WANTED = "a patient to be left out"

_METAL = "metal: values of 3000 HU and above"
_LEAST_BODY_MM2 = 2000.0
_LEAST_THICKNESS_MM = 30.0
_EDGE_PX = 3


@dataclass(frozen=True)
class Screened:
    """What screening found in a slice: the families of implants that fit it, or why it is left out.

    `reach_mm` is how far the patient reaches from the isocentre.
    """

    slice: SourceSlice
    patient: str = ""
    grid: ImageGrid | None = None
    implants: tuple[str, ...] = ()
    reason: str = ""
    reach_mm: float = 0.0


def screen(
    source: SourceSlice,
    *,
    names: Sequence[str] = tuple(IMPLANTS),
    shapes: Sequence[Shape] = (),
    wants: Callable[[str], bool] | None = None,
) -> Screened:
    """Load a slice and say which of the families of implants it can be used for; `wants` chooses patients."""
    try:
        image_hu, grid, patient = source.load()
    except CtmarError as error:
        return Screened(source, reason=str(error))
    reason = why_not(image_hu, grid) if wants is None or wants(patient) else NOT_WANTED
    if reason:
        return Screened(source, patient, grid, reason=reason)
    # the same generator for every slice: what fits does not depend on which others there are
    fitting = suitable(image_hu, grid, np.random.default_rng(0), names=names, shapes=shapes)
    reach_mm = float(np.hypot(grid.x_mm()[None], grid.y_mm()[:, None])[body_mask(image_hu)].max())
    return Screened(source, patient, grid, tuple(fitting), "" if fitting else "no implant fits", reach_mm)


def why_not(image_hu: NDArray[np.float32], grid: ImageGrid) -> str:
    """Why a slice (rows, cols) in HU cannot be used, "" where it can."""
    if metal_mask(image_hu, threshold_hu=METAL_FREE_BELOW_HU, pixel_mm=grid.pixel_mm).any():
        return _METAL
    body = body_mask(image_hu)
    if body.sum() * grid.pixel_mm**2 < _LEAST_BODY_MM2:
        return "hardly any patient in it"
    if 2 * ndimage.distance_transform_edt(np.pad(body, 1)).max() * grid.pixel_mm < _LEAST_THICKNESS_MM:
        return f"no patient, only things less than {_LEAST_THICKNESS_MM:g} mm thick, as a table is"
    cut_off = cut_off_share(image_hu, body)
    if cut_off > MOST_CUT_OFF:
        return f"the patient is cut off by the edge of the field of view ({100 * cut_off:.0f} % of the outline)"
    return ""


def cut_off_share(image_hu: NDArray[np.float32], body: NDArray[np.bool_]) -> float:
    """Share of the body's outline that lies on the edge of the field of view, 0..1.

    The field is the circle in the image where everything outside of it has one value (padding), else the whole image.
    """
    rows, cols = image_hu.shape
    y, x = np.ogrid[:rows, :cols]
    circle = np.hypot(y - (rows - 1) / 2, x - (cols - 1) / 2) <= min(rows, cols) / 2
    corners = image_hu[~circle]
    field = circle if corners.size and corners.min() == corners.max() < BODY_ABOVE_HU else np.ones_like(circle)
    outline = _rim(body)
    return int(np.count_nonzero(outline & _rim(field))) / max(1, int(np.count_nonzero(outline)))


def without_neighbours_of_metal(screened: Sequence[Screened]) -> list[Screened]:
    """The same, with slices left out that lie within `METAL_REACH_MM` of one with metal in their series."""
    metal_mm: dict[str, list[float]] = defaultdict(list)
    for found in screened:
        if found.reason == _METAL and found.slice.series:
            metal_mm[found.slice.series].append(found.slice.z_mm)
    result = []
    for one in screened:
        found = one
        gaps = [abs(found.slice.z_mm - z) for z in metal_mm.get(found.slice.series, ())]
        if not found.reason and gaps and min(gaps) <= METAL_REACH_MM:
            found = replace(one, implants=(), reason=f"metal in a slice nearby ({min(gaps):.1f} mm)")
        result.append(found)
    return result


def _rim(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return mask & ~ndimage.binary_erosion(mask, iterations=_EDGE_PX)
