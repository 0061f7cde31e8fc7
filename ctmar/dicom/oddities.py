"""What is odd about the geometry of a series, as warnings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ctmar.dicom.series import SliceFile

_SPACING_TOLERANCE = 0.05
_TILT_TOLERANCE_DEG = 0.5


def oddities(slices: Sequence[SliceFile]) -> tuple[str, ...]:
    """What a volume reader would stumble over; every slice is corrected by itself, so none of it is fatal."""
    found = []
    first = slices[0]
    if any((s.rows, s.cols) != (first.rows, first.cols) for s in slices):
        found.append("slices differ in matrix size")
    if any(not np.allclose(s.pixel_mm, first.pixel_mm, atol=1e-3) for s in slices):
        found.append("slices differ in pixel spacing")
    if any(not np.isclose(*s.pixel_mm, rtol=1e-3) for s in slices):
        found.append("pixels are not square")
    if any(not np.allclose(s.orientation, first.orientation, atol=1e-3) for s in slices):
        found.append("slices differ in orientation")
        return tuple(found)
    along = np.array([s.along_normal_mm for s in slices])
    steps = np.diff(along)
    coincident = int(np.count_nonzero(steps < 1e-2))
    if coincident:
        found.append(f"slices at the position of another slice: {coincident}")
    steps = steps[steps >= 1e-2]
    if steps.size:
        found.extend(_spacing_oddity(steps))
    tilt = _tilt_deg(slices)
    if tilt > _TILT_TOLERANCE_DEG:
        found.append(f"gantry tilt of {tilt:.1f} degrees")
    return tuple(found)


def _spacing_oddity(steps_mm: np.ndarray) -> list[str]:
    usual = float(np.median(steps_mm))
    multiples = np.rint(steps_mm / usual)
    if np.all(np.abs(steps_mm - usual) <= _SPACING_TOLERANCE * usual):
        return []
    if np.all(multiples >= 1) and np.all(np.abs(steps_mm - multiples * usual) <= _SPACING_TOLERANCE * usual):
        return [f"missing slices: {int((multiples - 1).sum())} (spacing {usual:.2f} mm)"]
    return [f"uneven slice spacing ({steps_mm.min():.2f} to {steps_mm.max():.2f} mm, usually {usual:.2f} mm)"]


def _tilt_deg(slices: Sequence[SliceFile]) -> float:
    """Angle between the normal and the line through the slices, or what the header says, if larger."""
    declared = max(abs(s.tilt_deg) for s in slices)
    way = np.array(slices[-1].position_mm) - np.array(slices[0].position_mm)
    length = float(np.linalg.norm(way))
    if length < 1e-2:
        return declared
    along = abs(slices[-1].along_normal_mm - slices[0].along_normal_mm)
    return max(declared, math.degrees(math.acos(min(1.0, along / length))))
