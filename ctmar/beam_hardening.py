"""Beam hardening corrections of the metal trace: what rays through metal have measured is straightened, not replaced.

*BHC*: J. M. Verburg, J. Seco, "CT metal artifact reduction method correcting for beam hardening and missing
projections", Phys. Med. Biol. 57(9):2803-2818, 2012, in the form of Zhang & Yu 2018, section II.C.

*EBHC*, empirical: Y. Kyriakou, E. Meyer, D. Prell, M. Kachelriess, "Empirical beam hardening correction (EBHC) for CT",
Med. Phys. 37(10):5179-5187, 2010. What hardening adds to a ray is a sum of products of its paths in metal and in tissue
with unknown coefficients, and so are the streaks that it draws. The coefficients are those with which the image comes
closest to a target; there the target was a flat image, here it is an image whose trace was replaced. That image has
wrong whatever its prior had wrong; a few coefficients cannot take that over, and what the rays have measured of
the bone beside titanium stays. Behind much metal, where hardly a photon arrives, it is of no use. Figures: docs/ebhc.md.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

EDGE_MM = 2.0
"""Up to here the metal's edge is blurred in the image and sharp in the terms of the EBHC, which means nothing there."""

_MM_PER_CM = 10.0
_SATURATED_CM = (0.3, 1.0)
"""Metal hardens the beam most in its first millimetres: terms that saturate after so much."""
_LARGE_HU = 30.0
"""Differences beyond this to the target count less: they are streaks of the target, or bone that it has lost."""


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


def hardening_terms(path_mm: NDArray[np.float32], tissue: NDArray[np.float32]) -> NDArray[np.float32]:
    """What hardening by metal may have added to a sinogram: one term for each coefficient of the EBHC.

    Parameters
    ----------
    path_mm : float32 (views, bins)
        Path length in metal.
    tissue : float32 (views, bins)
        Line integral of the tissue, the metal left out; needed on the trace.

    Returns
    -------
    float32 (terms, views, bins); 0 outside of the metal
    """
    metal = path_mm / np.float32(_MM_PER_CM)
    products = [metal**2, metal**3, metal**4, metal * tissue, metal**2 * tissue, metal * tissue**2]
    saturated = [1 - np.exp(-metal / np.float32(cm)) for cm in _SATURATED_CM]
    return np.stack([*products, *saturated])


def fit_hardening(
    image_hu: NDArray[np.float32],
    target_hu: NDArray[np.float32],
    terms: NDArray[np.float32],
    where: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """The image plus as much of every term's streaks as brings it closest to the target.

    Parameters
    ----------
    image_hu, target_hu : float32 (rows, cols)
    terms : float32 (terms, rows, cols)
        Reconstructed, in any unit.
    where : bool (rows, cols)
        Pixels that count: patient, and neither the metal nor what its edge blurs.

    Returns
    -------
    float32 (rows, cols), HU
    """
    wanted = (target_hu - image_hu)[where].astype(np.float64)
    columns = terms[:, where].astype(np.float64)
    size = np.sqrt((columns**2).sum(axis=1, keepdims=True))
    columns /= np.where(size > 0, size, 1)
    weight = np.maximum(np.abs(wanted), _LARGE_HU) ** -0.25
    coefficients, *_ = np.linalg.lstsq((columns * weight).T, wanted * weight, rcond=1e-6)
    scaled = (coefficients / np.where(size > 0, size, 1)[:, 0]).astype(np.float32)
    return image_hu + np.tensordot(scaled, terms, axes=1)
