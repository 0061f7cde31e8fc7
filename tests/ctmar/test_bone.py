"""Bone beside metal: put back where the image shows it, and nothing else."""

import numpy as np
import pytest

from ctmar.bone import bone_beside_metal
from data_sim.geometry import ImageGrid
from tests.data_sim.analytic import Ellipse, disc, raster

PIXEL_MM = 1.0
GRID = ImageGrid(160, 160, PIXEL_MM)
BODY = raster(GRID, Ellipse(1, 0, 0, 75, 60)) > 0.5
METAL = raster(GRID, disc(1, 0, 0, 5)) > 0.5
LONG_BONE = (raster(GRID, Ellipse(1, 20, 0, 35, 8)) > 0.5) & ~METAL
"""Reaches from 15 mm left of the metal to 55 mm right of it."""
LOST = raster(GRID, disc(1, 0, 0, 18)) > 0.5


def slices(bone=LONG_BONE, noise=10.0, metal_hu=9000):
    """The image, the network's (without the noise), and the prior that has lost what is near the metal."""
    clean = np.where(BODY, 0, -1000) + np.where(bone, 800, 0)
    image = clean + np.random.default_rng(0).normal(0, noise, clean.shape)
    network = np.where(LOST & ~METAL, np.where(BODY, 0, -1000), clean)
    return [np.where(METAL, metal_hu, one).astype(np.float32) for one in (image, network, network)]


def found(*images):
    return bone_beside_metal(*images, METAL, pixel_mm=PIXEL_MM)


def test_bone_that_goes_on_further_away_is_put_back():
    got = found(*slices())
    lost = LONG_BONE & LOST
    cols = np.indices(METAL.shape)[1]
    right = cols > 80
    assert got[lost & right].mean() > 0.95
    assert not got[~lost].any()
    assert not got[METAL].any()


def test_a_streak_in_soft_tissue_is_no_bone():
    """As bright as bone, and it hangs together with none."""
    image, network, prior = slices(bone=np.zeros_like(METAL))
    rows, cols = np.indices(METAL.shape)
    streak = (abs(rows - 79.5) < 2) & (cols > 85) & (cols < 105)
    assert not found(np.where(streak, np.float32(800), image), network, prior).any()


def test_a_streak_that_touches_a_little_bone_is_larger_than_it():
    little = (raster(GRID, disc(1, 26, 0, 3)) > 0.5) & ~METAL
    image, network, prior = slices(bone=little)
    streak = (raster(GRID, disc(1, 0, 0, 23)) > 0.5) & ~METAL
    assert not found(np.where(streak, np.float32(800), image), network, prior).any()


def test_among_strong_streaks_nothing_stands_out():
    assert found(*slices(noise=500.0))[LONG_BONE & LOST].mean() < 0.05


@pytest.mark.parametrize("metal_hu", [3071, 20000])
def test_around_dense_metal_and_where_metal_is_cut_off_nothing_is_put_back(metal_hu):
    assert not found(*slices(metal_hu=metal_hu)).any()


def test_nothing_without_metal_or_soft_tissue():
    image, network, prior = slices()
    assert not bone_beside_metal(image, network, prior, METAL & False, pixel_mm=PIXEL_MM).any()
    air = np.full_like(image, -1000)
    assert not found(np.where(LONG_BONE, image, air), np.where(LONG_BONE, network, air), prior).any()


def test_what_cannot_be():
    image, network, prior = slices()
    with pytest.raises(ValueError, match="one shape"):
        bone_beside_metal(image, network[:5], prior, METAL, pixel_mm=1.0)
    with pytest.raises(ValueError, match="positive"):
        bone_beside_metal(image, network, prior, METAL, pixel_mm=0.0)
