from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit

from ctmar.dicom.derived import DerivedSeries, derive, new_uid, write_dataset
from ctmar.dicom.pixels import Slice, read_slice
from ctmar.dicom.series import choose_series, find_series
from ctmar.dicom.source import quiet_pydicom
from tests.ctmar.dicom.build import FRAME_UID, SERIES_UID, STUDY_UID, ct_dataset, ramp_hu, save

NEW = DerivedSeries(
    uid="2.25.9999",
    description="Pelvis 2.0 (metal artifacts reduced)",
    method="cnn-mar",
    version="1.2.3",
    created=datetime(2025, 6, 7, 8, 9, 10, tzinfo=UTC),
    model_name="paper-3",
    model_hash="cafe" * 16,
)


def load(path: Path) -> Slice:
    (series,) = choose_series(find_series(path))
    return read_slice(series.slices[0])


def written(ds: Dataset, tmp_path: Path, corrected: np.ndarray | None = None) -> Dataset:
    """The source written, read, derived, written, and read again."""
    image = load(save(ds, tmp_path / "source.dcm"))
    write_dataset(derive(image, corrected, series=NEW), tmp_path / "derived.dcm")
    return pydicom.dcmread(tmp_path / "derived.dcm")


class TestPixels:
    @pytest.mark.parametrize(
        ("slope", "intercept", "signed", "bits"),
        [
            (1.0, -1024.0, False, 12),
            (1.0, 0.0, True, 16),
            (2.0, -1000.0, False, 16),
            (1.000244, -1024.0, False, 12),
        ],
    )
    def test_round_trip_and_rounding(
        self, tmp_path: Path, slope: float, intercept: float, signed: bool, bits: int
    ) -> None:
        ds = ct_dataset(ramp_hu(1)[0], slope=slope, intercept=intercept, signed=signed, bits_stored=bits)
        image = load(save(ds, tmp_path / "a.dcm"))
        corrected = image.image_hu.copy()
        corrected[4:8] += 10.7
        for k, hu in enumerate([None, image.image_hu, corrected]):
            write_dataset(derive(image, hu, series=NEW), tmp_path / f"{k}.out")
            pixels = pydicom.dcmread(tmp_path / f"{k}.out").pixel_array
            assert pixels.dtype == image.stored.dtype
            changed = np.zeros(pixels.shape, bool)
            changed[4:8] = k == 2
            np.testing.assert_array_equal(pixels[~changed], image.stored[~changed])
            assert np.all(np.abs(pixels[changed] * slope + intercept - corrected[changed]) <= slope / 2 + 1e-3)

    def test_clips_to_bits_stored(self, tmp_path: Path) -> None:
        corrected = ramp_hu(1)[0]
        corrected[0, :3] = [-3000, 9000, 3071]
        assert written(ct_dataset(ramp_hu(1)[0]), tmp_path, corrected).pixel_array[0, :3].tolist() == [
            0,
            4095,
            4095,
        ]

    def test_clips_signed_to_bits_stored(self, tmp_path: Path) -> None:
        corrected = ramp_hu(1)[0]
        corrected[0, :2] = [-9000, 9000]
        source = ct_dataset(ramp_hu(1)[0], signed=True, intercept=0, bits_stored=13)
        assert written(source, tmp_path, corrected).pixel_array[0, :2].tolist() == [-4096, 4095]

    def test_padding_is_written_back_exactly(self, tmp_path: Path) -> None:
        stored = np.full((16, 16), 1000)
        stored[:4] = -2000
        ds = ct_dataset(stored, signed=True, bits_stored=16)
        ds.PixelData = stored.astype("<i2").tobytes()
        ds.add_new("PixelPaddingValue", "US", 63536)
        derived = written(ds, tmp_path, np.full((16, 16), 55.0))
        np.testing.assert_array_equal(derived.pixel_array[:4], -2000)
        np.testing.assert_array_equal(derived.pixel_array[4:], 55 + 1024)
        assert derived.PixelPaddingValue == 63536

    def test_caller_mistakes(self, tmp_path: Path) -> None:
        image = load(save(ct_dataset(ramp_hu(1)[0]), tmp_path / "a.dcm"))
        with pytest.raises(ValueError, match="shape"):
            derive(image, np.zeros((3, 3)), series=NEW)
        with pytest.raises(ValueError, match="not finite"):
            derive(image, np.full((16, 16), np.nan), series=NEW)

    def test_big_endian_source(self, tmp_path: Path) -> None:
        ds = ct_dataset(ramp_hu(1)[0])
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
        image = load(save(ds, tmp_path / "a.dcm", syntax=ExplicitVRBigEndian))
        write_dataset(derive(image, None, series=NEW), tmp_path / "b.dcm")
        derived = pydicom.dcmread(tmp_path / "b.dcm")
        np.testing.assert_array_equal(derived.pixel_array, ramp_hu(1)[0] + 1024)
        assert (derived.Rows, derived.BitsStored, derived.KVP) == (16, 12, 120)


