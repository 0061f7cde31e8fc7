"""How much of a correction goes into an image: only what takes streaks away, judged without a reference.

A correction replaces the rays of the metal's trace, and where it guesses wrong it draws streaks of its own and loses
edges of bone. In the change d that it makes to an image u the two can be told apart: where d removes a streak it is the
negative of something in u; where it draws a new one, u holds nothing like it. In a band of spatial frequencies the
share s of d that leaves the least energy in u + s d is s = -sum(u d) / sum(d d), the regression of u on d. It is
computed here band by band in a window around every pixel, over soft tissue and air without edges: at bone, u and d are
alike also where d takes away anatomy. What the change does at bone and edges is therefore taken in as far as the
streaks that it removes from the soft tissue around are strong. Where it removes hardly more than noise from that, it
is left out altogether. An image may also be all streaks, with nothing uniform to judge by: the larger the change of the
whole slice, the more of it is taken as it is. Figures: docs/blending.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ctmar.soft_tissue import SOFT_HU, soft_tissue, without_fine_streaks

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]

BANDS_MM = (1.0, 2.0, 4.0, 8.0)
"""Standard deviations of the Gaussians between which the bands lie; of what is coarser, nothing is judged."""

STRONG_STREAKS_HU = 40.0
"""Removed streaks of this size (root mean square) let in half of the change at bone and edges: about the error that
NMAR2 makes there in heads and spines with titanium, where it loses detail and there is nothing to gain."""

OVERWHELMING_STREAKS_HU = 60.0
"""Removed streaks far beyond this let the whole change in: a share of it would leave lines of both images."""

FAINT_STREAKS_HU = 10.0
"""Where this is removed (root mean square), half of the change is left out, and nearly all where half of it is: it is
noise rather than streaks that the change takes away, as where the mask is wrong."""

SEVERE_HU = 80.0
"""Where soft tissue changes by this (root mean square), half of the change goes in as it is: streaks are so large."""

_LARGEST_CHANGE_HU = 1000.0
"""For that mean, so that a few pixels beside the metal do not rule it."""

_WINDOW_MM = 10.0
"""Standard deviation of the window, or twice the band's where that is more."""
_LEAN = 1.15
"""Factor of the shares: noise in d makes a regression too small."""
_METAL_EDGE_MM = 2.0
"""The metal's own edge, the strongest of the image, is left out of the sums."""
_WHOLE_MM, _FALL_MM = 5.0, 8.0
"""The change is whole up to the first from metal that streaks, then its least share falls as a Gaussian with the
second."""
_AIR_HU = -900.0
"""Air around the patient, in which streaks are seen as well: below this after smoothing."""
_LITTLE_TISSUE = 0.05
"""With this share of uniform tissue in a window, half of the verdict is believed that nothing is removed."""
_EDGE_HU_PER_MM, _EDGE_SMOOTH_MM = 20.0, 2.0
"""Edges: a steeper gradient than this after smoothing."""
_BRIGHTEST_HU, _LARGEST_HU = 1500.0, 200.0
"""Bounds of the image and of its bands where the change is smaller: metal and dense bone must not rule the sums."""


def blend(
    before_hu: Image,
    after_hu: Image,
    metal: Mask,
    *,
    pixel_mm: float,
    strength: float = 1.0,
    adaptive: bool = True,
    fallback_hu: Image | None = None,
) -> Image:
    """The image before a correction plus the part of the change that the image supports.

    Parameters
    ----------
    before_hu, after_hu : float32 (rows, cols) or (slices, rows, cols)
        Without the correction and with it, HU.
    metal : bool, same shape
        Its pixels stay as they are before.
    pixel_mm
        Pixel size.
    strength
        0 (nothing) to 1: factor of the change.
    adaptive
        False takes the change as it is, everywhere.
    fallback_hu : float32, same shape
        A more careful correction, HU: the change is judged beside it and what is not supported is left to it instead of
        to the image before.

    Returns
    -------
    float32, same shape, HU

    Raises
    ------
    ValueError
        Where shapes differ, `strength` is not within 0 to 1, or `pixel_mm` is not positive.
    """
    fallback_hu = before_hu if fallback_hu is None else fallback_hu
    shapes = {"before": before_hu.shape, "after": after_hu.shape, "metal": metal.shape, "fallback": fallback_hu.shape}
    if len(set(shapes.values())) > 1 or before_hu.ndim not in (2, 3):
        raise ValueError("shapes differ: " + ", ".join(f"{name} {shape}" for name, shape in shapes.items()))
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must lie within 0 to 1, not {strength}")
    if before_hu.ndim == 3:
        stacks = zip(before_hu, after_hu, metal, fallback_hu, strict=True)
        how: dict[str, Any] = {"pixel_mm": pixel_mm, "strength": strength, "adaptive": adaptive}
        return np.stack([blend(*images, **how, fallback_hu=other) for *images, other in stacks]).astype(np.float32)
    if adaptive:
        fallback_hu = np.where(metal, before_hu, fallback_hu)
        change = np.where(metal, np.float32(0), after_hu - fallback_hu).astype(np.float32)
        after_hu = fallback_hu + supported_change(fallback_hu, change, metal, pixel_mm=pixel_mm)
    return np.where(metal, before_hu, before_hu + np.float32(strength) * (after_hu - before_hu))


