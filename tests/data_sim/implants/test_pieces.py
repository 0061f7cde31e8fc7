from __future__ import annotations

import numpy as np
import pytest

from data_sim import implants
from data_sim.geometry import ImageGrid
from data_sim.implants import (
    Piece,
    coverage,
    disc,
    fine_masks,
    moved,
    rasterise,
    superellipse,
)

GRID = ImageGrid(256, 256, 0.8)


def square(side: float) -> np.ndarray:
    return np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * side / 2


def area_mm2(pieces: implants.Implant, refine: int = 8) -> float:
    fine, masks = fine_masks(pieces, GRID, refine)
    return float(coverage(masks, fine, GRID).sum(dtype=float) * GRID.pixel_mm**2)


@pytest.mark.parametrize("diameter", [5.5, 28.0, 60.0])
def test_disc_has_the_area_of_a_circle(diameter: float) -> None:
    pieces = moved((Piece(disc(diameter), "ti"),), 13.3, -40.7)
    assert area_mm2(pieces) == pytest.approx(np.pi * diameter**2 / 4, rel=0.015)


def test_hole_is_not_metal() -> None:
    ring = (Piece(disc(40.0), "ti", (disc(30.0),)),)
    assert area_mm2(ring) == pytest.approx(np.pi * (20**2 - 15**2), rel=0.01)
    row, col = (round(i) for i in GRID.index_of(0.0, 0.0))
    assert not rasterise(ring, GRID)["ti"][row, col]


def test_scale_and_rotation_keep_and_change_area() -> None:
    pieces = (Piece(square(20.0), "fe"),)
    assert area_mm2(moved(pieces, 3.0, 4.0, 0.7)) == pytest.approx(400, rel=0.02)
    assert area_mm2(moved(pieces, 3.0, 4.0, 0.7, 1.5)) == pytest.approx(900, rel=0.02)


def test_moved_turns_counter_clockwise_then_shifts() -> None:
    corner = (Piece(np.array([[1.0, 0.0], [2.0, 0.0], [2.0, 1.0]]), "ti"),)
    turned = moved(corner, 10.0, 20.0, np.pi / 2, 2.0)[0].outline
    np.testing.assert_allclose(turned, [[10, 22], [10, 24], [8, 24]], atol=1e-12)


def test_x_is_right_and_y_is_up() -> None:
    mask = rasterise((Piece(disc(6.0, 40.0, 60.0), "au"),), GRID)["au"]
    rows, cols = np.nonzero(mask)
    assert GRID.x_mm()[cols].mean() == pytest.approx(40.0, abs=0.1)
    assert GRID.y_mm()[rows].mean() == pytest.approx(60.0, abs=0.1)


def test_later_pieces_override_and_masks_are_disjoint() -> None:
    masks = rasterise((Piece(square(30.0), "ti"), Piece(square(10.0), "au")), GRID)
    assert not (masks["ti"] & masks["au"]).any()
    assert masks["au"].sum() * GRID.pixel_mm**2 == pytest.approx(100, rel=0.1)
    assert (masks["ti"].sum() + masks["au"].sum()) * GRID.pixel_mm**2 == pytest.approx(900, rel=0.05)


def test_coverage_of_aligned_square_is_exact() -> None:
    # Edges at +-10 pixels from the centre, which lies between pixels of an even grid.
    pieces = (Piece(square(20 * GRID.pixel_mm) - [0.25 * GRID.pixel_mm, 0.0], "ti"),)
    fine, masks = fine_masks(pieces, GRID, 4)
    fraction = coverage(masks, fine, GRID)
    assert fraction.dtype == np.float32
    assert fraction[128, 128] == 1
    assert fraction[128, 117] == pytest.approx(0.25)
    assert fraction[128, 137] == pytest.approx(0.75)
    assert fraction.sum() == pytest.approx(400)


def test_fine_masks_are_a_crop_of_the_refined_grid() -> None:
    pieces = moved((Piece(superellipse(8.0, 3.0), "ti"),), -50.0, 30.0, 0.4)
    fine, masks = fine_masks(pieces, GRID, 4)
    whole = rasterise(pieces, GRID.refined(4))["ti"]
    assert masks["ti"].sum() == whole.sum()
    assert masks["ti"].size < whole.size / 50
    assert fine.pixel_mm == pytest.approx(0.2)


def test_off_grid_and_empty_are_refused() -> None:
    with pytest.raises(ValueError, match="outside"):
        fine_masks((Piece(disc(5.0, 500.0), "ti"),), GRID)
    with pytest.raises(ValueError, match="at least one piece"):
        fine_masks((), GRID)
    with pytest.raises(ValueError, match="three"):
        Piece(np.zeros((2, 2)), "ti")
    with pytest.raises(ValueError, match="at least one material"):
        implants.choose_material(np.random.default_rng(0), ())


def test_preferred_material_is_drawn_more_often() -> None:
    rng = np.random.default_rng(1)
    drawn = [implants.choose_material(rng, ("ti", "amalgam"), ("amalgam",)) for _ in range(700)]
    assert drawn.count("amalgam") == pytest.approx(600, abs=40)