class TestAttributes:
    def test_identity(self, tmp_path: Path) -> None:
        source = ct_dataset(ramp_hu(1)[0], number=7)
        derived = written(source, tmp_path, ramp_hu(1)[0] + 1)
        assert derived.SOPInstanceUID not in {source.SOPInstanceUID, ""}
        assert derived.SeriesInstanceUID == NEW.uid != SERIES_UID
        assert (derived.StudyInstanceUID, derived.FrameOfReferenceUID) == (STUDY_UID, FRAME_UID)
        assert derived.SeriesNumber == 9003
        assert derived.SeriesDescription == NEW.description
        assert (derived.SeriesDate, derived.ContentDate, derived.InstanceCreationDate) == ("20250607",) * 3
        assert (derived.StudyDate, derived.AcquisitionDate) == ("20240102",) * 2
        for keyword in [
            "PatientName",
            "PatientID",
            "PatientSex",
            "KVP",
            "SliceThickness",
            "ImagePositionPatient",
            "ImageOrientationPatient",
            "PixelSpacing",
            "WindowCenter",
            "RescaleSlope",
            "RescaleIntercept",
            "InstanceNumber",
            "AcquisitionTime",
            "StudyID",
        ]:
            assert derived[keyword] == source[keyword], keyword

    def test_derivation(self, tmp_path: Path) -> None:
        source = ct_dataset(ramp_hu(1)[0])
        source.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"]
        derived = written(source, tmp_path, ramp_hu(1)[0] + 1)
        assert list(derived.ImageType) == ["DERIVED", "SECONDARY", "AXIAL", "CT_SOM5 SPI"]
        for part in ("cnn-mar", "paper-3", "cafe" * 16, "1.2.3", "Not for diagnostic use"):
            assert part in derived.DerivationDescription
        (code,) = derived.DerivationCodeSequence
        assert (code.CodeValue, code.CodingSchemeDesignator) == ("CTMAR1", "99CTMAR")
        assert derived.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99CTMAR"
        (image,) = derived.SourceImageSequence
        assert image.ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert image.SpatialLocationsPreserved == "YES"
        assert image.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"

    def test_carried_through_says_so(self, tmp_path: Path) -> None:
        derived = written(ct_dataset(ramp_hu(1)[0]), tmp_path)
        assert derived.DerivationDescription.startswith("No metal found in this slice: pixels identical")

    def test_earlier_derivation_is_kept(self, tmp_path: Path) -> None:
        source = ct_dataset(ramp_hu(1)[0])
        source.DerivationDescription = "Lossy compression 10:1"
        earlier = Dataset()
        earlier.CodeValue, earlier.CodingSchemeDesignator = "113040", "DCM"
        earlier.CodeMeaning = "Lossy Compression"
        source.DerivationCodeSequence = [earlier]
        derived = written(source, tmp_path)
        assert derived.DerivationDescription.endswith("Source: Lossy compression 10:1")
        assert [c.CodeValue for c in derived.DerivationCodeSequence] == ["113040", "CTMAR1"]

    def test_equipment(self, tmp_path: Path) -> None:
        derived = written(ct_dataset(ramp_hu(1)[0]), tmp_path)
        assert (derived.ManufacturerModelName, derived.SoftwareVersions) == ("ctmar", "1.2.3")
        assert "StationName" not in derived
        assert "DeviceSerialNumber" not in derived
        scanner, processor = derived.ContributingEquipmentSequence
        assert (scanner.Manufacturer, scanner.DeviceSerialNumber) == ("ctmar developers", "4711")
        assert scanner.PurposeOfReferenceCodeSequence[0].CodeValue == "109101"
        assert processor.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"

    def test_removed(self, tmp_path: Path) -> None:
        source = ct_dataset(ramp_hu(1)[0])
        source.private_block(0x0019, "ACME", create=True).add_new(1, "LO", "secret")
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.3", "1.2.4"
        item.private_block(0x0029, "ACME", create=True).add_new(1, "LO", "nested secret")
        source.ReferencedImageSequence = [item]
        source.add_new("SmallestImagePixelValue", "US", 1)
        source.PerformedProcedureStepID = "P1"
        source.PlanarConfiguration = 0
        derived = written(source, tmp_path)
        assert b"secret" not in (tmp_path / "derived.dcm").read_bytes()
        assert derived.ReferencedImageSequence[0].ReferencedSOPInstanceUID == "1.2.4"
        for keyword in ("SmallestImagePixelValue", "PerformedProcedureStepID", "PlanarConfiguration"):
            assert keyword not in derived

    def test_file_meta_is_new(self, tmp_path: Path) -> None:
        meta = written(ct_dataset(ramp_hu(1)[0]), tmp_path).file_meta
        assert meta.TransferSyntaxUID == ExplicitVRLittleEndian
        assert meta.ImplementationVersionName == "CTMAR"
        assert not meta.ImplementationClassUID.startswith("1.2.826.0.1.3680043.8.498")
        assert "SourceApplicationEntityTitle" not in meta

    def test_lossy_flag_is_kept_or_set(self, tmp_path: Path) -> None:
        source = ct_dataset(ramp_hu(1)[0])
        source.LossyImageCompression = "01"
        image = load(save(source, tmp_path / "a.dcm"))
        assert derive(image, None, series=NEW).LossyImageCompression == "01"
        del image.dataset.LossyImageCompression
        image.dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        derived = derive(image, None, series=NEW)
        assert (derived.LossyImageCompression, derived.LossyImageCompressionMethod) == ("01", "ISO_10918_1")

    def test_sparse_source(self, tmp_path: Path) -> None:
        source = ct_dataset(ramp_hu(1)[0])
        for keyword in (
            "Manufacturer",
            "SeriesNumber",
            "SeriesDescription",
            "ImageType",
            "SeriesDate",
            "StudyID",
        ):
            delattr(source, keyword)
        derived = written(source, tmp_path)
        assert list(derived.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
        assert derived.SeriesNumber == 9000
        assert derived.ContributingEquipmentSequence[0].Manufacturer == "Unknown"
        assert "StudyID" not in derived

    def test_texts_and_malformed_numbers_keep_their_bytes(self, tmp_path: Path) -> None:
        source = ct_dataset(ramp_hu(1)[0])
        source.PatientName, source.PatientComments, source.ExposureTime = "NAME0001", "x", "1234567"
        source.SeriesNumber = source.InstanceNumber = "7654321"
        path = save(source, tmp_path / "a.dcm", syntax=ImplicitVRLittleEndian)
        odd = path.read_bytes().replace(b"NAME0001", b"M\xfcll\xe9r^A").replace(b"1234567 ", b"12 msec ")
        odd = odd.replace(b"7654321 ", b"seven   ")
        path.write_bytes(odd.replace(b"ISO_IR 100", b"ISO_IR 192"))
        image = load(path)
        write_dataset(derive(image, None, series=NEW), tmp_path / "b.dcm")
        result = (tmp_path / "b.dcm").read_bytes()
        assert b"PN\x08\x00M\xfcll\xe9r^A" in result
        assert b"IS\x08\x0012 msec " in result
        assert image.file.instance_number is None
        assert b"IS\x04\x009000" in result

    def test_times_are_in_the_zone_of_the_source(self, tmp_path: Path) -> None:
        source = ct_dataset(ramp_hu(1)[0])
        source.TimezoneOffsetFromUTC = "-0930"
        derived = written(source, tmp_path)
        assert (derived.SeriesDate, derived.SeriesTime) == ("20250606", "223910.000000")

    def test_long_description_is_cut(self, tmp_path: Path) -> None:
        series = DerivedSeries(
            uid=new_uid(), description="a\\" + "b" * 80, method="li", version="1", created=NEW.created
        )
        image = load(save(ct_dataset(ramp_hu(1)[0]), tmp_path / "a.dcm"))
        assert derive(image, None, series=series).SeriesDescription == "a/" + "b" * 62

    def test_time_without_zone_is_refused(self) -> None:
        with pytest.raises(ValueError, match="time zone"):
            DerivedSeries(
                uid="1.2",
                description="",
                method="li",
                version="1",
                created=datetime(2025, 1, 1),
            )


def test_source_is_left_as_it_is_and_nothing_is_overwritten(tmp_path: Path) -> None:
    path = save(ct_dataset(ramp_hu(1)[0]), tmp_path / "a.dcm")
    before = path.read_bytes()
    image = load(path)
    with quiet_pydicom():
        tags = image.dataset.to_json()
    derived = derive(image, image.image_hu + 1, series=NEW)
    assert image.dataset.to_json() == tags
    with pytest.raises(FileExistsError):
        write_dataset(derived, path)
    assert path.read_bytes() == before


def test_new_uids_are_unique_and_unregistered() -> None:
    uids = {new_uid() for _ in range(50)}
    assert len(uids) == 50
    assert all(uid.startswith("2.25.") and len(uid) <= 64 for uid in uids)
