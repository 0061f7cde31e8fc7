import json
from dataclasses import fields, replace

import h5py
import numpy as np
import pytest

from ctmar.config import TrainingSettings
from ctmar.database import (
    Case,
    list_cases,
    read_case,
    read_images,
    read_index,
    read_info,
    write_case,
    write_index,
)
from ctmar.errors import NoUsableSeriesError, UnsupportedInputError
from ctmar.learning.split import split_cases, split_patients
from data_sim.geometry import FanArc, ImageGrid, Parallel
from tests.ctmar.toy_database import MU_WATER, toy_case, write_toy_database


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "case-000001.h5"
    write_case(path, toy_case(7))
    return path


def write_foreign(path, **attributes):
    """Only what the format calls needed, as another program might write it: float64, fixed strings."""
    with h5py.File(path, "w") as h5:
        h5.attrs["format"] = np.bytes_("ctmar-case")
        h5.attrs["version"] = np.int16(1)
        h5.attrs["mu_water_per_mm"] = 0.02
        h5.attrs["geometry"] = '{"type": "parallel", "views": 4, "bins": 6, "bin_pitch_mm": 2, "arc_rad": 3.14}'
        h5.attrs["image_grid"] = '{"rows": 5, "cols": 7, "pixel_mm": 1}'
        h5["sinogram/metal"] = np.arange(24.0).reshape(4, 6)
        for name, value in attributes.items():
            h5.attrs[name] = value


def test_round_trip(file):
    written, read = toy_case(7), read_case(file)
    for entry in fields(Case):
        before, after = getattr(written, entry.name), getattr(read, entry.name)
        if entry.name in ("images", "dicom_images"):
            assert set(before) == set(after)
            for name, image in before.items():
                np.testing.assert_array_equal(image, after[name])
                assert after[name].dtype == np.float32
        elif isinstance(before, np.ndarray):
            np.testing.assert_array_equal(before, after)
            assert before.dtype == after.dtype
        else:
            assert before == after
    assert [p.name for p in file.parent.iterdir()] == [file.name]


def test_the_file_is_what_the_format_says(file):
    with h5py.File(file) as h5:
        assert (h5.attrs["format"], h5.attrs["version"]) == ("ctmar-case", 1)
        assert json.loads(h5.attrs["image_grid"]) == {"rows": 96, "cols": 96, "pixel_mm": 2.0}
        assert json.loads(h5.attrs["geometry"]) == {
            "type": "fan-arc", "views": 12, "bins": 20, "source_isocentre_mm": 500.0, "bin_pitch_rad": 0.02,
        }  # fmt: skip
        assert h5.attrs["patient"] == "p1"
        assert h5["mask/metal"].dtype == np.uint8
        assert h5["sinogram/metal"].shape == (12, 20)
        assert h5["dicom_path/nmar2"].dtype == np.float32
        assert h5["image/reference"].compression == "gzip"


def test_a_foreign_file_needs_only_what_is_needed(tmp_path):
    write_foreign(tmp_path / "x.h5")
    case = read_case(tmp_path / "x.h5")
    assert case.geometry == Parallel(4, 6, 2.0, 3.14)
    assert case.grid == ImageGrid(5, 7, 1.0)
    np.testing.assert_array_equal(case.sinogram_metal, np.arange(24, dtype=np.float32).reshape(4, 6))
    assert case.mask_metal is None
    assert case.sinogram_reference is None
    assert not case.images
    assert (case.seed, case.patient) == (None, "")


def test_info_and_images_are_read_alone(file):
    assert read_info(file).patient == "p1"
    info, images, metal = read_images(file, folder="dicom_path", names=["li", "reference"])
    case = toy_case(7)
    assert info.geometry == FanArc(12, 20, 500.0, 0.02)
    np.testing.assert_array_equal(images["li"], case.dicom_images["li"])
    np.testing.assert_array_equal(images["reference"], case.images["reference"])
    np.testing.assert_array_equal(metal, case.mask_metal)
    with pytest.raises(UnsupportedInputError, match="has no dicom_path/tv"):
        read_images(file, folder="dicom_path", names=["tv"])


def test_writing_checks_and_leaves_nothing_behind(tmp_path):
    case = toy_case()
    bad = np.full(case.geometry.shape, np.nan, np.float32)
    with pytest.raises(ValueError, match="not finite"):
        write_case(tmp_path / "a.h5", replace(case, sinogram_metal=bad))
    with pytest.raises(ValueError, match="image/li is"):
        write_case(tmp_path / "a.h5", replace(case, images={"li": np.zeros((3, 3), np.float32)}))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_rewrite_keeps_the_old_file(file):
    before = file.read_bytes()
    with pytest.raises(ValueError, match="mask/body"):
        write_case(file, replace(toy_case(), mask_body=np.zeros((2, 2), bool)))
    assert file.read_bytes() == before


