from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.fileset import FileSet
from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage

from ctmar.dicom import dicomdir
from ctmar.dicom.pixels import read_slice
from ctmar.dicom.series import choose_series, find_series
from ctmar.dicom.source import quiet_pydicom
from ctmar.errors import NoUsableSeriesError, UnsupportedInputError
from tests.ctmar.dicom.build import ramp_hu, save, write_ct_series
from tests.ctmar.dicom.enhanced import enhanced_ct_dataset


def write_dicomdir(path: Path, ids: list[list[str] | None]) -> Path:
    """A DICOMDIR of image records alone, as no sane program writes it."""
    with quiet_pydicom(), pydicom.config.disable_value_validation():
        records = []
        for parts in ids:
            record = Dataset()
            record.DirectoryRecordType = "IMAGE"
            if parts is not None:
                record.ReferencedFileID = parts
            records.append(record)
        ds = Dataset()
        ds.DirectoryRecordSequence = records
        ds.file_meta = FileMetaDataset()
        ds.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
        ds.file_meta.MediaStorageSOPInstanceUID = "2.25.60"
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path.parent.mkdir(parents=True, exist_ok=True)
        pydicom.dcmwrite(path, ds, enforce_file_format=True)
    return path


def reasons(path: Path) -> list[tuple[str, str]]:
    return [(Path(s.path).name, s.reason) for s in find_series(path).skipped]


def slices(path: Path) -> int:
    return sum(len(s.slices) for s in find_series(path).series)


class TestReal:
    def test_what_pydicom_writes(self, tmp_path: Path) -> None:
        media = FileSet()
        for path in write_ct_series(tmp_path / "loose", ramp_hu(3)):
            media.add(path)
        media.write(tmp_path / "disc")
        media._stage["t"].cleanup()  # pydicom leaves that to the garbage collector, which warns
        (series,) = choose_series(find_series(tmp_path / "disc" / "DICOMDIR"))
        volume = np.stack([read_slice(file).image_hu for file in series.slices])
        np.testing.assert_array_equal(volume, ramp_hu(3))
        assert find_series(tmp_path / "disc" / "DICOMDIR").skipped == ()

    def test_what_dcmtk_writes(self, tmp_path: Path) -> None:
        for k, path in enumerate(write_ct_series(tmp_path / "LOOSE", ramp_hu(3))):
            path.rename(tmp_path / "LOOSE" / f"IM{k}")
        try:
            subprocess.run(
                ["dcmmkdir", "--recurse", "LOOSE"],
                cwd=tmp_path, check=True, capture_output=True,
            )  # fmt: skip
        except FileNotFoundError:
            pytest.skip("dcmmkdir is not installed")
        assert slices(tmp_path / "DICOMDIR") == 3

    def test_the_folder_of_a_dicomdir_is_read_as_any_other(self, tmp_path: Path) -> None:
        write_ct_series(tmp_path, ramp_hu(2))
        write_dicomdir(tmp_path / "DICOMDIR", [["0001.dcm"]])
        assert slices(tmp_path) == 2
        assert reasons(tmp_path) == [("DICOMDIR", "a DICOMDIR index, not an image")]

    def test_small_letters_and_another_name(self, tmp_path: Path) -> None:
        write_ct_series(tmp_path / "st000001" / "se01", ramp_hu(1))
        path = write_dicomdir(tmp_path / "dicomdir", [["ST000001", "SE01", "0001.DCM"]])
        assert slices(path) == 1

    def test_multi_frame_objects(self, tmp_path: Path) -> None:
        save(enhanced_ct_dataset(ramp_hu(3)), tmp_path / "E")
        assert slices(write_dicomdir(tmp_path / "DICOMDIR", [["E"]])) == 3

    def test_lists_what_is_missing_and_what_is_no_image(self, tmp_path: Path) -> None:
        write_ct_series(tmp_path / "A", ramp_hu(2))
        (tmp_path / "A" / "TEXT").write_text("x" * 500)
        ids = [["A", "0001.dcm"], ["A", "0002.dcm"], ["A", "0003.dcm"], ["B", "1"], ["A", "TEXT"], ["A"], None]
        path = write_dicomdir(tmp_path / "DICOMDIR", [*ids, ids[0]])
        assert slices(path) == 2
        assert reasons(path) == [
            ("0003.dcm", "named in the DICOMDIR but missing"),
            ("1", "named in the DICOMDIR but missing"),
            ("TEXT", "not a DICOM file"),
            ("A", "not a regular file"),
        ]

    def test_an_empty_one(self, tmp_path: Path) -> None:
        with pytest.raises(NoUsableSeriesError):
            choose_series(find_series(write_dicomdir(tmp_path / "DICOMDIR", [])))


class TestHostile:
    @pytest.mark.parametrize(
        "parts",
        [
            ["..", "0001.dcm"],
            ["../0001.dcm"],
            ["A", "..", "..", "0001.dcm"],
            ["..\\0001.dcm"],
            ["C:", "0001.dcm"],
            ["."],
        ],
    )
    def test_names_that_leave_the_folder(self, tmp_path: Path, parts: list[str]) -> None:
        (tmp_path / "disc" / "A").mkdir(parents=True)
        write_ct_series(tmp_path, ramp_hu(1))
        path = write_dicomdir(tmp_path / "disc" / "DICOMDIR", [parts])
        assert slices(path) == 0
        assert {reason for _, reason in reasons(path)} == {"its name in the DICOMDIR points outside its folder"}

    def test_an_absolute_name(self, tmp_path: Path) -> None:
        (file,) = write_ct_series(tmp_path / "elsewhere", ramp_hu(1))
        path = write_dicomdir(tmp_path / "disc" / "DICOMDIR", [[str(file)]])
        assert slices(path) == 0

    def test_a_link_that_leaves_the_folder(self, tmp_path: Path) -> None:
        write_ct_series(tmp_path / "elsewhere", ramp_hu(1))
        (tmp_path / "disc").mkdir()
        (tmp_path / "disc" / "A").symlink_to(tmp_path / "elsewhere")
        path = write_dicomdir(tmp_path / "disc" / "DICOMDIR", [["A", "0001.dcm"]])
        assert slices(path) == 0
        assert reasons(path) == [("0001.dcm", "its name in the DICOMDIR points outside its folder")]

    def test_a_damaged_one(self, tmp_path: Path) -> None:
        path = write_dicomdir(tmp_path / "DICOMDIR", [["A", "1"]] * 50)
        whole = path.read_bytes()
        messages: set[str] = set()
        for length in range(200, len(whole), 61):
            path.write_bytes(whole[:length])
            try:
                found = slices(path)
            except UnsupportedInputError as error:
                found, messages = 0, {*messages, str(error).partition("; ")[2]}
            assert found == 0
        assert messages == {"give the folder that it lies in."}

    def test_too_many_records(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dicomdir, "MAX_RECORDS", 3)
        with pytest.raises(UnsupportedInputError, match="more than 3 files"):
            find_series(write_dicomdir(tmp_path / "DICOMDIR", [["A"]] * 4))
