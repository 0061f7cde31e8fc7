"""What lies between the images before and after a correction, for reports."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctmar.methods import Correction


@dataclass(frozen=True, eq=False)
class Workings:
    """Of one slice: the prior image in HU, (rows, cols), the sinogram before correction and the trace, (views, bins).

    Without a prior where the method has none.
    """

    prior_hu: NDArray[np.float32] | None
    sinogram: NDArray[np.float32]
    trace: NDArray[np.bool_]


def workings_of(correction: Correction, method: str) -> list[Workings]:
    """The workings of every slice of a correction by one method."""
    priors = correction.prior_of(method)
    return [
        Workings(None if priors is None else priors[index], sinogram, trace)
        for index, (sinogram, trace) in enumerate(zip(correction.sinogram, correction.trace, strict=True))
    ]
