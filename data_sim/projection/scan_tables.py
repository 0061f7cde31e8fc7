"""A scan geometry as the tables that CPU kernels read."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from data_sim.geometry import FanArc, Geometry, Parallel

PARALLEL, FLAT, ARC = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Scan:
    """What the kernels need of a geometry, for its first `views` views: tables of angles, not of rays.

    Attributes
    ----------
    kind : int
    radius : float
        Source to isocentre, mm.
    per_bin : float
        Bins per radian (arc), per unit of tan g (flat), per mm (parallel).
    first_bin : float
        Bin at the centre of the detector.
    views : float64 (views, 2)
        Cosine and sine of the view angles.
    bins : float64 (bins, 3)
        Cosine and sine of each bin's angle g from the central ray, and its distance s from the isocentre in mm.
    """

    kind: int
    radius: float
    per_bin: float
    first_bin: float
    views: NDArray[np.float64]
    bins: NDArray[np.float64]

    @classmethod
    def of(cls, geometry: Geometry, views: int) -> Scan:
        """The tables of a geometry."""
        b = geometry.view_angles_rad()[:views]
        middle = -float(geometry.bin_offsets()[0])
        if isinstance(geometry, Parallel):
            s = geometry.bin_offsets() * geometry.bin_pitch_mm
            g = np.zeros(geometry.bins)
            kind, radius, per_bin = PARALLEL, 0.0, 1 / geometry.bin_pitch_mm
        else:
            g = geometry.fan_angles_rad()
            radius = geometry.source_isocentre_mm
            s = radius * np.sin(g)
            if isinstance(geometry, FanArc):
                kind, per_bin = ARC, 1 / geometry.bin_pitch_rad
            else:
                kind, per_bin = FLAT, geometry.source_detector_mm / geometry.bin_pitch_mm
        tables = np.stack([np.cos(b), np.sin(b)], axis=1), np.stack([np.cos(g), np.sin(g), s], axis=1)
        return cls(kind, radius, per_bin, middle, *tables)

    def of_views(self, used: NDArray[np.bool_]) -> Scan:
        """Some of the views."""
        return replace(self, views=self.views[used])
