from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.pixels import pack_bits

from ctmar.dicom.affine import affine_of
from ctmar.dicom.derived import write_dataset
from ctmar.dicom.given_masks import given_metal
from ctmar.dicom.pixels import read_slice
from ctmar.dicom.planes import voxel_affine
from ctmar.dicom.segment import metal_segmentation
from ctmar.dicom.series import Series, choose_series, find_series
from ctmar.errors import UnsupportedInputError, UsageError
from tests.ctmar.dicom.build import ct_dataset, save, write_ct_series

SHAPE = (4, 9, 7)  # 63 pixels: frames of one bit do not end at bytes
Z_MM = [0, 2, 4, 9]


def volume() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 100, SHAPE)


@pytest.fixture
def series(tmp_path: Path) -> Series:
    write_ct_series(tmp_path / "ct", volume(), pixel_mm=(0.8, 0.5), z_mm=Z_MM)
    return choose_series(find_series(tmp_path / "ct"))[0]


@pytest.fixture
def metal() -> np.ndarray:
    masks = np.random.default_rng(1).random(SHAPE) < 0.3
    masks[2] = False
    return masks


def segmentation(series: Series, masks: np.ndarray) -> pydicom.Dataset:
    pytest.importorskip("highdicom")
    return metal_segmentation([read_slice(s).dataset for s in series.slices], masks, version="1")


def saved(ds: pydicom.Dataset, path: Path) -> Path:
    path.unlink(missing_ok=True)
    write_dataset(ds, path)
    return path


def same(found, masks: np.ndarray) -> None:
    assert len(found.masks) == len(masks)
    for mine, theirs in zip(found.masks, masks, strict=True):
        np.testing.assert_array_equal(mine, theirs)


# --- DICOM SEG ------------------------------------------------------------------------------------


def test_own_segmentation_comes_back(tmp_path, series, metal):
    found = given_metal(saved(segmentation(series, metal), tmp_path / "seg.dcm"), series)
    same(found, metal)
    assert (found.source, found.warnings, found.slices) == ("DICOM SEG", (), [0, 1, 3])


def without_references(seg: pydicom.Dataset) -> pydicom.Dataset:
    for group in seg.PerFrameFunctionalGroupsSequence:
        del group.DerivationImageSequence
    return seg


def test_by_position_without_references(tmp_path, series, metal):
    path = saved(without_references(segmentation(series, metal)), tmp_path / "seg.dcm")
    same(given_metal(path, series), metal)
    # of two slices at one position both have it
    doubled = replace(series, slices=(series.slices[0], *series.slices))
    same(given_metal(path, doubled), metal[[0, 0, 1, 2, 3]])
    other = without_references(segmentation(series, metal))
    other.FrameOfReferenceUID = "2.25.77"
    with pytest.raises(UsageError, match="frame of reference"):
        given_metal(saved(other, tmp_path / "other.dcm"), series)


def test_frames_beside_the_series(tmp_path, series, metal):
    path = saved(segmentation(series, metal), tmp_path / "seg.dcm")
    part = replace(series, slices=series.slices[:2])
    found = given_metal(path, part)
    same(found, metal[:2])
    assert "1 frames" in found.warnings[0]
    with pytest.raises(UsageError, match="belongs to another"):
        given_metal(path, replace(series, slices=series.slices[2:3]))


@pytest.mark.parametrize("encoding", ["fractional", "labelmap"])
def test_other_encodings(tmp_path, series, metal, encoding):
    seg = segmentation(series, metal)
    frames = seg.pixel_array
    if encoding == "fractional":
        seg.SegmentationType, seg.SegmentationFractionalType = "FRACTIONAL", "PROBABILITY"
        seg.MaximumFractionalValue = 200
        values = np.where(frames, 100, 99)
    else:
        seg.SegmentationType, seg.SOPClassUID = "LABELMAP", "1.2.840.10008.5.1.4.1.1.66.7"
        seg.file_meta.MediaStorageSOPClassUID = seg.SOPClassUID
        values = np.where(frames, 1, 3)
        for group in (*seg.PerFrameFunctionalGroupsSequence, *seg.SharedFunctionalGroupsSequence):
            group.pop("SegmentIdentificationSequence", None)
    seg.BitsAllocated = seg.BitsStored = 8
    seg.HighBit = 7
    seg["PixelData"].VR = "OB"
    seg.PixelData = values.astype(np.uint8).tobytes() + (b"\0" if values.size % 2 else b"")
    same(given_metal(saved(seg, tmp_path / "seg.dcm"), series), metal)


