import json
from dataclasses import asdict, replace

import numpy as np
import pydicom
import pytest

from ctmar import pipeline, slice_correction
from ctmar.correction import correct_series, metal_of
from ctmar.correction_settings import CorrectionSettings
from ctmar.detection import DetectionSettings
from ctmar.dicom import output
from ctmar.dicom.output import SeriesStack
from ctmar.dicom.series import choose_series, find_series
from ctmar.dicom.synthetic import write_ct_series
from ctmar.errors import OutputExistsError, UnsupportedInputError, UsageError
from ctmar.methods import Correction
from ctmar.restorer import NetworkRestorer
from ctmar.square_grid import reprojection_geometry, square_grid
from data_sim.geometry import ImageGrid
from tests.ctmar.small import MARKER, METAL, SIDE, small_volumes, tree, write_small_series, write_tiny_model

LI = CorrectionSettings("li", device="cpu")

pytestmark = pytest.mark.usefixtures("small_fan")


@pytest.fixture
def source(tmp_path, volumes):
    write_small_series(tmp_path / "source", volumes[0])
    return tmp_path / "source"


def series_of(folder):
    return choose_series(find_series(folder))[0]


def masks_of(folder, settings=LI):
    series = series_of(folder)
    found, unreadable = metal_of(SeriesStack(series), series, settings)
    assert not unreadable
    return list(found.masks)


def pixels(folder):
    files = sorted(folder.glob("0*.dcm"))
    return [pydicom.dcmread(file).pixel_array for file in files]


def test_slices_with_metal_are_better_and_the_others_identical(tmp_path, source, volumes):
    dirty, clean = volumes
    before = tree(source)
    result = correct_series(series_of(source), tmp_path / "out", LI)
    assert tree(source) == before
    assert [s.status for s in result.slices] == ["no metal", "corrected", "corrected", "no metal"]
    assert (result.corrected, result.failed, result.warnings) == (2, (), ())
    metal = np.hypot(*(np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2)) < 24
    metal &= dirty[1] >= 2500
    body = (clean[1] > -500) & ~metal
    for k, (old, new) in enumerate(zip(pixels(source), pixels(tmp_path / "out"), strict=True)):
        if k not in METAL:
            np.testing.assert_array_equal(new, old)
            continue
        np.testing.assert_array_equal(new[metal], old[metal])
        hu = {"old": old - 1024.0, "new": new - 1024.0}
        error = {name: np.sqrt(np.mean((image - clean[k])[body] ** 2)) for name, image in hu.items()}
        assert error["old"] > 40
        assert error["new"] < 0.8 * error["old"]
        changed = np.abs(hu["new"] - hu["old"])
        measures = result.slices[k].measures
        assert measures["largest_change_hu"] == pytest.approx(changed.max(), abs=1)
        measured = changed[(volumes[0][k] > -1024) & ~masks_of(source)[k]]
        assert measures["mean_change_hu"] == pytest.approx(measured.mean(), abs=2)  # air is clipped in the file
        assert 12 <= result.slices[k].metal_mm2 <= 100  # two pins of 12.6 mm^2, grown by a pixel


def test_padding_comes_back_as_it_was_stored(tmp_path, volumes):
    dirty = volumes[0].copy()
    padding = dirty[0] == -1024
    dirty[:, padding] = -2000
    write_ct_series(tmp_path / "source", dirty, signed=True, bits_stored=16, intercept=0.0)
    result = correct_series(series_of(tmp_path / "source"), tmp_path / "out", LI)
    assert result.corrected == 2
    for image in pixels(tmp_path / "out"):
        assert image.dtype == np.int16
        np.testing.assert_array_equal(image == -2000, padding)


def test_every_slice_says_where_it_comes_from_and_what_was_done(tmp_path, source):
    result = correct_series(series_of(source), tmp_path / "out", LI)
    for k in range(4):
        old, new = (pydicom.dcmread(folder / f"{k + 1:04d}.dcm") for folder in (source, tmp_path / "out"))
        assert new.SeriesInstanceUID == result.derived_uid != old.SeriesInstanceUID
        assert new.StudyInstanceUID == old.StudyInstanceUID
        assert new.SourceImageSequence[0].ReferencedSOPInstanceUID == old.SOPInstanceUID == result.slices[k].source_uid
        assert new.ImageType[0] == "DERIVED"
        assert "method li" in new.DerivationDescription
        assert ("pixels identical to the source" in new.DerivationDescription) == (k not in METAL)
        for keyword in ("PatientName", "PatientID", "ImagePositionPatient", "PixelSpacing", "InstanceNumber", "KVP"):
            assert new[keyword].value == old[keyword].value


