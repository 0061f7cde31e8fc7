import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from ctmar.case_correction import PATHS
from ctmar.database import read_case, write_case
from ctmar.errors import NoUsableSeriesError
from ctmar.evaluation import LIMIT, evaluate, shown_case, trained_on, variants_of, without_nan, write_results
from ctmar.method_names import BLENDED, METHODS
from ctmar.restorer import NetworkRestorer
from ctmar.weights import ModelCard
from data_sim.projection import Projector
from data_sim.scanner import STORED_HU
from tests.ctmar.small import write_tiny_model
from tests.ctmar.toy_database import NAMES, toy_case, write_toy_database

CONTRACT = {"case", "path", "method", "rmse_hu", "rmse_body_hu", "ssim"}


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    return write_toy_database(tmp_path_factory.mktemp("db"), ("p1", "p2"))


@pytest.fixture(scope="module")
def restorer(tmp_path_factory):
    return NetworkRestorer(write_tiny_model(tmp_path_factory.mktemp("model")), device="cpu")


@pytest.fixture(scope="module")
def rows(database, restorer):
    scored, skipped = evaluate(database, restorer=restorer, device="cpu")
    assert skipped == []
    return scored


def row_of(rows, case, path, method):
    (row,) = [r for r in rows if (r["case"], r["path"], r["method"]) == (case, path, method)]
    return row


def test_every_case_path_and_method_once(rows):
    found = [(row["case"], row["path"], row["method"]) for row in rows]
    scored = (*METHODS, BLENDED, LIMIT)
    expected = {(f"case-00000{k}", path, method) for k in (1, 2) for path in PATHS for method in scored}
    assert len(found) == len(expected)
    assert set(found) == expected
    assert all(row.keys() >= CONTRACT for row in rows)


def test_images_that_a_case_holds_are_scored_as_they_are(database, rows):
    for k in (1, 2):
        case = read_case(database / f"case-00000{k}.h5")
        counts = ~case.mask_metal
        for path, images in (("raw", case.images), ("dicom", case.dicom_images)):
            for name in NAMES:
                image = images[name]
                if (path, name) == ("dicom", "uncorrected"):
                    image = np.clip(np.rint(image), -1024, 3071)  # as the scanner stores it
                error = image.astype(float) - case.images["reference"]
                row = row_of(rows, f"case-00000{k}", path, name)
                assert row["rmse_hu"] == pytest.approx(np.sqrt(np.mean(error[counts] ** 2)), rel=1e-5)
                inside = counts & case.mask_body
                assert row["rmse_body_hu"] == pytest.approx(np.sqrt(np.mean(error[inside] ** 2)), rel=1e-5)
                assert 0 < row["ssim"] < 1


def test_what_is_known_of_a_case_stands_in_its_rows(database, rows):
    case = read_case(database / "case-000001.h5")
    row = row_of(rows, "case-000001", "dicom", "li")
    assert list(row)[:8] == ["case", "path", "method", "rmse_hu", "rmse_body_hu", "ssim", "streak_hu", "bone_dice"]
    assert (row["patient"], row["implant"], row["material"]) == (1, "pin", "ti")
    assert row_of(rows, "case-000002", "raw", "li")["patient"] == 2
    assert row["metal_mm2"] == case.mask_metal.sum() * 4  # pixels of 2 mm
    error = case.dicom_images["li"].astype(float) - case.images["reference"]
    distance = ndimage.distance_transform_edt(~case.mask_metal, sampling=2.0)
    body = case.mask_body & ~case.mask_metal
    for name, region in (("rmse_near_hu", body & (distance <= 20)), ("rmse_far_hu", body & (distance > 20))):
        assert row[name] == pytest.approx(np.sqrt(np.mean(error[region] ** 2)), rel=1e-5)