def two_segments(series: Series, metal: np.ndarray, labels: tuple[str, str]) -> pydicom.Dataset:
    """The second segment is the mirror image of the first."""
    seg = segmentation(series, metal)
    second = copy.deepcopy(seg.SegmentSequence[0])
    second.SegmentNumber = 2
    seg.SegmentSequence.append(second)
    for item, label in zip(seg.SegmentSequence, labels, strict=True):
        item.SegmentLabel = label
    frames = seg.pixel_array
    seg.SharedFunctionalGroupsSequence[0].pop("SegmentIdentificationSequence", None)
    groups = seg.PerFrameFunctionalGroupsSequence
    groups.extend([copy.deepcopy(group) for group in groups])
    for k, group in enumerate(groups):
        segment = pydicom.Dataset()
        segment.ReferencedSegmentNumber = 1 if k < len(frames) else 2
        group.SegmentIdentificationSequence = [segment]
    both = np.concatenate([frames, frames[:, :, ::-1]])
    seg.NumberOfFrames = len(both)
    seg.PixelData = pack_bits(both)
    return seg


def test_segments_are_united_or_chosen(tmp_path, series, metal):
    path = saved(two_segments(series, metal, ("left", "right")), tmp_path / "seg.dcm")
    found = given_metal(path, series)
    same(found, metal | metal[:, :, ::-1])
    assert "All 2 segments" in found.warnings[0]
    same(given_metal(f"{path}:right", series), metal[:, :, ::-1])
    same(given_metal(f"{path}:1", series), metal)
    with pytest.raises(UsageError, match="left, right"):
        given_metal(f"{path}:liver", series)
    path = saved(two_segments(series, metal, ("Liver", "Dental fillings")), tmp_path / "named.dcm")
    same(given_metal(path, series), metal[:, :, ::-1])


def test_another_grid_is_refused(tmp_path, series, metal):
    def changed(change) -> Path:
        seg = segmentation(series, metal)
        change(seg, seg.PerFrameFunctionalGroupsSequence, seg.SharedFunctionalGroupsSequence[0])
        return saved(seg, tmp_path / "changed.dcm")

    def shift(seg, frames, shared):
        for group in frames:
            x, y, z = group.PlanePositionSequence[0].ImagePositionPatient
            group.PlanePositionSequence[0].ImagePositionPatient = [float(x) + 0.4, y, z]

    def stretch(seg, frames, shared):
        shared.PixelMeasuresSequence[0].PixelSpacing = [0.8, 0.55]

    def turn(seg, frames, shared):
        shared.PlaneOrientationSequence[0].ImageOrientationPatient = [-1, 0, 0, 0, 1, 0]

    def crop(seg, frames, shared):
        seg.PixelData = pack_bits(seg.pixel_array[:, :8])
        seg.Rows = 8

    for change, says in (
        (shift, "0.80 columns"),
        (stretch, "0.8 x 0.55 mm"),
        (turn, "oriented"),
        (crop, "8 x 7 pixels"),
    ):
        with pytest.raises(UsageError, match=says):
            given_metal(changed(change), series)


def test_hostile_segmentations(tmp_path, series, metal):
    seg = segmentation(series, metal)
    seg.Rows = seg.Columns = 60000
    with pytest.raises(UnsupportedInputError, match="too large"):
        given_metal(saved(seg, tmp_path / "large.dcm"), series)
    seg = segmentation(series, metal)
    seg.NumberOfFrames = 10**9
    with pytest.raises(UnsupportedInputError, match="too many"):
        given_metal(saved(seg, tmp_path / "many.dcm"), series)
    seg = segmentation(series, metal)
    seg.PixelData = seg.PixelData[:4]
    with pytest.raises(UnsupportedInputError, match="no readable mask"):
        given_metal(saved(seg, tmp_path / "short.dcm"), series)
    whole = (tmp_path / "large.dcm").read_bytes()
    for end in (0, 10, 200, 1000, len(whole) // 2):
        (tmp_path / "cut.dcm").write_bytes(whole[:end])
        with pytest.raises((UnsupportedInputError, UsageError)):
            given_metal(tmp_path / "cut.dcm", series)


def test_other_files(tmp_path, series):
    with pytest.raises(UsageError, match="no such mask"):
        given_metal(tmp_path / "none.dcm", series)
    with pytest.raises(UsageError, match="a mask is a DICOM SEG or RTSTRUCT"):
        given_metal(tmp_path / "ct" / "0001.dcm", series)
    np.save(tmp_path / "empty.npy", np.zeros(SHAPE))
    with pytest.raises(UsageError, match="no metal"):
        given_metal(tmp_path / "empty.npy", series)


def test_arrays_go_by_their_shape(tmp_path, series, metal):
    np.save(tmp_path / "mask.npy", metal)
    found = given_metal(tmp_path / "mask.npy", series)
    same(found, metal)
    assert found.source == "array"
    np.save(tmp_path / "mask.npy", metal[:3])
    with pytest.raises(UsageError, match="images are"):
        given_metal(tmp_path / "mask.npy", series)


# --- NIfTI ----------------------------------------------------------------------------------------


def nifti(path: Path, voxels: np.ndarray, affine: np.ndarray) -> Path:
    nibabel = pytest.importorskip("nibabel")
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(voxels), affine), path)
    return path


