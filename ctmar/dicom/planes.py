"""Where the slices of a series lie in the patient, for masks that come with positions of their own."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ctmar.dicom.series import Series, SliceFile
from ctmar.dicom.source import PARSE_ERRORS, quiet_pydicom, read_dataset
from ctmar.errors import UnsupportedInputError

_ALONE_MM = 2.5
"""How far from a single slice something may lie and still be on it."""

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
"""DICOM counts to the left and to posterior (PS3.3 section C.7.6.2.1.1), NIfTI to the right and to anterior."""

_SAME_PLACE_MM = 0.01


@dataclass(frozen=True)
class Planes:
    """The slices of a series as planes; patient coordinates (left, posterior, superior), mm."""

    series: Series

    @cached_property
    def by_uid(self) -> dict[str, list[int]]:
        """Indices of slices by SOP instance UID; several where they were frames of one image."""
        found: dict[str, list[int]] = defaultdict(list)
        for index, one in enumerate(self.series.slices):
            found[one.sop_uid].append(index)
        return found

    @cached_property
    def normal(self) -> NDArray[np.float64]:
        """Unit normal of the first slice, along which `along_mm` is measured."""
        orientation = np.asarray(self.series.slices[0].orientation, float)
        normal = np.cross(orientation[:3], orientation[3:])
        return normal / np.linalg.norm(normal)

    @cached_property
    def along_mm(self) -> NDArray[np.float64]:
        """Positions of the slices along the normal."""
        return np.array([np.asarray(one.position_mm, float) @ self.normal for one in self.series.slices])

    @cached_property
    def reach_mm(self) -> NDArray[np.float64]:
        """Half the distance from every slice to its nearest neighbour at another position."""
        different = np.unique(np.round(self.along_mm, 3))
        if different.size < 2:
            return np.full(self.along_mm.size, _ALONE_MM)
        gaps = np.diff(different)
        nearest = np.minimum(np.concatenate([[np.inf], gaps]), np.concatenate([gaps, [np.inf]]))
        return nearest[np.searchsorted(different, np.round(self.along_mm, 3))] / 2

    @cached_property
    def frame_of_reference(self) -> str:
        """Frame of Reference UID of the series, "" where its first image names none."""
        try:
            with self.series.slices[0].file.open() as stream, quiet_pydicom():
                return str(read_dataset(stream, tags=["FrameOfReferenceUID"]).get("FrameOfReferenceUID") or "")
        except (*PARSE_ERRORS, UnsupportedInputError):
            return ""

    def at(self, along_mm: float, *, share: float = 1.0) -> list[int]:
        """The slices nearest to a position along the normal (several at one position); none beyond their reach.

        `share` of half the spacing is the reach; a thousandth of a millimetre is let pass.
        """
        away = np.abs(self.along_mm - along_mm)
        nearest = float(away.min())
        close = np.flatnonzero(away <= nearest + _SAME_PLACE_MM)
        return [int(k) for k in close if away[k] <= share * self.reach_mm[k] + 1e-3]


def row_col_off(points_mm: NDArray[np.float64], one: SliceFile) -> NDArray[np.float64]:
    """Points (n, 3) in a slice: row, column (0 at the centre of the first pixel) and mm off its plane, (n, 3)."""
    orientation = np.asarray(one.orientation, float)
    along_row, along_column = orientation[:3], orientation[3:]  # of increasing column and of increasing row
    normal = np.cross(along_row, along_column)
    offset = np.asarray(points_mm, float) - np.asarray(one.position_mm, float)
    rows_mm, cols_mm = one.pixel_mm
    return np.stack([offset @ along_column / rows_mm, offset @ along_row / cols_mm, offset @ normal], axis=-1)


def voxel_affine(one: SliceFile, step_mm: float = 1.0) -> NDArray[np.float64]:
    """(column, row, slice, 1) to right, anterior, superior in mm as NIfTI has it, (4, 4); slices `step_mm` apart."""
    orientation = np.asarray(one.orientation, float)
    affine = np.eye(4)
    affine[:3, 0] = orientation[:3] * one.pixel_mm[1]
    affine[:3, 1] = orientation[3:] * one.pixel_mm[0]
    affine[:3, 2] = np.cross(orientation[:3], orientation[3:]) * step_mm
    affine[:3, 3] = one.position_mm
    affine[:3] = LPS_TO_RAS @ affine[:3]
    return affine
