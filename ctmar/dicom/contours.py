"""Metal drawn as contours: DICOM RT Structure Sets (PS3.3 section C.8.8) as masks on the slices of a series."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ctmar.dicom.planes import Planes, row_col_off
from ctmar.errors import UsageError
from ctmar.packed import PackedMasks

METAL_WORDS = (
    "metal", "implant", "prosthe", "filling", "artifact", "artefact", "hardware", "screw", "clip", "crown", "pacemaker",
    "endoprothe", "amalgam",
)  # fmt: skip
"""In the name of a structure or segment, in any case, they say that it is metal."""

MOST_POINTS = 2_000_000
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_EDGES_AT_ONCE = 2**10


def chosen_names(path: Path, names: dict[int, str], choice: str | None, kind: str) -> list[int]:
    """Numbers of the structures or segments to take: the one that was chosen, the only one, those that say metal.

    Raises
    ------
    UsageError
        Where none can be chosen, with the names that there are.
    """
    listed = ", ".join(sorted({_shown(name) for name in names.values()})[:40]) or "none"
    if choice is not None:
        wanted = choice.strip().casefold()
        same = [n for n, name in names.items() if name.strip().casefold() == wanted]
        same = same or [n for n in names if str(n) == wanted]
        if not same:
            raise UsageError(f"{path}: has no {kind} named {choice!r}; it has {listed}.")
        return same
    if len(names) == 1:
        return list(names)
    metal = [n for n, name in names.items() if any(word in name.casefold() for word in METAL_WORDS)]
    if not metal:
        raise UsageError(f"{path}: choose a {kind} with {path.name}:NAME; it has {listed}.")
    return metal


def _shown(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name.strip())[:64] or "(no name)"


def contour_masks(path: Path, structures: Dataset, planes: Planes, choice: str | None) -> tuple[PackedMasks, list[str]]:
    """Masks of a structure set's metal on every slice of a series, and warnings.

    A pixel is metal where its centre lies inside (even-odd, so that holes and keyholes stay open); a contour between
    all centres marks the pixel that is nearest. Contours between slices go to the nearest one within half the spacing.

    Raises
    ------
    UsageError
        Where no structure can be chosen, it has no closed contours, it was drawn in another frame of reference, its
        contours are not in the planes of the slices, or none of them lies on a slice.
    ValueError, KeyError, AttributeError
        Where the data set is malformed.
    """
    rois = {int(item.ROINumber): str(item.get("ROIName") or "") for item in structures.StructureSetROISequence}
    numbers = chosen_names(path, rois, choice, "structure")
    _refuse_other_frame(path, structures, numbers, planes)
    drawn: dict[tuple[int, int, float], list[NDArray[np.float64]]] = defaultdict(list)
    points = beside = moved = 0
    for item in structures.get("ROIContourSequence", []):
        if int(item.ReferencedROINumber) not in numbers:
            continue
        for contour in item.get("ContourSequence", []) or []:
            if contour.get("ContourGeometricType") not in _CLOSED:
                continue
            corners = _corners(contour)
            points += len(corners)
            if points > MOST_POINTS:
                raise UsageError(f"{path}: more than {MOST_POINTS} points; choose one structure or simplify it.")
            on, off_mm = _slices_of(path, corners, contour, planes)
            beside += not on
            moved += bool(on) and off_mm > 0.1
            height = round(float((corners @ planes.normal).mean()), 2)
            for index in on:
                drawn[int(item.ReferencedROINumber), index, height].append(corners)
    if not points:
        raise UsageError(f"{path}: the chosen structure has no closed planar contours; draw or export them again.")
    if not drawn:
        raise UsageError(f"{path}: none of the contours lies on a slice of the series; they belong to another.")
    masks = PackedMasks(np.zeros((one.rows, one.cols), bool) for one in planes.series.slices)
    # holes are within one structure and one plane: what comes from two planes to one slice adds up
    for (_, index, _), contours in drawn.items():
        one = planes.series.slices[index]
        rings = [row_col_off(corners, one)[:, :2] for corners in contours]
        masks.replace(index, masks[index] | filled(rings, (one.rows, one.cols)))
    warnings = []
    if moved:
        warnings.append(f"{moved} contours of the mask lie between slices; each is taken to the nearest slice.")
    if beside:
        warnings.append(f"{beside} contours of the mask lie on no slice of the series and are not used.")
    return masks, warnings


def filled(rings: list[NDArray[np.float64]], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels whose centre lies inside of closed rings (n, 2) of row and column by the even-odd rule.

    Pixel (0, 0) has its centre at (0, 0). A ring that encloses no centre marks the pixel nearest to its own: a thin
    wire or lead would be lost.
    """
    rows, cols = shape
    crossings = np.zeros((rows, cols + 1), np.int32)
    tiny = []
    for ring in rings:
        following = np.roll(ring, -1, axis=0)
        own = np.zeros_like(crossings)
        for first in range(0, len(ring), _EDGES_AT_ONCE):
            part = slice(first, first + _EDGES_AT_ONCE)
            _cross(ring[part], following[part], own)
        if not (np.cumsum(own[:, :cols], axis=1) % 2).any():
            tiny.append(np.rint(np.mean(ring, axis=0)).astype(int))
        crossings += own
    mask = np.cumsum(crossings[:, :cols], axis=1) % 2 == 1
    for row, col in tiny:
        if 0 <= row < rows and 0 <= col < cols:
            mask[row, col] = True
    return mask