def test_nifti_is_laid_by_its_affine(tmp_path):
    write_ct_series(tmp_path / "ct", volume(), pixel_mm=(0.8, 0.5), spacing_mm=2)
    series = choose_series(find_series(tmp_path / "ct"))[0]
    metal = np.random.default_rng(1).random(SHAPE) < 0.3
    affine = voxel_affine(series.slices[0], 2.0)
    voxels = metal.transpose(2, 1, 0).astype(np.uint8)
    same(given_metal(nifti(tmp_path / "as-is.nii", voxels, affine), series), metal)
    flip = np.diag([-1.0, 1.0, -1.0, 1.0])
    flip[:, 3] = [SHAPE[2] - 1, 0, SHAPE[0] - 1, 1]
    same(given_metal(nifti(tmp_path / "flipped.nii.gz", voxels[::-1, :, ::-1], affine @ flip), series), metal)
    turned = affine[:, [2, 0, 1, 3]]
    same(given_metal(nifti(tmp_path / "turned.nii", voxels.transpose(2, 0, 1), turned), series), metal)
    # a slice that is missing from the series
    part = replace(series, slices=(*series.slices[:1], *series.slices[2:]))
    found = given_metal(tmp_path / "as-is.nii", part)
    same(found, metal[[0, 2, 3]])
    assert "between or beyond" in found.warnings[0]
    with pytest.raises(UsageError, match="ends before"):
        given_metal(nifti(tmp_path / "short.nii", voxels[:, :, :3], affine), series)
    with pytest.raises(UsageError, match="7 x 8 x 1 voxels"):
        given_metal(nifti(tmp_path / "cropped.nii", voxels[:, :8], affine), series)
    shifted = affine.copy()
    shifted[0, 3] += 0.2
    with pytest.raises(UsageError, match=r"shifted by 0\.40 voxels"):
        given_metal(nifti(tmp_path / "shifted.nii", voxels, shifted), series)


def test_nifti_of_a_prone_and_tilted_series(tmp_path):
    """Any orientation does, since the affine says it: here the patient lies prone and the gantry is tilted."""
    files = write_ct_series(tmp_path / "ct", volume(), pixel_mm=(0.8, 0.5), spacing_mm=2)
    angle = np.radians(15)
    cosines = [-1, 0, 0, 0, -np.cos(angle), np.sin(angle)]
    for file in files:
        ds = pydicom.dcmread(file)
        ds.ImageOrientationPatient = [round(float(v), 8) for v in cosines]
        ds.save_as(file)
    series = choose_series(find_series(tmp_path / "ct"))[0]
    metal = np.random.default_rng(1).random(SHAPE) < 0.3
    first, last = (np.asarray(series.slices[k].position_mm) for k in (0, -1))
    affine = voxel_affine(series.slices[0])
    affine[:3, 2] = (last - first) / (SHAPE[0] - 1) * [-1, -1, 1]  # sheared
    same(given_metal(nifti(tmp_path / "m.nii", metal.transpose(2, 1, 0).astype(np.uint8), affine), series), metal)


def test_a_nifti_mask_on_the_sheared_grid_of_a_tilted_gantry(tmp_path: Path) -> None:
    """The step from slice to slice is longer along the rows than across the slices."""
    nibabel = pytest.importorskip("nibabel")
    masks = np.zeros((4, 24, 20), bool)
    masks[1, 5:9, 3:7] = masks[2, 6, 10] = True
    for k in range(4):
        dataset = ct_dataset(np.zeros((24, 20)), z_mm=2.0 * k, number=k + 1)
        dataset.ImagePositionPatient[1] += 3.0 * k
        save(dataset, tmp_path / "series" / f"{k}.dcm")
    (series,) = choose_series(find_series(tmp_path / "series"))
    nibabel.save(nibabel.Nifti1Image(masks.transpose(2, 1, 0).astype(np.uint8), affine_of(series)), tmp_path / "m.nii")
    np.testing.assert_array_equal(np.stack(list(given_metal(tmp_path / "m.nii", series).masks)), masks)
