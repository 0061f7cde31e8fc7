"""The virtual CT scanner: from tissue and metal to a sinogram and an uncorrected image.

`simulate` does it for one slice, in one call; the modules are its parts. Names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data_sim.acquisition import ScanSettings
    from data_sim.geometry import FanArc, FanFlat, ImageGrid, Parallel
    from data_sim.single_slice import SimulatedSlice, simulate

__all__ = ["FanArc", "FanFlat", "ImageGrid", "Parallel", "ScanSettings", "SimulatedSlice", "simulate"]

_HOMES = {
    "FanArc": "data_sim.geometry",
    "FanFlat": "data_sim.geometry",
    "ImageGrid": "data_sim.geometry",
    "Parallel": "data_sim.geometry",
    "ScanSettings": "data_sim.acquisition",
    "SimulatedSlice": "data_sim.single_slice",
    "simulate": "data_sim.single_slice",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'data_sim' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
