"""The virtual CT scanner: from tissue and metal to a sinogram and an uncorrected image.

`simulate` does it for one slice, in one call; the modules are its parts.
"""

from data_sim.acquisition import ScanSettings
from data_sim.geometry import FanArc, FanFlat, ImageGrid, Parallel
from data_sim.single_slice import SimulatedSlice, simulate

__all__ = ["FanArc", "FanFlat", "ImageGrid", "Parallel", "ScanSettings", "SimulatedSlice", "simulate"]
