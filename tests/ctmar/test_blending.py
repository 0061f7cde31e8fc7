import numpy as np
import pytest
from scipy import ndimage

from ctmar.blending import blend, supported_change, uniform_tissue

PIXEL_MM = 0.8
SIDE = 192


def anatomy():
    """Noise upon a disk of water in air, with metal in the middle."""
    rows, cols = np.indices((SIDE, SIDE)) - (SIDE - 1) / 2
    radius_mm = np.hypot(rows, cols) * PIXEL_MM
    noise = np.random.default_rng(0).normal(0, 5, (SIDE, SIDE))
    image = np.where(radius_mm < 70, 20.0, -1000.0) + noise
    metal = radius_mm < 4
    image[metal] = 3071
    return image.astype(np.float32), metal, radius_mm


def streaks(seed, size_hu=40.0):
    """Radial stripes about the metal."""
    rows, cols = np.indices((SIDE, SIDE)) - (SIDE - 1) / 2
    angle = np.arctan2(rows, cols)
    phases = np.random.default_rng(seed).uniform(0, 2 * np.pi, 3)
    return (size_hu * sum(np.sin(n * angle + p) for n, p in zip((16, 22, 30), phases, strict=True))).astype(np.float32)


def rms(values):
    return float(np.sqrt(np.mean(values**2)))


def test_a_change_that_takes_streaks_away_is_taken():
    clean, metal, radius_mm = anatomy()
    far = (radius_mm > 25) & (radius_mm < 60)
    before = clean + np.where(metal, 0, streaks(1))
    after = blend(before, clean, metal, pixel_mm=PIXEL_MM)
    assert rms((before - clean)[far]) > 40
    assert rms((after - clean)[far]) < 0.2 * rms((before - clean)[far])


def test_a_change_that_draws_new_streaks_is_left_out():
    clean, metal, radius_mm = anatomy()
    far = (radius_mm > 30) & (radius_mm < 60)
    after = blend(clean, clean + streaks(2), metal, pixel_mm=PIXEL_MM)
    assert rms((after - clean)[far]) < 0.15 * rms(streaks(2)[far])


def test_a_large_change_is_taken_whatever_it_draws():
    """Where a slice is all streaks there is nothing to judge by."""
    clean, metal, radius_mm = anatomy()
    ring = (radius_mm > 30) & (radius_mm < 60)
    shares = []
    for size_hu in (40.0, 400.0):
        change = streaks(2, size_hu)
        shares.append(rms((blend(clean, clean + change, metal, pixel_mm=PIXEL_MM) - clean)[ring]) / rms(change[ring]))
    assert shares[0] < 0.15
    assert shares[1] > 0.95


def test_of_a_mixture_the_right_part_is_taken_where_both_can_be_told_apart():
    """Streaks to the left are there and are taken away; those to the right were not there."""
    clean, metal, radius_mm = anatomy()
    cols = np.indices((SIDE, SIDE))[1]
    left = cols < SIDE / 2
    before = clean + np.where(metal | ~left, 0, streaks(1))
    after = blend(before, before - np.where(left, streaks(1), streaks(2)), metal, pixel_mm=PIXEL_MM)
    ring = (radius_mm > 35) & (radius_mm < 60)
    inner, outer = ring & (cols < 0.3 * SIDE), ring & (cols > 0.7 * SIDE)
    assert rms((after - clean)[inner]) < 10 < 40 < rms((before - clean)[inner])
    assert rms((after - clean)[outer]) < 0.25 * rms(streaks(2)[outer])


def test_next_to_metal_that_streaks_the_change_is_whole():
    clean, metal, radius_mm = anatomy()
    near = ~metal & (radius_mm < 4 + 5)
    lost = np.where(near, np.float32(-200), 0)
    removed = np.where(metal, 0, streaks(1))
    supported = supported_change(clean + removed, lost - removed, metal, pixel_mm=PIXEL_MM)
    np.testing.assert_allclose(supported[near], (lost - removed)[near], rtol=0.15, atol=5)


def test_a_mask_where_nothing_streaks_changes_little():
    """Noise that is taken away, next to it and far, and a change that is coarser than all bands."""
    clean, metal, radius_mm = anatomy()
    noise = np.random.default_rng(1).normal(0, 2, clean.shape).astype(np.float32)
    supported = supported_change(clean + noise, np.where(metal, 0, 3 - noise), metal, pixel_mm=PIXEL_MM)
    for part in (~metal & (radius_mm < 9), (radius_mm > 20) & (radius_mm < 60)):
        assert rms(supported[part]) < 0.2 * rms((3 - noise)[part])


def test_where_nothing_can_be_judged_the_change_is_taken():
    """Metal deep in bone, no soft tissue around: that nothing is seen to be removed does not say that nothing is."""
    clean, metal, radius_mm = anatomy()
    before = np.where(radius_mm < 70, np.float32(900), clean)
    change = np.where(metal, 0, streaks(2, 20.0)).astype(np.float32)
    near = ~metal & (radius_mm < 9)
    np.testing.assert_allclose(supported_change(before, change, metal, pixel_mm=PIXEL_MM)[near], change[near], atol=1)


