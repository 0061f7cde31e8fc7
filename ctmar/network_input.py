"""From corrected images in HU to what a network sees, the same for training and for correction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctmar.segmentation import dilate
from data_sim.units import hu_to_mu, mu_to_hu

MM_PER_CM = 10.0

MAPS = ("metal",)
"""Channels that are no images: the metal itself, 0 or the attenuation of water."""

HIGHEST_HU = 3071.0
"""Channels are cut here, as 12-bit scanners do: around gold, raw-data images reach 100,000 HU."""


def image_names(names: Sequence[str]) -> tuple[str, ...]:
    """Those of the channels that are images."""
    return tuple(name for name in names if name not in MAPS)


def network_channels(
    images_hu: Mapping[str, ArrayLike],
    mask: ArrayLike,
    names: Sequence[str],
    mu_water_per_mm: float,
) -> NDArray[np.float32]:
    """Images as network channels: attenuation in 1/cm, metal set to water, nothing negative or above 3071 HU.

    The metal is dilated by a 3x3 cross first (Zhang & Yu 2018, section II-B).

    Parameters
    ----------
    images_hu
        Images by name, each (rows, cols) or (slices, rows, cols) in HU; more than `names` may be there.
    mask
        Metal, bool, of the same shape.
    names
        The images and maps (`MAPS`) to take, in the order of the channels.
    mu_water_per_mm
        Attenuation that is 0 HU, mm^-1.

    Returns
    -------
    numpy.ndarray
        float32 (channels, rows, cols) or (slices, channels, rows, cols), 1/cm.

    Raises
    ------
    ValueError
        Where an image is missing or its shape is not that of the mask.
    """
    metal = dilate(np.asarray(mask, bool))
    water = np.float32(mu_water_per_mm * MM_PER_CM)
    channels = []
    for name in names:
        if name in MAPS:
            channels.append(np.where(metal, water, np.float32(0)))
            continue
        if name not in images_hu:
            raise ValueError(f"there is no image {name!r} among {sorted(images_hu)}")
        image_hu = np.asarray(images_hu[name])
        if image_hu.shape != metal.shape:
            raise ValueError(f"image {name!r} is {image_hu.shape}, the metal mask {metal.shape}")
        mu = hu_to_mu(np.minimum(image_hu, HIGHEST_HU), mu_water_per_mm)
        channels.append(np.where(metal, water, mu * np.float32(MM_PER_CM)))
    return np.stack(channels, axis=-3)


def network_output_hu(output_per_cm: ArrayLike, mu_water_per_mm: float) -> NDArray[np.float32]:
    """HU of a network's output in 1/cm, any shape; the inverse of `network_channels` away from the metal."""
    return mu_to_hu(np.asarray(output_per_cm, np.float32) / np.float32(MM_PER_CM), mu_water_per_mm)