def test_images_as_they_are_scored(database, rows, restorer):
    path = database / "case-000002.h5"
    case = read_case(path)
    for kind in PATHS:
        shown = shown_case(path, methods=["li", "limit", "cnn-mar"], kind=kind, restorer=restorer, device="cpu")
        assert set(shown.images_hu) == {"li", "limit", "cnn-mar"}
        np.testing.assert_array_equal(shown.metal, case.mask_metal)
        assert shown.workings.prior_hu.shape == case.mask_metal.shape
        assert shown.workings.trace.any()
        for method, image in shown.images_hu.items():
            error = (image.astype(float) - shown.reference_hu)[~case.mask_metal]
            assert row_of(rows, "case-000002", kind, method)["rmse_hu"] == pytest.approx(np.sqrt(np.mean(error**2)))


def test_the_paths_are_not_mixed(rows):
    for name in NAMES:
        raw, dicom = (row_of(rows, "case-000001", path, name) for path in PATHS)
        # the air's streaks are cut at -1024 HU on one path, so the body tells the factor of 1.5
        assert dicom["rmse_body_hu"] == pytest.approx(1.5 * raw["rmse_body_hu"], rel=0.02)


def test_another_tools_image_is_scored_on_its_path(tmp_path):
    case = toy_case(1)
    case = replace(
        case, images={**case.images, "their-mar": case.images["reference"] + 7, "corrected": case.images["li"]}
    )
    write_case(tmp_path / "case.h5", case)
    rows, _ = evaluate(tmp_path / "case.h5", device="cpu")
    (row,) = [row for row in rows if row["method"] == "their-mar"]
    assert row["path"] == "raw"
    assert row["rmse_hu"] == pytest.approx(7, abs=1e-3)
    assert not any(row["method"] == "corrected" for row in rows)


def test_without_a_network_its_methods_are_left_out(database):
    rows, _ = evaluate(database / "case-000001.h5", device="cpu")
    assert {row["method"] for row in rows} == {*METHODS, LIMIT} - {"cnn", "cnn-mar"}


def test_what_a_case_lacks_is_computed_and_the_limit_is_the_best(tmp_path):
    """A consistent case: with the reference as prior hardly any error is left, which LI does not reach."""
    case = toy_case(3)
    geometry = replace(case.geometry, views=90, bins=128, bin_pitch_rad=0.005)
    projector = Projector(geometry, case.grid, device="cpu")
    attenuation = (case.images["reference"] / 1000 + 1) * case.mu_water_per_mm
    clean = projector.forward(attenuation[None])[0]
    path_mm = projector.forward(case.mask_metal[None])[0]
    metal = clean + 0.1 * path_mm - 0.002 * path_mm**2
    uncorrected, reference = (
        (projector.fbp(sinogram[None], window="hann")[0] / case.mu_water_per_mm - 1) * 1000
        for sinogram in (metal, clean)
    )
    images = {"uncorrected": uncorrected.astype(np.float32), "reference": reference.astype(np.float32)}
    case = replace(case, geometry=geometry, sinogram_metal=metal, sinogram_reference=clean, images=images)
    write_case(tmp_path / "case.h5", replace(case, dicom_images={}))
    rows, skipped = evaluate(tmp_path, device="cpu")
    assert not skipped
    for path in PATHS:
        error = {row["method"]: row["rmse_body_hu"] for row in rows if row["path"] == path}
        assert error[LIMIT] < 0.5 * min(error["li"], error["uncorrected"])
        assert error.keys() == {*METHODS, LIMIT} - {"cnn", "cnn-mar"}


def test_a_case_without_images_of_the_second_path_does_not_change_the_others(tmp_path):
    alone, mixed = (tmp_path / name for name in ("alone", "mixed"))
    for folder in (alone, mixed):
        folder.mkdir()
        write_case(folder / "case-000001.h5", toy_case(1))
    write_case(mixed / "case-000002.h5", replace(toy_case(2), dicom_images={}))
    rows = evaluate(mixed)[0]
    mine = ("case-000001", "dicom", "uncorrected")
    assert row_of(rows, *mine)["rmse_hu"] == row_of(evaluate(alone)[0], *mine)["rmse_hu"]
    # for the other, what the scanner would store stands in
    case = read_case(mixed / "case-000002.h5")
    stored_hu = np.clip(np.rint(case.images["uncorrected"]), *STORED_HU)
    error = (stored_hu - case.images["reference"])[~case.mask_metal]
    expected = pytest.approx(np.sqrt(np.mean(error.astype(float) ** 2)))
    assert row_of(rows, "case-000002", "dicom", "uncorrected")["rmse_hu"] == expected


