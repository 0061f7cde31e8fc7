"""Scan geometries and the image grid, as plain values.

The frame is that of the image: x to the right along columns, y up against rows, the isocentre at the
image centre. Every ray is a line ``x cos(theta) + y sin(theta) = s``: `line_coordinates` gives theta and s of
each (view, bin), so that projectors need not know which geometry they serve.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ImageGrid:
    """Square pixels on a (rows, cols) raster centred on ``(centre_x_mm, centre_y_mm)``.

    Pixel (row, col) has its centre at ``x = (col - (cols-1)/2) pixel_mm + centre_x_mm`` and
    ``y = ((rows-1)/2 - row) pixel_mm + centre_y_mm``.
    """

    rows: int
    cols: int
    pixel_mm: float
    centre_x_mm: float = 0.0
    centre_y_mm: float = 0.0

    def __post_init__(self) -> None:
        if self.rows < 1 or self.cols < 1:
            raise ValueError(f"an image grid needs at least one pixel, not {self.rows} x {self.cols}")
        if not (np.isfinite(self.pixel_mm) and self.pixel_mm > 0):
            raise ValueError(f"pixel_mm must be positive, not {self.pixel_mm}")
        if not np.isfinite([self.centre_x_mm, self.centre_y_mm]).all():
            raise ValueError("the centre of an image grid must be finite")

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols)."""
        return self.rows, self.cols

    def x_mm(self) -> NDArray[np.float64]:
        """X of the pixel centres, shape (cols,)."""
        return (np.arange(self.cols, dtype=np.float64) - (self.cols - 1) / 2) * self.pixel_mm + self.centre_x_mm

    def y_mm(self) -> NDArray[np.float64]:
        """Y of the pixel centres, shape (rows,); decreasing."""
        return ((self.rows - 1) / 2 - np.arange(self.rows, dtype=np.float64)) * self.pixel_mm + self.centre_y_mm

    def index_of(self, x_mm: float, y_mm: float) -> tuple[float, float]:
        """Fractional (row, col) of a point."""
        row = (self.rows - 1) / 2 - (y_mm - self.centre_y_mm) / self.pixel_mm
        col = (self.cols - 1) / 2 + (x_mm - self.centre_x_mm) / self.pixel_mm
        return row, col

    def refined(self, factor: int) -> ImageGrid:
        """The same area with every pixel split into factor x factor."""
        return ImageGrid(
            self.rows * factor, self.cols * factor, self.pixel_mm / factor, self.centre_x_mm, self.centre_y_mm
        )

    def crop(self, row0: int, row1: int, col0: int, col1: int) -> ImageGrid:
        """The grid of ``image[row0:row1, col0:col1]``."""
        centre_x = self.centre_x_mm + ((col0 + col1 - 1) / 2 - (self.cols - 1) / 2) * self.pixel_mm
        centre_y = self.centre_y_mm + ((self.rows - 1) / 2 - (row0 + row1 - 1) / 2) * self.pixel_mm
        return ImageGrid(row1 - row0, col1 - col0, self.pixel_mm, centre_x, centre_y)

    def to_dict(self) -> dict[str, Any]:
        """As the attribute `image_grid` of a case file has it (centred grids only)."""
        if self.centre_x_mm or self.centre_y_mm:
            raise ValueError("only a grid centred on the isocentre can be stored in a case file")
        return {"rows": self.rows, "cols": self.cols, "pixel_mm": self.pixel_mm}


@dataclass(frozen=True)
class _Scan:
    """What all scan geometries share."""

    views: int
    bins: int
    type: ClassVar[str]

    bin_offset: float = field(default=0.0, kw_only=True)
    """Shift of the detector along its bins, in bins; a quarter doubles the sampling of a full turn."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name == "bin_offset":
                if not abs(value) < self.bins / 2:
                    raise ValueError(f"bin_offset must leave the central ray on the detector, not {value}")
            elif not (np.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive, not {value}")

    @property
    def shape(self) -> tuple[int, int]:
        """(views, bins) of a sinogram."""
        return self.views, self.bins

    @property
    def arc_rad(self) -> float:
        """Angle that the views cover."""
        return 2 * np.pi

    def view_angles_rad(self) -> NDArray[np.float64]:
        """View angles b, shape (views,)."""
        return np.arange(self.views, dtype=np.float64) * (self.arc_rad / self.views)

    def bin_offsets(self) -> NDArray[np.float64]:
        """Bin positions from the central ray in units of one bin, shape (bins,)."""
        return np.arange(self.bins, dtype=np.float64) - (self.bins - 1) / 2 + self.bin_offset

    def line_coordinates(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Theta (rad) and s (mm) of every ray, each (views, bins); rays run along (sin theta, -cos theta)."""
        raise NotImplementedError

    @property
    def field_of_view_mm(self) -> float:
        """Radius of the circle that every view sees whole."""
        s_mm = self.line_coordinates()[1][0]
        return float(min(-s_mm[0], s_mm[-1]))

    def to_dict(self) -> dict[str, Any]:
        """As the attribute `geometry` of a case file has it; `bin_offset` only where there is one."""
        values = {"type": self.type, **asdict(self)}
        if not self.bin_offset:
            del values["bin_offset"]
        return values


