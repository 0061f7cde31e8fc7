"""The virtual CT scanner: from tissue and metal to a sinogram and an uncorrected image.

`simulate` does it for one slice, in one call; the modules are its parts. Names are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from data_sim.acquisition import ScanSettings as ScanSettings
    from data_sim.geometry import FanArc as FanArc
    from data_sim.geometry import FanFlat as FanFlat
    from data_sim.geometry import ImageGrid as ImageGrid
    from data_sim.geometry import Parallel as Parallel
    from data_sim.single_slice import SimulatedSlice as SimulatedSlice
    from data_sim.single_slice import simulate as simulate

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "acquisition": ["ScanSettings"],
        "geometry": ["FanArc", "FanFlat", "ImageGrid", "Parallel"],
        "single_slice": ["SimulatedSlice", "simulate"],
    },
)
