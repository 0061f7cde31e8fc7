"""Where the voxels of a DICOM series are, as one affine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ctmar.dicom.planes import LPS_TO_RAS, voxel_affine
from ctmar.dicom.series import Series
from ctmar.errors import UnsupportedInputError

_SPACING_TOLERANCE = 0.05


def affine_of(series: Series) -> NDArray[np.float64]:
    """From (column, row, slice) of a DICOM series to mm to the patient's right, to anterior and upwards, (4, 4).

    DICOM counts to the left, to posterior and upwards (PS3.3 section C.7.6.2.1.1). The third axis is the way from
    slice to slice; where the gantry was tilted it is not along their normal, and the affine is sheared. A single
    slice is 1 mm thick.

    Raises
    ------
    UnsupportedInputError
        Where slices are missing, unevenly spaced, at the same position, or differ in grid or orientation: no affine
        can say that.
    """
    slices = series.slices
    first = slices[0]
    axes = np.array(first.orientation).reshape(2, 3)
    for other in slices[1:]:
        same = np.allclose(other.orientation, first.orientation, atol=1e-3)
        if not same or (other.rows, other.cols) != (first.rows, first.cols):
            raise UnsupportedInputError(f"{other.name}: its orientation or matrix differs from the first slice's, "
                                        "which NIfTI cannot hold; write DICOM.")  # fmt: skip
        if not np.allclose(other.pixel_mm, first.pixel_mm, atol=1e-3):
            raise UnsupportedInputError(f"{other.name}: its pixel spacing differs from the first slice's, "
                                        "which NIfTI cannot hold; write DICOM.")  # fmt: skip
    positions = np.array([s.position_mm for s in slices])
    normal = np.cross(*axes)
    step = (positions[-1] - positions[0]) / (len(slices) - 1) if len(slices) > 1 else normal / np.linalg.norm(normal)
    spacing = float(np.linalg.norm(step))
    off = np.abs(positions - (positions[0] + np.arange(len(slices))[:, None] * step)).max()
    if spacing < 1e-2 or off > _SPACING_TOLERANCE * spacing:
        raise UnsupportedInputError(
            f"series {series.uid}: slices lie up to {off:.2f} mm from even spacing ({spacing:.2f} mm), which NIfTI "
            "cannot hold; write DICOM, or leave out the part with the gap."
        )
    affine = voxel_affine(first)
    affine[:3, 2] = LPS_TO_RAS @ step
    return affine
