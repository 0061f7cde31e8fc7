"""A user's own metal for a series, in place of the detection: DICOM SEG and RTSTRUCT, NIfTI, arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import iter_pixels
from pydicom.uid import RTStructureSetStorage, SegmentationStorage

from ctmar.detection import Detection
from ctmar.dicom.contours import METAL_WORDS, chosen_names, contour_masks
from ctmar.dicom.planes import Planes, row_col_off, voxel_affine
from ctmar.dicom.series import MAX_PIXELS, Series
from ctmar.dicom.source import MAX_FILE_BYTES, quiet_pydicom, read_dataset
from ctmar.errors import CtmarError, UnsupportedInputError, UsageError
from ctmar.masks import NEAR_VOXELS, load_nifti, read_mask, split_choice, turned_axes
from ctmar.nifti import is_nifti
from ctmar.packed import PackedMasks

LABELMAP_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"
"""Label Map Segmentation Storage (PS3.4 section B.5)."""

MOST_FRAMES = 200_000
_SAME_SPACING = 0.01
_SAME_DIRECTION = 2e-3


def given_metal(given: str | Path, series: Series) -> Detection:
    """The metal that a file says a series has.

    Parameters
    ----------
    given
        A DICOM SEG or RTSTRUCT, NIfTI (.nii, .nii.gz), .npy or, for one slice, PNG file. ``FILE:NAME`` chooses a
        segment or a structure by its name or number.

    Returns
    -------
    Detection
        Without components; its masks in the order of the series.

    Raises
    ------
    UsageError
        Where the file is missing, holds no metal, or does not fit the series, saying what differs.
    UnsupportedInputError
        Where it cannot be read.
    """
    path, choice = split_choice(given)
    if not path.is_file():
        raise UsageError(f"{path}: there is no such mask file.")
    warnings: list[str] = []
    if is_nifti(path) or path.suffix.lower() in (".npy", ".png"):
        if choice is not None:
            raise UsageError(f"{path}: only a DICOM SEG or RTSTRUCT holds names to choose from; leave {choice!r} out.")
        source = "NIfTI" if is_nifti(path) else "array"
        masks, warnings = _nifti(path, series) if is_nifti(path) else (_array(path, series), [])
    else:
        source, masks, warnings = _dicom(path, choice, Planes(series))
    if not any(masks.any(index) for index in range(len(masks))):
        raise UsageError(f"{path}: the mask holds no metal on this series.")
    return Detection(masks=masks, source=source, warnings=tuple(warnings))


def _array(path: Path, series: Series) -> PackedMasks:
    shapes = {(one.rows, one.cols) for one in series.slices}
    if len(shapes) > 1:
        raise UsageError(f"{path}: the slices differ in size; give the mask as DICOM SEG, which places each.")
    return PackedMasks(read_mask(path, (len(series.slices), *shapes.pop())))


def _nifti(path: Path, series: Series) -> tuple[PackedMasks, list[str]]:
    """Every slice is looked up by its position, so that uneven spacing and unreadable slices do no harm."""
    mask, affine = load_nifti(path)
    to_voxel = np.linalg.inv(affine)
    masks = PackedMasks()
    used = [np.zeros(size, bool) for size in mask.shape]
    for one in series.slices:
        to_mask = to_voxel @ voxel_affine(one)
        # of a sheared affine (gantry tilt) the step from slice to slice may be longest within the planes
        in_plane = {int(axis) for axis in np.argmax(np.abs(to_mask[:3, :2]), axis=0)}
        if len(in_plane) < 2:
            raise UsageError(f"{path}: the mask is rotated against the images; resample it to their grid.")
        across = ({0, 1, 2} - in_plane).pop()
        # the mask's own step across, whatever the distance of the slices
        to_mask[:3, 2] = np.eye(3)[across]
        plane = round(float(to_mask[across, 3]))
        if not 0 <= plane < mask.shape[across]:
            raise UsageError(f"{path}: ends before the series does; give a mask of all slices.")
        thin = list(mask.shape)
        thin[across] = 1
        to_mask[across, 3] -= plane
        axes, flips = turned_axes(path, to_mask, thin, (one.cols, one.rows, 1))
        flat = np.take(mask, [plane], axis=across).transpose(axes)
        flat = flat[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
        masks.append(flat[:, :, 0].T)
        used[across][plane] = True
    planes_with_metal = [mask.any(axis=tuple(other for other in range(3) if other != axis)) for axis in range(3)]
    if any(bool((had & ~has).any()) for had, has in zip(planes_with_metal, used, strict=True) if has.any()):
        return masks, ["The mask also marks metal between or beyond the slices of the series; that is not used."]
    return masks, []


# ----------------------------------------------------------------------------------------------------- DICOM


def _dicom(path: Path, choice: str | None, planes: Planes) -> tuple[str, PackedMasks, list[str]]:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise UnsupportedInputError(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB; cut the mask to the metal.")
    try:
        with path.open("rb") as stream, quiet_pydicom():
            dataset = read_dataset(stream)
            kind = str(dataset.get("SOPClassUID") or "")
            if kind == RTStructureSetStorage:
                return "RTSTRUCT", *contour_masks(path, dataset, planes, choice)
            if kind in (SegmentationStorage, LABELMAP_STORAGE):
                return "DICOM SEG", *_segmentation(path, dataset, planes, choice)
    except CtmarError:
        raise
    except Exception as error:  # damaged files make pydicom raise many kinds, and its texts quote values
        raise UnsupportedInputError(f"{path}: no readable mask ({type(error).__name__}); export it again.") from None
    raise UsageError(f"{path}: a mask is a DICOM SEG or RTSTRUCT, .nii, .nii.gz, .npy or .png file.")


def _segmentation(path: Path, dataset: Dataset, planes: Planes, choice: str | None) -> tuple[PackedMasks, list[str]]:
    """Masks of a SEG's frames (PS3.3 section C.8.20), united, and warnings."""
    labels = {int(item.SegmentNumber): str(item.get("SegmentLabel") or "") for item in dataset.SegmentSequence}
    numbers, warnings = _segments(path, labels, choice)
    rows, cols, count = int(dataset.Rows), int(dataset.Columns), int(dataset.get("NumberOfFrames") or 1)
    groups = list(dataset.PerFrameFunctionalGroupsSequence)
    if rows * cols > MAX_PIXELS or count > MOST_FRAMES or len(groups) != count:
        raise UnsupportedInputError(f"{path}: its frames are too many, too large or not all described.")
    shared = next(iter(dataset.get("SharedFunctionalGroupsSequence") or [Dataset()]))
    label_map = str(dataset.get("SegmentationType")) == "LABELMAP"
    wanted = [k for k in range(count) if label_map or _segment_of(groups[k], shared) in numbers]
    least = 1.0
    if str(dataset.get("SegmentationType")) == "FRACTIONAL":
        least = 0.5 * float(dataset.get("MaximumFractionalValue") or 255)
    masks = PackedMasks(np.zeros((one.rows, one.cols), bool) for one in planes.series.slices)
    beside = 0
    for k, values in zip(wanted, _frames(dataset, wanted), strict=True):
        metal = np.isin(values, numbers) if label_map else values >= least
        if not metal.any():
            continue
        on = _slices_of_frame(path, dataset, groups[k], shared, planes)
        beside += not on
        for index in on:
            one = planes.series.slices[index]
            if (one.rows, one.cols) != metal.shape:
                raise UsageError(
                    f"{path}: its frames have {rows} x {cols} pixels, the slices {one.rows} x {one.cols}; "
                    "resample it to the images."
                )
            masks.replace(index, masks[index] | metal)
    if beside:
        if not any(masks.any(index) for index in range(len(masks))):
            raise UsageError(f"{path}: none of its frames lies on a slice of the series; it belongs to another.")
        warnings.append(f"{beside} frames of the mask lie on no slice of the series and are not used.")
    return masks, warnings


