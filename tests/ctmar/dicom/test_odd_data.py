"""Every file of the odd real data through `ctmar correct`, and a folder in which everything odd lies side by side."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEGLossless, JPEGLosslessSV1, SecondaryCaptureImageStorage

from ctmar import cli
from ctmar.dicom.pixels import read_slice
from ctmar.dicom.series import choose_series, find_series
from tests.ctmar.dicom.build import ct_dataset, ramp_hu, save, write_ct_series
from tests.ctmar.dicom.enhanced import enhanced_ct_dataset
from tests.ctmar.dicom.test_dicomdir import write_dicomdir

ODD = Path(__file__).parents[3].parent / "shared" / "data" / "odd"
ENCODED = "CTImage.dcm_{}TransferSyntax_1.2.840.10008.1.2{}.dcm"

CORRECTED = [
    "transfer-syntaxes/CT1_J2KR",
    "transfer-syntaxes/CT2_J2KR",
    "transfer-syntaxes/CTImage.dcm",
    *(
        f"transfer-syntaxes/{ENCODED.format(name, suffix)}"
        for name, suffix in [
            ("BigEndianExplicit", ".2"),
            ("DeflatedExplicitVRLittleEndian", ".1.99"),
            ("JPEG2000LosslessOnly", ".4.90"),
            ("JPEG2000", ".4.91"),
            ("JPEGLSLossless", ".4.80"),
            ("JPEGLSLossy", ".4.81"),
            ("JPEGProcess1", ".4.50"),
            ("JPEGProcess2_4", ".4.51"),
            ("JPEGProcess6_8", ".4.53"),
            ("JPEGProcess10_12", ".4.55"),
            ("JPEGProcess14", ".4.57"),
            ("JPEGProcess14SV1", ".4.70"),
            ("LittleEndianExplicit", ".1"),
            ("LittleEndianImplicit", ""),
            ("RLELossless", ".5"),
        ]
    ),
    "ge-head-gantry-tilt",
]


def correct(monkeypatch: pytest.MonkeyPatch, source: Path, out: Path) -> int:
    arguments = ["ctmar", "correct", str(source), "--out", str(out), "--method", "li", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


@pytest.mark.skipif(not ODD.is_dir(), reason="needs the shared CT data beside the project")
class TestRealFiles:
    @pytest.mark.parametrize("name", CORRECTED)
    def test_corrected(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        assert correct(monkeypatch, ODD / name, tmp_path / "out") == 0
        (source,) = find_series(ODD / name).series
        (derived,) = find_series(tmp_path / "out").series
        assert len(derived.slices) == len(source.slices)
        for before, after in zip(source.slices, derived.slices, strict=True):
            np.testing.assert_array_equal(read_slice(after).stored, read_slice(before).stored)

    def test_perfusion_map_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        source = ODD / "transfer-syntaxes" / "CT0012.fragmented_no_bot_jpeg_baseline.51.dcm"
        assert correct(monkeypatch, source, tmp_path / "out") == 3
        assert "(1 x a map or projection (RCBF), not a CT image); give a folder" in capsys.readouterr().err
        (skipped,) = find_series(source).skipped
        assert skipped.path == f"{source}, frames 1-2"

    def test_every_file_is_in_one_of_these_tests(self) -> None:
        files = {p for p in ODD.rglob("*") if p.is_file() and p.name != "LICENSE" and "tilt" not in str(p)}
        tested = {ODD / name for name in CORRECTED}
        assert {p.name for p in files - tested} == {"CT0012.fragmented_no_bot_jpeg_baseline.51.dcm"}


class TestTraps:
    def test_a_folder_with_everything(self, tmp_path: Path) -> None:
        """One usable series is found among what scanners and archives put beside it, with the reason for each."""
        image = ramp_hu(1)[0]
        write_ct_series(tmp_path / "series", ramp_hu(3), spacing_mm=2.0)
        others = {
            "localizer": {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
            "summary": {"SOPClassUID": SecondaryCaptureImageStorage, "SamplesPerPixel": 3},
            "colour": {"SamplesPerPixel": 3},
            "coronal": {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]},
            "report": {"Modality": "SR"},
            "map": {"RescaleType": "Z_EFF"},
        }
        for k, (name, changes) in enumerate(others.items()):
            ds = ct_dataset(image, number=50 + k, series_uid=f"2.25.{600 + k}")
            for keyword, value in changes.items():
                setattr(ds, keyword, value)
            save(ds, tmp_path / name)
        (tmp_path / "copy").write_bytes((tmp_path / "series" / "0002.dcm").read_bytes())
        (tmp_path / "notes.txt").write_text("x" * 300)
        (tmp_path / "broken").write_bytes((tmp_path / "copy").read_bytes()[:400])
        write_dicomdir(tmp_path / "DICOMDIR", [["series", "0001.dcm"]])
        found = find_series(tmp_path)
        (series,) = choose_series(found)
        assert (len(series.slices), series.warnings) == (3, ())
        reasons = {Path(s.path).name: s.reason for s in found.skipped}
        assert reasons.pop("0002.dcm").startswith("the same image (SOP instance UID) as ")
        assert reasons == {
            "localizer": "a localizer (scout)",
            "summary": "not a CT image but Secondary Capture Image Storage",
            "colour": "a colour page, not a CT image",
            "coronal": "a coronal or sagittal reformat, not an axial image",
            "report": "modality SR, not CT",
            "map": "pixels are not Hounsfield units (RescaleType)",
            "notes.txt": "not a DICOM file",
            "broken": "no modality, or truncated",
            "DICOMDIR": "a DICOMDIR index, not an image",
        }

    @pytest.mark.parametrize("shape", [(768, 768), (512, 300), (300, 512), (1024, 1024), (2, 3), (97, 101)])
    def test_any_matrix(self, tmp_path: Path, shape: tuple[int, int]) -> None:
        image = np.arange(shape[0] * shape[1]).reshape(shape) % 3000 - 1000.0
        save(ct_dataset(image, pixel_mm=(0.4, 0.6)), tmp_path / "a.dcm")
        (file,) = choose_series(find_series(tmp_path))[0].slices
        assert (file.rows, file.cols, file.pixel_mm) == (*shape, (0.4, 0.6))
        np.testing.assert_array_equal(read_slice(file).stored, image + 1024)

    @pytest.mark.parametrize("largest", [3071, 22_000])
    def test_12_bits_and_extended_hounsfield_units(self, tmp_path: Path, largest: int) -> None:
        image = np.linspace(-1000, largest, 256).round().reshape(16, 16)
        save(ct_dataset(image, bits_stored=12 if largest == 3071 else 16), tmp_path / "a.dcm")
        (file,) = choose_series(find_series(tmp_path))[0].slices
        np.testing.assert_array_equal(read_slice(file).image_hu, image)

    @pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLosslessSV1])
    def test_jpeg_lossless(self, tmp_path: Path, syntax: pydicom.uid.UID) -> None:
        gdcm = pytest.importorskip("gdcm")
        path = save(ct_dataset(ramp_hu(1)[0], signed=True, bits_stored=16), tmp_path / "plain")
        reader = gdcm.ImageReader()
        reader.SetFileName(str(path))
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        kinds = gdcm.TransferSyntax
        kind = kinds.JPEGLosslessProcess14 if syntax == JPEGLossless else kinds.JPEGLosslessProcess14_1
        change.SetTransferSyntax(gdcm.TransferSyntax(kind))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(tmp_path / "packed"))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        assert pydicom.dcmread(tmp_path / "packed").file_meta.TransferSyntaxUID == syntax
        (file,) = choose_series(find_series(tmp_path / "packed"))[0].slices
        np.testing.assert_array_equal(read_slice(file).image_hu, ramp_hu(1)[0])


def test_an_enhanced_object_is_corrected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From one multi-frame file to as many classic images, in which only what metal has touched is another."""
    rows, cols = np.mgrid[:64, :64] - 31.5
    radius = np.hypot(rows, cols)
    clean = np.where(radius < 24, 0.0, -1000.0)
    dirty = np.where(np.hypot(rows, cols - 8) < 2.5, 3000, clean + 60 * (np.abs(rows) < 3) * (radius < 24))
    source = save(enhanced_ct_dataset(np.stack([clean, dirty, clean])), tmp_path / "e.dcm")
    assert correct(monkeypatch, source, tmp_path / "out") == 0
    (derived,) = find_series(tmp_path / "out").series
    assert [s.position_mm[2] for s in derived.slices] == [0, 2, 4]
    assert [s.instance_number for s in derived.slices] == [1, 2, 3]
    images = [read_slice(file) for file in derived.slices]
    np.testing.assert_array_equal(images[0].stored, clean + 1024)
    np.testing.assert_array_equal(images[2].stored, clean + 1024)
    assert np.count_nonzero(images[1].stored != dirty + 1024) > 100
    assert len({image.dataset.SOPInstanceUID for image in images}) == 3
    assert all("NumberOfFrames" not in image.dataset for image in images)


def test_a_dicomdir_is_corrected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_ct_series(tmp_path / "disc" / "A", ramp_hu(2))
    write_ct_series(tmp_path / "disc" / "NOT_LISTED", ramp_hu(2), series_uid="2.25.77")
    listed = [["A", "0001.dcm"], ["A", "0002.dcm"], ["A", "0003.dcm"], ["..", "0001.dcm"]]
    source = write_dicomdir(tmp_path / "disc" / "DICOMDIR", listed)
    assert correct(monkeypatch, source, tmp_path / "out") == 0
    (derived,) = find_series(tmp_path / "out").series
    assert len(derived.slices) == 2
    said = capsys.readouterr().err
    assert "skipped 1 file(s): named in the DICOMDIR but missing" in said
    assert "skipped 1 file(s): its name in the DICOMDIR points outside its folder" in said
