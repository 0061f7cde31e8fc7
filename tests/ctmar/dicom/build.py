"""Small CT series for tests: what the package makes, and an image in which every pixel is told from its neighbours."""

from __future__ import annotations

import numpy as np

from ctmar.dicom.synthetic import FRAME_UID, SERIES_UID, STUDY_UID, ct_dataset, save, write_ct_series

__all__ = ["FRAME_UID", "SERIES_UID", "STUDY_UID", "ct_dataset", "ramp_hu", "save", "write_ct_series"]


def ramp_hu(slices: int = 4, size: int = 16) -> np.ndarray:
    """(slice, row, column) HU in which every pixel of a slice differs from its neighbours."""
    image = np.arange(size * size).reshape(size, size) * 4.0 - 500
    return np.stack([image + 10 * k for k in range(slices)])
