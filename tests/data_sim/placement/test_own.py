from __future__ import annotations

import numpy as np
import pytest

from data_sim.geometry import ImageGrid
from data_sim.implants import coverage, fine_masks
from data_sim.implants.own import Shape, shape_of
from data_sim.phantom import phantom_slice
from data_sim.placement import place, suitable

GRID = ImageGrid(256, 256, 1.6)
PELVIS = phantom_slice("pelvis", grid=GRID, seed=0)


def bar(shape: tuple[int, int], pixel_mm: float, row: int = 120, col: int = 100) -> Shape:
    mask = np.zeros(shape, bool)
    mask[row : row + 6, col : col + 20] = True
    return shape_of(mask, pixel_mm)


def metal(pieces) -> np.ndarray:
    fine, masks = fine_masks(pieces, GRID)
    return coverage(masks, fine, GRID)


def test_a_mask_of_the_slices_own_matrix_stays_where_it_is() -> None:
    for seed in range(3):
        pieces = place("own", PELVIS, GRID, np.random.default_rng(seed), ("fe",), shapes=[bar(GRID.shape, 1.6)])
        assert pieces
        wanted = np.zeros(GRID.shape)
        wanted[120:126, 100:120] = 1
        assert np.abs(metal(pieces) - wanted).sum() < 3
        assert pieces[0].material == "fe"


@pytest.mark.parametrize(
    "shape",
    [bar((64, 200), 1.6, 20), bar(GRID.shape, 1.4), bar(GRID.shape, 1.6, 2, 2)],
    ids=["another matrix", "another pixel size", "own place outside the patient"],
)
def test_other_masks_are_put_inside_the_patient(shape: Shape) -> None:
    body = PELVIS > -300
    places = []
    for seed in range(4):
        pieces = place("own", PELVIS, GRID, np.random.default_rng(seed), ("ti", "fe"), shapes=[shape])
        assert pieces
        on = metal(pieces)
        assert on.sum() * 1.6**2 == pytest.approx(120 * shape.grid.pixel_mm**2, rel=0.03)
        assert on[body].sum() > 0.95 * on.sum()
        places.append(pieces[0].outline.mean(axis=0))
    assert np.ptp(places, axis=0).max() > 5


def test_what_is_larger_than_the_patient_has_no_place() -> None:
    mask = np.ones((300, 300), bool)
    shape = shape_of(mask, 2.0)
    assert place("own", PELVIS, GRID, np.random.default_rng(0), ("ti",), shapes=[shape]) is None
    assert suitable(PELVIS, GRID, np.random.default_rng(0), names=["own", "clip"], shapes=[shape]) == ["clip"]


def test_without_shapes_there_is_no_such_family() -> None:
    with pytest.raises(ValueError, match="unknown implant 'own'"):
        place("own", PELVIS, GRID, np.random.default_rng(0), ("ti",))