def _segments(path: Path, labels: dict[int, str], choice: str | None) -> tuple[list[int], list[str]]:
    """Numbers of the segments: the chosen one, else those whose label says metal, else all."""
    metal = any(word in label.casefold() for label in labels.values() for word in METAL_WORDS)
    if choice is not None or metal or len(labels) == 1:
        return chosen_names(path, labels, choice, "segment"), []
    return list(labels), [f"All {len(labels)} segments of the mask are taken for metal; choose one with FILE:LABEL."]


def _frames(dataset: Dataset, wanted: list[int]) -> Iterator[NDArray[np.integer]]:
    """Frames one by one, so that a long segmentation needs no more memory than a short one."""
    if not wanted:
        return
    if int(dataset.BitsAllocated) != 1 or dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        yield from iter_pixels(dataset, indices=wanted)
        return
    # pydicom reads single frames of one bit only where they end at bytes; bits run on across frames (PS3.5 8.1.1)
    size = int(dataset.Rows) * int(dataset.Columns)
    packed = np.frombuffer(dataset.PixelData, np.uint8)
    if packed.size * 8 < size * (max(wanted) + 1):
        raise ValueError("fewer pixels than frames")
    for k in wanted:
        first, end = k * size, (k + 1) * size
        bits = np.unpackbits(packed[first // 8 : -(-end // 8)], bitorder="little")
        yield bits[first % 8 : first % 8 + size].reshape(int(dataset.Rows), int(dataset.Columns))


def _segment_of(group: Dataset, shared: Dataset) -> int:
    (item,) = _first(group, shared, "SegmentIdentificationSequence") or (None,)
    return int(item.ReferencedSegmentNumber) if item is not None else 1


def _first(group: Dataset, shared: Dataset, keyword: str) -> list[Dataset]:
    """The first item of a functional group, of the frame or shared by all."""
    return list(group.get(keyword) or shared.get(keyword) or [])[:1]


def _slices_of_frame(path: Path, dataset: Dataset, group: Dataset, shared: Dataset, planes: Planes) -> list[int]:
    """The slices that a frame lies on: those whose images it references, else by its position."""
    named = Counter(
        str(image.ReferencedSOPInstanceUID)
        for item in [*(group.get("DerivationImageSequence") or []), *(shared.get("DerivationImageSequence") or [])]
        for image in item.get("SourceImageSequence") or []
    )
    # a frame made from several images, or images that were frames of one, are told apart by position
    of_image = [k for uid in named for k in planes.by_uid.get(uid, [])]
    position = _first(group, shared, "PlanePositionSequence")
    orientation = _first(group, shared, "PlaneOrientationSequence")
    if not position:
        return of_image if len(named) == 1 and len(of_image) == 1 else []
    corner = np.array([float(v) for v in position[0].ImagePositionPatient])
    if not of_image:
        ours, theirs = planes.frame_of_reference, str(dataset.get("FrameOfReferenceUID") or "")
        if ours and theirs and ours != theirs:
            raise UsageError(f"{path}: made in another frame of reference than the series; it belongs to another.")
    near = planes.at(float(corner @ planes.normal), share=0.5)
    on = [k for k in of_image if k in near] or (of_image if len(of_image) == 1 else near)
    for index in on:
        _refuse_other_grid(path, corner, orientation, _first(group, shared, "PixelMeasuresSequence"), planes, index)
    return on


def _refuse_other_grid(
    path: Path, corner: NDArray[np.float64], orientation: list[Dataset], measures: list[Dataset], planes: Planes, k: int
) -> None:
    """Raise where a frame's pixels are not those of slice `k`."""
    one = planes.series.slices[k]
    if measures and "PixelSpacing" in measures[0]:
        spacing = [float(v) for v in measures[0].PixelSpacing]
        if not np.allclose(spacing, one.pixel_mm, rtol=_SAME_SPACING):
            raise UsageError(
                f"{path}: its pixels are {spacing[0]:g} x {spacing[1]:g} mm, those of the slices "
                f"{one.pixel_mm[0]:g} x {one.pixel_mm[1]:g} mm; resample it to the images."
            )
    if orientation:
        cosines = [float(v) for v in orientation[0].ImageOrientationPatient]
        if not np.allclose(cosines, one.orientation, atol=_SAME_DIRECTION):
            raise UsageError(f"{path}: its frames are oriented otherwise than the slices; resample it to the images.")
    row, col, off_mm = row_col_off(corner[None], one)[0]
    if max(abs(row), abs(col)) > NEAR_VOXELS or abs(off_mm) > planes.reach_mm[k]:
        raise UsageError(
            f"{path}: its frames are shifted by {row:.2f} rows, {col:.2f} columns and {off_mm:.2f} mm across against "
            "the slices; resample it to the images."
        )
