"""How close an image is to its reference: RMSE, SSIM and three simple clinical measures.

Every number is for one slice in HU, and every function states its region of interest. Metal pixels never
count: there the reference holds tissue that the patient does not have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from skimage.metrics import structural_similarity

from data_sim.morphology import grown, shrunk

BODY_ABOVE_HU = -300.0
SOFT_TISSUE_HU = (-150.0, 150.0)
BONE_HU = (150.0, 2500.0)
STREAK_REACH_MM = 40.0

METRICS = ("rmse_hu", "rmse_body_hu", "ssim")
"""What every row of `metrics.json` holds beside `case`, `path` and `method`."""

_PATH_ORDER = {"raw": 0, "dicom": 1}

_SSIM_SIGMA = 1.5
_SSIM_TRUNCATE = 3.5  # fixed inside scikit-image: radius int(3.5 * 1.5 + 0.5) = 5, the 11 x 11 window of Wang 2004
_SSIM_WINDOW = 2 * int(_SSIM_TRUNCATE * _SSIM_SIGMA + 0.5) + 1


def rmse_hu(image_hu: ArrayLike, reference_hu: ArrayLike, *, mask: ArrayLike) -> float:
    """Root mean square error over the pixels of `mask`, HU.

    Parameters
    ----------
    image_hu, reference_hu : (rows, cols) or (slices, rows, cols) array, HU
    mask : boolean array of the same shape
        True where a pixel counts; whoever calls takes the metal out of it.

    Raises
    ------
    ValueError
        Where shapes differ, the mask is empty, or a pixel that counts is not finite.
    """
    image, reference, inside = _same_shape(image_hu, reference_hu, mask)
    if not inside.any():
        raise ValueError("the mask is empty: there is no pixel to take the error of")
    error = image[inside] - reference[inside]
    if not np.isfinite(error).all():
        raise ValueError("image or reference holds values that are not finite inside the mask")
    return float(np.sqrt(np.mean(error**2)))


def paper_ssim(image: ArrayLike, reference: ArrayLike, metal: ArrayLike) -> float:
    """Structural similarity as Zhang & Yu 2018 compute it, but at full resolution.

    Both images are divided by the reference's maximum, multiplied by 255 and clipped to 0..255; metal is set
    to 0 in both. Then Wang's index [1]_ with its defaults (11 x 11 Gaussian window of sigma 1.5, K1 = 0.01,
    K2 = 0.03, L = 255), averaged over every position at which the window lies inside the image. So the region
    of interest is the whole image less a 5-pixel frame, air and metal (0 in both) included, as in the paper.
    Not as in the paper's own code: that downsamples 512 x 512 images by 2 first. Compare only values that
    were computed alike.

    Parameters
    ----------
    image, reference : (rows, cols) array
        In units where air is 0: attenuation, or HU + 1000 (the scale cancels).
    metal : (rows, cols) boolean array

    Raises
    ------
    ValueError
        Where shapes differ, an image is smaller than the window, the reference's maximum is not positive, or
        a value is not finite (the image's under the metal may be).

    References
    ----------
    .. [1] Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment", IEEE TIP 13(4):600-612, 2004.
    """
    first, second, inside_metal = _same_shape(image, reference, metal)
    if first.ndim != 2 or min(first.shape) < _SSIM_WINDOW:
        raise ValueError(f"SSIM needs images of at least {_SSIM_WINDOW} x {_SSIM_WINDOW} pixels")
    if not np.isfinite(first[~inside_metal]).all() or not np.isfinite(second).all():
        raise ValueError("image or reference holds values that are not finite")
    peak = second.max()
    if peak <= 0:
        raise ValueError("the reference's maximum must be positive: give attenuation or HU + 1000, not HU")
    grey = [np.where(inside_metal, 0, np.clip(values / peak * 255, 0, 255)) for values in (first, second)]
    return float(
        structural_similarity(
            *grey, data_range=255, gaussian_weights=True, sigma=_SSIM_SIGMA, use_sample_covariance=False
        )
    )


def evaluate_image(
    image_hu: ArrayLike, reference_hu: ArrayLike, metal_mask: ArrayLike, body_mask: ArrayLike
) -> dict[str, float]:
    """The three numbers of `metrics.json` for one slice.

    Parameters
    ----------
    image_hu, reference_hu : (rows, cols) array, HU
    metal_mask, body_mask : (rows, cols) boolean array

    Returns
    -------
    dict
        ``rmse_hu``: over the whole image without metal. ``rmse_body_hu``: over the body without metal.
        ``ssim``: `paper_ssim` of HU + 1000.

    Raises
    ------
    ValueError
        As `rmse_hu` and `paper_ssim`.
    """
    image, reference, metal = _same_shape(image_hu, reference_hu, metal_mask)
    body = np.asarray(body_mask, bool)
    return {
        "rmse_hu": rmse_hu(image, reference, mask=~metal),
        "rmse_body_hu": rmse_hu(image, reference, mask=body & ~metal),
        "ssim": paper_ssim(image + 1000, reference + 1000, metal),
    }


def clinical_metrics(
    image_hu: ArrayLike, reference_hu: ArrayLike, metal_mask: ArrayLike, *, pixel_mm: float
) -> dict[str, float]:
    """``streak_hu`` (`streak_amplitude_hu`) and ``bone_dice`` (`bone_dice`) of one slice."""
    return {
        "streak_hu": streak_amplitude_hu(image_hu, reference_hu, metal_mask, pixel_mm=pixel_mm),
        "bone_dice": bone_dice(image_hu, reference_hu, metal_mask),
    }


def streak_amplitude_hu(
    image_hu: ArrayLike, reference_hu: ArrayLike, metal_mask: ArrayLike, *, pixel_mm: float
) -> float:
    """Standard deviation of the error in soft tissue near the metal, HU.

    Region of interest: pixels not of metal, at most 40 mm (centre to centre) from a metal pixel, whose
    reference is -150 to 150 HU (fat, water, muscle, organs). A constant shift does not count, streaks do.
    NaN where there is no such pixel.
    """
    image, reference, metal = _same_shape(image_hu, reference_hu, metal_mask)
    if not pixel_mm > 0:
        raise ValueError(f"pixel_mm must be positive, not {pixel_mm}")
    if not metal.any():
        return float("nan")
    near = ndimage.distance_transform_edt(~metal, sampling=pixel_mm) <= STREAK_REACH_MM
    roi = near & ~metal & _between(reference, SOFT_TISSUE_HU)
    return float(np.std(image[roi] - reference[roi])) if roi.any() else float("nan")


def bone_dice(image_hu: ArrayLike, reference_hu: ArrayLike, metal_mask: ArrayLike) -> float:
    """Dice overlap of bone in image and reference: 1 is perfect.

    Region of interest: the whole image without metal; bone is 150 to 2500 HU, the range of the AAPM CT-MAR
    challenge (2024). NaN where neither image has bone.
    """
    image, reference, metal = _same_shape(image_hu, reference_hu, metal_mask)
    found, true = (_between(values, BONE_HU) & ~metal for values in (image, reference))
    total = np.count_nonzero(found) + np.count_nonzero(true)
    return 2 * np.count_nonzero(found & true) / total if total else float("nan")


def excess(rmse: float, limit: float) -> float:
    """Error beyond what noise and reconstruction leave: sqrt(rmse^2 - limit^2), or 0 below the limit.

    `limit` is the RMSE of the same pipeline with the reference image as prior, on the same pixels.

    >>> excess(5.0, 3.0)
    4.0
    """
    if rmse < 0 or limit < 0:
        raise ValueError("an RMSE cannot be negative")
    return float(np.sqrt(max(rmse**2 - limit**2, 0.0)))


def body_mask(image_hu: ArrayLike, *, opening_px: int = 3, smallest_part: float = 0.2) -> NDArray[np.bool_]:
    """Where the patient is: tissue above -300 HU with every cavity inside, without the table.

    An opening takes off what is thinner than about twice `opening_px` (table shells, blankets, lines). Of
    what is left the largest component counts, and others of at least `smallest_part` of its area (the second
    leg). Thin tissue that hangs on them (ears, skin) is put back, then holes (lungs, bowel, airways) are
    filled; a lung that the image's border cuts open is not a hole and stays out. Meant for the reference or
    another image without strong streaks.

    Parameters
    ----------
    image_hu : (rows, cols) array, HU
        Padding and NaN are not tissue.
    opening_px : int
        Radius of the opening, pixels.
    smallest_part : float
        In (0, 1]; 1 keeps the largest component alone.

    Returns
    -------
    (rows, cols) boolean array
        All False where nothing is above -300 HU.
    """
    image = np.asarray(image_hu)
    if image.ndim != 2:
        raise ValueError(f"a body mask is made slice by slice: expected two dimensions, not {image.ndim}")
    if opening_px < 1 or not 0 < smallest_part <= 1:
        raise ValueError("opening_px must be at least 1 and smallest_part in (0, 1]")
    tissue = image > BODY_ABOVE_HU
    # Padded with its own edge values, so that a patient cut by the image's border is not eroded there.
    pad = 2 * opening_px + 1
    tissue = np.pad(tissue, pad, mode="edge")
    core = grown(shrunk(tissue, opening_px, 1), opening_px, 1)
    parts, count = ndimage.label(core)
    if not count:
        return np.zeros(image.shape, bool)
    area = np.bincount(parts.ravel())[1:]
    core = np.isin(parts, np.flatnonzero(area >= smallest_part * area.max()) + 1)
    parts, _ = ndimage.label(grown(core, 2 * opening_px, 1) & tissue)
    body = np.isin(parts, np.unique(parts[core]))
    return ndimage.binary_fill_holes(body[pad:-pad, pad:-pad])


def summarise(rows: Iterable[Mapping[str, Any]], *, metrics: Sequence[str] = METRICS) -> list[dict[str, Any]]:
    """Means over cases, one row for each path and method.

    Parameters
    ----------
    rows : mappings with ``case``, ``path``, ``method`` and each of `metrics`
        As in `metrics.json`.
    metrics : names of the columns to average
        A NaN (no bone, no soft tissue near the metal) is left out of its mean.

    Returns
    -------
    list of dict
        ``path``, ``method``, the means, and ``n``, the number of rows; raw data first, then DICOM, methods in
        the order in which they first come. The two paths are never mixed.

    Raises
    ------
    ValueError
        Where a row lacks a key.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    order: dict[str, int] = {}
    for row in rows:
        missing = {"path", "method", *metrics} - row.keys()
        if missing:
            raise ValueError(f"a row of metrics lacks {', '.join(sorted(missing))}")
        order.setdefault(row["method"], len(order))
        groups.setdefault((row["path"], row["method"]), []).append(row)

    def place(key: tuple[str, str]) -> tuple[int, str, int]:
        return _PATH_ORDER.get(key[0], len(_PATH_ORDER)), key[0], order[key[1]]

    return [
        {
            "path": path,
            "method": method,
            **{name: _mean(row[name] for row in groups[path, method]) for name in metrics},
            "n": len(groups[path, method]),
        }
        for path, method in sorted(groups, key=place)
    ]


def _mean(values: Iterable[float]) -> float:
    known = [float(value) for value in values if not np.isnan(value)]
    return sum(known) / len(known) if known else float("nan")


def _between(values: NDArray[np.float64], limits: tuple[float, float]) -> NDArray[np.bool_]:
    return (values >= limits[0]) & (values <= limits[1])


def _same_shape(
    first: ArrayLike, second: ArrayLike, mask: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Two images in float64 (long sums follow) and a boolean mask, all of one shape."""
    one, two, inside = np.asarray(first, np.float64), np.asarray(second, np.float64), np.asarray(mask, bool)
    if not one.shape == two.shape == inside.shape:
        raise ValueError(f"shapes differ: image {one.shape}, reference {two.shape}, mask {inside.shape}")
    return one, two, inside
