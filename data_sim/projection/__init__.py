"""Forward projection, backprojection and filtered backprojection of stacks of slices.

`Projector` is the only thing to import from here; its backends are `cpu` (numba) and `astra` (CUDA).
"""

from data_sim.projection.filters import FILTERS
from data_sim.projection.projector import Projector, choose_device

__all__ = ["FILTERS", "Projector", "choose_device"]
