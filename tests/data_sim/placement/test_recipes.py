"""Where the metal of each recipe lies, in terms of the anatomy that the phantom was painted with."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from scipy import ndimage as ndi

from data_sim.geometry import ImageGrid
from data_sim.implants import Implant, coverage, fine_masks
from data_sim.phantom import phantom_slice
from data_sim.placement import place

WIDE, HEAD = ImageGrid(256, 256, 1.6), ImageGrid(256, 256, 0.9)
METALS = ("ti", "cocrmo", "ss316l", "amalgam", "au")


def grid_of(region: str) -> ImageGrid:
    return HEAD if region in ("jaw", "head") else WIDE


def placed(name: str, region: str, seeds: int = 4) -> Iterator[tuple[Implant, np.ndarray, np.ndarray]]:
    """Pieces, the image, and the fraction of each pixel that is metal."""
    grid = grid_of(region)
    for seed in range(seeds):
        image = phantom_slice(region, grid=grid, seed=seed % 2)
        pieces = place(name, image, grid, np.random.default_rng(seed), METALS)
        assert pieces, (name, seed)
        fine, masks = fine_masks(pieces, grid)
        yield pieces, image, coverage(masks, fine, grid)


def middle(pieces: Implant) -> np.ndarray:
    return np.concatenate([p.outline for p in pieces]).mean(axis=0)


def test_hips_are_two_balls() -> None:
    for pieces, _, _ in placed("hips", "pelvis"):
        for side in (-1, 1):
            half = [p for p in pieces if side * p.outline[:, 0].mean() > 0]
            assert np.linalg.norm(middle(half) - [side * 88, 12]) < 25


def test_two_screws_and_round_metal_in_one_shoulder_bone() -> None:
    """As in the second case of Zhang and Yu 2018: two fixation screws and a round metal in bone."""
    for pieces, image, metal in placed("shoulder-screws", "shoulder"):
        bone = ndi.binary_fill_holes(image > 200)
        assert metal[ndi.binary_dilation(bone, iterations=2)].sum() > 0.85 * metal.sum()
        assert len(pieces) == 5  # two shafts with their heads, and the round one
        anchor = pieces[-1].outline
        assert np.ptp(np.hypot(*(anchor - anchor.mean(axis=0)).T)) < 0.1
        assert np.ptp(np.flatnonzero(metal.any(axis=0))) * WIDE.pixel_mm < 130  # one side only


def test_humeral_prosthesis_faces_the_glenoid() -> None:
    for pieces, _, _ in placed("shoulder-joint", "shoulder"):
        stem, head = pieces[1].outline.mean(axis=0), pieces[2].outline.mean(axis=0)
        assert 135 < abs(stem[0]) < 158  # humeral heads of the phantom: 146 mm from the middle
        assert abs(head[0]) < abs(stem[0])
        assert head[1] < stem[1] + 1


def test_knee_component_lies_around_the_condyles() -> None:
    for pieces, _, _ in placed("knee", "knee"):
        for side in {np.sign(p.outline[:, 0].mean()) for p in pieces}:
            points = np.concatenate([p.outline for p in pieces if np.sign(p.outline[:, 0].mean()) == side])
            low, high = points.min(axis=0), points.max(axis=0)
            assert abs((low + high)[0] / 2 - side * 90) < 8  # knees of the phantom: 90 mm from the middle
            assert 60 < (high - low)[0] < 85


def test_a_tibia_takes_a_tray_or_keel() -> None:
    """Two round bones of knee size without patella, drawn as ellipses."""
    x, y = WIDE.x_mm()[None, :], WIDE.y_mm()[:, None]
    image = np.full(WIDE.shape, -1000, np.float32)
    for side in (-1, 1):
        image[np.hypot((x - side * 85) / 58, y / 60) < 1] = 40
        image[np.hypot((x - side * 85) / 38, y / 27) < 1] = 1100
        image[np.hypot((x - side * 85) / 36, y / 25) < 1] = 250
    for seed in range(5):
        pieces = place("knee", image, WIDE, np.random.default_rng(seed), METALS)
        assert pieces
        for piece in pieces:
            level = np.hypot((np.abs(piece.outline[:, 0]) - 85) / 39, piece.outline[:, 1] / 28)
            assert level.max() < 1.1
    assert place("hip", image, WIDE, np.random.default_rng(0), METALS) is None


def test_miniplates_lie_on_the_skull_under_the_scalp() -> None:
    for pieces, image, metal in placed("plate", "head"):
        plate = pieces[0].outline.mean(axis=0)
        row, col = (round(i) for i in HEAD.index_of(*plate))
        assert image[row - 3 : row + 4, col - 3 : col + 4].max() > 700
        brain = ndi.binary_erosion(ndi.binary_fill_holes(image > 600), iterations=16)
        assert not metal[brain].any()


def test_plates_touch_bone() -> None:
    for pieces, image, _ in placed("plate", "shoulder"):
        fine, masks = fine_masks(pieces[:1], WIDE)
        plate = coverage(masks, fine, WIDE)
        bone = ndi.binary_dilation(ndi.binary_fill_holes(image > 200), iterations=3)
        assert plate[bone].sum() > 0.9 * plate.sum()


def test_aneurysm_clips_lie_deep_in_the_brain() -> None:
    """As in the clinical case of Zhang and Yu 2018, a head with a surgical clip."""
    for name in ("head-clip", "coil"):
        for pieces, image, metal in placed(name, "head"):
            assert image[metal > 0.5].max(initial=0) < 120
            assert np.abs(middle(pieces) / [74, 93]).max() < 0.6


def test_sternal_wire_goes_around_the_sternum() -> None:
    for pieces, image, metal in placed("sternum", "chest"):
        assert abs(middle(pieces)[0]) < 22
        bone = ndi.binary_fill_holes(image > 200)
        near = ndi.binary_dilation(bone, iterations=2)
        assert metal[near].sum() > 0.9 * metal.sum()
        assert metal[ndi.binary_erosion(bone, iterations=2)].sum() < 0.05 * metal.sum()


@pytest.mark.parametrize(("name", "part"), [("pacemaker", 0), ("port", 0)])
def test_generators_and_ports_lie_under_the_skin_in_front(name: str, part: int) -> None:
    for pieces, image, metal in placed(name, "chest"):
        x, y = pieces[part].outline.mean(axis=0)
        assert 30 < abs(x) < 105
        skin = WIDE.y_mm()[np.argmax(image[:, round(WIDE.index_of(x, 0)[1])] > -300)]
        assert 4 < skin - y < 32
        assert not metal[image < -500].any()


def test_pacemakers_are_mostly_left_and_ports_right() -> None:
    """Left of the patient is +x."""
    sides = [middle(pieces[:1])[0] > 0 for pieces, *_ in placed("pacemaker", "chest", 12)]
    assert sum(sides) >= 6
    sides = [middle(pieces[:1])[0] > 0 for pieces, *_ in placed("port", "chest", 12)]
    assert sum(sides) <= 6


def test_markers_are_deep_and_apart() -> None:
    for pieces, image, metal in placed("marker", "pelvis"):
        body = ndi.binary_fill_holes(image > -300)
        depth = ndi.distance_transform_edt(body) * WIDE.pixel_mm
        assert depth[metal > 0].min() > 15
        centres = np.array([p.outline.mean(axis=0) for p in pieces])
        assert 2 <= len(centres) <= 4
        assert np.linalg.norm(centres[0] - centres[1]) > 8


def test_a_construct_is_of_one_system() -> None:
    for name, region in (("spine", "shoulder"), ("clip", "pelvis"), ("marker", "pelvis")):
        for pieces, *_ in placed(name, region):
            assert len({p.material for p in pieces}) <= (2 if name == "spine" else 1)


def test_metals_of_several_kinds_in_one_slice() -> None:
    kinds = {frozenset(p.material for p in pieces) for pieces, *_ in placed("dental", "jaw", 8)}
    assert any(len(kind) > 1 for kind in kinds)
