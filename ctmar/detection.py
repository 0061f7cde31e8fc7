"""Metal in a whole series: bright regions joined across slices, and what among them is no metal.

Slices are seen once, in their order. Of a slice without anything bright only its largest value is computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctmar.components import Pieces, why_not_metal
from ctmar.images import Image, PlainImage
from ctmar.packed import PackedMasks
from ctmar.regions import METAL_FROM_HU, label_regions, linked, moved_out, regions_of, without_halo

EXTENDED_ABOVE_HU = 3200.0
"""12-bit scanners end at 3071 HU, at 3095 with another intercept."""

THRESHOLD_HU = 2500.0
"""Above dense bone and most enamel, below the end of 12-bit data."""

GROW_HU = 2000.0
"""Thin metal is as dark as this where it fills its pixels in part; bone that touches metal seldom is as bright."""

_FARTHEST_MM = 10.0
_THICKEST_MM = 5.0
_ONE_SLICE_MM = 1.0


@dataclass(frozen=True)
class DetectionSettings:
    """How metal is found.

    Parameters
    ----------
    threshold_hu
        A component with a pixel at or above is metal; None for `THRESHOLD_HU`, which does for 12-bit data that end at
        3071 HU and for data that go on beyond.
    grow_hu
        Pixels at or above that are connected to such a pixel belong to it, but around thick metal only those of at
        least `METAL_FROM_HU`. At most the threshold; None for `GROW_HU`, or the threshold where that is lower.
    smallest_mm3
        Components below are noise. A slice is as thick as its distance to its neighbours, at most 5 mm, and 1 mm where
        it is alone.
    dilation_mm
        By how much the outline is moved outwards within each slice; None for what was measured best: nothing in images,
        whose metal trace is a pixel wider than the mask, and 0.6 mm in raw data.
    exclude
        Leave out what is outside of the patient, dense contrast and dense bone; every one is listed. With a threshold
        below `THRESHOLD_HU`, which says that darker things are metal, only what is outside.
    """

    threshold_hu: float | None = None
    grow_hu: float | None = None
    smallest_mm3: float = 1.0
    dilation_mm: float | None = None
    exclude: bool = True

    def __post_init__(self) -> None:
        for name in ("threshold_hu", "grow_hu"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1e5:
                raise ValueError(f"{name} must lie between 0 and 100000, not {value}")
        if self.threshold_hu is not None and self.grow_hu is not None and self.grow_hu > self.threshold_hu:
            raise ValueError(f"grow_hu ({self.grow_hu:g}) must not exceed threshold_hu ({self.threshold_hu:g})")
        if not 0 <= self.smallest_mm3 < float("inf"):
            raise ValueError(f"smallest_mm3 must not be negative, not {self.smallest_mm3}")
        if self.dilation_mm is not None and not 0 <= self.dilation_mm <= 20:
            raise ValueError(f"dilation_mm must lie in 0..20, not {self.dilation_mm}")


@dataclass(frozen=True)
class Component:
    """A connected piece of bright pixels; `reason` says why it was left out, "" where it is metal.

    `slices` are its first and last slice and `row`, `col` where it is brightest, in slice `brightest`, all from 0.
    """

    slices: tuple[int, int]
    volume_mm3: float
    peak_hu: float
    brightest: int
    row: int
    col: int
    reason: str = ""


@dataclass(frozen=True)
class Detection:
    """Where the metal of a series is.

    Attributes
    ----------
    masks
        One of bool (rows, cols) for each slice, in the series' order; shape (0, 0) where it could not be read.
    source
        "threshold", or what a user's mask was: "DICOM SEG", "RTSTRUCT", "NIfTI", "array".
    threshold_hu, grow_hu, settings
        What was used; None for a user's mask.
    kept, left_out
        Components, the largest first.
    specks
        How many components below `smallest_mm3` were dropped.
    warnings
        What a user should know, as sentences.
    """

    masks: PackedMasks
    source: str = "threshold"
    threshold_hu: float | None = None
    grow_hu: float | None = None
    settings: DetectionSettings | None = None
    kept: tuple[Component, ...] = ()
    left_out: tuple[Component, ...] = ()
    specks: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def slices(self) -> list[int]:
        """Slices with metal, from 0."""
        return [index for index in range(len(self.masks)) if self.masks.any(index)]

    def report(self) -> dict[str, Any]:
        """All but the masks, for JSON; slices are counted from 1, as in messages."""
        return {
            "source": self.source,
            "threshold_hu": self.threshold_hu,
            "grow_hu": self.grow_hu,
            "settings": None if self.settings is None else asdict(self.settings),
            "components": [_listed(component) for component in self.kept],
            "left_out": [_listed(component) for component in self.left_out],
            "specks": self.specks,
            "warnings": list(self.warnings),
        }


def _listed(component: Component) -> dict[str, Any]:
    first, last = component.slices
    return {**asdict(component), "slices": (first + 1, last + 1), "brightest": component.brightest + 1}


def detect(
    images: Iterable[Image | None],
    along_normal_mm: Sequence[float],
    settings: DetectionSettings | None = None,
) -> Detection:
    """Find the metal of a series.

    Parameters
    ----------
    images
        Each slice once, in the order of `along_normal_mm`; None for one that could not be read. Slices may differ in
        their matrix and pixels; regions are joined between neighbours with the same ones, up to 10 mm apart.
    along_normal_mm
        Position of every slice, increasing or equal.
    settings
        How; the defaults where None.

    Raises
    ------
    ValueError
        If there are more or fewer images than positions.
    """
    settings = settings or DetectionSettings()
    grow_hu = _grow_hu(settings)
    search = _Search(thicknesses_mm(along_normal_mm), settings, grow_hu)
    previous: tuple[int, Image, NDArray[np.int32]] | None = None
    seen = 0
    for index, image in enumerate(images):
        seen += 1
        if index >= len(along_normal_mm):
            raise ValueError(f"more images than the {len(along_normal_mm)} positions")
        if image is None:
            search.masks.append(np.zeros((0, 0), bool))
            continue
        labels = search.add(index, image)
        if labels is None:
            previous = None
            continue
        if previous is not None:
            before, other, others = previous
            if _neighbours(other, image, along_normal_mm[index] - along_normal_mm[before]):
                search.pieces.join(before, index, linked(others, labels))
        previous = (index, image, labels)
    if seen != len(along_normal_mm):
        raise ValueError(f"{seen} images for {len(along_normal_mm)} positions")
    return search.result()


def detect_in_image(
    image_hu: NDArray[np.float32], pixel_mm: tuple[float, float], settings: DetectionSettings | None = None
) -> Detection:
    """Find the metal of a single image in HU (rows, cols), such as a case file's; see `detect`."""
    return detect([PlainImage(image_hu, np.zeros(image_hu.shape, bool), pixel_mm)], [0.0], settings)


