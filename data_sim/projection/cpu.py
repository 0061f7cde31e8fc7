"""The CPU backend: stacks of slices cut into blocks of lanes and sent through the kernels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data_sim.geometry import Geometry, ImageGrid
from data_sim.kernels import in_threads
from data_sim.projection import backprojection, filters, joseph, lanes
from data_sim.projection.scan_tables import Scan

_VIEWS_AT_ONCE = 8


def forward(
    stack: NDArray[np.float32], geometry: Geometry, grid: ImageGrid, *, rays: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """Line integrals (slices, views, bins) of (slices, rows, cols); 0 where `rays` (views, bins) is false."""
    # lanes that are rotations of one slice would need the union of the rays wanted in four views
    fold = lanes.fold_of(geometry, grid) if rays is None else 1
    scan = Scan.of(geometry, geometry.views // fold)
    out = np.empty((len(stack), *geometry.shape), np.float32)
    for part, width in lanes.blocks(len(stack), fold):
        image = lanes.pack_images(stack[part], width, fold)
        sums = np.zeros((len(scan.views), geometry.bins, width), np.float32)
        joseph.forward(image, sums, scan, grid, rays)
        lanes.unpack_sinograms(sums, out[part], fold)
    return out


def back(stack: NDArray[np.float32], geometry: Geometry, grid: ImageGrid) -> NDArray[np.float32]:
    """The transpose of `forward`: (slices, views, bins) to (slices, rows, cols)."""
    fold = lanes.fold_of(geometry, grid)
    scan = Scan.of(geometry, geometry.views // fold)
    out = np.empty((len(stack), *grid.shape), np.float32)
    for part, width in lanes.blocks(len(stack), fold):
        image = joseph.adjoint(lanes.pack_sinograms(stack[part], width, fold), scan, grid)
        lanes.unpack_images(image, out[part], fold)
    return out


def fbp(
    stack: NDArray[np.float32],
    geometry: Geometry,
    grid: ImageGrid,
    weight: NDArray[np.float32],
    response: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Filtered backprojection of (slices, views, bins), see `backproject`.

    Groups of views in which all slices of a block are 0 cost nothing.

    Parameters
    ----------
    weight : float32 (bins,)
        Of each bin before filtering.
    response : float32 (frequencies,)
        See `filters.frequency_response`.
    """
    fold = lanes.fold_of(geometry, grid)
    scan = Scan.of(geometry, geometry.views // fold)
    out = np.empty((len(stack), *grid.shape), np.float32)
    for part, width in lanes.blocks(len(stack), fold):
        block = lanes.pack_sinograms(stack[part], width, fold)
        used = _whole_groups(np.asarray(block.any(axis=(1, 2))))
        if not used.all():
            block = block[used]
        in_threads(_filter, len(block), _VIEWS_AT_ONCE, block, weight, response)
        image = backprojection.backproject(block, scan.of_views(used), grid)
        lanes.unpack_images(image, out[part], fold)
    return out


def _whole_groups(used: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Views (n,) that are used, and those that the kernel adds to the same sum.

    Were single views left out, sums would begin elsewhere, and a slice's rounding would depend on the others.
    """
    size = backprojection._VIEWS_AT_ONCE
    starts = np.arange(0, len(used), size)
    return np.repeat(np.logical_or.reduceat(used, starts), size)[: len(used)]


def _filter(
    first: int, stop: int, block: lanes.Block, weight: NDArray[np.float32], response: NDArray[np.float32]
) -> None:
    """Filter views of (views, bins, width) in place, one by one: the numbers of a view fit the cache."""
    for view in block[first:stop]:
        view[...] = filters.apply_filter(view * weight[:, None], response)
