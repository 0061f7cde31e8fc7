from __future__ import annotations

import copy
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from ctmar.dicom import frames, items
from ctmar.dicom.derived import DerivedSeries, derive, write_dataset
from ctmar.dicom.pixels import Slice, read_slice
from ctmar.dicom.series import Series, choose_series, find_series
from ctmar.errors import SeveralSeriesError, UnsupportedInputError
from ctmar.sources import find_slices
from tests.ctmar.dicom.build import SERIES_UID, ramp_hu, save, write_ct_series
from tests.ctmar.dicom.enhanced import enhanced_ct_dataset

OBJECT_UID = f"{SERIES_UID}.100"


def only(path: Path) -> Series:
    (series,) = choose_series(find_series(path))
    return series


def slices(path: Path) -> list[Slice]:
    return [read_slice(file) for file in only(path).slices]


def reasons(path: Path) -> list[tuple[str, str]]:
    return [(Path(skipped.path).name, skipped.reason) for skipped in find_series(path).skipped]


class TestFrames:
    def test_every_frame_is_a_slice(self, tmp_path: Path) -> None:
        volume = ramp_hu(4)
        path = save(enhanced_ct_dataset(volume, z_mm=[6, 0, 2, 4], pixel_mm=(0.5, 0.75)), tmp_path / "e.dcm")
        series = only(path)
        assert [s.frame for s in series.slices] == [1, 2, 3, 0]
        assert [s.position_mm[2] for s in series.slices] == [0, 2, 4, 6]
        assert [s.instance_number for s in series.slices] == [2, 3, 4, 1]
        assert {s.sop_uid for s in series.slices} == {OBJECT_UID}
        assert {s.sop_class_uid for s in series.slices} == {EnhancedCTImageStorage}
        assert {s.pixel_mm for s in series.slices} == {(0.5, 0.75)}
        assert series.warnings == ("pixels are not square",)
        for file in series.slices:
            image = read_slice(file)
            np.testing.assert_array_equal(image.image_hu, volume[file.frame])
            assert image.pixel_mm == (0.5, 0.75)

    def test_classic_files_have_no_frame(self, tmp_path: Path) -> None:
        (path,) = write_ct_series(tmp_path, ramp_hu(1))
        (file,) = only(path).slices
        assert (file.frame, file.sop_class_uid, file.name) == (None, CTImageStorage, str(path))

    def test_the_data_set_is_a_classic_image(self, tmp_path: Path) -> None:
        image = slices(save(enhanced_ct_dataset(ramp_hu(3), tilt_deg=12.5), tmp_path / "e.dcm"))[1]
        ds = image.dataset
        assert (ds.SOPClassUID, ds.SOPInstanceUID) == (CTImageStorage, OBJECT_UID)
        found = {
            keyword: ds[keyword].value
            for keyword in (
                "InstanceNumber", "AcquisitionNumber", "AcquisitionDate", "AcquisitionTime", "ImageType", "KVP",
                "ExposureTime", "XRayTubeCurrent", "Exposure", "SliceThickness", "ConvolutionKernel",
                "ReconstructionDiameter", "TableHeight", "GantryDetectorTilt", "BodyPartExamined", "RescaleSlope",
                "RescaleIntercept", "RescaleType", "WindowCenter", "WindowWidth", "PatientName", "SeriesNumber",
                "CTDIvol", "SpiralPitchFactor",
            )
        }  # fmt: skip
        assert found == {
            "InstanceNumber": 2, "AcquisitionNumber": 2, "AcquisitionDate": "20240102", "AcquisitionTime": "101113.25",
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "KVP": 120, "ExposureTime": 500, "XRayTubeCurrent": 250,
            "Exposure": 125, "SliceThickness": 2, "ConvolutionKernel": "STANDARD", "ReconstructionDiameter": 16,
            "TableHeight": 150, "GantryDetectorTilt": 12.5, "BodyPartExamined": "PELVIS", "RescaleSlope": 1,
            "RescaleIntercept": -1024, "RescaleType": "HU", "WindowCenter": 40, "WindowWidth": 400,
            "PatientName": "Test^Phantom", "SeriesNumber": 3, "CTDIvol": 8, "SpiralPitchFactor": 1,
        }  # fmt: skip
        assert list(ds.PixelSpacing) == [1, 1]
        assert list(ds.ImagePositionPatient) == [-8, -8, 2]
        assert list(ds.ImageOrientationPatient) == [1, 0, 0, 0, 1, 0]
        assert len(ds.PixelData) == 16 * 16 * 2
        for keyword in (
            "NumberOfFrames", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
            "DimensionIndexSequence", "DimensionOrganizationSequence", "StackID", "FrameType", "VolumetricProperties",
            "ExposureInmAs", "FrameAcquisitionDateTime", "PresentationLUTShape", "PixelMeasuresSequence",
        ):  # fmt: skip
            assert keyword not in ds, keyword
        assert image.file.tilt_deg == 12.5

    def test_texts_keep_their_bytes(self, tmp_path: Path) -> None:
        ds = enhanced_ct_dataset(ramp_hu(1))
        ds.SpecificCharacterSet, ds.SeriesDescription = "ISO_IR 192", "Hüfte"
        anatomy = ds.SharedFunctionalGroupsSequence[0].FrameAnatomySequence[0]
        anatomy.AnatomicRegionSequence[0].CodeMeaning = "Hüftgelenk"
        (image,) = slices(save(ds, tmp_path / "e.dcm"))
        assert only(tmp_path).description == "Hüfte"
        new = DerivedSeries(uid="2.25.9", description="x", method="li", version="1", created=datetime.now(UTC))
        write_dataset(derive(image, image.image_hu + 1, series=new), tmp_path / "o.dcm")
        derived = pydicom.dcmread(tmp_path / "o.dcm")
        assert derived.AnatomicRegionSequence[0].CodeMeaning == "Hüftgelenk"
        np.testing.assert_array_equal(derived.pixel_array, image.stored + 1)

    def test_per_frame_rescale(self, tmp_path: Path) -> None:
        ds = enhanced_ct_dataset(ramp_hu(2))
        shared, per_frame = ds.SharedFunctionalGroupsSequence[0], ds.PerFrameFunctionalGroupsSequence
        del shared.PixelValueTransformationSequence
        for k, group in enumerate(per_frame):
            item = Dataset()
            item.RescaleSlope, item.RescaleIntercept, item.RescaleType = 1 + k, -1024 * (1 + k), "HU"
            group.PixelValueTransformationSequence = [item]
        first, second = slices(save(ds, tmp_path / "e.dcm"))
        np.testing.assert_array_equal(first.image_hu, ramp_hu(2)[0])
        np.testing.assert_array_equal(second.image_hu, 2 * ramp_hu(2)[1])

    def test_frame_numbers_of_a_concatenation_go_on(self, tmp_path: Path) -> None:
        for part in range(2):
            ds = enhanced_ct_dataset(ramp_hu(2), z_mm=[4 * part, 4 * part + 2])
            ds.SOPInstanceUID = f"2.25.{part + 1}"
            ds.ConcatenationUID, ds.InConcatenationNumber = "2.25.77", part + 1
            ds.ConcatenationFrameOffsetNumber = 2 * part
            save(ds, tmp_path / f"{part}.dcm")
        series = only(tmp_path)
        assert [s.instance_number for s in series.slices] == [1, 2, 3, 4]
        assert [s.sop_uid for s in series.slices] == ["2.25.1", "2.25.1", "2.25.2", "2.25.2"]
        assert series.warnings == ()

    def test_frames_are_slices_to_simulate_from(self, tmp_path: Path) -> None:
        path = save(enhanced_ct_dataset(ramp_hu(3)), tmp_path / "e.dcm")
        found, skipped = find_slices([str(path)])
        assert [s.name for s in found] == [f"{OBJECT_UID}:{k}" for k in (1, 2, 3)]
        assert skipped == []
        np.testing.assert_array_equal(found[2].load()[0], ramp_hu(3)[2])

    def test_the_same_object_twice_is_kept_once(self, tmp_path: Path) -> None:
        path = save(enhanced_ct_dataset(ramp_hu(3)), tmp_path / "a.dcm")
        (tmp_path / "b.dcm").write_bytes(path.read_bytes())
        assert len(only(tmp_path).slices) == 3
        assert [r.split(" as ")[0] for _, r in reasons(tmp_path)] == ["the same image (SOP instance UID)"]


