"""A simulated case as DICOM: pixels, marks, identities."""

from dataclasses import replace

import numpy as np
import pydicom
import pytest

from ctmar.database import Case, write_case
from ctmar.dicom.pixels import read_slice
from ctmar.dicom.series import find_series
from ctmar.dicom.simulated import SERIES, case_uid, write_case_dicom
from ctmar.errors import UnsupportedInputError
from ctmar.simulation_settings import SimulationSettings
from data_sim.acquisition import ScanSettings
from data_sim.geometry import FanArc, ImageGrid

SETTINGS = SimulationSettings(cases=3, seed=4, scan=ScanSettings(kvp=100))
GRID = ImageGrid(24, 20, 0.7)


def case(**changes):
    rng = np.random.default_rng(0)
    uncorrected = rng.integers(-1024, 3072, GRID.shape).astype(np.float32)
    values = {
        "geometry": FanArc(views=4, bins=8),
        "grid": GRID,
        "mu_water_per_mm": 0.0192,
        "seed": 4,
        "implant": "hip",
        "material": "fe,ti",
        "patient": "p-0123",
        "source": "somewhere",
        "sinogram_metal": np.zeros((4, 8), np.float32),
        "mask_metal": rng.random(GRID.shape) > 0.5,
        "images": {"reference": rng.normal(0, 2000, GRID.shape).astype(np.float32)},
        "dicom_images": {"uncorrected": uncorrected},
    }
    return Case(**{**values, **changes})


@pytest.fixture
def written(tmp_path):
    made = case()
    write_case(tmp_path / "case-000012.h5", made)
    write_case_dicom(tmp_path / "case-000012.h5", tmp_path / "dicom" / "case-000012", SETTINGS)
    return made, tmp_path / "dicom" / "case-000012"


def test_pixels(written):
    made, folder = written
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*.dcm")) == [
        f"{s}/0001.dcm" for s in sorted(SERIES)
    ]
    found = {s: pydicom.dcmread(folder / s / "0001.dcm") for s in SERIES}
    hu = {s: ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept) for s, ds in found.items()}
    np.testing.assert_array_equal(hu["metal"], made.dicom_images["uncorrected"])
    np.testing.assert_array_equal(hu["reference"], np.clip(np.rint(made.images["reference"]), -1024, 3071))
    np.testing.assert_array_equal(hu["mask"], made.mask_metal)
    assert all(list(ds.PixelSpacing) == [0.7, 0.7] for ds in found.values())


def test_marks_and_identities(written):
    _, folder = written
    found = [pydicom.dcmread(folder / s / "0001.dcm") for s in SERIES]
    for ds in found:
        assert list(ds.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
        assert "imulated" in ds.SeriesDescription
        assert "not for diagnostic use" in ds.DerivationDescription
        assert (ds.PatientID, str(ds.PatientName)) == ("p-0123", "Simulated^p-0123")
        assert ds.KVP == 100
        assert not ds.StudyDate
        assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
        assert all(pydicom.uid.UID(ds[name].value).is_valid for name in ("SOPInstanceUID", "SeriesInstanceUID"))
    assert "hip, fe,ti" in found[0].DerivationDescription
    for name, count in (("StudyInstanceUID", 1), ("FrameOfReferenceUID", 1), ("SeriesInstanceUID", 3)):
        assert len({ds[name].value for ds in found}) == count
    assert len({ds.SOPInstanceUID for ds in found}) == 3


def test_our_own_reader_takes_them(written):
    _, folder = written
    found = find_series(folder)
    assert found.skipped == ()
    assert [len(series.slices) for series in found.series] == [1, 1, 1]
    assert read_slice(found.series[0].slices[0]).image_hu.shape == GRID.shape


def test_the_same_case_has_the_same_bytes(written, tmp_path):
    _, folder = written
    write_case_dicom(tmp_path / "case-000012.h5", tmp_path / "again", replace(SETTINGS, cases=99))
    for series in SERIES:
        one, other = (f / series / "0001.dcm" for f in (folder, tmp_path / "again"))
        assert one.read_bytes() == other.read_bytes()


def test_another_case_has_other_uids():
    first = case_uid(case(), "case-000001", SETTINGS, "study")
    assert first == case_uid(case(), "case-000001", replace(SETTINGS, cases=50), "study")
    others = [
        case_uid(case(), "case-000002", SETTINGS, "study"),
        case_uid(case(), "case-000001", replace(SETTINGS, seed=5), "study"),
        case_uid(case(), "case-000001", replace(SETTINGS, scan=ScanSettings(kvp=80)), "study"),
        case_uid(case(source="elsewhere"), "case-000001", SETTINGS, "study"),
        case_uid(case(patient="p-9"), "case-000001", SETTINGS, "study"),
        case_uid(case(), "case-000001", SETTINGS, "frame"),
    ]
    assert len({first, *others}) == 7


def test_a_case_without_images(tmp_path):
    write_case(tmp_path / "case-000001.h5", case(dicom_images={}))
    with pytest.raises(UnsupportedInputError, match="lacks an image"):
        write_case_dicom(tmp_path / "case-000001.h5", tmp_path / "dicom", SETTINGS)
    assert not (tmp_path / "dicom").exists()