def thicknesses_mm(along_normal_mm: Sequence[float]) -> NDArray[np.float64]:
    """What each slice stands for: half the way to either neighbour, at most 5 mm in all; 1 mm if it is alone."""
    positions = np.asarray(along_normal_mm, float)
    gaps = np.abs(np.diff(positions))
    if not gaps.size or not gaps.any():
        return np.full(positions.size, _ONE_SLICE_MM)
    ends = np.concatenate([gaps[:1], gaps, gaps[-1:]])
    return np.minimum((ends[1:] + ends[:-1]) / 2, _THICKEST_MM)


def _grow_hu(settings: DetectionSettings) -> float:
    if settings.grow_hu is not None:
        return settings.grow_hu
    return GROW_HU if settings.threshold_hu is None else min(GROW_HU, settings.threshold_hu)


def _neighbours(one: Image, other: Image, apart_mm: float) -> bool:
    return (
        abs(apart_mm) <= _FARTHEST_MM
        and one.image_hu.shape == other.image_hu.shape
        and bool(np.allclose(one.pixel_mm, other.pixel_mm, rtol=1e-3))
    )


@dataclass
class _Search:
    """What is known while slices come in: their bright pixels, and the pieces those belong to."""

    thickness_mm: NDArray[np.float64]
    settings: DetectionSettings
    grow_hu: float
    masks: PackedMasks = field(default_factory=PackedMasks)
    pixel_mm: dict[int, tuple[float, float]] = field(default_factory=dict)
    pieces: Pieces = field(default_factory=Pieces)
    largest_hu: float = -np.inf

    def add(self, index: int, image: Image) -> NDArray[np.int32] | None:
        """Take a slice in; its regions as labels, None where nothing is bright."""
        hu = image.image_hu
        # the cheapest look at a slice comes first: nearly all hold nothing
        largest = float(np.nanmax(hu, initial=-np.inf))
        bright = (hu >= self.grow_hu) & ~image.padding if largest >= self.grow_hu else None
        if bright is not None and bright.any():
            self.largest_hu = max(self.largest_hu, float(hu[bright].max()))
            bright = without_halo(hu, bright, image.pixel_mm, solid_hu=max(METAL_FROM_HU, self.grow_hu))
        if bright is None or not bright.any():
            self.masks.append(np.zeros(hu.shape, bool))
            return None
        regions = regions_of(hu, bright, image.pixel_mm, sure_hu=METAL_FROM_HU)
        self.masks.append(bright)
        self.pixel_mm[index] = image.pixel_mm
        pixel_mm3 = image.pixel_mm[0] * image.pixel_mm[1] * float(self.thickness_mm[index])
        self.pieces.add(index, regions, hu, pixel_mm3)
        return regions.labels

    def result(self) -> Detection:
        """Choose among the pieces and make the masks."""
        extended = self.largest_hu > EXTENDED_ABOVE_HU
        threshold_hu = self.settings.threshold_hu
        if threshold_hu is None:
            threshold_hu = max(THRESHOLD_HU, self.grow_hu)
        kept: dict[int, Component] = {}
        left_out: list[Component] = []
        specks = 0
        for root, piece in self.pieces.by_root.items():
            if piece.peak_hu < threshold_hu:
                continue
            if piece.volume_mm3 < self.settings.smallest_mm3:
                specks += 1
                continue
            reason = ""
            if self.settings.exclude:
                reason = why_not_metal(piece, extended=extended, by_brightness=threshold_hu >= THRESHOLD_HU)
            component = Component(
                slices=(piece.first, piece.last),
                volume_mm3=round(piece.volume_mm3, 2),
                peak_hu=round(piece.peak_hu, 1),
                brightest=piece.brightest,
                row=piece.row,
                col=piece.col,
                reason=reason,
            )
            if reason:
                left_out.append(component)
            else:
                kept[root] = component
        self._finish_masks(kept)
        largest_first = sorted(kept.values(), key=lambda c: -c.volume_mm3)
        return Detection(
            masks=self.masks,
            threshold_hu=threshold_hu,
            grow_hu=self.grow_hu,
            settings=replace(self.settings, dilation_mm=self.settings.dilation_mm or 0.0),
            kept=tuple(largest_first),
            left_out=tuple(sorted(left_out, key=lambda c: -c.volume_mm3)),
            specks=specks,
        )

    def _finish_masks(self, kept: dict[int, Component]) -> None:
        """Bright pixels to metal: those of the pieces kept, dilated."""
        for index, first in self.pieces.first_region.items():
            labels = label_regions(self.masks[index])
            count = int(labels.max(initial=0))
            chosen = np.array([False] + [self.pieces.root(first + k) in kept for k in range(count)])
            self.masks.replace(index, moved_out(chosen[labels], self.settings.dilation_mm or 0.0, self.pixel_mm[index]))
