"""Masks of many slices in little memory: of each the box that holds something, eight pixels to a byte."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class _Packed:
    """One mask: its shape, and the box with its bits; `bits` is None where it is empty."""

    shape: tuple[int, int]
    top: int = 0
    left: int = 0
    size: tuple[int, int] = (0, 0)
    bits: NDArray[np.uint8] | None = None


class PackedMasks(Sequence[NDArray[np.bool_]]):
    """A list of masks, bool (rows, cols) each, which may differ in shape; they are unpacked when asked for.

    A thousand slices of 512 x 512 pixels take 32 MB where metal fills them, some kB otherwise.
    """

    def __init__(self, masks: Iterable[NDArray[np.bool_]] = ()) -> None:
        self._packed: list[_Packed] = []
        for mask in masks:
            self.append(mask)

    def append(self, mask: NDArray[np.bool_]) -> None:
        """Add the mask (rows, cols) of the next slice."""
        self._packed.append(_pack(mask))

    def replace(self, index: int, mask: NDArray[np.bool_]) -> None:
        """Put another mask in the place of one."""
        self._packed[index] = _pack(mask)

    def any(self, index: int) -> bool:
        """Whether a mask holds anything, without unpacking it."""
        return self._packed[index].bits is not None

    @property
    def nbytes(self) -> int:
        """Memory of the bits."""
        return sum(packed.bits.nbytes for packed in self._packed if packed.bits is not None)

    def __len__(self) -> int:
        return len(self._packed)

    def __iter__(self) -> Iterator[NDArray[np.bool_]]:
        return (self[index] for index in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> NDArray[np.bool_]: ...

    @overload
    def __getitem__(self, index: slice) -> list[NDArray[np.bool_]]: ...

    def __getitem__(self, index: int | slice) -> NDArray[np.bool_] | list[NDArray[np.bool_]]:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        packed = self._packed[index]
        mask = np.zeros(packed.shape, bool)
        if packed.bits is not None:
            rows, cols = packed.size
            inside = np.unpackbits(packed.bits, count=rows * cols).reshape(rows, cols)
            mask[packed.top : packed.top + rows, packed.left : packed.left + cols] = inside
        return mask


def _pack(mask: NDArray[np.bool_]) -> _Packed:
    rows, cols = mask.shape
    used = np.flatnonzero(mask.any(axis=1))
    if not used.size:
        return _Packed((rows, cols))
    top, bottom = int(used[0]), int(used[-1]) + 1
    across = np.flatnonzero(mask[top:bottom].any(axis=0))
    left, right = int(across[0]), int(across[-1]) + 1
    return _Packed(
        (rows, cols), top, left, (bottom - top, right - left), np.packbits(mask[top:bottom, left:right].ravel())
    )
