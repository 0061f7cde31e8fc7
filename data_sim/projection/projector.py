"""The projector of one geometry and one image grid, on whichever device is at hand."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data_sim.geometry import FanArc, FanFlat, Geometry, ImageGrid, Parallel
from data_sim.projection import astra, cpu, filters

DEVICES = ("auto", "cpu", "cuda")


def choose_device(device: str = "auto") -> tuple[str, str]:
    """The device that projections run on, and why.

    Raises
    ------
    ValueError
        For an unknown name, or for "cuda" where ASTRA finds no usable GPU.
    """
    if device not in DEVICES:
        raise ValueError(f"unknown device {device!r}: expected one of {', '.join(DEVICES)}")
    if device == "cpu":
        return "cpu", "asked for"
    problem = astra.why_no_cuda()
    if problem is None:
        return "cuda", "ASTRA finds a CUDA device"
    if device == "cuda":
        raise ValueError(f"no CUDA projections here: {problem}")
    return "cpu", problem


class Projector:
    """Line integrals of images and their inverse, for one geometry and one grid.

    Parameters
    ----------
    geometry
        The scan.
    grid
        The image raster; it may be a crop away from the isocentre.
    device
        "auto", "cpu" or "cuda".

    Notes
    -----
    Every method takes one array or a stack of them and returns the same. A stack is worked in blocks of at most
    32 slices, so that memory beyond input and output stays at about 64 sinograms and 96 images.
    """

    def __init__(self, geometry: Geometry, grid: ImageGrid, *, device: str = "auto") -> None:
        self.geometry = geometry
        self.grid = grid
        self.device = choose_device(device)[0]

    def forward(self, images: ArrayLike, *, rays: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """Line integrals along every ray: unit of the image times mm.

        Parameters
        ----------
        images : (rows, cols) or (slices, rows, cols)
        rays : bool (views, bins), optional
            Rays to compute; the others are 0. Costs in proportion on the CPU.

        Returns
        -------
        float32 (views, bins) or (slices, views, bins)
        """
        stack, single = _as_stack(images, self.grid.shape, "images", "the grid")
        if rays is not None and rays.shape != self.geometry.shape:
            raise ValueError(f"rays has the shape {rays.shape}, the sinogram {self.geometry.shape}")
        out = np.zeros((len(stack), *self.geometry.shape), np.float32)
        box = _bounding_box(stack)
        if box is None:
            return out[0] if single else out
        row0, row1, col0, col1 = box
        part, grid = stack[:, row0:row1, col0:col1], self.grid.crop(*box)
        if self.device == "cuda":
            out = astra.forward(part, self.geometry, grid)
            if rays is not None:
                out[:, ~rays] = 0
        else:
            lines = cpu.joseph_lines(self.geometry, grid, rays)
            for start, stop, width in cpu.blocks(len(stack)):
                out[start:stop] = cpu.forward_block(part[start:stop], width, lines)
        return out[0] if single else out

    def back(self, sinograms: ArrayLike) -> NDArray[np.float32]:
        """The adjoint of `forward` (exact on the CPU): (slices, views, bins) -> (slices, rows, cols)."""
        stack, single = _as_stack(sinograms, self.geometry.shape, "sinograms", "the geometry")
        if self.device == "cuda":
            out = astra.back(stack, self.geometry, self.grid)
        else:
            out = np.empty((len(stack), *self.grid.shape), np.float32)
            lines = cpu.joseph_lines(self.geometry, self.grid, None)
            for start, stop, width in cpu.blocks(len(stack)):
                out[start:stop] = cpu.adjoint_block(stack[start:stop], width, self.grid, lines)
        return out[0] if single else out

    def fbp(self, sinograms: ArrayLike, *, window: str = "ram-lak", cutoff: float = 1.0) -> NDArray[np.float32]:
        """Filtered backprojection: line integrals (dimensionless) to attenuation in mm^-1.

        Kak & Slaney 1988: section 3.3 (parallel), 3.4.1 (equi-angular fan), 3.4.2 (equi-spaced fan).

        Parameters
        ----------
        sinograms : (views, bins) or (slices, views, bins)
        window, cutoff
            A window of `filters.FILTERS` and the fraction of the Nyquist frequency where it ends.

        Raises
        ------
        ValueError
            Where the views do not cover whole half turns (parallel): a short scan has no plain FBP.
        """
        stack, single = _as_stack(sinograms, self.geometry.shape, "sinograms", "the geometry")
        turns = self.geometry.arc_rad / np.pi
        if abs(turns - round(turns)) > 1e-6:
            raise ValueError("filtered backprojection needs views over a multiple of 180 degrees")
        response = filters.frequency_response(self._half_kernel, window, cutoff)
        out = np.empty((len(stack), *self.grid.shape), np.float32)
        for start, stop, width in cpu.blocks(len(stack)):
            filtered = filters.apply_filter(stack[start:stop] * self._preweight, response)
            if self.device == "cuda":
                out[start:stop] = astra.backproject(filtered, self.geometry, self.grid)
            else:
                out[start:stop] = cpu.backproject_block(filtered, width, self.geometry, self.grid)
        return out[0] if single else out

    @cached_property
    def _preweight(self) -> NDArray[np.float32]:
        """Weight of each bin before filtering, with the constants of the view and bin spacing."""
        g = self.geometry
        if isinstance(g, Parallel):
            weight = np.full(g.bins, g.bin_pitch_mm * np.pi / g.views)
        elif isinstance(g, FanArc):
            weight = g.source_isocentre_mm * np.cos(g.fan_angles_rad()) * (g.bin_pitch_rad * np.pi / g.views)
        else:
            weight = np.cos(g.fan_angles_rad()) * (self._flat_pitch_mm(g) * np.pi / g.views)
        return weight.astype(np.float32)

    @cached_property
    def _half_kernel(self) -> NDArray[np.float64]:
        """Ramp at n = 0 .. bins-1; for an arc with the factor (n a / sin n a)^2 (Kak & Slaney, eq. 102)."""
        g = self.geometry
        if isinstance(g, Parallel):
            return filters.ramp_kernel(g.bins, g.bin_pitch_mm)
        if isinstance(g, FanFlat):
            return filters.ramp_kernel(g.bins, self._flat_pitch_mm(g))
        angle = np.arange(g.bins) * g.bin_pitch_rad
        return filters.ramp_kernel(g.bins, g.bin_pitch_rad) / np.sinc(angle / np.pi) ** 2

    @staticmethod
    def _flat_pitch_mm(g: FanFlat) -> float:
        """Bin pitch on the virtual detector through the isocentre."""
        return g.bin_pitch_mm * g.source_isocentre_mm / g.source_detector_mm


def _as_stack(values: ArrayLike, shape: tuple[int, int], what: str, whose: str) -> tuple[NDArray[np.float32], bool]:
    array = np.asarray(values, np.float32)
    if array.ndim not in (2, 3) or array.shape[-2:] != shape:
        raise ValueError(f"{what} of shape {array.shape} do not fit {whose}: expected (slices, {shape[0]}, {shape[1]})")
    return array.reshape(-1, *shape), array.ndim == 2


def _bounding_box(stack: NDArray[np.float32]) -> tuple[int, int, int, int] | None:
    """(row0, row1, col0, col1) of what is not zero anywhere in the stack."""
    used = np.asarray(stack.any(axis=0))
    rows, cols = np.flatnonzero(used.any(axis=1)), np.flatnonzero(used.any(axis=0))
    if rows.size == 0:
        return None
    return int(rows[0]), int(rows[-1]) + 1, int(cols[0]), int(cols[-1]) + 1
