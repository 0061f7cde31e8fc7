from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from ctmar.database import write_case
from ctmar.detectability import Lesions, choose_places, detectability, with_lesions
from ctmar.errors import NoUsableSeriesError
from data_sim.geometry import FanArc
from data_sim.projection import Projector
from data_sim.units import mu_to_hu
from tests.ctmar.toy_database import toy_case, write_toy_database

GEOMETRY = FanArc(views=180, bins=160, source_isocentre_mm=500.0, bin_pitch_rad=0.0025)
LESIONS = Lesions(radius_mm=8.0, contrast_hu=50.0, clearance_mm=4.0, reach_mm=40.0, most=3)


def case_of(seed, noise=0.002):
    """A toy whose sinograms are those of its images: water and bone, and a pin that is 5 times as dense."""
    case = toy_case(seed, patient=f"p{seed}")
    projector = Projector(GEOMETRY, case.grid, device="cpu")
    mu = (1 + case.images["reference"] / 1000) * case.mu_water_per_mm
    clean = projector.forward(mu[None].astype(np.float32))[0]
    path_mm = projector.forward(case.mask_metal[None])[0]
    rng = np.random.default_rng(seed)
    metal = clean + 4 * case.mu_water_per_mm * path_mm - 0.004 * path_mm**2
    noisy = [(one + noise * rng.standard_normal(one.shape)).astype(np.float32) for one in (metal, clean)]
    images = {"reference": case.images["reference"]}
    return replace(
        case, geometry=GEOMETRY, sinogram_metal=noisy[0], sinogram_reference=noisy[1], images=images, dicom_images={}
    )


def test_places_are_in_soft_tissue_beside_the_metal_and_apart():
    case = case_of(1)
    places = choose_places(case, LESIONS, rng=np.random.default_rng(0))
    assert len(places) == 3
    distance_mm = ndimage.distance_transform_edt(~case.mask_metal, sampling=2.0)
    rows, cols = np.indices(case.grid.shape)
    for number, (row, col) in enumerate(places):
        disc = np.hypot(rows - row, cols - col) <= 4
        assert (case.images["reference"][disc] < 150).all()
        assert (case.images["reference"][disc] > -150).all()
        assert 8 + 4 <= distance_mm[row, col] <= 8 + 40
        assert all(np.hypot(row - r, col - c) >= 16 for r, c in places[:number])
    assert choose_places(replace(case, mask_metal=case.mask_metal & False), LESIONS, rng=np.random.default_rng(0)) == []


def test_a_lesion_has_its_contrast_and_changes_nothing_else():
    case = case_of(1)
    projector = Projector(GEOMETRY, case.grid, device="cpu")
    (place,) = choose_places(case, replace(LESIONS, most=1), rng=np.random.default_rng(0))
    other = with_lesions(case, [place], LESIONS, projector)
    rows, cols = np.indices(case.grid.shape)
    distance = np.hypot(rows - place[0], cols - place[1]) * 2.0
    before, after = (mu_to_hu(projector.fbp(c.sinogram_metal), case.mu_water_per_mm) for c in (case, other))
    for change in (after - before, other.images["reference"] - case.images["reference"]):
        assert change[distance < 4].mean() == pytest.approx(50, rel=0.06)
        assert abs(change[(distance > 18) & case.mask_body]).max() < 6


def test_what_can_be_seen(tmp_path):
    """At the limit nearly all is seen, with LI less; less with less contrast, nothing without any."""
    for seed in range(12):
        write_case(tmp_path / f"case-{seed:06d}.h5", case_of(seed, noise=0.03))
    told = []
    areas = {}
    for contrast in (10.0, 3.0, 0.0):
        rows, skipped = detectability(
            tmp_path, replace(LESIONS, contrast_hu=contrast), methods=["li", "nmar2"], device="cpu",
            progress=lambda done, count: told.append((done, count)),
        )  # fmt: skip
        assert skipped == []
        assert {(row["path"], row["method"]) for row in rows} == {
            (path, method) for path in ("raw", "dicom") for method in ("li", "nmar2", "limit")
        }
        areas[contrast] = {(row["path"], row["method"]): row["auc"] for row in rows}
        assert all(row["patients"] == 12 and row["contrast_hu"] == contrast for row in rows)
    assert told[:2] == [(1, 12), (2, 12)]
    assert areas[10.0]["raw", "limit"] > 0.9
    for path in ("raw", "dicom"):
        assert areas[10.0][path, "li"] < areas[10.0][path, "limit"] - 0.05
    assert 0.55 < areas[3.0]["raw", "limit"] < areas[10.0]["raw", "limit"] - 0.1
    # no lesion: image and image are the same, and every comparison a coin's toss
    assert areas[0.0]["raw", "limit"] == pytest.approx(0.5, abs=0.15)


def test_cases_without_room(tmp_path):
    with pytest.raises(NoUsableSeriesError, match="room for a lesion"):
        detectability(write_toy_database(tmp_path, ("a", "b")), Lesions(radius_mm=60.0), methods=["li"], device="cpu")
    with pytest.raises(ValueError, match="clearance"):
        Lesions(clearance_mm=30.0)