@pytest.mark.parametrize("keep", [0, 10, 500, 3000, 0.5, 0.99])
def test_truncated_files(file, keep):
    content = file.read_bytes()
    file.write_bytes(content[: keep if keep >= 1 or keep == 0 else int(len(content) * keep)])
    with pytest.raises(UnsupportedInputError) as caught:
        read_case(file)
    assert caught.value.exit_code == 6
    assert str(file) in str(caught.value)


def test_damaged_compressed_data(file):
    with h5py.File(file) as h5:
        chunk = h5["sinogram/metal"].id.get_chunk_info(0)
    content = bytearray(file.read_bytes())
    middle = chunk.byte_offset + chunk.size // 2
    content[middle : middle + 40] = bytes(40)
    file.write_bytes(content)
    with pytest.raises(UnsupportedInputError, match="damaged"):
        read_case(file)


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("format", "other", "not a case file"),
        ("version", 2, "another version"),
        ("version", "one", "not a number"),
        ("mu_water_per_mm", np.nan, "not a number"),
        ("mu_water_per_mm", 0.192, "mu_water_per_mm"),
        ("mu_water_per_mm", 1.92, "mu_water_per_mm"),
        ("mu_water_per_mm", [0.02, 0.02], "not a number"),
        ("geometry", "{", "geometry"),
        ("geometry", "[1]", "geometry"),
        ("geometry", "3", "geometry"),
        ("geometry", "[" * 100_000, "geometry|damaged"),
        ("geometry", '{"type": "cone"}', "unknown geometry"),
        (
            "geometry",
            '{"type": "parallel", "views": 1e9, "bins": 6, "bin_pitch_mm": 2, "arc_rad": 3}',
            "more than",
        ),
        (
            "geometry",
            '{"type": "parallel", "views": -4, "bins": 6, "bin_pitch_mm": 2, "arc_rad": 3}',
            "positive",
        ),
        (
            "geometry",
            '{"type": "parallel", "views": NaN, "bins": 6, "bin_pitch_mm": 2, "arc_rad": 3}',
            "geometry",
        ),
        (
            "geometry",
            '{"type": "parallel", "views": [4], "bins": 6, "bin_pitch_mm": 2, "arc_rad": 3}',
            "geometry",
        ),
        ("geometry", '{"type": "parallel", "views": 5, "bins": 6, "bin_pitch_mm": 2, "arc_rad": 3}', "shape"),
        ("image_grid", '{"rows": 48, "cols": 48, "pixel_mm": 1e308}', "beyond"),
        ("image_grid", '{"rows": 48, "cols": 48, "pixel_mm": 1e-200}', "beyond"),
        ("image_grid", '{"rows": 100000, "cols": 5, "pixel_mm": 1}', "more than"),
        ("image_grid", '{"rows": 5, "cols": 5}', "image_grid"),
        ("image_grid", '{"rows": 5, "cols": 5, "pixel_mm": 0}', "image_grid"),
        ("image_grid", '{"rows": Infinity, "cols": 5, "pixel_mm": 1}', "image_grid"),
    ],
)
def test_hostile_attributes(tmp_path, attribute, value, message):
    path = tmp_path / "x.h5"
    write_foreign(path, **{attribute: value})
    with pytest.raises(UnsupportedInputError, match=message):
        read_case(path)


def test_a_huge_dataset_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "x.h5"
    write_foreign(path)
    with h5py.File(path, "a") as h5:
        h5.create_dataset("image/li", (10**6, 10**6), np.float32, chunks=(1024, 1024))
    with pytest.raises(UnsupportedInputError, match="shape"):
        read_case(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_values_that_are_not_finite(tmp_path, value):
    path = tmp_path / "x.h5"
    write_foreign(path)
    with h5py.File(path, "a") as h5:
        h5["sinogram/metal"][2, 2] = value
    with pytest.raises(UnsupportedInputError, match="not finite"):
        read_case(path)


@pytest.mark.parametrize("kind", ["text", "group", "external link", "soft link", "external storage", "missing"])
def test_a_sinogram_that_is_not_plain_numbers_of_this_file(tmp_path, kind):
    path = tmp_path / "x.h5"
    write_foreign(path)
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(96))
    with h5py.File(path, "a") as h5:
        h5["other"] = h5["sinogram/metal"][()]
        del h5["sinogram/metal"]
        if kind == "text":
            h5["sinogram/metal"] = np.full((4, 6), b"abc")
        elif kind == "group":
            h5.create_group("sinogram/metal")
        elif kind == "external link":
            h5["sinogram/metal"] = h5py.ExternalLink(str(secret), "/x")
        elif kind == "soft link":
            h5["sinogram/metal"] = h5py.SoftLink("/other")
        elif kind == "external storage":
            h5.create_dataset("sinogram/metal", (4, 6), np.float32, external=[(str(secret), 0, 96)])
    with pytest.raises(UnsupportedInputError, match="sinogram/metal"):
        read_case(path)


