"""Bone beside metal that an image shows and a prior has lost.

All methods that replace the metal's rays lose bone that touches metal: of a screw through a shoulder blade they leave
the screw in soft tissue. Titanium streaks so little that the uncorrected image shows that bone far better than any
guess. So what stands out there from the prior by several times the streaks around is put back, if it goes over into
bone that the prior has further away. Around denser metal, streaks look like that as well, and nothing is put back; an
image that is cut off at 3071 HU does not say which metal it shows. Figures: docs/bone.md.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ctmar.soft_tissue import soft_tissue

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]

TITANIUM_HU = (5000.0, 13000.0)
"""Between these lies the brightest pixel of titanium; that of steel and all that is denser is above 18,000 HU."""

STANDS_OUT = 4.0
"""Bone is above the prior by this many standard deviations of the streaks."""

_REACH_MM = 40.0
"""Bone is put back up to this distance from the metal."""
_STREAKS_MM = (2.0, 30.0)
"""Between these, streaks are measured in soft tissue: what the network takes away there."""
_LEAST_SOFT_PX = 50
"""Without as much soft tissue around, nothing can be said about streaks."""
_BRIGHT_HU, _BONE_HU = 200.0, 300.0
"""The least of what is put back; of the prior's bone."""
_BONE_FROM_MM, _LEAST_BONE_PX, _LEAST_SHARE = 3.0, 20, 0.25
"""The prior's bone counts from this distance; as many pixels of it, and as many for each pixel put back, must hang
together with what is put back: a streak that happens to touch a bone is larger than that bone."""


def bone_beside_metal(image_hu: Image, network_hu: Image, prior_hu: Image, metal: Mask, *, pixel_mm: float) -> Mask:
    """Where one slice shows bone that its prior lacks.

    Parameters
    ----------
    image_hu : float32 (rows, cols)
        Uncorrected, HU.
    network_hu : float32 (rows, cols)
        The same without streaks, as a network makes it, HU.
    prior_hu : float32 (rows, cols)
        From which the metal's rays are to be taken, HU.
    metal : bool (rows, cols)
    pixel_mm
        Pixel size.

    Returns
    -------
    bool (rows, cols)
        Pixels for which the uncorrected image is the better prior.

    Raises
    ------
    ValueError
        Where shapes differ or `pixel_mm` is not positive.
    """
    if not image_hu.shape == network_hu.shape == prior_hu.shape == metal.shape or image_hu.ndim != 2:
        raise ValueError("image, network's image, prior and metal must be slices of one shape")
    if not pixel_mm > 0:
        raise ValueError(f"pixel_mm must be positive, not {pixel_mm}")
    least_hu, most_hu = TITANIUM_HU
    if not metal.any() or not least_hu < image_hu[metal].max() < most_hu:
        return np.zeros(metal.shape, bool)
    distance = ndimage.distance_transform_edt(~metal, sampling=pixel_mm)
    streaks_hu = _streaks_hu(image_hu, network_hu, distance, pixel_mm)
    seen = (image_hu - prior_hu > STANDS_OUT * streaks_hu) & (image_hu > _BRIGHT_HU)
    seen &= ~metal & (distance < _REACH_MM)
    bone = (prior_hu > _BONE_HU) & (distance > _BONE_FROM_MM)
    parts, count = ndimage.label(seen | bone, np.ones((3, 3)))
    numbers = np.arange(count + 1)
    known, found = (ndimage.sum_labels(mask, parts, numbers) for mask in (bone, seen))
    return seen & ((known >= _LEAST_BONE_PX) & (known >= _LEAST_SHARE * found))[parts]


def _streaks_hu(image_hu: Image, network_hu: Image, distance: NDArray[np.float64], pixel_mm: float) -> float:
    """Standard deviation, by the median, of what the network takes away in soft tissue around.

    Infinite where there is none. The median, since the network takes away bone as well.
    """
    least, most = _STREAKS_MM
    soft = soft_tissue(image_hu, pixel_mm=pixel_mm) & (distance > least) & (distance < most)
    if np.count_nonzero(soft) < _LEAST_SOFT_PX:
        return np.inf
    return float(1.4826 * np.median(np.abs(image_hu - network_hu)[soft]))  # of a normal distribution