def test_the_model_is_named_in_the_slices_and_in_the_result(tmp_path, source):
    restorer = NetworkRestorer(write_tiny_model(tmp_path), device="cpu")
    result = correct_series(series_of(source), tmp_path / "out", replace(LI, method="cnn-mar"), restorer=restorer)
    assert (result.model, result.model_sha256) == ("tiny", restorer.card.sha256)
    described = pydicom.dcmread(tmp_path / "out" / "0002.dcm").DerivationDescription
    assert "tiny" in described
    assert restorer.card.sha256 in described


def test_batches_change_nothing(tmp_path, source, monkeypatch):
    correct_series(series_of(source), tmp_path / "whole", LI)
    monkeypatch.setattr(pipeline, "SLICES_AT_ONCE", 1)
    told = []
    correct_series(series_of(source), tmp_path / "single", LI, tell=lambda *told_: told.append(told_))
    for one, other in zip(pixels(tmp_path / "whole"), pixels(tmp_path / "single"), strict=True):
        np.testing.assert_allclose(one.astype(int), other.astype(int), atol=1)
    assert told == [(what, k, 4) for what in ("finding metal", "correcting") for k in (1, 2, 3, 4)]


def test_slices_of_two_sizes(tmp_path, volumes):
    dirty, _ = volumes
    write_small_series(tmp_path / "source", dirty)
    write_small_series(tmp_path / "other", dirty[:, 4:-4, 4:-4])
    (tmp_path / "other" / "0003.dcm").replace(tmp_path / "source" / "0003.dcm")
    result = correct_series(series_of(tmp_path / "source"), tmp_path / "out", LI)
    assert result.corrected == 2
    assert [image.shape for image in pixels(tmp_path / "out")] == [(64, 64), (64, 64), (56, 56), (64, 64)]


def test_no_metal_at_all(tmp_path, volumes):
    write_small_series(tmp_path / "source", volumes[1])
    result = correct_series(series_of(tmp_path / "source"), tmp_path / "out", replace(LI, seg=True, report=True))
    assert result.corrected == 0
    assert any("No metal" in text for text in result.warnings)
    for old, new in zip(pixels(tmp_path / "source"), pixels(tmp_path / "out"), strict=True):
        np.testing.assert_array_equal(old, new)
    assert (tmp_path / "out" / "report.html").exists()
    assert not (tmp_path / "out" / "metal-segmentation.dcm").exists()


def test_a_truncated_slice_is_left_out_and_reported(tmp_path, source):
    damaged = source / "0002.dcm"
    damaged.write_bytes(damaged.read_bytes()[:-3000])
    result = correct_series(series_of(source), tmp_path / "out", LI)
    assert [s.status for s in result.slices] == ["no metal", "unreadable", "corrected", "no metal"]
    assert "0002.dcm" in result.failed[0].file
    assert "0002.dcm" not in result.failed[0].message
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["0001.dcm", "0003.dcm", "0004.dcm", "report.json"]


def test_values_that_are_not_finite_never_reach_a_file(tmp_path, source, monkeypatch):
    image = Correction.image

    def one_nan(self, method):
        stack = image(self, method).copy()
        stack[0, 20, 20] = np.nan
        return stack

    monkeypatch.setattr(Correction, "image", one_nan)
    result = correct_series(series_of(source), tmp_path / "out", LI)
    assert [s.status for s in result.slices] == ["no metal", "failed", "corrected", "no metal"]
    np.testing.assert_array_equal(pixels(tmp_path / "out")[1], pixels(source)[1])


def test_an_error_in_a_method_leaves_the_old_output(tmp_path, source, monkeypatch):
    def fail(self, method):
        raise RuntimeError("broken")

    correct_series(series_of(source), tmp_path / "out", LI)
    before = tree(tmp_path)
    monkeypatch.setattr(Correction, "image", fail)
    with pytest.raises(RuntimeError, match="broken"):
        correct_series(series_of(source), tmp_path / "out", replace(LI, overwrite=True))
    assert tree(tmp_path) == before


def test_an_output_that_exists_is_refused(tmp_path, source):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").touch()
    with pytest.raises(OutputExistsError):
        correct_series(series_of(source), tmp_path / "out", LI)


