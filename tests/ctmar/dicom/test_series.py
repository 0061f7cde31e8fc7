from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from ctmar.dicom import source
from ctmar.dicom.pixels import read_slice
from ctmar.dicom.series import Series, choose_series, describe, find_series
from ctmar.errors import NoUsableSeriesError, SeveralSeriesError, UnsupportedInputError
from tests.ctmar.dicom.build import ct_dataset, ramp_hu, save, write_ct_series

SHARED_DATA = Path(__file__).parents[3].parent / "shared" / "data"


def only(path: Path) -> Series:
    (series,) = choose_series(find_series(path))
    return series


def reason(path: Path) -> str:
    found = find_series(path)
    assert not found.series
    (skipped,) = found.skipped
    return skipped.reason


class TestFind:
    def test_sorts_by_position_not_by_number_or_name(self, tmp_path: Path) -> None:
        write_ct_series(
            tmp_path,
            ramp_hu(4),
            z_mm=[
                6,
                -2,
                4,
                0,
            ][:4],
            spacing_mm=2,
        )
        series = only(tmp_path)
        assert [s.position_mm[2] for s in series.slices] == [-2, 0, 4, 6]
        assert [s.instance_number for s in series.slices] == [2, 4, 3, 1]
        assert series.warnings == ("missing slices: 1 (spacing 2.00 mm)",)
        assert (series.number, series.description, series.modality) == (3, "Pelvis 2.0", "CT")

    def test_sorts_along_the_normal_of_a_head_first_prone_scan(self, tmp_path: Path) -> None:
        for k, z in enumerate([0.0, 3.0, 6.0], start=1):
            ds = ct_dataset(ramp_hu(1)[0], z_mm=z, number=k)
            ds.ImageOrientationPatient = [-1, 0, 0, 0, 1, 0]
            save(ds, tmp_path / f"{k}")
        assert [s.position_mm[2] for s in only(tmp_path).slices] == [6, 3, 0]

    def test_even_series_has_no_warnings(self, tmp_path: Path) -> None:
        write_ct_series(tmp_path, ramp_hu(5), spacing_mm=0.625)
        assert only(tmp_path).warnings == ()

    def test_warns_of_uneven_spacing_and_coincident_slices(self, tmp_path: Path) -> None:
        write_ct_series(tmp_path / "a", ramp_hu(4), z_mm=[0, 2, 4, 5.1])
        write_ct_series(tmp_path / "b", ramp_hu(4), z_mm=[0, 2, 2, 4])
        assert only(tmp_path / "a").warnings == ("uneven slice spacing (1.10 to 2.00 mm, usually 2.00 mm)",)
        assert only(tmp_path / "b").warnings == ("slices at the position of another slice: 1",)

    def test_warns_of_gantry_tilt(self, tmp_path: Path) -> None:
        tilt = np.radians(20)
        for k in range(3):
            ds = ct_dataset(ramp_hu(1)[0], z_mm=3.0 * k, number=k + 1)
            ds.ImageOrientationPatient = [1, 0, 0, 0, round(np.cos(tilt), 6), round(-np.sin(tilt), 6)]
            save(ds, tmp_path / f"{k}")
        assert only(tmp_path).warnings == ("gantry tilt of 20.0 degrees",)

    def test_warns_of_non_square_pixels_and_reads_them(self, tmp_path: Path) -> None:
        write_ct_series(tmp_path, ramp_hu(1)[:, :8], pixel_mm=(0.5, 0.75))
        series = only(tmp_path)
        assert series.warnings == ("pixels are not square",)
        image = read_slice(series.slices[0])
        assert image.pixel_mm == (0.5, 0.75)
        np.testing.assert_array_equal(image.image_hu, ramp_hu(1)[0, :8])

    def test_same_instance_twice_is_kept_once(self, tmp_path: Path) -> None:
        (path,) = write_ct_series(tmp_path, ramp_hu(1))
        (tmp_path / "copy.dcm").write_bytes(path.read_bytes())
        found = find_series(tmp_path)
        assert [len(s.slices) for s in found.series] == [1]
        assert [s.reason.split(" as ")[0] for s in found.skipped] == ["the same image (SOP instance UID)"]

    def test_files_without_preamble_are_read(self, tmp_path: Path) -> None:
        ds = ct_dataset(ramp_hu(1)[0])
        pydicom.dcmwrite(tmp_path / "bare", ds, implicit_vr=True, little_endian=True)
        np.testing.assert_array_equal(read_slice(only(tmp_path).slices[0]).image_hu, ramp_hu(1)[0])


