"""The image quality axes of the AAPM CT-MAR grand challenge, for any case.

The challenge [1]_ [2]_ scores eight axes on 29 cases whose regions of interest were drawn by hand. Here the regions
come from the reference image and the metal, so that every case of a database can be measured; each function says how.
Values are those that the challenge turns into its scores of 0 to 4, not these scores. Of the axes, the CT number is
`rmse_body_hu` (`ctmar.metrics`), bone's overlap `bone_dice`; proton range is left out: the clinical curve from HU to
stopping power that it needs is not public.

References
----------
.. [1] Haneda et al., "AAPM CT metal artifact reduction grand challenge", Medical Physics 52(10), 2025,
   doi 10.1002/mp.70050.
.. [2] Scoring metrics of the challenge: github.com/xcist/example, AAPM_datachallenge/scoring_metric.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.signal import fftconvolve
from skimage.metrics import structural_similarity

from ctmar.metrics import BONE_HU, SOFT_TISSUE_HU, STREAK_REACH_MM, rmse_hu

NEAR_MM = 20.0
"""Tissue up to here from the metal is near, the rest of the body far."""

METAL_MARGIN_HU = 250.0
"""Metal is what is this much above the highest value without metal around it."""

_METAL_REACH_MM = 10.0
_NOISE_RADIUS_MM = 6.0
_EDGE_REACH_PX = 2
_EDGE_CLEARANCE_PX = 3
_SSIM_RANGE_HU = 5000.0
_SSIM_RADIUS_PX = 5
_STREAK_SHARE = 0.05
_SHARPNESS_PERCENTILE = 90

Mask = NDArray[np.bool_]
Image = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Regions:
    """Where each axis is measured, masks (rows, cols); the same for all methods and both paths of a case.

    Parameters
    ----------
    near, far
        Body without metal, up to `NEAR_MM` from it and beyond.
    streaks
        Soft tissue (reference -150 to 150 HU) up to 40 mm from the metal.
    noise
        A disc in homogeneous soft tissue where the uncorrected image differs least from the reference.
    edges
        Within 2 pixels of the outline of bone, or of fat in soft tissue, at least 3 pixels from the metal.
    edge_gradient
        90th percentile of the reference's gradient there, HU a pixel.
    around_metal
        The metal and everything up to 10 mm from it.
    metal_above_hu
        Above it a pixel of `around_metal` is metal.
    """

    near: Mask
    far: Mask
    streaks: Mask
    noise: Mask
    edges: Mask
    edge_gradient: float
    around_metal: Mask
    metal_above_hu: float


def regions(
    reference_hu: ArrayLike, uncorrected_hu: ArrayLike, metal: ArrayLike, body: ArrayLike, *, pixel_mm: float
) -> Regions:
    """The regions of one case.

    Parameters
    ----------
    reference_hu, uncorrected_hu : (rows, cols) array, HU
    metal, body : (rows, cols) boolean array
    pixel_mm : pixel size
    """
    reference, uncorrected = np.asarray(reference_hu, np.float64), np.asarray(uncorrected_hu, np.float64)
    inside, patient = np.asarray(metal, bool), np.asarray(body, bool)
    tissue = patient & ~inside
    distance = (
        ndimage.distance_transform_edt(~inside, sampling=pixel_mm) if inside.any() else np.full(inside.shape, np.inf)
    )
    soft = tissue & (reference >= SOFT_TISSUE_HU[0]) & (reference <= SOFT_TISSUE_HU[1])
    around = distance <= _METAL_REACH_MM
    beside = around & ~inside
    edges = _edges(reference, tissue) & (distance > _EDGE_CLEARANCE_PX * pixel_mm)
    return Regions(
        near=tissue & (distance <= NEAR_MM),
        far=tissue & (distance > NEAR_MM),
        streaks=soft & (distance <= STREAK_REACH_MM),
        noise=_noise_disc(reference, uncorrected, soft, pixel_mm),
        edges=edges,
        edge_gradient=_edge_gradient(reference, edges),
        around_metal=around,
        metal_above_hu=float(reference[beside].max()) + METAL_MARGIN_HU if beside.any() else float("nan"),
    )


def challenge_metrics(
    image_hu: ArrayLike, reference_hu: ArrayLike, metal: ArrayLike, body: ArrayLike, where: Regions
) -> dict[str, float]:
    """All axes of one image; NaN where a case lacks the region.

    Returns
    -------
    dict
        ``rmse_near_hu``, ``rmse_far_hu``: RMSE of `Regions.near` and `far`. ``ssim_body``: `ssim_body`.
        ``noise_hu``, ``noise_ratio``: `noise`. ``sharpness_ratio``: `sharpness_ratio`. ``streak_range_hu``:
        `streak_range_hu`. ``bone_volume_ratio``: `bone_volume_ratio`. ``metal_dice``, ``metal_volume_ratio``:
        `metal_integrity`.
    """
    image, reference = np.asarray(image_hu, np.float64), np.asarray(reference_hu, np.float64)
    inside, patient = np.asarray(metal, bool), np.asarray(body, bool)
    if not image.shape == reference.shape == inside.shape == patient.shape:
        raise ValueError(f"shapes differ: image {image.shape}, reference {reference.shape}, mask {inside.shape}")
    noise_hu, noise_ratio = noise(image, reference, where.noise)
    metal_dice, metal_ratio = metal_integrity(image, inside, where)
    return {
        "rmse_near_hu": rmse_hu(image, reference, mask=where.near) if where.near.any() else float("nan"),
        "rmse_far_hu": rmse_hu(image, reference, mask=where.far) if where.far.any() else float("nan"),
        "ssim_body": ssim_body(image, reference, inside, patient),
        "noise_hu": noise_hu,
        "noise_ratio": noise_ratio,
        "sharpness_ratio": sharpness_ratio(image, where),
        "streak_range_hu": streak_range_hu(image, reference, where.streaks),
        "bone_volume_ratio": bone_volume_ratio(image, reference, inside),
        "metal_dice": metal_dice,
        "metal_volume_ratio": metal_ratio,
    }


def noise(image: Image, reference: Image, roi: Mask) -> tuple[float, float]:
    """Standard deviation in a homogeneous disc, HU, and its ratio to the reference's; 1 is best.

    Below 1 an image is smoother than the scanner would have made it. The challenge scores up to twice the reference's.
    """
    if not roi.any():
        return float("nan"), float("nan")
    own, true = float(image[roi].std()), float(reference[roi].std())
    return own, own / true if true > 0 else float("nan")


def sharpness_ratio(image: Image, where: Regions) -> float:
    """Gradients that are kept at edges: 90th percentile of Sobel's gradient magnitude by the reference's; 1 is best.

    Below 1 edges are blurred; streaks across edges bring it above.
    """
    return _edge_gradient(image, where.edges) / where.edge_gradient if where.edge_gradient > 0 else float("nan")


def streak_range_hu(image: Image, reference: Image, roi: Mask) -> float:
    """Mean of the 5 % highest errors less that of the 5 % lowest, HU."""
    if not roi.any():
        return float("nan")
    error = np.sort(image[roi] - reference[roi])
    count = max(1, round(_STREAK_SHARE * error.size))
    return float(error[-count:].mean() - error[:count].mean())


def ssim_body(image: Image, reference: Image, metal: Mask, body: Mask) -> float:
    """Wang's index of HU + 1000 with a data range of 5000, mean over the body without metal.

    The index depends on where 0 lies, which the challenge does not say: here it is air, as for `paper_ssim`. Metal is
    set to the reference in both, so that windows beside it see no difference but that of the tissue.
    """
    roi = body & ~metal
    if not roi.any():
        return float("nan")
    rows, cols = (np.flatnonzero(roi.any(axis=axis)) for axis in (1, 0))
    margin = 2 * _SSIM_RADIUS_PX  # what lies farther from the body than a window's radius has no part in it
    part = tuple(slice(max(0, one[0] - margin), one[-1] + margin + 1) for one in (rows, cols))
    image, reference, metal, roi = image[part], reference[part], metal[part], roi[part]
    _, index = structural_similarity(
        np.where(metal, reference, image) + 1000,
        reference + 1000,
        data_range=_SSIM_RANGE_HU,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    return float(index[roi].mean())


def bone_volume_ratio(image: Image, reference: Image, metal: Mask) -> float:
    """Area of bone (150 to 2500 HU, without metal) in the image by that in the reference; 1 is best."""
    own, true = (
        np.count_nonzero((values >= BONE_HU[0]) & (values <= BONE_HU[1]) & ~metal) for values in (image, reference)
    )
    return float(own / true) if true else float("nan")


def metal_integrity(image: Image, metal: Mask, where: Regions) -> tuple[float, float]:
    """Dice overlap and area ratio of the metal in an image and the true metal; 1 is best.

    In an image, metal is what lies up to 10 mm from the true metal and is more than 250 HU above the reference's
    highest value there.
    """
    if not metal.any() or not np.isfinite(where.metal_above_hu):
        return float("nan"), float("nan")
    found = where.around_metal & (image > where.metal_above_hu)
    own, true = np.count_nonzero(found), np.count_nonzero(metal)
    return float(2 * np.count_nonzero(found & metal) / (own + true)), float(own / true)


def _noise_disc(reference: Image, uncorrected: Image, soft: Mask, pixel_mm: float) -> Mask:
    """The disc, all of it soft tissue, in which the artifact and the reference's own variance are least."""
    radius = max(2, round(_NOISE_RADIUS_MM / pixel_mm))
    rows, cols = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disc = (rows**2 + cols**2 <= radius**2).astype(np.float64)
    disc /= disc.sum()

    def mean(values: Image) -> Image:
        result: Image = fftconvolve(values, disc, mode="same")
        return result

    # the artifact is the same in both terms of the sum: an offset counts as a streak does
    inhomogeneity = mean(reference**2) - mean(reference) ** 2 + mean((uncorrected - reference) ** 2)
    room = mean(soft.astype(np.float64)) > 1 - 1e-6
    if not room.any():
        return np.zeros(soft.shape, bool)
    row, col = np.unravel_index(np.argmin(np.where(room, inhomogeneity, np.inf)), soft.shape)
    grid = np.mgrid[: soft.shape[0], : soft.shape[1]]
    inside: Mask = (grid[0] - row) ** 2 + (grid[1] - col) ** 2 <= radius**2
    return inside


def _edges(reference: Image, tissue: Mask) -> Mask:
    """Near the outlines of bone and of fat; smoothed first, so that noise makes no outlines."""
    smooth = ndimage.gaussian_filter(reference, 1.5)
    kinds = np.digitize(smooth, [-200.0, -40.0, BONE_HU[0]])  # air and lung, fat, soft tissue, bone
    cross = ndimage.generate_binary_structure(2, 1)
    outline = (ndimage.grey_dilation(kinds, footprint=cross) != kinds) & (kinds > 0)
    # air has edges of its own, much higher than those between tissues
    air = ndimage.binary_dilation(kinds == 0, cross, iterations=2 * _EDGE_REACH_PX)
    return ndimage.binary_dilation(outline & ~air, cross, iterations=_EDGE_REACH_PX) & tissue & ~air


def _edge_gradient(values: Image, edges: Mask) -> float:
    if not edges.any():
        return float("nan")
    magnitude = np.hypot(ndimage.sobel(values, 0), ndimage.sobel(values, 1)) / 8
    return float(np.percentile(magnitude[edges], _SHARPNESS_PERCENTILE))
