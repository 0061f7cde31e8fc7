"""Components of a series while they are put together from the regions of its slices, and which of them are no metal."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ctmar.regions import METAL_FROM_HU, Regions

OUTSIDE = "outside of the patient"
CONTRAST = "dense contrast or cement: thicker than 5 mm, yet darker than metal of that size"
DENSE = "dense bone or enamel: darker than metal, with bone around it"

_DENSE_SHARE = 0.65
"""0.75 and more around enamel and bone that were made brighter, at most 0.51 around wires below 3000 HU."""

_DEEP_SHARE = 0.25
_BRIGHT_SHARE = 0.1
"""Noise lifts some pixels of contrast above the level of metal."""


def why_not_metal(piece: Piece, *, extended: bool, by_brightness: bool = True) -> str:
    """The rule by which a component is left out, "" where it is metal.

    `by_brightness` is False where a user's threshold says that what is darker than usual is metal.

    Within the patient only what stays darker than metal can be left out: metal that is thick enough to be seen without
    its blurred edge ends 12-bit data, and thinner metal has soft tissue around it where enamel has a tooth.
    """
    if not piece.inside:
        return OUTSIDE
    if not by_brightness:
        return ""
    few_deep = piece.deep_bright[int(extended)] < _DEEP_SHARE * piece.deep
    if few_deep and piece.bright[int(extended)] < _BRIGHT_SHARE * piece.pixels:
        return CONTRAST
    if piece.peak_hu < METAL_FROM_HU and piece.ring and piece.dense >= _DENSE_SHARE * piece.ring:
        return DENSE
    return ""


@dataclass
class Piece:
    """A component while it is put together."""

    first: int
    last: int
    volume_mm3: float
    peak_hu: float
    brightest: int
    row: int
    col: int
    pixels: int
    deep: int
    bright: NDArray[np.int64]
    deep_bright: NDArray[np.int64]
    ring: int
    dense: int
    inside: bool

    def take(self, other: Piece) -> None:
        """Add another piece to this one."""
        self.first, self.last = min(self.first, other.first), max(self.last, other.last)
        self.volume_mm3 += other.volume_mm3
        if other.peak_hu > self.peak_hu:
            self.peak_hu, self.brightest, self.row, self.col = other.peak_hu, other.brightest, other.row, other.col
        self.pixels += other.pixels
        self.deep += other.deep
        self.bright = self.bright + other.bright
        self.deep_bright = self.deep_bright + other.deep_bright
        self.ring += other.ring
        self.dense += other.dense
        self.inside |= other.inside


@dataclass
class Pieces:
    """Pieces by union and find: every region belongs to one, which the region at its root stands for.

    Regions are numbered through all slices; `first_region` is the first of every slice that has any.
    """

    first_region: dict[int, int] = field(default_factory=dict)
    parents: list[int] = field(default_factory=list)
    by_root: dict[int, Piece] = field(default_factory=dict)

    def add(self, index: int, regions: Regions, hu: NDArray[np.float32], pixel_mm3: float) -> None:
        """Take in the regions of slice `index`, an image in HU; `pixel_mm3` is the volume of its pixels."""
        self.first_region[index] = len(self.parents)
        rows, cols = np.nonzero(regions.labels)
        # ascending values, so that the last one written for a region is its brightest
        order = np.argsort(hu[rows, cols], kind="stable")
        at = np.zeros((len(regions) + 1, 2), int)
        at[regions.labels[rows[order], cols[order]]] = np.stack([rows[order], cols[order]], axis=1)
        for k in range(len(regions)):
            self.by_root[len(self.parents)] = Piece(
                first=index,
                last=index,
                volume_mm3=float(regions.pixels[k] * pixel_mm3),
                peak_hu=float(regions.peak_hu[k]),
                brightest=index,
                row=int(at[k + 1, 0]),
                col=int(at[k + 1, 1]),
                pixels=int(regions.pixels[k]),
                deep=int(regions.deep[k]),
                bright=regions.bright[k],
                deep_bright=regions.deep_bright[k],
                ring=int(regions.ring[k]),
                dense=int(regions.dense[k]),
                inside=bool(regions.inside[k]),
            )
            self.parents.append(len(self.parents))

    def join(self, before: int, index: int, pairs: NDArray[np.int64]) -> None:
        """Join regions of slice `before` to those of slice `index`."""
        for one, other in pairs:
            a = self.root(self.first_region[before] + int(one) - 1)
            b = self.root(self.first_region[index] + int(other) - 1)
            if a != b:
                self.parents[b] = a
                self.by_root[a].take(self.by_root.pop(b))

    def root(self, region: int) -> int:
        """The region that stands for the piece of a region."""
        while self.parents[region] != region:
            self.parents[region] = self.parents[self.parents[region]]
            region = self.parents[region]
        return region
