"""ctmar as a library: the same results as the command line's."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

import ctmar
from ctmar.correction_settings import CorrectionSettings
from ctmar.detection import detect_in_image
from ctmar.errors import ModelError, NoUsableSeriesError, SeveralSeriesError, UsageError
from ctmar.methods import Correction
from data_sim.projection import Projector
from data_sim.scanner import KERNEL
from data_sim.units import MU_WATER_PER_MM, hu_to_mu, mu_to_hu
from tests.ctmar.small import GEOMETRY, GRID, METAL, small_volumes, tree, write_small_series

LI = CorrectionSettings("li", device="cpu")
WHOLE_LI = CorrectionSettings("li", adaptive=False, device="cpu")
WHOLE = CorrectionSettings("li", adaptive=False, device="cpu")

pytestmark = pytest.mark.usefixtures("small_fan")


def test_everything_public_is_there():
    assert set(ctmar.__all__) <= set(dir(ctmar))
    for name in ctmar.__all__:
        assert getattr(ctmar, name) is not None
    assert ctmar.Correction is Correction
    with pytest.raises(AttributeError, match="corect"):
        _ = ctmar.corect


def test_importing_ctmar_takes_no_time():
    code = "import sys, ctmar; sys.exit(any(name in sys.modules for name in ('torch', 'numba', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_images_as_from_a_series(tmp_path, volumes):
    """Arrays in, and the same slices as DICOM: the same but for the whole HU from -1024 on that DICOM stores."""
    dirty = volumes[0]
    write_small_series(tmp_path / "series", dirty)
    result = ctmar.correct_series(str(tmp_path / "series"), str(tmp_path / "out"), LI)
    assert [s.status == "corrected" for s in result.slices] == [k in METAL for k in range(4)]
    images = ctmar.correct(np.where(dirty > -1024, dirty, -1000), LI, pixel_mm=1.0, slice_mm=2.0)
    assert images.dtype == np.float32
    for k, file in enumerate(sorted((tmp_path / "out").glob("0*.dcm"))):
        ds = pydicom.dcmread(file)
        stored = ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
        inside = dirty[k] > -1024
        np.testing.assert_allclose(np.maximum(images[k], -1024)[inside], stored[inside], atol=2)


def test_a_single_image_is_its_own_stack(volumes):
    dirty, clean = volumes
    one = ctmar.correct(dirty[1], WHOLE, pixel_mm=(1.0, 1.0))
    assert one.shape == dirty[1].shape
    np.testing.assert_array_equal(one, ctmar.correct(dirty[1:2], WHOLE, pixel_mm=1.0)[0])
    body = (clean[1] > -500) & ~ctmar.find_metal(dirty[1], pixel_mm=1.0)
    assert np.std((one - clean[1])[body]) < np.std((dirty[1] - clean[1])[body])


def test_without_metal_nothing_changes(volumes):
    clean = volumes[1]
    np.testing.assert_array_equal(ctmar.correct(clean, LI, pixel_mm=1.0, slice_mm=1.0), clean.astype(np.float32))


def test_own_metal_is_taken(volumes):
    dirty = volumes[0]
    metal = dirty > 2500
    found = ctmar.correct(dirty, LI, pixel_mm=1.0, metal=metal)
    assert (found[1] != dirty[1]).any()
    np.testing.assert_array_equal(found[metal], dirty[metal])
    np.testing.assert_array_equal(ctmar.correct(dirty, LI, pixel_mm=1.0, metal=np.zeros(GRID.shape, bool)), dirty)


def test_find_metal_as_the_detection_does(volumes):
    dirty = volumes[0]
    expected = detect_in_image(dirty[1].astype(np.float32), (1.0, 1.0)).masks[0]
    assert expected.any()
    np.testing.assert_array_equal(ctmar.find_metal(dirty[1], pixel_mm=1.0), expected)
    stack = ctmar.find_metal(dirty, pixel_mm=1.0, slice_mm=2.0)
    assert stack.any(axis=(1, 2)).tolist() == [k in METAL for k in range(4)]


def test_a_slice_that_fails_its_checks_comes_back_with_a_warning(volumes):
    dirty = volumes[0][1].astype(np.float32)

    def broken(correction):
        return np.full_like(correction.uncorrected_hu, np.nan)

    ctmar.register_method("broken", broken)
    with pytest.warns(UserWarning, match="slice 1 is as it was"):
        image = ctmar.correct(dirty, CorrectionSettings("broken", device="cpu"), pixel_mm=1.0)
    np.testing.assert_array_equal(image, dirty)


def test_sinograms():
    dirty = small_volumes(2, metal=(1,))[0]
    sinograms = Projector(GEOMETRY, GRID, device="cpu").forward(hu_to_mu(dirty, MU_WATER_PER_MM))
    projector = Projector(GEOMETRY, GRID, device="cpu")
    uncorrected = mu_to_hu(projector.fbp(sinograms, window=KERNEL), MU_WATER_PER_MM)
    metal = np.hypot(*(np.mgrid[:64, :64] - 31.5)) < 3
    metals = np.stack([np.zeros_like(metal), metal])
    images = ctmar.correct(sinograms, WHOLE_LI, geometry=GEOMETRY, grid=GRID, metal=metals)
    np.testing.assert_allclose(images[0], uncorrected[0], atol=0.01)
    expected = Correction(sinograms[1:], uncorrected[1:], metals[1:], projector, mu_water_per_mm=MU_WATER_PER_MM).image(
        "li"
    )
    np.testing.assert_allclose(images[1], expected[0], atol=0.01)
    half_li = CorrectionSettings("li", strength=0.5, adaptive=False, device="cpu")
    half = ctmar.correct(sinograms[1], half_li, geometry=GEOMETRY, grid=GRID, metal=metal)
    np.testing.assert_allclose(half, (expected[0] + uncorrected[1]) / 2, atol=0.01)


def test_sinograms_whose_metal_is_found():
    """More of them than are corrected at once; an own mask in the settings is ignored."""
    dirty = np.repeat(small_volumes(1, metal=(0,))[0], 9, axis=0)
    sinograms = Projector(GEOMETRY, GRID, device="cpu").forward(hu_to_mu(dirty, MU_WATER_PER_MM))
    settings = CorrectionSettings("li", device="cpu", mask=Path("ignored.npy"))
    images = ctmar.correct(sinograms, settings, geometry=GEOMETRY, grid=GRID)
    assert (images == images[0]).all()
    uncorrected = ctmar.correct(
        sinograms[0], CorrectionSettings("uncorrected", device="cpu"), geometry=GEOMETRY, grid=GRID
    )
    assert np.abs(images[8] - uncorrected).max() > 50


def test_what_is_not_finite_is_not_given_back():
    sinogram = np.ones(GEOMETRY.shape)
    metal = np.zeros(GRID.shape, bool)
    metal[30:33, 30:33] = True
    ctmar.register_method("nan", lambda correction: np.full(correction.metal.shape, np.nan))
    options = {"geometry": GEOMETRY, "grid": GRID, "metal": metal}
    with pytest.warns(UserWarning, match="slice 1 is as it was"):
        image = ctmar.correct(sinogram, CorrectionSettings("nan", device="cpu"), **options)
    np.testing.assert_array_equal(
        image, ctmar.correct(sinogram, CorrectionSettings("uncorrected", device="cpu"), **options)
    )


def test_the_source_is_never_written_to(tmp_path, volumes):
    write_small_series(tmp_path / "d" / "series", volumes[0])
    ctmar.correct_series(tmp_path / "d" / "series", tmp_path / "d" / "corrected", LI)
    before = tree(tmp_path)
    overwriting = replace(LI, overwrite=True)
    for out in ("d", "d/series", "d/series/out"):
        with pytest.raises(UsageError, match="source"):
            ctmar.correct_series(tmp_path / "d" / "series", tmp_path / out, overwriting)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (np.zeros((64, 64)), {}, "images need pixel_mm"),
        (np.zeros((64, 64)), {"pixel_mm": 1.0, "geometry": GEOMETRY, "grid": GRID}, "images need pixel_mm"),
        (np.zeros((64, 64)), {"geometry": GEOMETRY}, "sinograms need geometry and grid"),
        (np.zeros((64, 64)), {"geometry": GEOMETRY, "grid": GRID}, r"are \(120, 128\), not \(64, 64\)"),
        (np.zeros((3, 64, 64)), {"pixel_mm": 1.0}, "slice_mm"),
        (np.zeros((64, 64)), {"pixel_mm": -1.0}, "must be positive"),
        (np.zeros((64, 64)), {"pixel_mm": np.inf}, "must be positive"),
        (np.zeros((2, 64, 64)), {"pixel_mm": 1.0, "slice_mm": 0}, "must be positive"),
        (np.zeros((120, 128)), {"geometry": GEOMETRY, "grid": GRID, "mu_water_per_mm": 0}, "must be positive, not 0"),
        (np.zeros(64), {"pixel_mm": 1.0}, r"not an array \(64,\)"),
        (np.full((64, 64), np.nan), {"pixel_mm": 1.0}, "not finite"),
        (np.zeros((64, 64)), {"pixel_mm": 1.0, "metal": np.zeros((64, 64))}, "of bool, not of float64"),
        (np.zeros((64, 64)), {"pixel_mm": 1.0, "metal": np.zeros((9, 9), bool)}, r"metal is \(9, 9\)"),
    ],
)
def test_what_does_not_fit(data, options, message):
    with pytest.raises(ValueError, match=message):
        ctmar.correct(data, LI, **options)


def test_series_are_chosen(tmp_path, volumes):
    for uid in ("2.25.1", "2.25.2"):
        write_small_series(tmp_path / "two" / uid, volumes[0], series_uid=uid)
    with pytest.raises(SeveralSeriesError):
        ctmar.correct_series(tmp_path / "two", tmp_path / "out", LI)
    assert ctmar.correct_series(tmp_path / "two", tmp_path / "out", LI, series="2.25.2").source_uid == "2.25.2"
    with pytest.raises(NoUsableSeriesError):
        ctmar.correct_series(tmp_path / "nothing", tmp_path / "out2", LI)
    with pytest.raises(ModelError):
        ctmar.correct_series(tmp_path / "two", tmp_path / "out3", model="nosuch", series="2.25.2")
