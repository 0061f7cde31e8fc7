import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest

from ctmar import sources
from ctmar.errors import NoUsableSeriesError, UnsupportedInputError
from ctmar.screening import screen
from ctmar.sources import SourceSlice, find_slices, pseudonym
from data_sim.geometry import ImageGrid
from data_sim.phantom import REGIONS, phantom_slice
from tests.ctmar.dicom.build import ct_dataset, ramp_hu, save, write_ct_series

GRID = ImageGrid(160, 160, 2.6)


@pytest.fixture
def small_phantom(monkeypatch):
    monkeypatch.setattr(sources, "PHANTOM_PATIENTS", 2)
    monkeypatch.setattr(sources, "PHANTOM_SLICES_MM", (-6.0, 0.0))
    monkeypatch.setattr(sources, "PHANTOM_GRIDS", dict.fromkeys(REGIONS, GRID))


def slice_of(image_hu, grid=None, patient="p-1"):
    image = np.asarray(image_hu, np.float32)
    return SourceSlice("here", lambda: (image, grid or ImageGrid(*image.shape, 2.0), patient))


# --- phantom --------------------------------------------------------------------------------------


def test_phantom_has_every_region_of_every_patient(small_phantom):
    slices, skipped = find_slices(["phantom"])
    assert skipped == []
    assert len(slices) == len({s.name for s in slices}) == 2 * 2 * len(REGIONS)
    chosen = next(s for s in slices if s.name == "phantom-pelvis-1-0mm")
    image, grid, patient = chosen.load()
    assert (grid, patient) == (GRID, "phantom-1")
    np.testing.assert_array_equal(image, phantom_slice("pelvis", grid=GRID, seed=1, z_mm=0.0))
    assert {s.load()[2] for s in slices[:: len(slices) // 4]} == {"phantom-0", "phantom-1"}


def test_what_fits_a_pelvis(small_phantom):
    chosen = next(s for s in find_slices(["phantom"])[0] if s.name == "phantom-pelvis-0-0mm")
    found = screen(chosen)
    assert found.reason == ""
    assert "hip" in found.implants
    assert "dental" not in found.implants
    assert (found.patient, found.grid, found.slice) == ("phantom-0", GRID, chosen)
    assert screen(chosen) == found


# --- screening ------------------------------------------------------------------------------------


def test_metal_is_left_out_but_enamel_is_not():
    image = phantom_slice("pelvis", grid=GRID, seed=0, z_mm=0.0)
    image[80:83, 80:83] = 2900
    assert screen(slice_of(image, GRID)).reason == ""
    image[80:83, 80:83] = 3071
    found = screen(slice_of(image, GRID))
    assert found.reason == "metal: values of 3000 HU and above"
    assert found.implants == ()


def test_slices_without_a_patient_are_left_out():
    image = np.full((64, 64), -1000.0)
    assert screen(slice_of(image)).reason == "hardly any patient in it"
    image[20:40, 20:40] = 0  # 1600 mm2, where 2000 are wanted
    assert screen(slice_of(image)).reason == "hardly any patient in it"
    image[20:46, 20:46] = 0
    assert screen(slice_of(image)).reason != "hardly any patient in it"


def test_a_slice_that_cannot_be_read_is_left_out():
    def load():
        raise UnsupportedInputError("scan.dcm: is damaged; copy it again.")

    found = screen(SourceSlice("scan.dcm", load))
    assert found.reason == "scan.dcm: is damaged; copy it again."
    assert (found.patient, found.grid, found.implants) == ("", None, ())


# --- pseudonyms -----------------------------------------------------------------------------------


def test_pseudonyms_are_stable_and_tell_patients_apart():
    """Databases made on different days split by them, so they may never change."""
    assert pseudonym("PAT-007") == "p-" + hashlib.sha256(b"ctmar\0PAT-007").hexdigest()[:12]
    assert len({pseudonym(*ids) for ids in (["a"], ["b"], ["ab"], ["a", "b"], [""])}) == 5
    assert "PAT-007" not in pseudonym("PAT-007")


# --- DICOM ----------------------------------------------------------------------------------------


def test_dicom_series(tmp_path):
    volume = ramp_hu(3)
    write_ct_series(tmp_path / "series", volume, pixel_mm=0.75)
    (tmp_path / "series" / "notes.txt").write_text("no image")
    slices, skipped = find_slices([str(tmp_path / "series")])
    assert len(slices) == 3
    assert [reason for name, reason in skipped if name.endswith("notes.txt")] != []
    for index, found in enumerate(sorted(slices, key=lambda s: s.name)):
        assert found.name.endswith(f".{index + 1}")  # the SOP instance UID
        image, grid, patient = found.load()
        assert image.dtype == np.float32
        np.testing.assert_allclose(image, volume[index], atol=0.5)
        assert grid == ImageGrid(16, 16, 0.75)
        assert patient.startswith("p-")


def test_dicom_patients_by_their_id(tmp_path):
    """The same patient in two studies is one; without an identity, the study stands for the patient."""
    for number, (patient, study) in enumerate([("A", "1.2.3"), ("A", "1.2.4"), ("B", "1.2.5"), ("", "1.2.6")], 1):
        ds = ct_dataset(ramp_hu(1)[0], series_uid=f"1.2.826.0.1.{number}")
        ds.PatientID, ds.StudyInstanceUID = patient, study
        save(ds, tmp_path / f"{number}.dcm")
    patients = [s.load()[2] for s in sorted(find_slices([str(tmp_path)])[0], key=lambda s: s.name)]
    assert patients == [pseudonym("A"), pseudonym("A"), pseudonym("B"), pseudonym("1.2.6")]


def test_pixels_that_are_not_square_are_left_out(tmp_path):
    write_ct_series(tmp_path, ramp_hu(1), pixel_mm=(0.7, 0.9))
    (found,), _ = find_slices([str(tmp_path)])
    with pytest.raises(UnsupportedInputError, match="not square"):
        found.load()
    assert "not square" in screen(found).reason


def test_sources_add_up(tmp_path, small_phantom):
    write_ct_series(tmp_path, ramp_hu(2))
    assert len(find_slices([str(tmp_path), "phantom"])[0]) == 2 + 2 * 2 * len(REGIONS)


def test_sources_that_are_not_there(tmp_path):
    with pytest.raises(NoUsableSeriesError):
        find_slices([str(tmp_path / "nowhere")])
    with pytest.raises(NoUsableSeriesError, match="no axial CT slice found"):
        find_slices([str(tmp_path)])
    with pytest.raises(NoUsableSeriesError, match="no such file"):
        find_slices([str(tmp_path / "gone.nii.gz")])


# --- NIfTI ----------------------------------------------------------------------------------------


@pytest.fixture
def nifti(tmp_path):
    nibabel = pytest.importorskip("nibabel")

    def write(data, steps=(2.0, 2.0, 5.0), name="volume.nii.gz"):
        affine = np.diag([*steps, *[1.0] * (4 - len(steps))])
        nibabel.save(nibabel.Nifti1Image(np.asarray(data, np.int16), affine), tmp_path / name)
        return str(tmp_path / name)

    return write


def patient_volume():
    """RAS axes: x to the right, y anterior, z up. Something on the right, something else in front."""
    volume = np.full((6, 8, 3), -2000)
    volume[5, :, :] = 100  # the patient's right
    volume[:, 7, :] = 200  # the front
    volume[0, 0, 2] = 50  # left, back, top
    return volume


@pytest.mark.parametrize("flip", [(1, 1), (-1, 1), (1, -1), (-1, -1)])
def test_nifti_is_seen_from_the_feet(nifti, flip):
    """As radiologists look: the front at the top, the patient's right at the image's left; however stored."""
    stored = patient_volume()[:: flip[0], :: flip[1]]
    path = nifti(stored, steps=(2.0 * flip[0], 2.0 * flip[1], 5.0))
    slices, skipped = find_slices([path])
    assert skipped == []
    folder = Path(path).resolve().parent.name
    assert [s.name for s in slices] == [f"{folder}/volume.nii.gz:{k}" for k in range(3)]
    image, grid, patient = slices[2].load()
    assert grid == ImageGrid(8, 6, 2.0)
    assert image.dtype == np.float32
    assert (image[0] == 200).all()
    assert (image[1:, 0] == 100).all()
    assert image[-1, -1] == 50
    assert (image[1:-1, 1:] == -1000).all()  # padding is air
    assert patient == pseudonym(f"{folder}/volume.nii.gz")
    assert slices[1].load()[0][-1, -1] == -1000


@pytest.mark.parametrize("flip", [1, -1])
def test_nifti_slices_travel_light_to_other_processes(nifti, flip):
    """Workers get slices by name, not each with the whole volume."""
    volume = np.random.default_rng(0).integers(-1000, 1000, (64, 64, 10))
    slices, _ = find_slices([nifti(volume, steps=(2.0 * flip, 2.0 * flip, 5.0))])
    assert len(pickle.dumps(slices[0])) < volume.size
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(slices[3])).load()[0], slices[3].load()[0])


def test_nifti_that_cannot_be_used(nifti, tmp_path):
    with pytest.raises(UnsupportedInputError, match="4 dimensions"):
        find_slices([nifti(np.zeros((4, 4, 4, 2)), name="four.nii")])
    (tmp_path / "damaged.nii.gz").write_bytes(b"not a volume")
    with pytest.raises(UnsupportedInputError, match=r"damaged\.nii\.gz: no readable NIfTI file"):
        find_slices([str(tmp_path / "damaged.nii.gz")])
    slices, _ = find_slices([nifti(np.zeros((4, 4, 2)), steps=(1.0, 2.0, 5.0), name="oblong.nii")])
    with pytest.raises(UnsupportedInputError, match="not square"):
        slices[0].load()