@dataclass(frozen=True)
class _Fan(_Scan):
    source_isocentre_mm: float

    def fan_angles_rad(self) -> NDArray[np.float64]:
        """Angle g of each bin's ray from the central ray, shape (bins,)."""
        raise NotImplementedError

    def line_coordinates(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Theta = b + g and s = R sin g of every ray, each (views, bins)."""
        g = self.fan_angles_rad()
        theta = self.view_angles_rad()[:, None] + g
        return theta, np.broadcast_to(self.source_isocentre_mm * np.sin(g), theta.shape)


@dataclass(frozen=True)
class FanArc(_Fan):
    """Equi-angular fan: an arc detector centred on the source, as clinical scanners have.

    The default is the scanner of Zhang & Yu 2018: 984 views, 920 bins of 1 mrad, 595 mm.
    """

    type: ClassVar[str] = "fan-arc"
    views: int = 984
    bins: int = 920
    source_isocentre_mm: float = 595.0
    bin_pitch_rad: float = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.bins + 2 * abs(self.bin_offset)) * self.bin_pitch_rad >= np.pi:
            raise ValueError("the fan must be narrower than 180 degrees")

    def fan_angles_rad(self) -> NDArray[np.float64]:
        """G = (d - (bins-1)/2 + bin_offset) bin_pitch_rad."""
        return self.bin_offsets() * self.bin_pitch_rad


@dataclass(frozen=True)
class FanFlat(_Fan):
    """Equi-spaced fan: a flat detector `source_detector_mm` from the source."""

    type: ClassVar[str] = "fan-flat"
    views: int = 984
    bins: int = 920
    source_isocentre_mm: float = 595.0
    source_detector_mm: float = 1085.6
    bin_pitch_mm: float = 1.0

    def fan_angles_rad(self) -> NDArray[np.float64]:
        """G = atan(u / source_detector_mm)."""
        return np.arctan(self.bin_offsets() * self.bin_pitch_mm / self.source_detector_mm)


@dataclass(frozen=True)
class Parallel(_Scan):
    """Parallel beam over `arc_rad`, bins `bin_pitch_mm` apart."""

    type: ClassVar[str] = "parallel"
    views: int = 720
    bins: int = 736
    bin_pitch_mm: float = 1.0
    arc_rad: float = float(np.pi)

    def line_coordinates(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Theta = b and s = (d - (bins-1)/2 + bin_offset) bin_pitch_mm, each (views, bins)."""
        shape = self.views, self.bins
        theta = np.broadcast_to(self.view_angles_rad()[:, None], shape)
        return theta, np.broadcast_to(self.bin_offsets() * self.bin_pitch_mm, shape)


Geometry = FanArc | FanFlat | Parallel


def geometry_from_dict(values: Mapping[str, Any]) -> Geometry:
    """Read what `to_dict` wrote.

    Raises
    ------
    ValueError
        Where the type is unknown or a value is missing, unexpected or not positive.
    """
    fields = dict(values)
    kind = fields.pop("type", None)
    for cls in (FanArc, FanFlat, Parallel):
        if cls.type == kind:
            expected = set(cls.__dataclass_fields__) - {"type", "bin_offset"}
            if set(fields) - {"bin_offset"} != expected:
                raise ValueError(f"geometry {kind} needs exactly {sorted(expected)}, not {sorted(fields)}")
            whole: dict[str, Any] = {k: int(v) if k in ("views", "bins") else float(v) for k, v in fields.items()}
            geometry: Geometry = cls(**whole)
            return geometry
    raise ValueError(f"unknown geometry type {kind!r}: expected fan-arc, fan-flat or parallel")