def test_report_without_patient_data(tmp_path, source):
    damaged = source / "0002.dcm"
    damaged.write_bytes(damaged.read_bytes()[:-3000])
    result = correct_series(series_of(source), tmp_path / "out", replace(LI, report=True))
    html = (tmp_path / "out" / "report.html").read_text()
    text = (tmp_path / "out" / "report.json").read_text()
    assert MARKER not in html + text
    assert str(tmp_path) not in html + text  # a folder may be called after the patient
    report = json.loads(text)
    assert report["settings"]["method"] == "li"
    assert report["derived_uid"] == result.derived_uid
    assert [s["status"] for s in report["slices"]] == [s.status for s in result.slices]
    assert "Not for diagnostic use" in html or "not for diagnostic use" in html
    assert "truncated" in html
    assert "truncated" in text
    assert MARKER not in json.dumps(asdict(result))


def test_metal_as_segmentation(tmp_path, source, volumes):
    pytest.importorskip("highdicom")
    correct_series(series_of(source), tmp_path / "out", replace(LI, seg=True))
    seg = pydicom.dcmread(tmp_path / "out" / "metal-segmentation.dcm")
    assert seg.Modality == "SEG"
    assert seg.NumberOfFrames == len(METAL)
    referenced = {item.ReferencedSOPInstanceUID for item in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert {pydicom.dcmread(source / f"{k + 1:04d}.dcm").SOPInstanceUID for k in METAL} <= referenced
    frames = seg.pixel_array > 0
    bright = volumes[0][1] >= 2500
    assert (frames[0] & bright).sum() == bright.sum()
    assert frames[0].sum() < 5 * bright.sum()


def test_own_mask(tmp_path, source):
    own = np.zeros((4, SIDE, SIDE), bool)
    own[0, 30:34, 30:34] = True
    own[3, :4, :4] = True  # in the padding
    np.save(tmp_path / "own.npy", own)
    settings = replace(LI, mask=tmp_path / "own.npy", report=True)
    result = correct_series(series_of(source), tmp_path / "out", settings)
    assert [s.status for s in result.slices] == ["corrected", "no metal", "no metal", "no metal"]
    assert result.slices[0].metal_mm2 == 16
    assert json.loads((tmp_path / "out" / "report.json").read_text())["settings"]["own_mask"] is True
    np.save(tmp_path / "own.npy", np.ones_like(own))  # leaves no pixel to measure a change in
    everything = correct_series(series_of(source), tmp_path / "everything", settings)
    assert [s.message for s in everything.failed] == ["metal would be 100% of the patient: the mask is wrong"] * 4
    np.save(tmp_path / "own.npy", own[:3])
    with pytest.raises(UsageError, match=r"\(3, 64, 64\)"):
        correct_series(series_of(source), tmp_path / "other", settings)
    assert not (tmp_path / "other").exists()


def test_find_metal(source):
    assert {k for k, mask in enumerate(masks_of(source)) if mask.any()} == set(METAL)
    higher = replace(LI, metal=DetectionSettings(threshold_hu=3050))
    assert not any(mask.any() for mask in masks_of(source, higher))


def test_strict_stops_at_a_slice_that_cannot_be_read(tmp_path, source):
    damaged = source / "0002.dcm"
    damaged.write_bytes(damaged.read_bytes()[:-3000])
    for settings in (replace(LI, strict=True), replace(LI, strict=True, mask=own_mask(tmp_path))):
        with pytest.raises(UnsupportedInputError, match=r"slice 2: .*0002\.dcm.*--strict"):
            correct_series(series_of(source), tmp_path / "out", settings)
    assert not (tmp_path / "out").exists()


def own_mask(folder):
    masks = np.zeros((4, SIDE, SIDE), bool)
    masks[list(METAL), 30:34, 30:34] = True
    np.save(folder / "own.npy", masks)
    return folder / "own.npy"


def test_a_correction_that_cannot_be_right_is_not_written(tmp_path, source, monkeypatch):
    image = Correction.image
    monkeypatch.setattr(Correction, "image", lambda self, method: image(self, method) * np.float32(3) - np.float32(900))
    whole = replace(LI, seg=True, difference=True, adaptive=False)
    result = correct_series(series_of(source), tmp_path / "out", whole)
    assert [s.status for s in result.slices] == ["no metal", "failed", "failed", "no metal"]
    assert all("mean" in s.message for s in result.failed)
    for old, new in zip(pixels(source), pixels(tmp_path / "out"), strict=True):
        np.testing.assert_array_equal(new, old)
    written = pydicom.dcmread(tmp_path / "out" / "0002.dcm")
    assert "pixels identical to the source" in written.DerivationDescription
    assert "mean" in written.DerivationDescription
    assert not (tmp_path / "out" / "difference").exists()
    with pytest.raises(UnsupportedInputError, match=r"slice 2: .*--strict"):
        correct_series(series_of(source), tmp_path / "strict", replace(whole, strict=True))
    assert not (tmp_path / "strict").exists()


def test_strength(tmp_path, source):
    for strength in (0.0, 0.5, 1.0):
        correct_series(series_of(source), tmp_path / f"{strength:g}", replace(LI, strength=strength))
    none, half, whole = (np.stack(pixels(tmp_path / name)).astype(float) for name in ("0", "0.5", "1"))
    np.testing.assert_array_equal(none, np.stack(pixels(source)))
    inside = (whole > 0) & (none > 0)  # not clipped
    np.testing.assert_allclose(half[inside], ((none + whole) / 2)[inside], atol=1)


def test_the_series_of_differences(tmp_path, source):
    result = correct_series(series_of(source), tmp_path / "out", replace(LI, difference=True))
    files = sorted((tmp_path / "out" / "difference").iterdir())
    assert [file.name for file in files] == ["0002.dcm", "0003.dcm"]
    changes = [pydicom.dcmread(file) for file in files]
    assert len({change.SOPInstanceUID for change in changes}) == 2
    assert {change.SeriesInstanceUID for change in changes}.isdisjoint({result.source_uid, result.derived_uid})
    for k, change in zip(METAL, changes, strict=True):
        corrected = pydicom.dcmread(tmp_path / "out" / f"{k + 1:04d}.dcm")
        expected = pixels(tmp_path / "out")[k].astype(int) - pixels(source)[k]
        np.testing.assert_array_equal(change.pixel_array, expected)
        assert (change.RescaleSlope, change.RescaleIntercept) == (1, 0)
        assert change.ImagePositionPatient == corrected.ImagePositionPatient
        sources = {item.ReferencedSOPInstanceUID for item in change.SourceImageSequence}
        assert sources == {corrected.SOPInstanceUID, result.slices[k].source_uid}


def test_previews(tmp_path, source):
    pytest.importorskip("highdicom")
    correct_series(series_of(source), tmp_path / "out", replace(LI, preview=True))
    files = sorted((tmp_path / "out" / "preview").iterdir())
    assert [file.name for file in files] == ["0002.dcm", "0003.dcm"]
    shown = pydicom.dcmread(files[0])
    corrected = pydicom.dcmread(tmp_path / "out" / "0002.dcm")
    assert shown.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
    assert shown.StudyInstanceUID == corrected.StudyInstanceUID
    assert shown.pixel_array.shape[1] == 3 * SIDE + 12
    assert shown.SourceImageSequence[0].ReferencedSOPInstanceUID == corrected.SOPInstanceUID


def test_the_segmentation_is_named_by_the_images_it_was_used_for(tmp_path, source):
    pytest.importorskip("highdicom")
    correct_series(series_of(source), tmp_path / "out", replace(LI, seg=True))
    seg = pydicom.dcmread(tmp_path / "out" / "metal-segmentation.dcm")
    for k in range(4):
        items = pydicom.dcmread(tmp_path / "out" / f"{k + 1:04d}.dcm").SourceImageSequence
        masks = [i for i in items if i.PurposeOfReferenceCodeSequence[0].CodeValue == "121321"]
        assert [i.ReferencedSOPInstanceUID for i in masks] == ([seg.SOPInstanceUID] if k in METAL else [])


def test_pixels_that_are_not_square(tmp_path, volumes):
    dirty, clean = volumes
    thin = np.repeat(dirty, 2, axis=2)
    write_small_series(tmp_path / "source", thin, pixel_mm=(1.0, 0.5))
    result = correct_series(series_of(tmp_path / "source"), tmp_path / "out", LI)
    assert result.corrected == 2
    write_small_series(tmp_path / "square", dirty)
    correct_series(series_of(tmp_path / "square"), tmp_path / "reference", LI)
    for k in range(4):
        old, new = pixels(tmp_path / "source")[k], pixels(tmp_path / "out")[k]
        assert new.shape == (SIDE, 2 * SIDE)
        if k not in METAL:
            np.testing.assert_array_equal(new, old)
            continue
        truth = np.repeat(clean[k], 2, axis=1)
        body = (truth > -500) & (thin[k] < 2500)
        before, after = (np.sqrt(np.mean((image - 1024.0 - truth)[body] ** 2)) for image in (old, new))
        assert after < 0.8 * before


def test_a_square_grid_keeps_places():
    square = square_grid((40, 60), (1.5, 1.0))
    assert square.grid.shape == (60, 60)
    rows, cols = np.mgrid[:40, :60].astype(np.float32)
    up = square.onto(rows * 1.5 + cols)
    y, x = np.mgrid[:60, :60].astype(float)
    expected = (y - 29.5) + 19.5 * 1.5 + x
    np.testing.assert_allclose(up[3:-3], expected[3:-3], atol=1e-3)
    np.testing.assert_allclose(square.back(up)[3:-3], (rows * 1.5 + cols)[3:-3], atol=1e-3)
    mask = np.zeros((40, 60), bool)
    mask[20, 30] = True
    assert square.mask_onto(mask).sum() >= 2
    assert square_grid((4, 4), (0.7, 0.7003)).same


@pytest.mark.parametrize(("side", "pixel_mm"), [(512, 0.4), (512, 0.98), (768, 0.98), (2048, 0.25)])
def test_the_reprojection_sees_the_whole_circle(side, pixel_mm):
    fan = reprojection_geometry(ImageGrid(side, side, pixel_mm))
    half_angle = (fan.bins - 1) / 2 * fan.bin_pitch_rad
    assert fan.source_isocentre_mm * np.sin(half_angle) >= side * pixel_mm / 2 * 0.995
    assert fan.bins >= 920


def test_an_image_wider_than_a_gantry():
    with pytest.raises(UnsupportedInputError, match="wider"):
        reprojection_geometry(ImageGrid(512, 512, 3.0))


def test_a_preview_that_fails_leaves_the_slice_as_it_is(tmp_path, source, monkeypatch):
    pytest.importorskip("highdicom")

    def refuse(*_, **__):
        raise UnsupportedInputError("highdicom refuses")

    monkeypatch.setattr(output, "preview_image", refuse)
    result = correct_series(series_of(source), tmp_path / "out", replace(LI, preview=True))
    assert [s.status for s in result.slices] == ["no metal", "corrected", "corrected", "no metal"]
    assert any("no preview of slices 2-3: highdicom refuses" in text for text in result.warnings)


def test_a_slice_wider_than_a_gantry_is_carried_through(tmp_path, source, monkeypatch):
    geometry = slice_correction.reprojection_geometry

    def too_wide(grid):
        if grid.shape != (SIDE, SIDE):
            raise UnsupportedInputError("wider than any CT gantry.")
        return geometry(grid)

    write_small_series(tmp_path / "other", small_volumes()[0][:, 4:-4, 4:-4])
    (tmp_path / "other" / "0003.dcm").replace(source / "0003.dcm")
    monkeypatch.setattr(slice_correction, "reprojection_geometry", too_wide)
    result = correct_series(series_of(source), tmp_path / "out", LI)
    assert [s.status for s in result.slices] == ["no metal", "corrected", "failed", "no metal"]
    np.testing.assert_array_equal(pixels(tmp_path / "out")[2], pixels(source)[2])


def test_what_was_done_is_in_the_description(tmp_path, source):
    correct_series(series_of(source), tmp_path / "out", replace(LI, strength=0.5, adaptive=False))
    assert "strength 0.5, whole" in pydicom.dcmread(tmp_path / "out" / "0002.dcm").DerivationDescription
    settings = replace(LI, metal=DetectionSettings(threshold_hu=2400))
    correct_series(series_of(source), tmp_path / "lower", settings)
    assert "metal threshold_hu 2400" in pydicom.dcmread(tmp_path / "lower" / "0002.dcm").DerivationDescription
    correct_series(series_of(source), tmp_path / "masked", replace(LI, mask=own_mask(tmp_path)))
    assert "own mask" in pydicom.dcmread(tmp_path / "masked" / "0002.dcm").DerivationDescription


def test_differences_are_no_series_to_correct(tmp_path, source):
    correct_series(series_of(source), tmp_path / "out", replace(LI, difference=True))
    found = find_series(tmp_path / "out")
    assert [len(one.slices) for one in found.series] == [4]
    assert sum("a difference of images" in one.reason for one in found.skipped) == 2
