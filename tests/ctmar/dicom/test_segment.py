from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest

from ctmar.dicom.derived import write_dataset
from ctmar.dicom.pixels import read_slice
from ctmar.dicom.segment import metal_segmentation
from ctmar.dicom.series import choose_series, find_series
from ctmar.errors import UnsupportedInputError
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
