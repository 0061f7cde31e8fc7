"""Linear interpolation (LI) of sinograms across the metal trace.

W. A. Kalender, R. Hebel, J. Ebersberger, "Reduction of CT artifacts caused by metallic implants", Radiology
164(2):576-577, 1987.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def interpolate_trace(sinogram: NDArray[np.float32], trace: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Bins of the trace replaced, view by view, by the line between the nearest bins outside it.

    A trace that reaches the end of the detector takes the value of its one neighbour; a view that is all trace
    becomes 0.

    Parameters
    ----------
    sinogram : float32 (..., views, bins)
    trace : bool, same shape

    Returns
    -------
    float32, same shape; equal to `sinogram` outside the trace
    """
    if sinogram.shape != trace.shape:
        raise ValueError(f"sinogram {sinogram.shape} and trace {trace.shape} differ in shape")
    out = np.array(sinogram, np.float32)
    views = trace.any(axis=-1)
    if not views.any():
        return out
    rows, inside = out[views], trace[views]
    bins = np.arange(rows.shape[-1], dtype=np.int32)
    left = np.maximum.accumulate(np.where(inside, -1, bins), axis=-1)
    right = np.minimum.accumulate(np.where(inside, bins.size, bins)[:, ::-1], axis=-1)[:, ::-1]
    row, col = np.nonzero(inside)
    lo, hi = left[row, col], right[row, col]
    value_lo = rows[row, np.maximum(lo, 0)]
    value_hi = rows[row, np.minimum(hi, bins.size - 1)]
    no_lo, no_hi = lo < 0, hi == bins.size
    value_lo, value_hi = np.where(no_lo, value_hi, value_lo), np.where(no_hi, value_lo, value_hi)
    share = ((col - lo) / (hi - lo)).astype(np.float32)
    filled = value_lo + share * (value_hi - value_lo)
    rows[row, col] = np.where(no_lo & no_hi, 0, filled)
    out[views] = rows
    return out