def compressed(volume: np.ndarray, *, offsets: bool) -> Dataset:
    ds = enhanced_ct_dataset(volume)
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.compress(RLELossless, generate_instance_uid=False)
    pieces = list(generate_frames(ds.PixelData, number_of_frames=len(volume)))
    ds.PixelData = encapsulate(pieces, has_bot=offsets)
    return ds


def write_compressed(ds: Dataset, path: Path) -> Path:
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    pydicom.dcmwrite(path, ds, enforce_file_format=True)
    return path


class TestEncodings:
    @pytest.mark.parametrize(
        "syntax",
        [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian],
    )
    def test_uncompressed(self, tmp_path: Path, syntax: UID) -> None:
        ds = enhanced_ct_dataset(ramp_hu(3))
        if syntax == ExplicitVRBigEndian:
            ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
        found = slices(save(ds, tmp_path / "e.dcm", syntax=syntax))
        np.testing.assert_array_equal(np.stack([s.image_hu for s in found]), ramp_hu(3))

    @pytest.mark.parametrize("offsets", [True, False])
    def test_compressed(self, tmp_path: Path, offsets: bool) -> None:
        path = write_compressed(compressed(ramp_hu(3), offsets=offsets), tmp_path / "e.dcm")
        found = slices(path)
        np.testing.assert_array_equal(np.stack([s.image_hu for s in found]), ramp_hu(3))
        assert {s.dataset.file_meta.TransferSyntaxUID for s in found} == {RLELossless}

    def test_in_a_zip(self, tmp_path: Path) -> None:
        path = save(enhanced_ct_dataset(ramp_hu(3)), tmp_path / "e.dcm")
        with zipfile.ZipFile(tmp_path / "e.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(path, "study/e.dcm")
        found = slices(tmp_path / "e.zip")
        np.testing.assert_array_equal(np.stack([s.image_hu for s in found]), ramp_hu(3))

    def test_legacy_converted_by_highdicom_gives_its_sources_back(self, tmp_path: Path) -> None:
        legacy = pytest.importorskip("highdicom.legacy")
        sources = [pydicom.dcmread(path) for path in write_ct_series(tmp_path / "classic", ramp_hu(3))]
        for source in sources:
            source.ConvolutionKernel, source.Exposure, source.StationName = "B30f", 120, "CT1"
            source.LossyImageCompression, source.AcquisitionTime = "00", f"10111{source.InstanceNumber}"
        converted = legacy.LegacyConvertedEnhancedCTImage(
            legacy_datasets=sources, series_instance_uid="2.25.8", series_number=8, sop_instance_uid="2.25.81",
            instance_number=1,
        )  # fmt: skip
        converted.save_as(tmp_path / "enhanced.dcm")
        found = slices(tmp_path / "enhanced.dcm")
        for source, image in zip(sources, found, strict=True):
            np.testing.assert_array_equal(image.stored, source.pixel_array)
            for keyword in (
                "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "RescaleSlope",
                "RescaleIntercept", "WindowCenter", "WindowWidth", "KVP", "Exposure", "ConvolutionKernel",
                "AcquisitionTime", "PatientPosition", "StudyInstanceUID", "FrameOfReferenceUID", "PatientName",
                "BodyPartExamined",
            ):  # fmt: skip
                assert image.dataset[keyword].value == source[keyword].value, keyword
            assert image.dataset.SOPInstanceUID == "2.25.81"


class TestCost:
    def test_the_header_is_parsed_once_and_only_one_frame_is_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        volume = np.zeros((40, 256, 256))
        path = save(enhanced_ct_dataset(volume), tmp_path / "e.dcm")
        files = only(path).slices
        parsed = []
        read = frames.read_multi_frame
        monkeypatch.setattr(frames, "read_multi_frame", lambda stream: parsed.append(1) or read(stream))
        read_slice(files[0])
        tracemalloc.start()
        for file in files[1:]:
            read_slice(file)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert parsed == [1]
        assert most < path.stat().st_size / 2

    def test_a_file_that_changes_is_parsed_again(self, tmp_path: Path) -> None:
        path = save(enhanced_ct_dataset(ramp_hu(2)), tmp_path / "e.dcm")
        (file, _) = only(path).slices
        read_slice(file)
        save(enhanced_ct_dataset(ramp_hu(3) + 100), path)
        np.testing.assert_array_equal(read_slice(file).image_hu, ramp_hu(1)[0] + 100)

    def test_frames_share_nothing_that_changes(self, tmp_path: Path) -> None:
        """Read by several threads at once, in any order, and kept; with every element of the object parsed before."""
        volume = ramp_hu(24)
        path = save(enhanced_ct_dataset(volume), tmp_path / "e.dcm")
        files = only(path).slices
        with path.open("rb") as stream:
            found = frames.read_multi_frame(stream)
            assert str(found.dataset)
            before = found.dataset.to_json()
            for index in (2, 0, 1):
                image = found.image(index, stream)
                image.file_meta.TransferSyntaxUID = "1.2.3"
            assert found.dataset.to_json() == before
            assert found.dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        with ThreadPoolExecutor(8) as pool:
            images = list(pool.map(read_slice, [*files, *reversed(files)]))
        for file, image in zip([*files, *reversed(files)], images, strict=True):
            np.testing.assert_array_equal(image.image_hu, volume[file.frame])
            assert image.dataset.InstanceNumber == file.frame + 1
            assert image.dataset.ImagePositionPatient[2] == 2 * file.frame
            assert image.dataset.AcquisitionTime.startswith(f"1011{12 + file.frame}")


class TestParts:
    def test_stacks_are_series_of_their_own(self, tmp_path: Path) -> None:
        ds = enhanced_ct_dataset(ramp_hu(4), z_mm=[0, 2, 50, 53], stacks=["1", "1", "2", "2"])
        path = save(ds, tmp_path / "e.dcm")
        found = find_series(path)
        assert [(s.uid, s.key, len(s.slices), s.warnings) for s in found.series] == [
            (SERIES_UID, f"{SERIES_UID}#1", 2, ()),
            (SERIES_UID, f"{SERIES_UID}#2", 2, ()),
        ]
        with pytest.raises(SeveralSeriesError, match=f"{SERIES_UID}#2: number 3"):
            choose_series(found)
        with pytest.raises(SeveralSeriesError):
            choose_series(found, uid=SERIES_UID)
        assert [s.part for s in choose_series(found, uid=f"{SERIES_UID}#2")] == [2]
        assert len(choose_series(found, uid=SERIES_UID, all_=True)) == 2

    def test_moments_at_the_same_positions_are_series_of_their_own(self, tmp_path: Path) -> None:
        ds = enhanced_ct_dataset(ramp_hu(4), z_mm=[0, 2, 0, 2], times=[1, 1, 2, 2])
        found = find_series(save(ds, tmp_path / "e.dcm"))
        assert [[s.frame for s in part.slices] for part in found.series] == [[0, 1], [2, 3]]
        assert all(part.warnings == () for part in found.series)

    def test_moments_at_positions_of_their_own_are_one_series(self, tmp_path: Path) -> None:
        ds = enhanced_ct_dataset(ramp_hu(4), times=[1, 2, 3, 4])
        assert len(only(save(ds, tmp_path / "e.dcm")).slices) == 4


class TestRefused:
    def test_frames_that_are_no_ct_image(self, tmp_path: Path) -> None:
        ds = enhanced_ct_dataset(ramp_hu(6))
        kinds = [["VOLUME", "NONE"], ["LOCALIZER", "NONE"], ["LOCALIZER", "NONE"], ["PERFUSION", "RCBF"]]
        frame_type = ds.SharedFunctionalGroupsSequence[0].CTImageFrameTypeSequence[0]
        del ds.SharedFunctionalGroupsSequence[0].CTImageFrameTypeSequence
        for k, group in enumerate(ds.PerFrameFunctionalGroupsSequence):
            item = copy.deepcopy(frame_type)
            item.FrameType = ["ORIGINAL", "PRIMARY", *(kinds[k] if k < 4 else ["VOLUME", "NONE"])]
            if k == 4:
                item.VolumeBasedCalculationTechnique = "MAX_IP"
            group.CTImageFrameTypeSequence = [item]
        path = save(ds, tmp_path / "e.dcm")
        assert [s.frame for s in only(path).slices] == [0, 5]
        assert reasons(path) == [
            ("e.dcm, frames 2-3", "a localizer (scout)"),
            ("e.dcm, frame 4", "a map or projection (RCBF), not a CT image"),
            ("e.dcm, frame 5", "a map or projection (MAX_IP), not a CT image"),
        ]

    def test_material_maps_are_not_hounsfield_units(self, tmp_path: Path) -> None:
        ds = enhanced_ct_dataset(ramp_hu(2))
        ds.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence[0].RescaleType = "MGML"
        path = save(ds, tmp_path / "e.dcm")
        assert reasons(path) == [("e.dcm, frames 1-2", "pixels are not Hounsfield units (RescaleType)")]

    def test_fewer_frames_than_promised(self, tmp_path: Path) -> None:
        path = save(enhanced_ct_dataset(ramp_hu(4)), tmp_path / "e.dcm")
        path.write_bytes(path.read_bytes()[: -16 * 16 * 2 - 2])
        assert reasons(path) == [("e.dcm", "truncated: 4 frames promised, 2 present")]

    def test_a_compressed_frame_that_is_missing(self, tmp_path: Path) -> None:
        ds = compressed(ramp_hu(3), offsets=False)
        ds.PixelData = encapsulate(list(generate_frames(ds.PixelData, number_of_frames=3))[:2], has_bot=False)
        files = only(write_compressed(ds, tmp_path / "e.dcm")).slices
        with pytest.raises(UnsupportedInputError, match=r"e\.dcm, frame 3: damaged or truncated"):
            read_slice(files[2])

    @pytest.mark.parametrize("described", [0, 2, 5])
    def test_frames_that_are_not_described(self, tmp_path: Path, described: int) -> None:
        ds = enhanced_ct_dataset(ramp_hu(4))
        groups = list(ds.PerFrameFunctionalGroupsSequence)
        ds.PerFrameFunctionalGroupsSequence = [*groups, *groups][:described]
        path = save(ds, tmp_path / "e.dcm")
        assert reasons(path) == [("e.dcm", f"the header promises 4 frames and describes {described}")]

    def test_without_geometry(self, tmp_path: Path) -> None:
        ds = enhanced_ct_dataset(ramp_hu(2))
        del ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
        path = save(ds, tmp_path / "e.dcm")
        assert reasons(path) == [("e.dcm, frames 1-2", "no PixelSpacing")]

    def test_floating_point_pixels(self, tmp_path: Path) -> None:
        ds = enhanced_ct_dataset(ramp_hu(2))
        del ds.PixelData
        ds.FloatPixelData = np.zeros(512, "<f4").tobytes()
        ds.BitsAllocated = 32
        path = save(ds, tmp_path / "e.dcm")
        assert "floating-point" in reasons(path)[0][1]

    def test_too_many_frames(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(frames, "MAX_FRAMES", 3)
        path = save(enhanced_ct_dataset(ramp_hu(4)), tmp_path / "e.dcm")
        assert reasons(path) == [("e.dcm", "more than 3 frames")]

    @pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian])
    def test_more_items_than_any_image_has(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syntax: UID) -> None:
        monkeypatch.setattr(items, "MAX_ITEMS", 2000)
        read = []
        monkeypatch.setattr("pydicom.dcmread", lambda *_, **__: read.append(1))
        ds = enhanced_ct_dataset(ramp_hu(2))
        ds.PerFrameFunctionalGroupsSequence = [Dataset() for _ in range(2500)]
        path = save(ds, tmp_path / "e.dcm", syntax=syntax)
        assert reasons(path) == [("e.dcm", "damaged or truncated header (ValueError)")]
        assert read == []  # refused before it is parsed

    def test_truncated_anywhere(self, tmp_path: Path) -> None:
        path = save(enhanced_ct_dataset(ramp_hu(2)), tmp_path / "e.dcm")
        whole = path.read_bytes()
        for length in range(140, len(whole), 97):
            path.write_bytes(whole[:length])
            found = find_series(path)
            assert found.series == ()
            assert found.skipped