def _cross(start: NDArray[np.float64], end: NDArray[np.float64], crossings: NDArray[np.int32]) -> None:
    """Count for each row the first pixel centre at or beyond every edge that crosses the row."""
    rows, cols = crossings.shape[0], crossings.shape[1] - 1
    low, high = np.minimum(start[:, 0], end[:, 0]), np.maximum(start[:, 0], end[:, 0])
    # rows in [low, high): an end point shared by two edges counts once, horizontal edges not at all
    first = np.clip(np.ceil(low), 0, rows).astype(int)
    last = np.clip(np.ceil(high), 0, rows).astype(int)
    count = last - first
    edge = np.repeat(np.arange(len(start)), count)
    if not edge.size:
        return
    row = np.arange(edge.size) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    share = (row - start[edge, 0]) / (end[edge, 0] - start[edge, 0])
    at = start[edge, 1] + share * (end[edge, 1] - start[edge, 1])
    np.add.at(crossings, (row, np.clip(np.ceil(at), 0, cols).astype(int)), 1)


def _corners(contour: Dataset) -> NDArray[np.float64]:
    corners = np.array([float(value) for value in contour.ContourData or []]).reshape(-1, 3)
    if not np.isfinite(corners).all():
        raise ValueError("contour points that are not finite")
    return corners


def _slices_of(path: Path, corners: NDArray[np.float64], contour: Dataset, planes: Planes) -> tuple[list[int], float]:
    """The slices that a contour lies on, and how far off their plane it is."""
    if len(corners) < 3:
        return [], 0.0
    along = corners @ planes.normal
    middle = float(along.mean())
    on = planes.at(middle)
    named = [str(image.ReferencedSOPInstanceUID) for image in contour.get("ContourImageSequence", []) or []]
    of_image = [k for uid in named for k in planes.by_uid.get(uid, []) if k in on]
    on = of_image or on
    if on and float(np.ptp(along)) > 2 * planes.reach_mm[on[0]]:
        raise UsageError(f"{path}: contours are not in the planes of the slices; resample the structure to axial ones.")
    return on, abs(middle - float(planes.along_mm[on[0]])) if on else 0.0


def _refuse_other_frame(path: Path, structures: Dataset, numbers: list[int], planes: Planes) -> None:
    ours = planes.frame_of_reference
    for item in structures.StructureSetROISequence:
        theirs = str(item.get("ReferencedFrameOfReferenceUID") or "")
        if int(item.ROINumber) in numbers and ours and theirs and ours != theirs:
            raise UsageError(
                f"{path}: the structure {_shown(str(item.get('ROIName') or ''))!r} was drawn in another frame of "
                "reference than the series; register it, or draw it on this series."
            )
