"""Dimensions of the families against numbers of standards and catalogues, written here anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest

from data_sim.geometry import ImageGrid
from data_sim.implants import Implant, Piece, chest, coverage, dental, fine_masks, fixation, joints, soft_tissue, spine

GRID = ImageGrid(256, 256, 0.8)
MATERIALS = ("ti", "fe", "cu", "au", "amalgam", "cocrmo", "ss316l")
TEETH = np.array([[0.0, 0.0], [8.0, 1.0], [15.5, 3.5], [22.0, 8.0]])
SKULL = np.stack([np.linspace(-20, 20, 81), np.zeros(81)], axis=1)

Family = Callable[..., Implant]


def size(piece: Piece) -> np.ndarray:
    return np.ptp(piece.outline, axis=0)


def drawn(family: Family, seeds: int = 20) -> Iterator[Implant]:
    for seed in range(seeds):
        yield family(np.random.default_rng(seed), MATERIALS)


def area_mm2(pieces: Implant, refine: int = 8) -> float:
    fine, masks = fine_masks(pieces, GRID, refine)
    return float(coverage(masks, fine, GRID).sum(dtype=float) * GRID.pixel_mm**2)


@pytest.mark.parametrize(
    ("family", "least_mm", "most_mm"),
    [
        (joints.hip_joint, 40, 70),
        (partial(joints.knee_femoral, width_mm=72.0), 66, 73),
        (partial(joints.knee_tibial, width_mm=72.0), 30, 73),
        (partial(joints.humeral_head, bone_mm=48.0), 38, 56),
        (fixation.fixation_screw, 20, 66),
        (fixation.wire, 20, 70),
        (fixation.anchor, 2.8, 13),
        (partial(fixation.nail, bone_mm=30.0), 9, 13),
        (partial(fixation.plate_across, bone_mm=28.0), 12, 40),
        (spine.rod, 5.5, 6.0),
        (spine.pedicle_screw, 45, 66),
        (dental.filling, 1.0, 8),
        (dental.crown, 6, 10.1),
        (dental.dental_implant, 3.3, 5.0),
        (partial(dental.dental_implant, crowned=True), 6, 8.1),
        (partial(dental.bridge, teeth_mm=TEETH), 26, 34),
        (soft_tissue.clip, 5, 14),
        (soft_tissue.aneurysm_clip, 9, 22),
        (soft_tissue.coil, 4, 15),
        (soft_tissue.fiducial, 0.8, 5),
        (soft_tissue.random_shape, 2, 50),
        (partial(chest.sternal_wire, half_x_mm=20.0, half_y_mm=7.0), 20, 44),
        (chest.pacemaker, 40, 52),
        (chest.lead, 0.9, 1.5),
        (chest.port, 22, 30),
    ],
)
def test_size_material_and_seed(family: Family, least_mm: float, most_mm: float) -> None:
    for seed, pieces in enumerate(drawn(family)):
        again = family(np.random.default_rng(seed), MATERIALS)
        assert all(p.material in MATERIALS for p in pieces)
        assert all(np.array_equal(p.outline, q.outline) for p, q in zip(pieces, again, strict=True))
        points = np.concatenate([p.outline for p in pieces])
        assert least_mm - 0.01 <= np.ptp(points, axis=0).max() <= most_mm + 0.01
        assert area_mm2(pieces, 4) > 0
    assert len({pieces[0].outline.tobytes() for pieces in drawn(family)}) > 1


def test_femoral_balls_have_the_sizes_of_iso_7206_2() -> None:
    for pieces in drawn(joints.hip_joint):
        ball = size(pieces[-1]).max()
        # The slice is off centre by up to 30 % of the radius.
        assert any(0.95 * nominal <= ball <= nominal for nominal in (22.2, 28.0, 32.0, 36.0))


def test_a_cobalt_chromium_ball_turns_in_a_titanium_cup() -> None:
    kinds = {(pieces[0].material, pieces[-1].material) for pieces in drawn(joints.hip_joint, 60)}
    assert ("ti", "cocrmo") in kinds
    pieces = next(p for p in drawn(joints.hip_joint, 60) if (p[0].material, p[-1].material) == ("ti", "cocrmo"))
    masks = fine_masks(pieces, GRID)[1]
    assert set(masks) == {"ti", "cocrmo"}
    assert not (masks["ti"] & masks["cocrmo"]).any()
    assert masks["ti"].any()
    # At least 5 mm of polyethylene lie between them.
    shell = np.hypot(*pieces[0].outline.T).min()
    assert shell - size(pieces[-1]).max() / 2 >= 5 - 0.01


@pytest.mark.parametrize("bone_mm", [24.0, 30.0, 44.0])
def test_stem_leaves_bone_around_it(bone_mm: float) -> None:
    for seed in range(10):
        (stem,) = joints.hip_stem(np.random.default_rng(seed), ("ti",), bone_mm=bone_mm)
        assert size(stem).max() <= bone_mm - 8 + 1e-9


def test_screws_are_those_of_iso_5835() -> None:
    """HA3.5, HA4.5 and HB4.0: outer diameter of the thread, diameter of the head."""
    seen = set()
    for shaft, head in drawn(fixation.fixation_screw):
        seen.add((round(float(size(shaft)[1]), 2), round(float(size(head)[1]), 2)))
    assert seen == {(3.5, 6.0), (4.5, 8.0), (4.0, 6.0)}


def test_a_nail_is_hollow() -> None:
    for pieces in drawn(partial(fixation.nail, bone_mm=30.0), 6):
        outer, bore = size(pieces[0])[0], np.ptp(pieces[0].holes[0][:, 0])
        assert 4 <= bore <= 5
        assert area_mm2(pieces) == pytest.approx(np.pi / 4 * (outer**2 - bore**2), rel=0.02)


def test_plates_lie_on_the_surface_and_their_screws_in_bone() -> None:
    for pieces in drawn(partial(fixation.plate_across, bone_mm=28.0)):
        plate = pieces[0].outline
        assert plate[:, 0].max() == pytest.approx(0, abs=1e-9)
        assert 3.6 <= size(pieces[0])[0] <= 5.2
        assert 12 <= size(pieces[0])[1] <= 17.5
        for screw in pieces[1:]:
            assert 28 < screw.outline[:, 0].max() <= 31  # through both cortices
    for inward in (-1, 1):
        family = partial(fixation.plate_along, surface_mm=SKULL, inward=inward, thin=True, depth_mm=7.0)
        for pieces in drawn(family, 6):
            assert (inward * pieces[0].outline[:, 1]).max() == pytest.approx(0, abs=1e-9)
            assert 0.5 <= size(pieces[0])[1] <= 1.0
            assert size(pieces[0])[0] == pytest.approx(40)
            for screw in pieces[1:]:
                assert 2.9 < (inward * screw.outline[:, 1]).max() <= 6.5


def test_knee_components_leave_bone_between_them() -> None:
    for pieces in drawn(partial(joints.knee_femoral, width_mm=72.0)):
        flange, *condyles = pieces
        assert len(condyles) == 2
        assert flange.outline[:, 1].min() > max(c.outline[:, 1].max() for c in condyles) + 15
        assert condyles[0].outline[:, 0].max() < 0 < condyles[1].outline[:, 0].min()
        assert 550 < area_mm2(pieces, 4) < 1100
    areas = [area_mm2(pieces, 4) for pieces in drawn(partial(joints.knee_tibial, width_mm=72.0))]
    # A keel, or a tray of 72 mm x 0.66 x 72 mm less its rounded corners and notch.
    assert all(200 < a < 600 or 2300 < a < 3600 for a in areas)
    assert min(areas) < 600 < max(areas)


def test_humeral_head_is_a_cap_on_a_stem() -> None:
    for taper, stem, head in drawn(partial(joints.humeral_head, bone_mm=48.0)):
        assert 0.35 * 48 < size(head)[0] < 0.47 * 48
        assert head.outline[:, 0].max() == pytest.approx(24, abs=0.1)
        assert size(head)[1] <= 48.01
        assert 8 <= size(stem)[0] <= 14
        assert taper.outline[:, 0].max() > head.outline[:, 0].min()


def test_sternal_wire_is_as_thick_as_usp_5_to_7() -> None:
    whole = fronts = 0
    for pieces in drawn(partial(chest.sternal_wire, half_x_mm=20.0, half_y_mm=7.0), 40):
        if pieces[0].holes:
            whole += 1
            thick = (size(pieces[0])[0] - np.ptp(pieces[0].holes[0][:, 0])) / 2
            assert 0.69 <= thick <= 0.91
            assert np.ptp(pieces[0].holes[0][:, 0]) >= 40  # around the bone, not through it
        for piece in pieces:
            level = (np.abs(piece.outline / [20.0, 7.0]) ** 2.6).sum(axis=1)
            assert level.min() > 0.98
        if len(pieces) == 2 and not pieces[0].holes and pieces[1].outline[:, 1].min() > 6:
            # the front of the loop under its twist: anterior is +y
            assert pieces[0].outline[:, 1].mean() > 3
            fronts += 1
    assert 3 < whole < 20
    assert fronts > 3


def test_a_pacemaker_is_a_shell_with_little_metal_in_it() -> None:
    for pieces in drawn(chest.pacemaker):
        length, thick = size(pieces[0])
        assert 40 <= length <= 52
        assert 6 <= thick <= 8
        assert area_mm2(pieces) < 0.8 * length * thick


def test_a_port_opens_to_the_skin() -> None:
    for (cup,) in drawn(chest.port):
        assert 9 <= size(cup)[1] <= 13
        top = cup.outline[cup.outline[:, 1] > cup.outline[:, 1].max() - 1e-9, 0]
        assert 10 <= top[top > 0].min() - top[top < 0].max() <= 13


def test_markers_are_gold_cylinders() -> None:
    metals = [pieces[0].material for pieces in drawn(soft_tissue.fiducial, 60)]
    assert metals.count("au") > 20
    for (piece,) in drawn(soft_tissue.fiducial):
        assert 0.79 <= size(piece).min() <= 1.21


def test_a_bridge_is_of_one_alloy_on_every_tooth() -> None:
    for pieces in drawn(partial(dental.bridge, teeth_mm=TEETH), 6):
        assert len({p.material for p in pieces}) == 1
        crowns = [p.outline.mean(axis=0) for p in pieces[1:]]
        np.testing.assert_allclose(crowns, TEETH, atol=0.2)
