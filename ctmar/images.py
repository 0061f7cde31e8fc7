"""An axial image as detection, correction and checks see it, whatever file it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Image(Protocol):
    """An axial image in HU, such as `ctmar.dicom.pixels.Slice`."""

    @property
    def image_hu(self) -> NDArray[np.float32]:
        """Hounsfield units (rows, cols); air in the padding."""
        ...

    @property
    def padding(self) -> NDArray[np.bool_]:
        """Pixels that hold no measurement (rows, cols)."""
        ...

    @property
    def pixel_mm(self) -> tuple[float, float]:
        """Distance between rows and between columns."""
        ...


@dataclass(frozen=True)
class PlainImage:
    """An `Image` of which nothing else is known."""

    image_hu: NDArray[np.float32]
    padding: NDArray[np.bool_]
    pixel_mm: tuple[float, float]
