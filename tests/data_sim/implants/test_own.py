from __future__ import annotations

import numpy as np
import pytest

from data_sim.geometry import ImageGrid
from data_sim.implants import coverage, fine_masks
from data_sim.implants.own import Shape, shape_of

GRID = ImageGrid(64, 48, 0.7)


def metal(shape: Shape) -> np.ndarray:
    fine, masks = fine_masks(shape.of("ti"), GRID, 8)
    return coverage(masks, fine, GRID)


def ring() -> np.ndarray:
    x, y = GRID.x_mm()[None, :] - 3, GRID.y_mm()[:, None] + 5
    r2 = x**2 + y**2
    return (r2 < 10**2) & (r2 > 5**2)


def test_a_mask_comes_back_as_it_was() -> None:
    mask = ring()
    mask[3:6, 40:44] = True
    again = metal(shape_of(mask, 0.7))
    assert again.sum() == pytest.approx(mask.sum(), rel=0.01)
    assert ((again >= 0.5) != mask).sum() <= 0.02 * mask.sum()


@pytest.mark.parametrize("side", [1, 2, 3, 10])
def test_squares_keep_their_area_and_place(side: int) -> None:
    mask = np.zeros(GRID.shape, bool)
    mask[20 : 20 + side, 30 : 30 + side] = True
    shape = shape_of(mask, 0.7)
    again = metal(shape)
    assert again.sum() == pytest.approx(side**2, rel=0.07)
    centre = 20 + (side - 1) / 2, 30 + (side - 1) / 2
    rows, cols = np.nonzero(again)
    weights = again[rows, cols]
    assert np.average(rows, weights=weights) == pytest.approx(centre[0], abs=0.1)
    assert np.average(cols, weights=weights) == pytest.approx(centre[1], abs=0.1)
    np.testing.assert_allclose(
        shape.centre_mm, [GRID.x_mm()[30] + (side - 1) * 0.35, GRID.y_mm()[20] - (side - 1) * 0.35]
    )


def test_holes_and_parts() -> None:
    mask = ring()
    mask[3, 40] = mask[4, 41] = True  # touch at a corner: one part
    shape = shape_of(mask, 0.7)
    assert [len(holes) for _, holes in shape.rings] in ([0, 1], [1, 0])


def test_metal_at_the_edge_is_closed() -> None:
    mask = np.zeros(GRID.shape, bool)
    mask[:10, :10] = True
    assert metal(shape_of(mask, 0.7)).sum() == pytest.approx(100, rel=0.03)


def test_no_metal_is_no_shape() -> None:
    with pytest.raises(ValueError, match="metal"):
        shape_of(np.zeros(GRID.shape, bool), 0.7)