def supported_change(before_hu: Image, change_hu: Image, metal: Mask, *, pixel_mm: float) -> Image:
    """The change of one slice, band by band weighted by how much of it takes away something that is there.

    Parameters
    ----------
    before_hu : float32 (rows, cols)
        The image before, metal in place.
    change_hu : float32 (rows, cols)
        After minus before, 0 in the metal.
    metal : bool (rows, cols)
    pixel_mm
        Pixel size.

    Returns
    -------
    float32 (rows, cols), HU
        `change_hu` up to 5 mm from metal that streaks, and less of it elsewhere unless it is large; 0 where there is no
        metal.

    Raises
    ------
    ValueError
        Where `pixel_mm` is not positive.
    """
    if not pixel_mm > 0:
        raise ValueError(f"pixel_mm must be positive, not {pixel_mm}")
    if not metal.any():
        return np.zeros_like(change_hu, np.float32)
    distance = ndimage.distance_transform_edt(~metal, sampling=pixel_mm).astype(np.float32)
    least = np.exp(-(np.maximum(distance - _WHOLE_MM, 0) ** 2) / (2 * _FALL_MM**2))
    image = np.minimum(before_hu, np.float32(_BRIGHTEST_HU)).astype(np.float32)
    soft = uniform_tissue(image, pixel_mm=pixel_mm) & (distance > _METAL_EDGE_MM)
    change = change_hu.astype(np.float32)
    bands, shares = [], []
    removed = np.zeros_like(image)
    for sigma_mm in BANDS_MM:
        coarse_image, coarse_change = (ndimage.gaussian_filter(x, sigma_mm / pixel_mm) for x in (image, change))
        band = change - coarse_change
        bound = np.maximum(np.abs(band), _LARGEST_HU)  # a change as large may be of a streak as large
        seen = np.clip(image - coarse_image, -bound, bound)
        window_px = max(_WINDOW_MM, 2 * sigma_mm) / pixel_mm
        taken, energy, weight = (
            _window_mean(np.where(soft, x, np.float32(0)), window_px)
            for x in (-seen * band, band * band, np.ones_like(band))
        )
        bands.append(band)
        shares.append(np.clip(_LEAN * taken / (energy + 1), 0, 1))  # below 1 HU there is nothing to judge
        removed += np.maximum(taken, 0) / (weight + np.float32(1e-3))
        image, change = coarse_image, coarse_change
    softness = ndimage.gaussian_filter(soft.astype(np.float32), BANDS_MM[0] / pixel_mm)
    trust = softness + (1 - softness) * removed / (removed + STRONG_STREAKS_HU**2)
    judged = weight / (weight + np.float32(_LITTLE_TISSUE))
    beyond_noise = 1 - judged * np.float32(FAINT_STREAKS_HU**4) / (removed**2 + np.float32(FAINT_STREAKS_HU**4))
    trust, least, change = trust * beyond_noise, least * beyond_noise, change * beyond_noise
    least = np.maximum(least, removed**2 / (removed**2 + np.float32(OVERWHELMING_STREAKS_HU**4)))
    weighted = [np.maximum(share * trust, least) * band for share, band in zip(shares, bands, strict=True)]
    supported = np.sum(weighted, axis=0) + change
    severe = _severity(before_hu, change_hu, metal, pixel_mm=pixel_mm)
    return np.where(metal, np.float32(0), supported + severe * (change_hu - supported)).astype(np.float32)


def _severity(before_hu: Image, change_hu: Image, metal: Mask, *, pixel_mm: float) -> float:
    """0 to 1, by the size of the change in soft tissue; that of bone may be a loss of detail."""
    soft = soft_tissue(np.minimum(before_hu, np.float32(_BRIGHTEST_HU)), pixel_mm=pixel_mm) & ~metal
    if not soft.any():
        return 0.0
    changed = np.clip(change_hu[soft], -_LARGEST_CHANGE_HU, _LARGEST_CHANGE_HU)
    fourth = float(np.mean(changed.astype(np.float64) ** 2)) ** 2
    return fourth / (fourth + SEVERE_HU**4)


def uniform_tissue(image_hu: Image, *, pixel_mm: float) -> Mask:
    """Where an image (rows, cols) shows soft tissue or air without edges, whatever streaks lie upon it."""
    smooth = without_fine_streaks(image_hu, pixel_mm=pixel_mm)
    slope = ndimage.gaussian_gradient_magnitude(image_hu, _EDGE_SMOOTH_MM / pixel_mm) / pixel_mm
    return ((np.abs(smooth) < SOFT_HU) | (smooth < _AIR_HU)) & (slope < _EDGE_HU_PER_MM)


def _window_mean(values: Image, sigma_px: float) -> Image:
    """Weighted mean around every pixel, 0 beyond the image: two box filters, together of this standard deviation."""
    size = max(1, round(np.sqrt(6) * sigma_px))
    once = ndimage.uniform_filter(values, size, mode="constant")
    return ndimage.uniform_filter(once, size, mode="constant")
