"""ASTRA's projectors behind the same interface: the only place that imports astra.

ASTRA knows parallel beams and flat detectors. An arc is projected onto a flat detector with half the bin pitch and
read off at the arc's fan angles by cubic interpolation; its adjoint is the transpose of just that. Filter and weighted
backprojection, which ASTRA offers only together and for flat detectors, are done in torch on the same GPU, a block of
slices at a time, with one copy there and one back.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from data_sim.geometry import FanArc, FanFlat, Geometry, ImageGrid, Parallel
from data_sim.projection.filters import padded_length

if TYPE_CHECKING:
    import torch

SLICES_AT_ONCE = 32
"""A sinogram and its spectrum take 13 MB a slice at 984 x 920, twice: below 1 GB on the GPU."""


def why_no_cuda() -> str | None:
    """None where ASTRA can use a GPU, otherwise the reason in words."""
    try:
        import astra
    except ImportError as error:
        return f"astra-toolbox cannot be imported ({error.name or 'a shared library is missing'})"
    if not astra.use_cuda():
        return "ASTRA finds no CUDA device"
    import torch

    return None if torch.cuda.is_available() else "torch is built without CUDA or finds no device"


def forward(
    stack: NDArray[np.float32],
    geometry: Geometry,
    grid: ImageGrid,
    *,
    rays: NDArray[np.bool_] | None = None,
    cuda: bool = True,
) -> NDArray[np.float32]:
    """Line integrals (slices, views, bins) of (slices, rows, cols); on the CPU by ASTRA's line models.

    ASTRA computes all rays; those that are not wanted are set to 0.
    """
    import astra

    scan, matrix = _flat_scan(geometry)
    volume, projections = _geometries(scan, grid)
    projector = astra.create_projector(_model(scan, cuda), projections, volume)
    try:
        out = np.empty((len(stack), scan.views, scan.bins), np.float32)
        for image, sinogram in zip(stack, out, strict=True):
            ident, result = astra.create_sino(np.ascontiguousarray(image), projector)
            astra.data2d.delete(ident)
            sinogram[...] = result
    finally:
        astra.projector.delete(projector)
    out = out if matrix is None else _resample(out, matrix)
    if rays is not None:
        out[:, ~rays] = 0
    return out


def back(stack: NDArray[np.float32], geometry: Geometry, grid: ImageGrid, *, cuda: bool = True) -> NDArray[np.float32]:
    """Adjoint of `forward` (on a GPU to ASTRA's interpolation): (slices, views, bins) -> (slices, rows, cols)."""
    import astra

    scan, matrix = _flat_scan(geometry)
    flat = stack if matrix is None else _resample(stack, matrix.T.tocsr())
    volume, projections = _geometries(scan, grid)
    projector = astra.create_projector(_model(scan, cuda), projections, volume)
    try:
        out = np.empty((len(stack), *grid.shape), np.float32)
        for sinogram, image in zip(flat, out, strict=True):
            ident, result = astra.create_backprojection(np.ascontiguousarray(sinogram), projector)
            astra.data2d.delete(ident)
            image[...] = result
    finally:
        astra.projector.delete(projector)
    return out


def fbp(
    stack: NDArray[np.float32],
    geometry: Geometry,
    grid: ImageGrid,
    weight: NDArray[np.float32],
    response: NDArray[np.float32],
    *,
    device: str = "cuda",
) -> NDArray[np.float32]:
    """Filtered backprojection of (slices, views, bins), as `cpu.fbp`."""
    import torch

    out = np.empty((len(stack), *grid.shape), np.float32)
    length = padded_length(geometry.bins)
    for start in range(0, len(stack), SLICES_AT_ONCE):
        part = slice(start, start + SLICES_AT_ONCE)
        rows = torch.from_numpy(np.ascontiguousarray(stack[part])).to(device) * torch.from_numpy(weight).to(device)
        spectrum = torch.fft.rfft(rows, length) * torch.from_numpy(response).to(device)
        filtered = torch.fft.irfft(spectrum, length)[..., : geometry.bins]
        out[part] = _backproject(filtered, geometry, grid)
    return out


def _backproject(filtered: torch.Tensor, geometry: Geometry, grid: ImageGrid) -> NDArray[np.float32]:
    """Weighted backprojection of filtered sinograms (slices, views, bins), the weights as in `backprojection.py`."""
    import torch

    device = filtered.device
    data = filtered.permute(1, 2, 0).contiguous()
    x = torch.as_tensor(grid.x_mm(), dtype=torch.float32, device=device)[None, :]
    y = torch.as_tensor(grid.y_mm(), dtype=torch.float32, device=device)[:, None]
    image = torch.zeros((grid.rows * grid.cols, len(filtered)), device=device)
    bins, first_bin = geometry.bins, -float(geometry.bin_offsets()[0])
    for view, b in enumerate(geometry.view_angles_rad()):
        cos, sin = float(np.cos(b)), float(np.sin(b))
        t = x * cos + y * sin
        if isinstance(geometry, Parallel):
            index, weight = t / geometry.bin_pitch_mm, torch.ones_like(t)
        else:
            radius = geometry.source_isocentre_mm
            depth = x * sin - y * cos + radius
            u = torch.where(depth > 0, depth, radius)
            if isinstance(geometry, FanFlat):
                index = t / u * (geometry.source_detector_mm / geometry.bin_pitch_mm)
                weight = radius**2 / (u * u)
            else:
                index, weight = torch.atan(t / u) / geometry.bin_pitch_rad, 1 / (u * u + t * t)
            weight = torch.where(depth > 0, weight, 0)
        index = (index + first_bin).reshape(-1)
        weight = torch.where((index >= 0) & (index <= bins - 1), weight.reshape(-1), 0)[:, None]
        low = index.clamp(0, bins - 2).long()
        share = (index - low).clamp(0, 1)[:, None]
        row = data[view]
        image += weight * torch.lerp(row[low], row[low + 1], share)
    result: NDArray[np.float32] = image.T.reshape(len(filtered), *grid.shape).cpu().numpy()
    return result


def _model(scan: FanFlat | Parallel, cuda: bool) -> str:
    if cuda:
        return "cuda"
    return "linear" if isinstance(scan, Parallel) else "line_fanflat"


def _geometries(scan: FanFlat | Parallel, grid: ImageGrid) -> tuple[Any, Any]:
    """ASTRA's volume and projection geometry, as explicit vectors so that the frame is ours."""
    import astra

    half_width, half_height = grid.cols * grid.pixel_mm / 2, grid.rows * grid.pixel_mm / 2
    x, y = grid.centre_x_mm, grid.centre_y_mm
    volume = astra.create_vol_geom(
        grid.rows, grid.cols, x - half_width, x + half_width, y - half_height, y + half_height
    )
    b = scan.view_angles_rad()
    along = np.stack([np.sin(b), -np.cos(b)], axis=1)
    across = np.stack([np.cos(b), np.sin(b)], axis=1) * scan.bin_pitch_mm
    if isinstance(scan, Parallel):
        vectors = np.hstack([along, scan.bin_offset * across, across])
        return volume, astra.create_proj_geom("parallel_vec", scan.bins, vectors)
    source = -scan.source_isocentre_mm * along
    vectors = np.hstack([source, source + scan.source_detector_mm * along + scan.bin_offset * across, across])
    return volume, astra.create_proj_geom("fanflat_vec", scan.bins, vectors)


@lru_cache(maxsize=8)
def _flat_scan(geometry: Geometry) -> tuple[FanFlat | Parallel, scipy.sparse.csr_matrix | None]:
    """What ASTRA projects for `geometry`, and the matrix (bins, flat bins) that reads its bins off."""
    if not isinstance(geometry, FanArc):
        return geometry, None
    radius = geometry.source_isocentre_mm
    pitch = radius * geometry.bin_pitch_rad / 2
    u = radius * np.tan(geometry.fan_angles_rad())
    half = int(np.ceil(np.abs(u).max() / pitch)) + 2
    flat = FanFlat(geometry.views, 2 * half + 1, radius, radius, pitch)
    index = u / pitch + half
    low = np.floor(index).astype(int)
    f = index - low
    # Catmull-Rom weights of the four neighbours
    taps = np.stack(
        [
            ((2 - f) * f - 1) * f / 2,
            ((3 * f - 5) * f * f + 2) / 2,
            ((4 - 3 * f) * f + 1) * f / 2,
            (f - 1) * f * f / 2,
        ]
    )
    bins = np.arange(geometry.bins)
    cols = np.stack([low - 1, low, low + 1, low + 2])
    matrix = scipy.sparse.csr_matrix(
        (taps.ravel(), (np.broadcast_to(bins, cols.shape).ravel(), cols.ravel())),
        shape=(geometry.bins, flat.bins),
    )
    return flat, matrix.astype(np.float32)


def _resample(sinograms: NDArray[np.float32], matrix: scipy.sparse.csr_matrix) -> NDArray[np.float32]:
    rows = sinograms.reshape(-1, sinograms.shape[-1])
    return (matrix @ rows.T).T.reshape(*sinograms.shape[:-1], matrix.shape[0]).astype(np.float32)
