"""What is bright in one slice: its regions, and what tells metal from bone, contrast and table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from data_sim.anatomy import BODY_HU

Labels = NDArray[np.int32]
Mask = NDArray[np.bool_]

MOST_REGIONS = 4096
"""More in one slice are noise; the largest are kept."""

METAL_FROM_HU = 3000.0
"""What reaches this within the patient is never taken for bone or enamel; thick metal counts from here on."""

LEVELS_HU = (METAL_FROM_HU, 4000.0)
"""Thick metal exceeds these almost everywhere, in data of 12 bits and in those that go on beyond."""

DEEP_MM = 2.5
"""What lies this far inside of a region shows its material without the blur of its edge."""

CORE_MM = 1.5
RIDGE_MM = 1.6

RING_MM = (0.5, 2.0)
TOGETHER_MM = 40.0
"""Less than from any implant in the trunk to the table, more than from tooth to tooth."""

DENSE_HU = 700.0
"""Around enamel and cortex lies dentine and bone, around a clip soft tissue."""

DARK_PART_HU, DARK_PART_MM = 900.0, 8.0
"""Compact bone, and wires that fill a third of their pixels."""

_EIGHT = np.ones((3, 3))
_COARSE_MM = 2.0
_CORE_MM = 4.0
_LEAST_PIECE_MM2 = 1000.0


@dataclass(frozen=True)
class Regions:
    """Regions (8 neighbours) of one slice and what is measured of them, index 0 for region 1.

    Attributes
    ----------
    labels : int32 (rows, cols)
        1 .. count, 0 elsewhere.
    pixels, peak_hu : (count,)
        Their size and largest value.
    deep : (count,)
        Pixels at least `DEEP_MM` inside; 0 where a region is thin.
    bright, deep_bright : (count, len(LEVELS_HU))
        How many of `pixels` and of `deep` are at least as bright as each of `LEVELS_HU`.
    ring, dense : (count,)
        Pixels between the radii `RING_MM` around it, and how many of them are at least `DENSE_HU`.
    inside : bool (count,)
        Whether it reaches the patient's hull, see `patient_zone`, or lies within `TOGETHER_MM` of metal that does.
    """

    labels: Labels
    pixels: NDArray[np.int64]
    peak_hu: NDArray[np.float64]
    deep: NDArray[np.int64]
    bright: NDArray[np.int64]
    deep_bright: NDArray[np.int64]
    ring: NDArray[np.int64]
    dense: NDArray[np.int64]
    inside: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.pixels)


def label_regions(bright: Mask) -> Labels:
    """Regions of a mask (rows, cols), 8 neighbours; of more than `MOST_REGIONS` the largest, in the order of rows."""
    labels, count = ndimage.label(bright, _EIGHT)
    if count <= MOST_REGIONS:
        return labels
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    kept = np.zeros(count + 1, np.int32)
    largest = np.sort(np.argsort(-sizes, kind="stable")[:MOST_REGIONS])
    kept[largest] = np.arange(1, MOST_REGIONS + 1)
    return kept[labels]


def without_halo(
    image_hu: NDArray[np.float32], bright: Mask, pixel_mm: tuple[float, float], *, solid_hu: float
) -> Mask:
    """Of `bright` regions with a thick core only what is at least `solid_hu`, without ridges thinner than `RIDGE_MM`.

    Around thick metal the artifacts themselves are bright, for many millimetres, and streaks run from one piece to the
    next: a low level would take them in. Thin metal has no such halo, and is dark where it fills its pixels or the
    slice in part. A core is thick where it reaches `CORE_MM` inside.
    """
    box = _box(bright, max(pixel_mm), pixel_mm)
    solid = bright[box] & (image_hu[box] >= solid_hu)
    core = _depth_mm(solid, pixel_mm) >= CORE_MM
    if not core.any():
        return bright
    labels, count = ndimage.label(bright[box], _EIGHT)
    thick = np.zeros(count + 1, bool)
    thick[labels[core]] = True
    square = np.ones([max(2, round(RIDGE_MM / step)) for step in pixel_mm], bool)
    out = bright.copy()
    out[box] &= ~thick[labels] | ndimage.binary_opening(solid, square)
    return out


def dark_parts(image_hu: NDArray[np.float32], metal: Mask, pixel_mm: tuple[float, float]) -> Mask:
    """What is connected to thin metal (rows, cols) but too dark for its mask: arcs of wires, a port's wall, enamel.

    Pixels of at least `DARK_PART_HU` up to `DARK_PART_MM` from the metal, connected to it. They stay as they are: a
    correction that knows nothing of them takes them away. Around thick metal there are none, since its artifacts are as
    bright.
    """
    out = np.zeros_like(metal)
    if not metal.any():
        return out
    box = _box(metal, DARK_PART_MM, pixel_mm)
    hu, mask = image_hu[box], metal[box]
    bright = without_halo(hu, (hu >= DARK_PART_HU) | mask, pixel_mm, solid_hu=METAL_FROM_HU) | mask
    labels, _ = ndimage.label(bright, _EIGHT)
    near = ndimage.distance_transform_edt(~mask, sampling=pixel_mm) <= DARK_PART_MM
    out[box] = np.isin(labels, np.unique(labels[mask])) & bright & near & ~mask
    return out


def _depth_mm(mask: Mask, pixel_mm: tuple[float, float]) -> NDArray[np.float64]:
    """Distance of every pixel's centre to the mask's edge, which is that of its pixels."""
    inner = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=pixel_mm)[1:-1, 1:-1]
    return np.asarray(inner - min(pixel_mm) / 2)


def regions_of(
    image_hu: NDArray[np.float32], bright: Mask, pixel_mm: tuple[float, float], *, sure_hu: float
) -> Regions:
    """Measure the regions of `bright`, bool (rows, cols), in an image in HU; pixels may be other than square.

    What reaches `sure_hu` within the patient is metal for certain and vouches for what lies near: a jaw full of
    fillings is cut apart by its artifacts, so that the foremost may seem to lie outside.
    """
    labels = label_regions(bright)
    count = int(labels.max(initial=0))
    box = _box(bright, RING_MM[1] + DEEP_MM, pixel_mm)
    near, values = labels[box], image_hu[box]
    index = np.arange(1, count + 1)
    deep = np.where(_depth_mm(near > 0, pixel_mm) >= DEEP_MM, near, 0)
    away, nearest = ndimage.distance_transform_edt(near == 0, sampling=pixel_mm, return_indices=True)
    around = (away > RING_MM[0]) & (away <= RING_MM[1])
    owner = near[tuple(nearest)][around]
    peak_hu = np.asarray(ndimage.maximum(values, near, index), float).reshape(count)
    inside = _counts(labels[patient_zone(image_hu, bright, pixel_mm)], count) > 0
    sure = np.concatenate([[False], inside & (peak_hu >= sure_hu)])[near]
    if sure.any() and not inside.all():
        beside = ndimage.distance_transform_edt(~sure, sampling=pixel_mm) <= TOGETHER_MM
        inside |= _counts(near[beside], count) > 0
    return Regions(
        labels=labels,
        pixels=_counts(near, count),
        peak_hu=peak_hu,
        deep=_counts(deep, count),
        bright=np.stack([_counts(near[values >= level], count) for level in LEVELS_HU], axis=1),
        deep_bright=np.stack([_counts(deep[values >= level], count) for level in LEVELS_HU], axis=1),
        ring=_counts(owner, count),
        dense=_counts(owner[values[around] >= DENSE_HU], count),
        inside=inside,
    )


def _counts(labels: NDArray[np.integer], count: int) -> NDArray[np.int64]:
    """How often each of 1 .. count is there."""
    return np.bincount(labels.ravel(), minlength=count + 1)[1:]


def linked(before: Labels, after: Labels) -> NDArray[np.int64]:
    """Pairs (n, 2) of regions of two neighbouring slices that touch, diagonals too."""
    rows, cols = np.nonzero(after)
    if not rows.size:
        return np.empty((0, 2), np.int64)
    padded = np.pad(before, 1)
    mine = after[rows, cols]
    pairs = [np.stack([padded[rows + r, cols + c], mine], axis=1) for r in range(3) for c in range(3)]
    every = np.unique(np.concatenate(pairs), axis=0)
    return every[every[:, 0] > 0].astype(np.int64)


def patient_zone(
    image_hu: NDArray[np.float32], bright: Mask, pixel_mm: tuple[float, float], *, margin_mm: float = 5.0
) -> Mask:
    """Where metal counts as the patient's, bool (rows, cols): the convex hulls of all tissue, and a margin.

    Hulls, since the dark streaks of metal cut into a body and dark bands may cut it apart, and since nothing of the
    patient may be left out. Tissue is what exceeds -300 HU over more than 8 mm in pieces of at least 10 cm2; the shell
    of a table and its rails are thinner, and a piece that is mostly bright is hardware. Without any tissue all counts.
    """
    step = max(1, round(_COARSE_MM / min(pixel_mm)))
    sampling = (pixel_mm[0] * step, pixel_mm[1] * step)
    coarse = image_hu[::step, ::step]
    metal = bright[::step, ::step]
    # what leaves the image goes on beyond it
    core = ndimage.distance_transform_edt(coarse > BODY_HU, sampling=sampling) > _CORE_MM
    labels, count = ndimage.label(core)
    if not count:
        return np.ones(image_hu.shape, bool)
    sizes = np.bincount(labels.ravel())
    tissue = (sizes * sampling[0] * sampling[1] >= _LEAST_PIECE_MM2) & (
        np.bincount(labels[metal], minlength=count + 1) < 0.5 * sizes
    )
    tissue[0] = False
    if not tissue.any():
        return np.ones(image_hu.shape, bool)
    hulls = np.zeros(coarse.shape, bool)
    for index in np.flatnonzero(tissue):
        hulls |= _hull(labels == index)
    zone = ndimage.distance_transform_edt(~hulls, sampling=sampling) <= _CORE_MM + margin_mm
    return zone.repeat(step, axis=0).repeat(step, axis=1)[: image_hu.shape[0], : image_hu.shape[1]]


def _hull(mask: Mask) -> Mask:
    from skimage.morphology import convex_hull_image

    rows, cols = np.nonzero(mask)
    if np.ptp(rows) == 0 or np.ptp(cols) == 0:
        return mask
    return np.asarray(convex_hull_image(mask))


def _box(mask: Mask, margin_mm: float, pixel_mm: tuple[float, float]) -> tuple[slice, slice]:
    """The bounding box of a mask that holds something, with a margin, within the image."""
    box = []
    for axis, step_mm in enumerate(pixel_mm):
        used = np.flatnonzero(mask.any(axis=1 - axis))
        rim = int(np.ceil(margin_mm / step_mm)) + 1
        box.append(slice(max(0, int(used[0]) - rim), min(mask.shape[axis], int(used[-1]) + 1 + rim)))
    return box[0], box[1]


def moved_out(mask: Mask, by_mm: float, pixel_mm: tuple[float, float]) -> Mask:
    """A mask (rows, cols) whose outline is moved outwards: pixels whose centre lies within `by_mm` of its edge.

    The edge is that of its pixels, half a pixel from their centres, so that 0.6 mm are one pixel at any
    pixel size from 0.4 to 1.2 mm.
    """
    if by_mm <= 0 or not mask.any():
        return mask.copy()
    box = _box(mask, by_mm + max(pixel_mm), pixel_mm)
    out = np.zeros_like(mask)
    away = ndimage.distance_transform_edt(~mask[box], sampling=pixel_mm)
    out[box] = away <= by_mm + max(pixel_mm) / 2 + 1e-6
    return out
