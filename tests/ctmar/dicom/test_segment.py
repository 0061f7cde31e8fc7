from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import EnhancedCTImageStorage

from ctmar.detection import Detection, DetectionSettings
from ctmar.dicom.derived import write_dataset
from ctmar.dicom.pixels import read_slice
from ctmar.dicom.segment import metal_segmentation
from ctmar.dicom.series import choose_series, find_series
from ctmar.errors import UnsupportedInputError
from ctmar.packed import PackedMasks
from tests.ctmar.dicom.build import ct_dataset, ramp_hu, save, write_ct_series


def sources(folder: Path) -> list[pydicom.Dataset]:
    (series,) = choose_series(find_series(folder))
    return [read_slice(s).dataset for s in series.slices]


def metal(slices: int) -> np.ndarray:
    masks = np.zeros((slices, 16, 16), bool)
    masks[1, 3:5, 7] = True
    masks[2, 8, 2:12] = True
    return masks


def test_metal_goes_where_it_was(tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    write_ct_series(tmp_path / "s", ramp_hu(4), z_mm=[0, 2, 4, 9])
    images = sources(tmp_path / "s")
    write_dataset(metal_segmentation(images, metal(4), version="1.2.3"), tmp_path / "seg.dcm")
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert (seg.Modality, seg.SegmentationType, seg.NumberOfFrames) == ("SEG", "BINARY", 2)
    assert seg.StudyInstanceUID == images[0].StudyInstanceUID
    (segment,) = seg.SegmentSequence
    assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "260787004"
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "19227008"
    at = {}
    for frame, groups in zip(seg.pixel_array, seg.PerFrameFunctionalGroupsSequence, strict=True):
        referenced = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        at[referenced] = frame.astype(bool)
    assert set(at) == {images[1].SOPInstanceUID, images[2].SOPInstanceUID}
    for k in (1, 2):
        np.testing.assert_array_equal(at[images[k].SOPInstanceUID], metal(4)[k])


def test_says_how_the_mask_was_made(tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    write_ct_series(tmp_path, ramp_hu(4))
    images = sources(tmp_path)
    settings = DetectionSettings(threshold_hu=2750, dilation_mm=1.5)
    found = Detection(PackedMasks(metal(4)), threshold_hu=2750, grow_hu=2000, settings=settings)
    seg = metal_segmentation(images, found.masks, version="1", sop_instance_uid="2.25.42", detection=found)
    assert seg.SOPInstanceUID == seg.file_meta.MediaStorageSOPInstanceUID == "2.25.42"
    (segment,) = seg.SegmentSequence
    assert segment.SegmentAlgorithmType == "AUTOMATIC"
    parameters = segment.SegmentationAlgorithmIdentificationSequence[0].AlgorithmParameters
    text = parameters if isinstance(parameters, str) else "\\".join(parameters)
    for part in ("threshold_hu=2750", "grow_hu=2000", "dilation_mm=1.5", "exclude=True"):
        assert part in text
    given = Detection(PackedMasks(metal(4)), source="RTSTRUCT")
    (segment,) = metal_segmentation(images, given.masks, version="1", detection=given).SegmentSequence
    assert segment.SegmentAlgorithmType == "MANUAL"
    assert "SegmentationAlgorithmIdentificationSequence" not in segment


def test_frames_of_a_multi_frame_image(tmp_path: Path) -> None:
    """Its frames come as images of one UID; the segmentation refers to that image and its frames."""
    pytest.importorskip("highdicom")
    write_ct_series(tmp_path, ramp_hu(4))
    images = sources(tmp_path)
    for image in images:
        image.SOPInstanceUID, image.SOPClassUID, image.NumberOfFrames = "2.25.7", EnhancedCTImageStorage, 4
    seg = metal_segmentation(images, metal(4), version="1", frame_numbers=[1, 2, 3, 4])
    frames = {}
    for pixels, group in zip(seg.pixel_array, seg.PerFrameFunctionalGroupsSequence, strict=True):
        (image,) = group.DerivationImageSequence[0].SourceImageSequence
        assert (image.ReferencedSOPInstanceUID, image.ReferencedSOPClassUID) == ("2.25.7", EnhancedCTImageStorage)
        frames[int(image.ReferencedFrameNumber)] = pixels.astype(bool)
    assert set(frames) == {2, 3}
    for number, pixels in frames.items():
        np.testing.assert_array_equal(pixels, metal(4)[number - 1])
    (series,) = seg.ReferencedSeriesSequence
    assert [i.ReferencedSOPInstanceUID for i in series.ReferencedInstanceSequence] == ["2.25.7"]
    assert images[0].SOPInstanceUID == "2.25.7"  # the sources stay as they are


def test_deidentified_source_without_type_2_attributes(tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    ds = ct_dataset(ramp_hu(1)[0])
    for keyword in ("PatientBirthDate", "PatientSex", "StudyID", "AccessionNumber"):
        delattr(ds, keyword)
    save(ds, tmp_path / "a.dcm")
    seg = metal_segmentation(sources(tmp_path), metal(4)[1:2], version="1")
    assert seg.pixel_array.sum() == 2


def test_caller_mistakes(tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    write_ct_series(tmp_path, ramp_hu(2))
    with pytest.raises(ValueError, match="no metal"):
        metal_segmentation(sources(tmp_path), np.zeros((2, 16, 16), bool), version="1")
    with pytest.raises(ValueError, match="do not fit"):
        metal_segmentation(sources(tmp_path), metal(4), version="1")


def test_without_highdicom_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(UnsupportedInputError, match=r"pip install ctmar\[seg\]"):
        metal_segmentation([], np.zeros((0, 2, 2), bool), version="1")
