"""What the header of a NIfTI file promises, checked before anything of that size is read; what is odd about it."""

from __future__ import annotations

import gzip
import math
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctmar.errors import UnsupportedInputError

MOST_BYTES = 4 * 2**30
"""Voxels as they are stored: 8000 slices of 512 x 512 in 16 bits."""

SHEAR = 1e-3
"""Cosine between two axes from which on they are no longer taken as orthogonal."""

_DEFLATE = 1032
"""gzip packs nothing tighter than this, so what a file promises can be checked before there is memory for it."""

_MOST_HEADER_BYTES = 64 * 2**20
_OBLIQUE_DEG = 1.0


def three_axes(shape: Sequence[int]) -> tuple[int, int, int]:
    """The first three dimensions; the others are 1."""
    padded = (*shape, 1, 1)
    return padded[0], padded[1], padded[2]


def require_short_header(path: Path) -> None:
    """Raise `ValueError` where voxels begin so late that what stands before them would fill the memory."""
    with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as stream:
        head = stream.read(176)
    if len(head) < 176:
        raise EOFError("no whole header")
    order = "<" if head[:4] in (b"\x5c\x01\0\0", b"\x1c\x02\0\0") else ">"
    is_second = 540 in struct.unpack("<i", head[:4]) + struct.unpack(">i", head[:4])
    (offset,) = struct.unpack(f"{order}q", head[168:176]) if is_second else struct.unpack(f"{order}f", head[108:112])
    if not 0 <= offset <= _MOST_HEADER_BYTES:
        raise ValueError("the voxels begin beyond bounds")


def require_one_volume(path: Path, shape: tuple[int, ...], kind: np.dtype, offset: int) -> None:
    """Raise `UnsupportedInputError` for what is no single volume of numbers, or more than the file can hold.

    Parameters
    ----------
    shape, kind, offset
        What the header says: dimensions, type of the stored voxels, and the bytes before them.
    """
    size = path.stat().st_size
    if len(shape) < 2 or min(shape) < 1:
        raise UnsupportedInputError(f"{path.name}: has {len(shape)} dimensions; one CT volume has 3.")
    if math.prod(shape[3:]) != 1:
        raise UnsupportedInputError(
            f"{path.name}: has {len(shape)} dimensions with {math.prod(shape[3:])} volumes; give one CT volume (3)."
        )
    if kind.kind not in "iuf":
        raise UnsupportedInputError(f"{path.name}: holds colours or complex numbers, no CT values; export it again.")
    promised = math.prod(shape) * kind.itemsize
    if promised > MOST_BYTES:
        raise UnsupportedInputError(f"{path.name}: more than {MOST_BYTES >> 30} GiB of voxels; crop it.")
    packed = path.name.lower().endswith(".gz")
    if promised + offset > size * (_DEFLATE if packed else 1):
        raise UnsupportedInputError(
            f"{path.name}: truncated: its header promises {promised} bytes of voxels, the file has {size}."
        )


def oddities_of_axes(steps: Sequence[NDArray[np.float64]], *, described: bool) -> list[str]:
    """What a user should know of the axes, given as the steps (mm) from slice to slice, row to row, column to column.

    `described` tells whether the header says anything of the orientation at all.
    """
    found = []
    units = np.array([step / np.linalg.norm(step) for step in steps])
    wanted = np.array([[0, 0, 1.0], [0, -1, 0], [-1, 0, 0]])
    angle = math.degrees(math.acos(min(1.0, float((units * wanted).sum(axis=1).min()))))
    if angle > _OBLIQUE_DEG:
        found.append(f"axes are up to {angle:.1f} degrees from those of the patient; slices follow those of the file")
    if shear(np.array(steps)) > SHEAR:
        found.append("slices are sheared (gantry tilt)")
    if not np.isclose(np.linalg.norm(steps[1]), np.linalg.norm(steps[2]), rtol=1e-3):
        found.append("pixels are not square")
    if not described:
        found.append("no orientation in the header (sform and qform code 0): supine and axial is assumed")
    return found


def shear(steps: NDArray[np.float64]) -> float:
    """Largest cosine between two axes, given as rows."""
    units = steps / np.linalg.norm(steps, axis=1, keepdims=True)
    return float(np.abs(units @ units.T - np.eye(3)).max())
