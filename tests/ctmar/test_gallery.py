import numpy as np
import pytest
from PIL import Image

from ctmar.database import read_case
from ctmar.evaluation import evaluate
from ctmar.report.gallery import Failure, failure_gallery, gallery_sheet
from tests.ctmar.toy_database import write_toy_database


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)[..., 0]


def grey(value_hu):
    return round(255 * min(max((value_hu - 40) / 400 + 0.5, 0), 1))


def test_a_row_of_images_the_reference_and_the_error(tmp_path):
    flat = np.full((256, 256), 40.0)
    gallery_sheet([Failure("a", {"li": flat - 100, "cnn-mar": flat + 100}, flat)] * 2, tmp_path / "g.png")
    sheet = pixels(tmp_path / "g.png")
    assert sheet.shape == (22 + 2 * 262, 210 + 4 * 262)
    for top in (22, 22 + 262):
        row = [int(sheet[top + 128, 210 + column * 262 + 128]) for column in range(4)]
        assert row == [grey(-60), grey(140), grey(40), round(255 * 0.75)]  # 100 of -200..200


def test_the_worst_come_first_with_their_own_images(tmp_path):
    database = write_toy_database(tmp_path / "db", ("p1", "p2", "p3"))
    rows, _ = evaluate(database, device="cpu")
    errors = {row["case"]: row["rmse_body_hu"] for row in rows if (row["path"], row["method"]) == ("dicom", "li")}
    shown = failure_gallery(database, rows, tmp_path / "g.png", method="li", path="dicom", count=2, device="cpu")
    names = [one.name for one in shown]
    assert all(one.preview().metal.any() and one.preview().trace.any() for one in shown)
    assert names == sorted(errors, key=errors.get, reverse=True)[:2]
    sheet = pixels(tmp_path / "g.png")
    assert sheet.shape == (22 + 2 * 262, 210 + 4 * 262)  # uncorrected, LI, reference, error
    for number, name in enumerate(names):
        case = read_case(database / f"{name}.h5")
        top = 22 + number * 262
        # images of 96 pixels are not enlarged
        shown = sheet[top : top + 96, 210 + 262 : 210 + 262 + 96].astype(int)
        expected = 255 * np.clip((case.dicom_images["li"] - 40) / 400 + 0.5, 0, 1)
        assert np.abs(shown - expected)[~case.mask_metal].max() <= 0.51
    with pytest.raises(ValueError, match="no case was scored"):
        failure_gallery(database, rows, tmp_path / "g.png", method="cnn", device="cpu")