class TestSkipped:
    @pytest.mark.parametrize(
        ("changes", "why"),
        [
            ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "a localizer (scout)"),
            ({"Modality": "MR"}, "modality MR, not CT"),
            ({"Modality": "Smith^John"}, "no modality, or truncated"),
            ({"SamplesPerPixel": 3}, "a colour page, not a CT image"),
            (
                {"SOPClassUID": SecondaryCaptureImageStorage},
                "not a CT image but Secondary Capture Image Storage",
            ),
            (
                {"SOPClassUID": EnhancedCTImageStorage},
                "the header promises 1 frames and describes 0",
            ),
            (
                {"NumberOfFrames": 2},
                "several frames in an object that can only hold one (CT Image Storage)",
            ),
            ({"PixelSpacing": None, "RescaleSlope": None}, "no PixelSpacing and no RescaleSlope"),
            (
                {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]},
                "a coronal or sagittal reformat, not an axial image",
            ),
            ({"Rows": 60000, "Columns": 60000}, "a matrix of 60000 x 60000 pixels is not supported"),
            ({"RescaleType": "Z_EFF"}, "pixels are not Hounsfield units (RescaleType)"),
            ({"RescaleSlope": 0}, "pixel spacing not positive or rescale slope zero"),
        ],
    )
    def test_says_why(self, tmp_path: Path, changes: dict[str, object], why: str) -> None:
        ds = ct_dataset(ramp_hu(1)[0])
        with source.quiet_pydicom():
            for keyword, value in changes.items():
                setattr(ds, keyword, value)
            save(ds, tmp_path / "x.dcm")
        assert reason(tmp_path) == why

    def test_other_files(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("hello" * 100)
        assert reason(tmp_path) == "not a DICOM file"
        with pytest.raises(NoUsableSeriesError, match="1 x not a DICOM file"):
            choose_series(find_series(tmp_path))

    def test_truncated_header(self, tmp_path: Path) -> None:
        (path,) = write_ct_series(tmp_path, ramp_hu(1))
        whole = path.read_bytes()
        for length in range(133, whole.index(struct.pack("<HH", 0x28, 0x1052)), 41):
            path.write_bytes(whole[:length])
            assert reason(path)

    def test_an_empty_folder_and_a_missing_one(self, tmp_path: Path) -> None:
        with pytest.raises(NoUsableSeriesError, match="empty"):
            choose_series(find_series(tmp_path))
        with pytest.raises(NoUsableSeriesError, match="no such file"):
            find_series(tmp_path / "missing")


class TestChoose:
    def test_several_are_listed_and_one_can_be_chosen(self, tmp_path: Path) -> None:
        write_ct_series(tmp_path / "a", ramp_hu(2), series_uid="2.25.5", pixel_mm=(0.7, 0.9))
        write_ct_series(tmp_path / "b", ramp_hu(3), series_uid="2.25.6", spacing_mm=0.625, pixel_mm=0.78125)
        found = find_series(tmp_path)
        with pytest.raises(SeveralSeriesError) as caught:
            choose_series(found)
        assert str(caught.value).splitlines() == [
            f"{tmp_path}: 2 usable CT series; choose with --series UID or --all:",
            '  2.25.5: number 3, "Pelvis 2.0", 2 slices, 2 mm apart, 16 x 16 pixels of 0.7 x 0.9 mm',
            '  2.25.6: number 3, "Pelvis 2.0", 3 slices, 0.625 mm apart, 16 x 16 pixels of 0.781 mm',
        ]
        assert [s.uid for s in choose_series(found, all_=True)] == ["2.25.5", "2.25.6"]
        assert [len(s.slices) for s in choose_series(found, uid="2.25.6")] == [3]
        with pytest.raises(NoUsableSeriesError, match=r"no usable CT series 2\.25\.7; there are:\n  2\.25\.5: number"):
            choose_series(found, uid="2.25.7")

    def test_descriptions_are_printable_and_short(self, tmp_path: Path) -> None:
        for k, (text, shown) in enumerate(
            [
                ("x" * 41, f'"{"x" * 37}..."'),
                ("a\nb\x1b[31m  c", '"a b [31m c"'),
                ("", '""'),
            ]
        ):
            ds = ct_dataset(ramp_hu(1)[0])
            ds.SeriesDescription, ds.SeriesNumber = text, None
            with source.quiet_pydicom():
                save(ds, tmp_path / f"{k}.dcm")
            line = describe(only(tmp_path / f"{k}.dcm"))
            assert line == f"2.25.2001: no number, {shown}, 1 slice, 16 x 16 pixels of 1 mm"

    def test_only_the_first_twenty_are_listed(self, tmp_path: Path) -> None:
        for k in range(23):
            write_ct_series(tmp_path / f"{k}", ramp_hu(1), series_uid=f"2.25.{100 + k}")
        with pytest.raises(SeveralSeriesError) as caught:
            choose_series(find_series(tmp_path))
        lines = str(caught.value).splitlines()
        assert len(lines) == 22
        assert lines[-1] == "  and 3 more"


class TestZip:
    def test_reads_members_without_unpacking(self, tmp_path: Path) -> None:
        volume = ramp_hu(3)
        archive = tmp_path / "series.zip"
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
            for path in write_ct_series(tmp_path / "loose", volume):
                out.write(path, f"study/{path.name}")
            out.writestr("study/readme.txt", "x" * 500)
        before = sorted(tmp_path.rglob("*"))
        series = only(archive)
        for slice_file, image in zip(series.slices, volume, strict=True):
            np.testing.assert_array_equal(read_slice(slice_file).image_hu, image)
        assert sorted(tmp_path.rglob("*")) == before

    @pytest.mark.parametrize("name", ["../evil.dcm", "/tmp/evil.dcm", "a/../../evil.dcm", "..\\evil.dcm", "C:\\e.dcm"])
    def test_names_that_leave_the_archive_are_refused(self, tmp_path: Path, name: str) -> None:
        (path,) = write_ct_series(tmp_path / "loose", ramp_hu(1))
        with zipfile.ZipFile(tmp_path / "evil.zip", "w") as out:
            out.writestr(name, path.read_bytes())
        assert reason(tmp_path / "evil.zip") == "its name points outside the archive"

    def test_bombs_are_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        archive = tmp_path / "bomb.zip"
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
            out.writestr("a.dcm", b"\0" * 128 + b"DICM" + b"\0" * 200_000)
            out.writestr("b.dcm", b"\0" * 200_000)
        monkeypatch.setattr(source, "MAX_FILE_BYTES", 100_000)
        first, _ = find_series(archive).skipped
        assert first.reason == "a damaged, encrypted or too large member of the archive"
        monkeypatch.setattr(source, "MAX_ARCHIVE_BYTES", 300_000)
        with pytest.raises(UnsupportedInputError, match="in one zip"):
            find_series(archive)
        monkeypatch.undo()
        monkeypatch.setattr(source, "MAX_ARCHIVE_MEMBERS", 1)
        with pytest.raises(UnsupportedInputError, match="more than 1 files"):
            find_series(archive)

    def test_damaged_archive(self, tmp_path: Path) -> None:
        archive = tmp_path / "a.zip"
        with zipfile.ZipFile(archive, "w") as out:
            out.writestr("a.dcm", b"x" * 5000)
        data = bytearray(archive.read_bytes())
        data[data.index(b"PK\x01\x02") : data.index(b"PK\x01\x02") + 4] = b"XXXX"
        archive.write_bytes(bytes(data))
        with pytest.raises(UnsupportedInputError, match="damaged"):
            find_series(archive)


class TestRead:
    @pytest.mark.parametrize(
        "syntax",
        [
            ExplicitVRLittleEndian,
            ImplicitVRLittleEndian,
            ExplicitVRBigEndian,
            DeflatedExplicitVRLittleEndian,
            RLELossless,
        ],
    )
    def test_transfer_syntaxes(self, tmp_path: Path, syntax: UID) -> None:
        ds = ct_dataset(ramp_hu(1)[0])
        if syntax == ExplicitVRBigEndian:
            ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
        path = save(ds, tmp_path / "a.dcm", syntax=syntax)
        before = path.read_bytes()
        image = read_slice(only(path).slices[0])
        np.testing.assert_array_equal(image.stored, ramp_hu(1)[0] + 1024)
        np.testing.assert_array_equal(image.image_hu, ramp_hu(1)[0])
        assert image.stored.dtype == np.uint16
        assert image.image_hu.dtype == np.float32
        assert path.read_bytes() == before

    @pytest.mark.parametrize(("slope", "intercept", "signed"), [(2.0, -1000.0, False), (0.5, 0.0, True)])
    def test_rescale_and_sign(self, tmp_path: Path, slope: float, intercept: float, signed: bool) -> None:
        write_ct_series(tmp_path, ramp_hu(1), slope=slope, intercept=intercept, signed=signed, bits_stored=16)
        image = read_slice(only(tmp_path).slices[0])
        np.testing.assert_array_equal(image.image_hu, ramp_hu(1)[0])
        assert image.stored[0, 0] == (-500 - intercept) / slope
        assert not image.padding.any()

    def test_truncated_pixels_are_refused(self, tmp_path: Path) -> None:
        for syntax in (ExplicitVRLittleEndian, RLELossless, DeflatedExplicitVRLittleEndian):
            path = save(ct_dataset(ramp_hu(1)[0]), tmp_path / f"{syntax}.dcm", syntax=syntax)
            slice_file = only(path).slices[0]
            path.write_bytes(path.read_bytes()[:-100])
            with pytest.raises(UnsupportedInputError, match="truncated"):
                read_slice(slice_file)

    def test_unknown_syntax_is_named(self, tmp_path: Path) -> None:
        path = save(ct_dataset(ramp_hu(1)[0]), tmp_path / "a.dcm")
        as_jpeg = path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0")
        path.write_bytes(as_jpeg)
        with pytest.raises(UnsupportedInputError, match=r"1\.2\.840\.10008\.1\.2\.9.*pylibjpeg"):
            read_slice(only(path).slices[0])

    def test_damaged_code_stream_is_refused(self, tmp_path: Path) -> None:
        ds = ct_dataset(ramp_hu(1)[0])
        ds.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51 no image here."])
        ds["PixelData"].is_undefined_length = True
        path = save(ds, tmp_path / "a.dcm", syntax=JPEG2000Lossless)
        with pytest.raises(UnsupportedInputError, match="cannot be decoded"):
            read_slice(only(path).slices[0])

    def test_a_deflated_bomb_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = save(ct_dataset(ramp_hu(1)[0]), tmp_path / "a.dcm", syntax=DeflatedExplicitVRLittleEndian)
        data = path.read_bytes()
        start = 144 + int.from_bytes(data[140:144], "little")
        packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        body = zlib.decompress(data[start:], -zlib.MAX_WBITS) + b"\0" * 3_000_000
        path.write_bytes(data[:start] + packer.compress(body) + packer.flush())
        monkeypatch.setattr(source, "MAX_FILE_BYTES", 1_000_000)
        assert reason(path) == "damaged or truncated header (ValueError)"


class TestPadding:
    def circle(self, size: int = 32) -> np.ndarray:
        y, x = np.mgrid[:size, :size] - (size - 1) / 2
        return np.hypot(y, x) > size / 2

    def written(self, tmp_path: Path, stored: np.ndarray, **attributes: object) -> Dataset:
        ds = ct_dataset(np.zeros(stored.shape), signed=True, bits_stored=16)
        ds.PixelData = stored.astype("<i2").tobytes()
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)
        return read_slice(only(save(ds, tmp_path / "a.dcm")).slices[0])

    @pytest.mark.parametrize("value", [-2000, -1500, -3024, -32768])
    def test_undeclared_constant_outside_the_circle(self, tmp_path: Path, value: int) -> None:
        outside = self.circle()
        image = self.written(tmp_path, np.where(outside, value, 1000))
        np.testing.assert_array_equal(image.padding, outside)
        assert np.all(image.image_hu[outside] == -1000)
        assert np.all(image.image_hu[~outside] == -24)
        assert np.all(image.stored[outside] == value)

    def test_a_dark_streak_is_no_padding(self, tmp_path: Path) -> None:
        stored = np.where(self.circle(), -2000, 1000)
        stored[10:20, 16] = -2000
        image = self.written(tmp_path, stored)
        np.testing.assert_array_equal(image.padding, self.circle())
        assert image.image_hu[12, 16] == -3024

    def test_declared_value_and_range_in_stored_units(self, tmp_path: Path) -> None:
        stored = np.full((16, 16), 1000)
        stored[4, 4:8] = [-2000, -1990, -1980, -1979]
        one = self.written(tmp_path, stored, PixelPaddingValue=-2000)
        assert np.argwhere(one.padding).tolist() == [[4, 4]]
        several = self.written(tmp_path, stored, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1980)
        assert np.argwhere(several.padding).tolist() == [[4, 4], [4, 5], [4, 6]]

    def test_unsigned_63536_under_signed_data(self, tmp_path: Path) -> None:
        stored = np.full((16, 16), 1000)
        stored[5, 5] = -2000
        ds = ct_dataset(stored, signed=True, bits_stored=16)
        ds.PixelData = stored.astype("<i2").tobytes()
        ds.add_new("PixelPaddingValue", "US", 63536)
        image = read_slice(only(save(ds, tmp_path / "a.dcm")).slices[0])
        assert np.argwhere(image.padding).tolist() == [[5, 5]]

    def test_declared_tissue_value_counts_only_in_the_corners(self, tmp_path: Path) -> None:
        stored = np.where(self.circle(), 1024, 1000)
        stored[16, 16] = 1024
        image = self.written(tmp_path, stored, PixelPaddingValue=1024)
        np.testing.assert_array_equal(image.padding, self.circle())
        assert image.image_hu[16, 16] == 0

    def test_clipped_noisy_air_is_not_padding(self, tmp_path: Path) -> None:
        noise = np.random.default_rng(1).normal(-1000, 30, (64, 64))
        write_ct_series(tmp_path, noise[None])
        image = read_slice(only(tmp_path).slices[0])
        assert (image.stored == 0).mean() > 0.1
        assert image.padding.mean() < 0.01


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="needs the shared CT data beside the project")
class TestRealData:
    def test_encodings_of_one_slice_agree(self) -> None:
        folder = SHARED_DATA / "odd" / "transfer-syntaxes"
        plain = read_slice(only(folder / "CTImage.dcm").slices[0])
        assert plain.stored[0, 0] == -2000
        assert plain.padding.mean() == pytest.approx(1 - np.pi / 4, abs=0.003)
        lossless = ("1.2.2", "1.2.1.99", "4.90", "4.80", "4.70", "4.57", "1.2.1", "1.2", "1.2.5")
        for suffix in lossless:
            (path,) = (
                folder.glob(f"CTImage.dcm_*_1.2.840.10008*.{suffix}.dcm")
                if suffix != "1.2"
                else folder.glob("*_1.2.840.10008.1.2.dcm")
            )
            np.testing.assert_array_equal(read_slice(only(path).slices[0]).stored, plain.stored)
        (sequential,) = folder.glob("CTImage*.51.dcm")
        lossy = read_slice(only(sequential).slices[0]).stored
        for suffix in ("53", "55"):  # retired: the same coefficients in another order
            (path,) = folder.glob(f"*.{suffix}.dcm")
            found = read_slice(only(path).slices[0])
            np.testing.assert_array_equal(found.stored, lossy)
            assert found.dataset.file_meta.TransferSyntaxUID.endswith(suffix)

    def test_tilted_head(self) -> None:
        series = only(SHARED_DATA / "odd" / "ge-head-gantry-tilt")
        assert len(series.slices) == 28
        assert "gantry tilt of 18.5 degrees" in series.warnings
        assert read_slice(series.slices[2]).padding[0, 0]
