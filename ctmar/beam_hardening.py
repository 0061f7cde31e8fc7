"""Beam hardening correction (BHC) of the metal trace.

J. M. Verburg, J. Seco, "CT metal artifact reduction method correcting for beam hardening and missing projections",
Phys. Med. Biol. 57(9):2803-2818, 2012, in the form of Zhang & Yu 2018, section II.C.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def correct_beam_hardening(
    sinogram: NDArray[np.float32], interpolated: NDArray[np.float32], path_mm: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The metal's contribution straightened into a line through the origin.

    Within the trace the contribution of the metal, ``p - p_LI``, is fitted by ``a1 L + a2 L^2 + a3 L^3`` with L
    the path length in metal; the curved part is then taken off: ``p - a2 L^2 - a3 L^3``.

    Parameters
    ----------
    sinogram, interpolated : float32 (views, bins)
        The measured and the linearly interpolated sinogram.
    path_mm : float32 (views, bins)
        Path length in metal, positive on the trace.

    Returns
    -------
    float32 (views, bins); equal to `sinogram` outside the trace
    """
    out = np.array(sinogram, np.float32)
    trace = path_mm > 0
    if not trace.any():
        return out
    longest = float(path_mm.max())
    path = path_mm[trace].astype(np.float64) / longest  # scaled to keep the normal equations well conditioned
    powers = path[:, None] ** np.arange(1, 4)
    excess = (sinogram[trace] - interpolated[trace]).astype(np.float64)
    coefficients, *_ = np.linalg.lstsq(powers, excess, rcond=None)
    out[trace] -= (powers[:, 1:] @ coefficients[1:]).astype(np.float32)
    return out