def test_files_that_cannot_be_scored_are_reported(tmp_path):
    write_toy_database(tmp_path, ("p1",))
    (tmp_path / "broken.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"0" * 500)
    cut = (tmp_path / "case-000001.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(cut[: len(cut) // 2])
    case = toy_case(2)
    write_case(tmp_path / "no-reference.h5", replace(case, images={"uncorrected": case.images["uncorrected"]}))
    write_case(tmp_path / "no-mask.h5", replace(case, mask_metal=None))
    told = []
    rows, skipped = evaluate(tmp_path, device="cpu", progress=lambda done, total: told.append((done, total)))
    assert {row["case"] for row in rows} == {"case-000001"}
    assert {name for name, _ in skipped} == {"broken.h5", "cut.h5", "no-reference.h5", "no-mask.h5"}
    assert all(reason for _, reason in skipped)
    assert told[-1][1] == 5


def test_nothing_to_score(tmp_path):
    with pytest.raises(NoUsableSeriesError):
        evaluate(tmp_path, device="cpu")
    write_case(tmp_path / "case.h5", replace(toy_case(2), mask_metal=None))
    with pytest.raises(NoUsableSeriesError, match="reference"):
        evaluate(tmp_path, device="cpu")


def test_results_on_disk(tmp_path, rows):
    write_results([*rows, {**rows[0], "case": "no-bone", "bone_dice": float("nan")}], tmp_path)
    text = (tmp_path / "metrics.json").read_text()
    written = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert written[:-1] == without_nan(rows)
    assert written[-1]["bone_dice"] is None
    with (tmp_path / "metrics.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["method"] for row in table[:-1]] == [row["method"] for row in rows]
    assert float(table[0]["rmse_hu"]) == rows[0]["rmse_hu"]


def test_patients_seen_in_training(database, tmp_path):
    def card(**data):
        return ModelCard(name="m", arch="cnn", channels=("li",), data=data)

    assert trained_on(database, card()) == []
    assert trained_on(database, card(patients_trained=["p9"], patients_test=["p1"])) == []
    assert trained_on(database, card(patients_trained=["p2", "p9"], patients_validated=["p1"])) == ["p1", "p2"]
    assert trained_on(database, card(patients_trained=["p2"], patients_before=["p1"])) == ["p1", "p2"]
    assert trained_on(database / "case-000001.h5", card(patients_trained=["p1", "p2"])) == ["p1"]
    write_toy_database(tmp_path, ("p1",))
    (tmp_path / "broken.h5").write_bytes(b"no case")
    assert trained_on(tmp_path, card(patients_trained=["p1"])) == ["p1"]


def test_further_models_and_the_ablation_stand_beside_the_first(database, restorer):
    variants = variants_of({"tiny": restorer, "other": restorer}, ablation=True)
    scored, _ = evaluate(database / "case-000001.h5", restorer=restorer, variants=variants, device="cpu")
    for path in PATHS:
        found = {row["method"]: row["rmse_hu"] for row in scored if row["path"] == path}
        # the same network under another name
        assert found["cnn@other"] == found["cnn"]
        assert found["cnn-mar@other"] == found["cnn-mar"]
        assert found["cnn-mar@tiny, image as prior"] == found["cnn-mar@other, image as prior"] != found["cnn-mar"]
        assert "cnn@tiny, image as prior" not in found
    assert variants_of({"tiny": restorer}, ablation=False) == {}
