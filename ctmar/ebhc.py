"""Empirical beam hardening correction (EBHC): the rays through metal keep what they have measured.

Y. Kyriakou, E. Meyer, D. Prell, M. Kachelriess, "Empirical beam hardening correction (EBHC) for CT", Med. Phys.
37(10):5179-5187, 2010. What hardening adds to a ray is a sum of products of its paths in metal and in tissue with
unknown coefficients, and so are the streaks that it draws. The coefficients are those with which the image comes
closest to a target; there the target was a flat image, here it is an image whose trace was replaced. That image has
wrong whatever its prior had wrong; a few coefficients can take over little of that, and what the rays through
titanium have measured of bone stays. Behind much metal, where hardly a photon arrives, it is of no use. Figures:
docs/ebhc.md.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ctmar.metrics import body_mask
from ctmar.segmentation import dilate
from ctmar.streaks import STREAK_HU, cut_off, field_of_view
from data_sim.kernels import thread_count
from data_sim.morphology import grown
from data_sim.projection import Projector

_EDGE_MM = 2.0
"""Up to here the metal's edge is blurred in the image and sharp in the terms, which means nothing there."""
_MM_PER_CM = 10.0
_SATURATION_CM = (0.3, 1.0)
"""Metal hardens the beam most in its first millimetres: terms that saturate after so much."""
_LARGE_HU = 30.0
"""Larger differences between image and target count less: some are bone that the target has lost, or streaks of it."""
_FAINT_HU = 2.0
"""Where the fit changes the patient by this (root mean square), half of it is left out, and at half of this nearly all.
A mask where there is no metal makes a change of up to 2 HU, metal one of 3 (a sixth of it is left out) and more."""

Stack = NDArray[np.float32]
Mask = NDArray[np.bool_]


def straightened(
    image_hu: Stack,
    target_hu: Stack,
    metal: Mask,
    path_mm: Stack,
    tissue: Stack,
    projector: Projector,
    *,
    window: str,
    cut: bool,
    left_out: Mask | None = None,
) -> Stack:
    """Images less the streaks that hardening by metal can have drawn.

    Parameters
    ----------
    image_hu : float32 (slices, rows, cols)
        Uncorrected, HU.
    target_hu : float32 (slices, rows, cols)
        With few streaks, HU; it is what is shown up to 2 mm from the metal.
    metal : bool (slices, rows, cols)
    path_mm : float32 (slices, views, bins)
        Path length in metal, mm.
    tissue : float32 (slices, views, bins)
        Line integral of the tissue, the metal left out, dimensionless; needed on the trace.
    projector : of the sinograms' geometry and the images' grid
    window : of the reconstruction that made the images
    cut : whether the images are stored ones that the scanner has cut off; there the target is shown in strong streaks
    left_out : bool (slices, rows, cols)
        Pixels that do not count in the fit.

    Returns
    -------
    float32 (slices, rows, cols), HU; the image as it is outside of the field of view
    """
    paths = zip(path_mm, tissue, strict=True)
    terms = [projector.fbp(hardening_terms(*one), window=window) for one in paths]
    left_out = np.zeros(metal.shape, bool) if left_out is None else left_out
    slice_of = partial(_one_slice, seen=field_of_view(projector), pixel_mm=projector.grid.pixel_mm, cut=cut)
    with ThreadPoolExecutor(thread_count()) as pool:
        return np.stack(list(pool.map(slice_of, image_hu, target_hu, metal, terms, left_out)))


def _one_slice(
    image_hu: Stack,
    target_hu: Stack,
    metal: Mask,
    terms: Stack,
    left_out: Mask,
    *,
    seen: Mask,
    pixel_mm: float,
    cut: bool,
) -> Stack:
    edge = grown(metal, _EDGE_MM, pixel_mm) | dilate(metal)
    beyond = np.logical_or(*cut_off(image_hu)) if cut else np.zeros_like(metal)
    counts = body_mask(np.where(seen, target_hu, image_hu)) & seen & ~edge & ~beyond & ~left_out
    corrected = fit_hardening(image_hu, target_hu, terms, counts)
    unknown = beyond & (np.abs(corrected - image_hu) > STREAK_HU)
    return np.where(seen, np.where(edge | unknown, target_hu, corrected), image_hu)


def hardening_terms(path_mm: NDArray[np.float32], tissue: NDArray[np.float32]) -> NDArray[np.float32]:
    """What hardening by metal may have added to a sinogram: one term for each coefficient.

    Parameters
    ----------
    path_mm : float32 (views, bins)
        Path length in metal, mm.
    tissue : float32 (views, bins)
        Line integral of the tissue, the metal left out, dimensionless.

    Returns
    -------
    float32 (terms, views, bins); 0 outside of the metal
    """
    trace = path_mm > 0
    metal, behind = path_mm[trace] / np.float32(_MM_PER_CM), tissue[trace]
    square = metal * metal
    products = [square, square * metal, square * square, metal * behind, square * behind, metal * behind * behind]
    saturated = [-np.expm1(-metal / np.float32(cm)) for cm in _SATURATION_CM]
    terms = np.zeros((len(products) + len(saturated), *path_mm.shape), np.float32)
    terms[:, trace] = [*products, *saturated]
    return terms


def fit_hardening(
    image_hu: NDArray[np.float32],
    target_hu: NDArray[np.float32],
    terms: NDArray[np.float32],
    counts: Mask,
) -> NDArray[np.float32]:
    """The image plus as much of every term's streaks as brings it closest to the target.

    Of a change of few HU, a part: see `_FAINT_HU`.

    Parameters
    ----------
    image_hu, target_hu : float32 (rows, cols), HU
    terms : float32 (terms, rows, cols)
        Reconstructed, in any unit.
    counts : bool (rows, cols)
        Pixels that count: patient, and neither the metal nor what its edge blurs.

    Returns
    -------
    float32 (rows, cols), HU
    """
    difference_hu = target_hu - image_hu
    counts = counts & np.isfinite(difference_hu)
    wanted = difference_hu[counts].astype(np.float64)
    columns = terms[:, counts].astype(np.float64)
    norm = np.sqrt((columns**2).sum(axis=1, keepdims=True))
    norm[norm == 0] = 1
    weight = np.maximum(np.abs(wanted), _LARGE_HU) ** -0.25
    coefficients, *_ = np.linalg.lstsq((columns / norm * weight).T, wanted * weight, rcond=1e-6)
    change_hu: NDArray[np.float32] = np.tensordot((coefficients / norm[:, 0]).astype(np.float32), terms, axes=1)
    energy = float(np.mean(change_hu[counts] ** 2)) if counts.any() else 0.0
    change_hu *= np.float32(energy**2 / (energy**2 + _FAINT_HU**4))
    return image_hu + change_hu
