from dataclasses import replace

import numpy as np
import pytest

from ctmar.correction import correct_series
from ctmar.correction_settings import CorrectionSettings
from ctmar.dicom.pixels import read_slice
from ctmar.dicom.series import choose_series, find_series
from ctmar.errors import OutputExistsError, UnsupportedInputError, UsageError
from ctmar.nifti import open_volume
from ctmar.nifti_correction import correct_series_to_nifti, correct_volume
from tests.ctmar.small import METAL, SIDE, write_small_series

nibabel = pytest.importorskip("nibabel")

LI = CorrectionSettings("li", device="cpu")

pytestmark = pytest.mark.usefixtures("small_fan")


@pytest.fixture
def series(tmp_path, volumes):
    write_small_series(tmp_path / "source", volumes[0])
    return choose_series(find_series(tmp_path / "source"))[0]


def dicom_images(series, folder):
    correct_series(series, folder, LI)
    corrected = choose_series(find_series(folder))[0]
    return np.stack([read_slice(one).image_hu for one in corrected.slices])


def agree(image_hu, expected_hu, atol):
    """Alike but in air, which DICOM's 12 bits clip."""
    tissue = expected_hu > -900
    assert tissue.sum() > 500
    np.testing.assert_allclose(image_hu[tissue], expected_hu[tissue], atol=atol)


def test_a_series_into_nifti_and_on_to_nifti_is_what_dicom_holds(tmp_path, series):
    expected = dicom_images(series, tmp_path / "dicom")
    result = correct_series_to_nifti(series, tmp_path / "a.nii.gz", LI)
    assert [s.status for s in result.slices] == ["no metal", "corrected", "corrected", "no metal"]
    volume = open_volume(tmp_path / "a.nii.gz")
    for k in range(4):
        agree(volume.read(k).image_hu, expected[k], 0.51)


@pytest.mark.parametrize("axes", [((0, 1), (1, 1), (2, 1)), ((2, -1), (0, 1), (1, -1)), ((1, -1), (2, 1), (0, -1))])
def test_a_volume_keeps_its_orientation_type_and_what_is_not_corrected(tmp_path, series, volumes, axes):
    expected = dicom_images(series, tmp_path / "dicom")
    # rows from anterior and columns from the right: to the right, to anterior and upwards
    canonical = nibabel.Nifti1Image(
        np.rint(volumes[0]).astype(np.int16).transpose(2, 1, 0)[::-1, ::-1], np.diag([1.0, 1.0, 2.0, 1.0])
    )
    stored = canonical.as_reoriented(np.array(axes, float))
    nibabel.save(stored, tmp_path / "in.nii.gz")
    before = (tmp_path / "in.nii.gz").read_bytes()
    result = correct_volume(open_volume(tmp_path / "in.nii.gz"), tmp_path / "out.nii.gz", LI)
    assert (tmp_path / "in.nii.gz").read_bytes() == before
    assert [s.number for s in result.slices if s.status == "corrected"] == [k + 1 for k in METAL]
    out = nibabel.load(tmp_path / "out.nii.gz")
    np.testing.assert_allclose(out.affine, stored.affine)
    assert out.get_data_dtype() == np.int16
    assert out.shape == stored.shape
    corrected = open_volume(tmp_path / "out.nii.gz")
    for k in range(4):
        if k not in METAL:
            np.testing.assert_array_equal(corrected.values(k), open_volume(tmp_path / "in.nii.gz").values(k))
        agree(corrected.read(k).image_hu, expected[k], 1.01)


def test_own_masks(tmp_path, volumes):
    canonical = nibabel.Nifti1Image(
        np.rint(volumes[0]).astype(np.int16).transpose(2, 1, 0)[::-1, ::-1], np.diag([1.0, 1.0, 2.0, 1.0])
    )
    nibabel.save(canonical, tmp_path / "in.nii")
    mask = np.zeros((4, SIDE, SIDE), np.uint8)
    mask[2, 30:34, 20:26] = 1
    np.save(tmp_path / "own.npy", mask)
    as_nifti = nibabel.Nifti1Image(mask.transpose(2, 1, 0)[::-1, ::-1], canonical.affine)
    flipped = as_nifti.as_reoriented(np.array([(0, -1), (1, 1), (2, -1)], float))
    nibabel.save(flipped, tmp_path / "own.nii.gz")
    written = []
    for name in ("own.npy", "own.nii.gz"):
        settings = replace(LI, mask=tmp_path / name)
        result = correct_volume(open_volume(tmp_path / "in.nii"), tmp_path / f"{name}.out.nii", settings)
        assert [(s.number, s.metal_mm2) for s in result.slices if s.status == "corrected"] == [(3, 24.0)]
        written.append(np.asarray(nibabel.load(tmp_path / f"{name}.out.nii").dataobj))
    np.testing.assert_array_equal(*written)
    np.save(tmp_path / "own.npy", mask[:3])
    with pytest.raises(UsageError, match=r"\(3, 64, 64\)"):
        correct_volume(open_volume(tmp_path / "in.nii"), tmp_path / "x.nii", replace(LI, mask=tmp_path / "own.npy"))
    assert not (tmp_path / "x.nii").exists()


def test_refusals(tmp_path, series):
    (tmp_path / "there.nii").write_bytes(b"precious")
    with pytest.raises(OutputExistsError):
        correct_series_to_nifti(series, tmp_path / "there.nii", LI)
    cut = tmp_path / "source" / "0002.dcm"
    cut.write_bytes(cut.read_bytes()[:-3000])
    with pytest.raises(UnsupportedInputError, match=r"slice 2: .*0002\.dcm.* gaps"):
        correct_series_to_nifti(series, tmp_path / "new.nii", LI)
    (tmp_path / "source" / "0002.dcm").unlink()
    gap = choose_series(find_series(tmp_path / "source"))[0]
    with pytest.raises(UnsupportedInputError):
        correct_series_to_nifti(gap, tmp_path / "new.nii", LI)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "there.nii"]
    assert (tmp_path / "there.nii").read_bytes() == b"precious"