def test_bone_keeps_its_edges_where_there_are_no_streaks():
    """A correction that loses a thin bone leaves it in; where strong streaks go with it, it is believed."""
    clean, metal, radius_mm = anatomy()
    bone = (abs(radius_mm - 45) < 2) & ~metal
    before = np.where(bone, np.float32(800), clean)
    lost = before - np.where(bone, np.float32(300), 0)
    kept = blend(before, lost, metal, pixel_mm=PIXEL_MM)
    assert (before - kept)[bone].mean() < 0.35 * 300
    strong = np.where(metal, 0, streaks(1, 150.0))
    believed = blend(before + strong, lost, metal, pixel_mm=PIXEL_MM)
    assert (before - believed)[bone].mean() > (before - kept)[bone].mean() + 50


def test_metal_stays_and_nothing_changes_without_a_change():
    clean, metal, _ = anatomy()
    after = blend(clean, clean - 100, metal, pixel_mm=PIXEL_MM)
    np.testing.assert_array_equal(after[metal], clean[metal])
    np.testing.assert_array_equal(blend(clean, clean.copy(), metal, pixel_mm=PIXEL_MM), clean)
    none = np.zeros_like(metal)
    np.testing.assert_array_equal(blend(clean, clean + streaks(1), none, pixel_mm=PIXEL_MM), clean)


def test_strength_scales_and_adaptive_is_a_choice():
    clean, metal, _ = anatomy()
    after = clean + streaks(2)
    whole = blend(clean, after, metal, pixel_mm=PIXEL_MM)
    half = blend(clean, after, metal, pixel_mm=PIXEL_MM, strength=0.5)
    np.testing.assert_allclose(half - clean, (whole - clean) / 2, atol=1e-3)
    np.testing.assert_array_equal(blend(clean, after, metal, pixel_mm=PIXEL_MM, strength=0), clean)
    plain = blend(clean, after, metal, pixel_mm=PIXEL_MM, adaptive=False)
    np.testing.assert_allclose(plain[~metal], after[~metal], atol=1e-3)


def test_a_stack_is_blended_slice_by_slice():
    clean, metal, _ = anatomy()
    after = clean + streaks(2)
    stack = blend(np.stack([clean, after]), np.stack([after, clean]), np.stack([metal, metal]), pixel_mm=PIXEL_MM)
    np.testing.assert_array_equal(stack[0], blend(clean, after, metal, pixel_mm=PIXEL_MM))
    np.testing.assert_array_equal(stack[1], blend(after, clean, metal, pixel_mm=PIXEL_MM))


def test_what_is_not_supported_is_left_to_a_more_careful_correction():
    clean, metal, radius_mm = anatomy()
    far = (radius_mm > 30) & (radius_mm < 60)
    before = clean + np.where(metal, 0, streaks(1))
    half = np.where(metal, before, clean + streaks(1, 15.0)).astype(np.float32)
    wrong = half + streaks(2)  # takes nothing away, draws something new
    after = blend(before, wrong, metal, pixel_mm=PIXEL_MM, fallback_hu=half)
    assert rms((after - half)[far]) < 0.3 * rms((wrong - half)[far])
    np.testing.assert_array_equal(after[metal], before[metal])
    strength = {"pixel_mm": PIXEL_MM, "fallback_hu": half, "strength": 0.5}
    np.testing.assert_allclose(blend(before, wrong, metal, **strength), (before + after) / 2, atol=1e-2)
    plain = blend(before, wrong, metal, pixel_mm=PIXEL_MM, fallback_hu=half, adaptive=False)
    np.testing.assert_allclose(plain[~metal], wrong[~metal], atol=1e-3)
    stacks = [np.stack([image, image]) for image in (before, wrong, metal, half)]
    np.testing.assert_array_equal(blend(*stacks[:3], pixel_mm=PIXEL_MM, fallback_hu=stacks[3])[1], after)


def test_uniform_tissue_leaves_out_bone_lung_and_edges():
    rows = np.full((120, 120), 30.0, np.float32)
    rows[:40] = 700
    rows[80:] = -700
    found = uniform_tissue(rows, pixel_mm=1.0)
    assert found[58:62].all()
    assert not found[:43].any()
    assert not found[77:].any()
    assert uniform_tissue(np.full((40, 40), -1000, np.float32), pixel_mm=1.0).all()
    noisy = rows + ndimage.gaussian_filter(np.random.default_rng(0).normal(0, 60, rows.shape), 0.7)
    assert uniform_tissue(noisy.astype(np.float32), pixel_mm=1.0)[58:62].mean() > 0.9


@pytest.mark.parametrize(
    ("options", "says"),
    [({"strength": 1.1}, "strength"), ({"strength": -0.1}, "strength"), ({"pixel_mm": 0.0}, "pixel_mm")],
)
def test_nonsense_is_refused(options, says):
    clean, metal, _ = anatomy()
    with pytest.raises(ValueError, match=says):
        blend(clean, clean, metal, **{"pixel_mm": 1.0, **options})


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="shapes"):
        blend(np.zeros((4, 4), np.float32), np.zeros((4, 5), np.float32), np.zeros((4, 4), bool), pixel_mm=1.0)
