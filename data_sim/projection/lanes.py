"""Stacks of slices as blocks of lanes, and the rotations that make one slice four lanes.

The kernels work on blocks (points, width) with the lane innermost. Where the scan and the grid allow it, a slice is
`fold` lanes: turning the image by 90 degrees is the same as starting the scan a quarter turn later, so that the four
quarters of the views share the geometry of the first. Then one slice already fills half a vector, and the geometry
of rays and pixels is computed once for four views.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from data_sim.geometry import Geometry, ImageGrid
from data_sim.projection.compiling import kernel, part
from data_sim.projection.threads import in_threads

WIDTHS = (8, 32)
"""Lanes of a block. 8 is one vector register; at 32 the geometry's share of the work is small, and more lanes fit the
caches less well. A block of 16 takes three quarters of the time of one of 32 and would have to be compiled, too."""

Block = NDArray[np.float32]

_AT_ONCE = 64


def fold_of(geometry: Geometry, grid: ImageGrid) -> int:
    """How many lanes a slice is: the views between two quarter turns of the scan, 4, 2 or 1."""
    if grid.rows != grid.cols or grid.centre_x_mm or grid.centre_y_mm:
        return 1
    quarters = geometry.arc_rad / (np.pi / 2)
    for fold in (4, 2):
        if abs(quarters - fold) < 1e-9 and geometry.views % fold == 0:
            return fold
    return 1


def blocks(slices: int, fold: int) -> Iterator[tuple[slice, int]]:
    """The slices and the width of each block that a stack is worked in; a last block may have empty lanes."""
    start = 0
    while start < slices:
        width = next((w for w in WIDTHS if w >= (slices - start) * fold), WIDTHS[-1])
        stop = min(start + width // fold, slices)
        yield slice(start, stop), width
        start = stop


def pack_images(stack: NDArray[np.float32], width: int, fold: int) -> Block:
    """(slices, rows, cols) as (rows + 2, cols + 2, width) with a border of zeros; lane = slice fold + quarter."""
    _, rows, cols = stack.shape
    block = np.empty((rows + 2, cols + 2, width), np.float32)
    block[[0, -1]] = 0
    block[:, [0, -1]] = 0
    in_threads(_pack_images, rows, _AT_ONCE, np.ascontiguousarray(stack), fold, block)
    return block


def unpack_images(block: Block, out: NDArray[np.float32], fold: int) -> None:
    """Turn the lanes of (rows, cols, width) back and add them up, into (slices, rows, cols)."""
    in_threads(_unpack_images, block.shape[0], _AT_ONCE, block, fold, out)


def pack_sinograms(stack: NDArray[np.float32], width: int, fold: int) -> Block:
    """(slices, views, bins) as (views / fold, bins, width)."""
    _, views, bins = stack.shape
    block = np.empty((views // fold, bins, width), np.float32)
    in_threads(_pack_sinograms, len(block), 8, np.ascontiguousarray(stack), fold, block)
    return block


def unpack_sinograms(block: Block, out: NDArray[np.float32], fold: int) -> None:
    """The inverse of `pack_sinograms`, into (slices, views, bins)."""
    in_threads(_unpack_sinograms, len(block), 8, block, fold, out)


@part
def _turned(quarter, rows, cols):
    """First index and steps down and across that read a flat image turned clockwise by quarter turns."""
    n = rows
    if quarter == 1:
        return (n - 1) * n, 1, -n
    if quarter == 2:
        return n * n - 1, -n, -1
    if quarter == 3:
        return n - 1, -1, n
    return 0, cols, 1


@kernel("void(intp, intp, float32[:, :, ::1], intp, float32[:, :, ::1])")
def _pack_images(first, stop, stack, fold, block):
    slices, rows, cols = stack.shape
    flat = stack.reshape(slices, rows * cols)
    for lane in range(slices * fold, block.shape[2]):
        block[first + 1 : stop + 1, :, lane] = 0
    for row in range(first, stop):
        for c0 in range(0, cols, _AT_ONCE):
            c1 = min(c0 + _AT_ONCE, cols)
            for lane in range(slices * fold):
                start, down, across = _turned(lane % fold, rows, cols)
                image = flat[lane // fold]
                for col in range(c0, c1):
                    block[row + 1, col + 1, lane] = image[start + down * row + across * col]


@kernel("void(intp, intp, float32[:, :, ::1], intp, float32[:, :, ::1])")
def _unpack_images(first, stop, block, fold, out):
    slices, rows, cols = out.shape
    for row in range(first, stop):
        for s in range(slices):
            image = out[s]
            for col in range(cols):
                image[row, col] = block[row, col, s * fold]
            if fold > 1:
                # the block's pixel at (r, c) of a lane turned by a quarter is the image's at (n - 1 - c, r)
                for col in range(cols):
                    total = image[row, col] + block[col, rows - 1 - row, s * fold + 1]
                    if fold > 2:
                        total += block[rows - 1 - row, cols - 1 - col, s * fold + 2]
                        total += block[cols - 1 - col, row, s * fold + 3]
                    image[row, col] = total


@kernel("void(intp, intp, float32[:, :, ::1], intp, float32[:, :, ::1])")
def _pack_sinograms(first, stop, stack, fold, block):
    slices, _, bins = stack.shape
    views = block.shape[0]
    for view in range(first, stop):
        for d0 in range(0, bins, _AT_ONCE):
            d1 = min(d0 + _AT_ONCE, bins)
            for lane in range(slices * fold):
                row = stack[lane // fold, view + (lane % fold) * views]
                for d in range(d0, d1):
                    block[view, d, lane] = row[d]
            for lane in range(slices * fold, block.shape[2]):
                for d in range(d0, d1):
                    block[view, d, lane] = 0


@kernel("void(intp, intp, float32[:, :, ::1], intp, float32[:, :, ::1])")
def _unpack_sinograms(first, stop, block, fold, out):
    slices, _, bins = out.shape
    views = block.shape[0]
    for view in range(first, stop):
        for d0 in range(0, bins, _AT_ONCE):
            d1 = min(d0 + _AT_ONCE, bins)
            for lane in range(slices * fold):
                row = out[lane // fold, view + (lane % fold) * views]
                for d in range(d0, d1):
                    row[d] = block[view, d, lane]
