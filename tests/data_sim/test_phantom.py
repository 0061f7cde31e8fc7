from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from data_sim.geometry import ImageGrid
from data_sim.phantom import REGIONS, phantom_series, phantom_slice

WIDE, HEAD = ImageGrid(256, 256, 1.6), ImageGrid(256, 256, 0.9)


def grid_of(region: str) -> ImageGrid:
    return HEAD if region in ("jaw", "head") else WIDE


@pytest.mark.parametrize("region", REGIONS)
def test_is_a_plausible_ct_slice(region: str) -> None:
    grid = grid_of(region)
    image = phantom_slice(region, grid=grid, seed=3)
    assert image.shape == grid.shape
    assert image.dtype == np.float32
    assert image.min() >= -1001
    assert 700 < image.max() < 2600
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    np.testing.assert_allclose(border, -1000, atol=1)
    tissue_mm2 = (image > -300).sum() * grid.pixel_mm**2
    assert {"pelvis": 5e4, "shoulder": 3e4, "chest": 2e4}.get(region, 1.2e4) < tissue_mm2 < 9e4
    bone = (image > 200).sum() / (image > -300).sum()
    assert 0.03 < bone < (0.4 if region == "knee" else 0.3)


def test_tissues_have_their_ct_numbers() -> None:
    pelvis = phantom_slice("pelvis", grid=WIDE, seed=1)
    row, col = (round(i) for i in WIDE.index_of(0.0, 36.0))
    assert pelvis[row - 3 : row + 4, col - 3 : col + 4].mean() == pytest.approx(5, abs=3)  # bladder
    fat = np.median(pelvis[(pelvis > -200) & (pelvis < -50)])
    muscle = np.median(pelvis[(pelvis > 20) & (pelvis < 90)])
    assert fat == pytest.approx(-100, abs=8)
    assert muscle == pytest.approx(50, abs=8)
    assert (phantom_slice("jaw", grid=HEAD, seed=1) > 1800).sum() * HEAD.pixel_mm**2 > 150  # teeth
    assert (phantom_slice("shoulder", grid=WIDE, seed=1) < -800).any()
    head = phantom_slice("head", grid=HEAD, seed=1)
    assert np.median(head[96:160, 96:160]) == pytest.approx(34, abs=6)  # brain


def test_seed_is_the_patient() -> None:
    first, again, other = (phantom_slice("pelvis", grid=WIDE, seed=s) for s in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert np.mean((first > 0) != (other > 0)) > 0.02


@pytest.mark.parametrize("region", REGIONS)
def test_series_changes_smoothly(region: str) -> None:
    stack = phantom_series(region, 4, grid=grid_of(region), seed=2, spacing_mm=3.0)
    assert stack.shape == (4, 256, 256)
    middle = phantom_slice(region, grid=grid_of(region), seed=2, z_mm=1.5)
    np.testing.assert_array_equal(stack[2], middle)

    def step(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.sqrt(np.mean((a - b) ** 2)))

    other = phantom_slice(region, grid=grid_of(region), seed=9)
    neighbours = [step(a, b) for a, b in pairwise(stack)]
    assert min(neighbours) > 0.1
    assert max(neighbours) < 0.5 * step(stack[1], other)


def test_anatomy_does_not_depend_on_the_grid() -> None:
    coarse = phantom_slice("jaw", grid=HEAD, seed=4)
    fine = phantom_slice("jaw", grid=HEAD.refined(2), seed=4).reshape(256, 2, 256, 2).mean(axis=(1, 3))
    assert np.corrcoef(coarse.ravel(), fine.ravel())[0, 1] > 0.995


def test_refuses_what_it_cannot_draw() -> None:
    with pytest.raises(ValueError, match="unknown region"):
        phantom_slice("nose", grid=WIDE, seed=0)
    with pytest.raises(ValueError, match="at least 395 mm"):
        phantom_slice("pelvis", grid=HEAD, seed=0)
