"""What is found, and what is not mistaken for it, on slices drawn from ellipses."""

from __future__ import annotations

import numpy as np
import pytest

from data_sim.anatomy import Anatomy, body_mask
from data_sim.geometry import ImageGrid
from data_sim.landmarks import Landmarks
from data_sim.morphology import depth_mm, elongation, grown, shrunk
from data_sim.phantom import phantom_slice

GRID = ImageGrid(256, 256, 1.6)
X, Y = GRID.x_mm()[None, :], GRID.y_mm()[:, None]


def ellipse(x: float, y: float, half_x: float, half_y: float) -> np.ndarray:
    return np.hypot((X - x) / half_x, (Y - y) / half_y) < 1


def trunk(canal_wall_hu: float, *, body_hu: float = 250.0, y: float = -60.0) -> np.ndarray:
    """A trunk with a canal whose wall and vertebral body have the given HU."""
    image = np.full(GRID.shape, -1000, np.float32)
    image[ellipse(0, 0, 160, 110)] = 40
    image[ellipse(0, y, 15, 15)] = canal_wall_hu
    image[ellipse(0, y, 10, 10)] = 30
    image[ellipse(0, y + 31, 22, 17)] = body_hu
    return image


def test_masks_grow_and_shrink_by_millimetres() -> None:
    disc = ellipse(0, 0, 40, 40)
    assert grown(disc, 16, 1.6).sum() * 1.6**2 == pytest.approx(np.pi * 56**2, rel=0.03)
    assert shrunk(disc, 16, 1.6).sum() * 1.6**2 == pytest.approx(np.pi * 24**2, rel=0.05)
    assert depth_mm(disc, 1.6).max() == pytest.approx(40, abs=2)
    assert elongation(ellipse(0, 0, 60, 20)) == pytest.approx(3, rel=0.03)


@pytest.mark.parametrize("shape", [(40, 70), (70, 40)])
@pytest.mark.parametrize("share", [0.0, 0.0005, 0.3, 0.995, 1.0])
def test_masks_grow_and_shrink_as_by_distances_over_the_whole_image(share: float, shape: tuple[int, int]) -> None:
    mask = np.random.default_rng(int(share * 1e4)).random(shape) < share
    mask[:, :5] |= share > 0.5  # up to an edge of the image, over its whole side
    rows, cols = np.indices(shape)

    def nearest_mm(those: np.ndarray) -> np.ndarray:
        squares = [(rows - row) ** 2 + (cols - col) ** 2 for row, col in np.argwhere(those)]
        return 0.7 * np.sqrt(np.min(squares, axis=0)) if squares else np.full(shape, np.inf)

    assert np.array_equal(grown(mask, 3.0, 0.7), nearest_mm(mask) <= 3.0)
    assert np.array_equal(shrunk(mask, 1.5, 0.7), mask & (nearest_mm(~mask) > 1.5))
    assert np.allclose(depth_mm(mask, 0.7), nearest_mm(~mask))


def test_a_vertebra_has_a_cortex() -> None:
    found = Anatomy(trunk(700.0), GRID).vertebra
    assert found is not None
    assert found.closed
    assert (found.x_mm, found.y_mm) == pytest.approx((0, -60), abs=1)
    assert found.half_width_mm == pytest.approx(10, abs=2)
    # A heart full of contrast medium around its muscle looks the same but for that.
    assert Anatomy(trunk(280.0), GRID).vertebra is None


def test_a_vertebra_lies_in_the_back() -> None:
    assert Anatomy(trunk(700.0, y=40.0), GRID).vertebra is None


def test_both_legs_are_the_patient_and_the_table_is_not() -> None:
    image = phantom_slice("knee", grid=GRID, seed=0)
    image[(Y > -95) & (Y < -80) & (np.abs(X) < 150)] = -100
    legs = body_mask(image, GRID)
    assert legs[:, :128].sum() == pytest.approx(legs[:, 128:].sum(), rel=0.1)
    assert legs.sum() * GRID.pixel_mm**2 == pytest.approx(2 * np.pi * 68 * 66, rel=0.12)


def test_the_sternum_of_the_phantom_and_no_liver() -> None:
    image = phantom_slice("chest", grid=GRID, seed=0)
    bone = Landmarks(image, GRID).sternum
    assert bone is not None
    assert bone.x_mm == pytest.approx(0, abs=3)
    assert 2 * bone.half_x_mm == pytest.approx(42, abs=8)
    soft = image.copy()
    soft[(Y > 55) & (image > 150)] = 130  # as bright as a liver with contrast medium
    assert Landmarks(soft, GRID).sternum is None


def test_shafts_stand_aside_and_alone() -> None:
    image = np.full(GRID.shape, -1000, np.float32)
    image[ellipse(0, 0, 190, 100)] = 40
    for side in (-1, 1):
        image[ellipse(side * 120, 0, 15, 15)] = 1200
        image[ellipse(side * 120, 0, 9, 9)] = -50
    found = sorted((bone.x_mm, bone.radius_mm) for bone, _ in Landmarks(image, GRID).shafts)
    np.testing.assert_allclose(found, [(-120, 15), (120, 15)], atol=2)
    image[ellipse(0, 0, 15, 15)] = 1200
    image[ellipse(0, 0, 9, 9)] = -50
    assert len(Landmarks(image, GRID).shafts) == 2


def test_a_brain_needs_a_skull_around_it() -> None:
    grid = ImageGrid(256, 256, 0.9)
    head = phantom_slice("head", grid=grid, seed=0)
    inside = Landmarks(head, grid).brain
    assert inside is not None
    assert inside.sum() * grid.pixel_mm**2 == pytest.approx(np.pi * 61 * 80, rel=0.12)
    head[head > 200] = 40
    assert Landmarks(head, grid).brain is None
    assert not Landmarks(head, grid).deep_brain.any()