def test_not_a_case_file_at_all(tmp_path):
    text = tmp_path / "notes.h5"
    text.write_text("hello")
    for path in (text, tmp_path / "none.h5", tmp_path):
        with pytest.raises(UnsupportedInputError):
            read_case(path)


def test_listing(tmp_path):
    write_toy_database(tmp_path, ("p1", "p1"))
    (tmp_path / ".case-000009.h5.1.partial").touch()
    (tmp_path / ".hidden.h5").touch()
    assert [p.name for p in list_cases(tmp_path)] == ["case-000001.h5", "case-000002.h5"]
    for folder, words in ((tmp_path / "none", "not a folder"), (tmp_path / "new", "no case files")):
        if words == "no case files":
            folder.mkdir()
        with pytest.raises(NoUsableSeriesError, match=words) as caught:
            list_cases(folder)
        assert caught.value.exit_code == 3


def test_index_round_trip(tmp_path):
    rows = [
        {"case": "case-000001", "patient": "p,1", "seed": 4, "kvp": 120},
        {"case": "case-000002", "patient": "é"},
    ]
    write_index(tmp_path, rows)
    read = read_index(tmp_path)
    assert list(read[0]) == ["case", "patient", "implant", "material", "seed", "source", "kvp"]
    assert [row["patient"] for row in read] == ["p,1", "é"]
    assert (read[0]["seed"], read[0]["kvp"], read[1]["kvp"]) == ("4", "120", "")
    with pytest.raises(NoUsableSeriesError):
        read_index(tmp_path / "none")


@pytest.mark.parametrize(("count", "expected"), [(2, 1), (3, 1), (5, 1), (10, 2), (41, 8)])
def test_split_is_by_whole_patients_and_repeatable(count, expected):
    patients = [f"p{k}" for k in range(count)]
    train, validation = split_patients(patients, validation_fraction=0.2, seed=3)
    assert len(validation) == expected
    assert not set(train) & set(validation)
    assert sorted(train + validation) == sorted(patients)
    assert (train, validation) == split_patients(patients[::-1] * 3, validation_fraction=0.2, seed=3)


def test_other_seeds_split_otherwise():
    patients = [f"p{k}" for k in range(20)]
    splits = {split_patients(patients, validation_fraction=0.2, seed=seed)[1] for seed in range(5)}
    assert len(splits) > 1


def test_one_patient_cannot_be_split():
    with pytest.raises(ValueError, match="two patients"):
        split_patients(["a", "a"], validation_fraction=0.2, seed=0)


def test_cases_of_a_patient_stay_together_and_excluded_ones_stay_out(tmp_path):
    cases = list_cases(write_toy_database(tmp_path, ("a", "b", "c", "a", "b", "c", "d")))
    split = split_cases(cases, TrainingSettings(exclude_patients=("d",), validation_fraction=0.4))
    assert split.by == "patient"
    assert not set(split.train_patients) & set(split.validation_patients)
    assert set(split.train_patients + split.validation_patients) == {"a", "b", "c"}
    assert len(split.train) + len(split.validation) == 6
    assert {read_info(case).patient for case in split.train} == set(split.train_patients)
    assert {read_info(case).patient for case in split.validation} == set(split.validation_patients)


def test_patients_to_validate_on_can_be_named(tmp_path, caplog):
    cases = list_cases(write_toy_database(tmp_path, ("a", "b", "c", "a", "b", "c", "d")))
    split = split_cases(cases, TrainingSettings(exclude_patients=("d",), validation_patients=("b", "typo")))
    assert split.train_patients == ("a", "c")
    assert split.validation_patients == ("b",)
    assert len(split.train) == 4
    assert "'typo'" in caplog.text
    for nobody in ("typo", "d"):
        with pytest.raises(NoUsableSeriesError, match="0 to validate on"):
            split_cases(cases, TrainingSettings(exclude_patients=("d",), validation_patients=(nobody,)))


def test_a_single_patient_is_split_by_case_with_a_warning(tmp_path, caplog):
    cases = list_cases(write_toy_database(tmp_path, ("a", "a", "a")))
    split = split_cases(cases, TrainingSettings(exclude_patients=("typo",)))
    assert split.by == "case"
    assert set(split.train) | set(split.validation) == set(cases)
    assert "same patient" in caplog.text
    assert "'typo'" in caplog.text


def test_too_few_cases(tmp_path):
    cases = list_cases(write_toy_database(tmp_path, ("a", "b")))
    with pytest.raises(NoUsableSeriesError, match="at least two"):
        split_cases(cases, TrainingSettings(exclude_patients=("b",)))


def test_mu_of_the_toy_is_read(file):
    assert read_info(file).mu_water_per_mm == MU_WATER
