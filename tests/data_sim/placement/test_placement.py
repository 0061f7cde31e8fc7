from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage as ndi

from data_sim.anatomy import Anatomy, body_mask
from data_sim.geometry import ImageGrid
from data_sim.implants import Implant, coverage, fine_masks
from data_sim.phantom import phantom_slice
from data_sim.placement import IMPLANTS, place, suitable

WIDE, HEAD = ImageGrid(256, 256, 1.6), ImageGrid(256, 256, 0.9)
METALS = ("ti", "fe", "cu", "au")
DATA = Path(__file__).parents[4] / "shared" / "data"


def phantom(region: str, seed: int = 0) -> tuple[np.ndarray, ImageGrid]:
    grid = HEAD if region in ("jaw", "head") else WIDE
    return phantom_slice(region, grid=grid, seed=seed), grid


def metal_of(pieces: Implant, grid: ImageGrid) -> np.ndarray:
    fine, masks = fine_masks(pieces, grid)
    return coverage(masks, fine, grid)


def disc_image(grid: ImageGrid, radius_mm: float, hu: float = 0.0) -> np.ndarray:
    inside = grid.x_mm()[None, :] ** 2 + grid.y_mm()[:, None] ** 2 < radius_mm**2
    return np.where(inside, hu, -1000).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "region"),
    [
        ("hip", "pelvis"),
        ("hips", "pelvis"),
        ("knee", "knee"),
        ("shoulder", "shoulder"),
        ("shoulder-screws", "shoulder"),
        ("shoulder-joint", "shoulder"),
        ("plate", "shoulder"),
        ("plate", "head"),
        ("dental", "jaw"),
        ("fillings", "jaw"),
        ("dental-implant", "jaw"),
        ("head-clip", "head"),
        ("coil", "head"),
        ("sternum", "chest"),
        ("pacemaker", "chest"),
        ("port", "chest"),
        ("marker", "pelvis"),
        ("spine", "shoulder"),
        ("spine", "jaw"),
        ("clip", "head"),
        ("clip", "pelvis"),
        ("random", "pelvis"),
        ("random", "head"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_recipes_succeed_inside_the_phantom(name: str, region: str, seed: int) -> None:
    image, grid = phantom(region, seed)
    pieces = place(name, image, grid, np.random.default_rng(seed), METALS)
    assert pieces
    assert {p.material for p in pieces} <= set(METALS)
    metal = metal_of(pieces, grid)
    # The outline of the phantom, found here in another way than the recipes do.
    body = ndi.binary_fill_holes(image > -300)
    assert metal.sum() > 0
    assert not metal[~body].any()


def test_hip_sits_in_the_femoral_head() -> None:
    for seed in range(4):
        image, grid = phantom("pelvis", seed)
        pieces = place("hip", image, grid, np.random.default_rng(seed), METALS)
        assert pieces
        ball = pieces[-1].outline.mean(axis=0)
        assert 75 < abs(ball[0]) < 100  # femoral heads of the phantom: 88 mm from the middle
        assert 0 < ball[1] < 25
        diameters = np.ptp(pieces[-1].outline, axis=0)
        assert 20 < diameters.min() <= diameters.max() <= 36


def test_fillings_sit_in_teeth() -> None:
    image, grid = phantom("jaw", 1)
    pieces = place("dental", image, grid, np.random.default_rng(1), METALS)
    assert pieces
    metal = metal_of(pieces, grid)
    dense = ndi.binary_dilation(image > 1000, iterations=2)
    assert metal[dense].sum() > 0.9 * metal.sum()


def test_pedicle_screws_spare_the_canal() -> None:
    image, grid = phantom("shoulder", 2)
    canal = Anatomy(image, grid).vertebra
    assert canal is not None
    assert canal.closed
    assert canal.x_mm == pytest.approx(0, abs=2)
    for seed in range(6):
        pieces = place("spine", image, grid, np.random.default_rng(seed), METALS)
        assert pieces
        assert metal_of(pieces, grid)[canal.canal].sum() < 0.05 * canal.canal.sum()


def test_clips_avoid_bone_and_air() -> None:
    image, grid = phantom("head", 0)
    for seed in range(5):
        pieces = place("clip", image, grid, np.random.default_rng(seed), METALS)
        assert pieces
        values = image[metal_of(pieces, grid) > 0.5]
        assert values.max(initial=0) < 300
        assert values.min(initial=0) > -100


@pytest.mark.parametrize("name", sorted(set(IMPLANTS) - {"clip", "marker", "random"}))
def test_uniform_water_has_no_such_anatomy(name: str) -> None:
    assert place(name, disc_image(WIDE, 150), WIDE, np.random.default_rng(0), METALS) is None
    assert place(name, disc_image(HEAD, 90), HEAD, np.random.default_rng(0), METALS) is None


@pytest.mark.parametrize("name", IMPLANTS)
def test_empty_air_has_no_place(name: str) -> None:
    air = np.full(WIDE.shape, -1000, np.float32)
    assert place(name, air, WIDE, np.random.default_rng(0), METALS) is None


def test_suitable_tells_regions_apart() -> None:
    found = {
        region: set(suitable(*phantom(region), np.random.default_rng(0)))
        for region in ("pelvis", "shoulder", "jaw", "head", "chest", "knee")
    }
    shoulder = {"shoulder", "shoulder-screws", "shoulder-joint", "plate", "spine", "clip", "random"}
    assert found["pelvis"] == {"hip", "hips", "clip", "marker", "random"}
    assert shoulder <= found["shoulder"] <= shoulder | {"pacemaker", "port", "marker"}
    assert found["jaw"] == {"dental", "fillings", "dental-implant", "spine", "clip", "random"}
    assert found["head"] == {"plate", "clip", "head-clip", "coil", "random"}
    assert found["chest"] == {"sternum", "pacemaker", "port", "spine", "clip", "marker", "random"}
    assert found["knee"] == {"knee", "clip", "random"}
    assert set.union(*found.values()) == set(IMPLANTS)


def test_seed_decides() -> None:
    image, grid = phantom("pelvis")
    first, again, other = (place("hip", image, grid, np.random.default_rng(s), METALS) for s in (7, 7, 8))
    assert first
    assert again
    assert other
    assert all(np.array_equal(p.outline, q.outline) for p, q in zip(first, again, strict=True))
    assert not np.array_equal(first[0].outline, other[0].outline)


def test_table_is_not_body() -> None:
    image = disc_image(WIDE, 120, 40.0)
    y = WIDE.y_mm()
    image[(y > -145) & (y < -126)] = -100.0
    image[np.ix_((y > -127) & (y < -117), np.abs(WIDE.x_mm()) < 2.5)] = -100.0  # it touches the back
    body = body_mask(image, WIDE)
    assert body.sum() * WIDE.pixel_mm**2 == pytest.approx(np.pi * 120**2, rel=0.03)


def test_caller_mistakes() -> None:
    image, rng = np.zeros(WIDE.shape, np.float32), np.random.default_rng(0)
    with pytest.raises(ValueError, match="unknown implant"):
        place("nose", image, WIDE, rng, METALS)
    with pytest.raises(ValueError, match="at least one material"):
        place("hip", image, WIDE, rng, ())
    with pytest.raises(ValueError, match="grid"):
        place("hip", image[:-1], WIDE, rng, METALS)


@pytest.mark.skipif(not (DATA / "slices.csv").exists(), reason="the shared CT data are not here")
@pytest.mark.parametrize(
    ("z_mm", "patient", "name"),
    [
        ("-829.25", "ACRIN", "hip"),
        ("1109.0", "TCGA-09", "hip"),
        ("494.5", "TCGA-E3", "dental"),
        ("395.5", "TCGA-E3", "spine"),
        ("-431.800049", "LIDC-IDRI-0314", "shoulder"),
    ],
)
def test_real_slices(z_mm: str, patient: str, name: str) -> None:
    import pydicom

    with (DATA / "slices.csv").open() as table:
        rows = [r for r in csv.DictReader(table) if r["z_mm"] == z_mm and r["patient"].startswith(patient)]
    source = next((r["file"] for r in rows if r["file"].startswith("clean")), None)
    if source is None:
        pytest.skip("this slice is not among the shared data")
    slice_ = pydicom.dcmread(DATA / source)
    image = slice_.pixel_array * float(slice_.RescaleSlope) + float(slice_.RescaleIntercept)
    grid = ImageGrid(*image.shape, float(slice_.PixelSpacing[0]))
    pieces = place(name, image.astype(np.float32), grid, np.random.default_rng(0), METALS)
    assert pieces
    metal = metal_of(pieces, grid) > 0.5
    assert (image[metal] > -300).mean() > 0.98
