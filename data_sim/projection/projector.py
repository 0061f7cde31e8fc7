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
    Every method takes one array or a stack of them and returns the same. On the CPU a stack is worked in blocks: of 8
    slices where the scan turns whole quarters around a square grid, so that its four quarters are computed as one
    (`lanes.py`), of 32 otherwise. Memory beyond input and output is at most two sinograms and three images for each
    slice of a block: 120 MB with 984 x 920 rays and 512 x 512 pixels, 330 MB without the quarters, however many slices
    there are. A slice's result is the same to the last bit in any stack and with any number of threads.
    """

    def __init__(self, geometry: Geometry, grid: ImageGrid, *, device: str = "auto") -> None:
        self.geometry = geometry
        self.grid = grid
        self.device = choose_device(device)[0]
        self._backend = astra if self.device == "cuda" else cpu

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
        out = self._backend.forward(stack, self.geometry, self.grid, rays=rays)
        return out[0] if single else out

    def back(self, sinograms: ArrayLike) -> NDArray[np.float32]:
        """The adjoint of `forward` (exact on the CPU): (slices, views, bins) -> (slices, rows, cols)."""
        stack, single = _as_stack(sinograms, self.geometry.shape, "sinograms", "the geometry")
        out = self._backend.back(stack, self.geometry, self.grid)
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
            Where the views do not cover whole half turns (parallel): a short scan has no plain FBP. Where there is a
            single bin.
        """
        stack, single = _as_stack(sinograms, self.geometry.shape, "sinograms", "the geometry")
        turns = self.geometry.arc_rad / np.pi
        if abs(turns - round(turns)) > 1e-6:
            raise ValueError("filtered backprojection needs views over a multiple of 180 degrees")
        if self.geometry.bins < 2:
            raise ValueError("filtered backprojection needs at least two bins")
        response = filters.frequency_response(self._half_kernel, window, cutoff)
        out = self._backend.fbp(stack, self.geometry, self.grid, self._preweight, response)
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
