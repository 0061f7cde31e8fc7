import json
from dataclasses import replace

import h5py
import numpy as np
import pytest

from ctmar.blending import blend
from ctmar.correction_settings import CorrectionSettings
from ctmar.database import read_case
from ctmar.detection import DetectionSettings
from ctmar.errors import UnsupportedInputError, UsageError
from ctmar.method_names import METHODS
from ctmar.raw import correct_case, correction_of, prepare
from ctmar.restorer import NetworkRestorer
from tests.ctmar.small import tree, write_foreign_case, write_tiny_model

LI = CorrectionSettings("li", device="cpu")
PIN = (19, 31)
"""Row and column of the pixel nearest to the pin at x = 8, y = 4 mm in 48 x 48 pixels of 1 mm."""


def far_water():
    """Pixels of water at least 9 mm from the pin and 4 mm from the disc's edge."""
    rows, cols = np.mgrid[:48, :48]
    x, y = cols - 23.5, 23.5 - rows
    return (np.hypot(x, y) < 16) & (np.hypot(x - 8, y - 4) > 9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mask", [False, True])
def test_a_file_with_only_what_is_needed_is_corrected(tmp_path, method, mask):
    write_foreign_case(tmp_path / "case.h5", mask=mask)
    before = tree(tmp_path)
    restorer = None
    if method.startswith("cnn"):
        (tmp_path / "model").mkdir()
        restorer = NetworkRestorer(write_tiny_model(tmp_path / "model"), device="cpu")
    out = tmp_path / "out" / "case.h5"
    correct_case(tmp_path / "case.h5", out, replace(LI, method=method), restorer=restorer)
    assert before.items() <= tree(tmp_path).items()
    with h5py.File(out) as file, h5py.File(tmp_path / "case.h5") as source:
        assert set(file["image"]) == {"uncorrected", "corrected", method}
        np.testing.assert_array_equal(file["sinogram/metal"], source["sinogram/metal"])
        for name in ("format", "version", "mu_water_per_mm"):
            assert file.attrs[name] == source.attrs[name]
        corrected, uncorrected, own = (file[f"image/{name}"][()] for name in ("corrected", "uncorrected", method))
        metal = file["mask/metal"][()] > 0
        blended = blend(uncorrected, own, metal, pixel_mm=1.0, adaptive=method != "cnn")
        np.testing.assert_array_equal(corrected, blended)
    assert metal[PIN]
    assert 12 <= metal.sum() <= 60  # the pin covers 20 mm^2
    np.testing.assert_array_equal(corrected[metal], uncorrected[metal])
    assert uncorrected[PIN] > 4000
    # water is 0 HU where the exact sinogram says so, whatever is done along the trace
    assert abs(np.median(corrected[far_water()])) < 40
    assert (corrected[:2, :2] < -850).all()
    if method not in ("uncorrected", "bhc"):
        assert np.abs(corrected - uncorrected)[~metal].max() > 20


def test_a_mask_of_the_file_is_kept_and_its_uncorrected_image_is_not(tmp_path):
    """Another program's kernel is in that image; a change made with ours does not fit it."""
    write_foreign_case(tmp_path / "case.h5", mask=True)
    with h5py.File(tmp_path / "case.h5", "a") as file:
        given = file["mask/metal"][()]
        file["image/uncorrected"] = np.full((48, 48), 17, np.float32)
    case = prepare(read_case(tmp_path / "case.h5"), LI)
    np.testing.assert_array_equal(case.mask_metal, given > 0)
    plain = prepare(read_case(tmp_path / "case.h5"), LI)
    np.testing.assert_array_equal(case.images["uncorrected"], plain.images["uncorrected"])
    assert case.images["uncorrected"].max() > 1000


def test_the_users_own_mask_wins(tmp_path):
    write_foreign_case(tmp_path / "case.h5", mask=True)
    own = np.zeros((48, 48), bool)
    own[5:8, 5:8] = True
    np.save(tmp_path / "own.npy", own)
    case = prepare(read_case(tmp_path / "case.h5"), replace(LI, mask=tmp_path / "own.npy"))
    np.testing.assert_array_equal(case.mask_metal, own)
    np.save(tmp_path / "own.npy", own[1:])
    with pytest.raises(UsageError, match="mask"):
        prepare(read_case(tmp_path / "case.h5"), replace(LI, mask=tmp_path / "own.npy"))


def test_an_absurd_geometry(tmp_path):
    write_foreign_case(tmp_path / "case.h5")
    with h5py.File(tmp_path / "case.h5", "r+") as file:
        file.attrs["geometry"] = json.dumps({**json.loads(file.attrs["geometry"]), "bin_pitch_mm": 1e200})
    with pytest.raises(UnsupportedInputError, match="a geometry with values beyond"):
        prepare(read_case(tmp_path / "case.h5"), LI)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_sinogram_beyond_all_numbers(tmp_path):
    write_foreign_case(tmp_path / "case.h5")
    with h5py.File(tmp_path / "case.h5", "r+") as file:
        file["sinogram/metal"][...] = 3e38
    with pytest.raises(UnsupportedInputError, match="cannot be reconstructed"):
        prepare(read_case(tmp_path / "case.h5"), LI)


def test_the_threshold_counts(tmp_path):
    write_foreign_case(tmp_path / "case.h5")
    case = prepare(read_case(tmp_path / "case.h5"), replace(LI, metal=DetectionSettings(threshold_hu=9e4)))
    assert not case.mask_metal.any()


@pytest.mark.parametrize("method", [name for name in METHODS if not name.startswith("cnn")])
def test_without_metal_the_image_is_the_uncorrected_one(tmp_path, method):
    write_foreign_case(tmp_path / "case.h5", pin_mm=None)
    case = correct_case(tmp_path / "case.h5", tmp_path / "out.h5", replace(LI, method=method))
    np.testing.assert_array_equal(case.images["corrected"], case.images["uncorrected"])


def test_an_unprepared_case_is_a_callers_mistake(tmp_path):
    write_foreign_case(tmp_path / "case.h5")
    with pytest.raises(ValueError, match="not prepared"):
        correction_of(read_case(tmp_path / "case.h5"), LI)


def test_a_broken_file_leaves_no_output(tmp_path):
    write_foreign_case(tmp_path / "case.h5")
    with h5py.File(tmp_path / "case.h5", "a") as file:
        del file["sinogram/metal"]
    before = tree(tmp_path)
    with pytest.raises(UnsupportedInputError, match="sinogram/metal"):
        correct_case(tmp_path / "case.h5", tmp_path / "new" / "out.h5", LI)
    assert tree(tmp_path) == before
