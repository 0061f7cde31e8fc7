import numpy as np
import pytest

from ctmar.segmentation import METAL_THRESHOLD_HU, dilate, metal_mask, metal_path_mm, metal_trace, three_means
from data_sim.geometry import ImageGrid, Parallel
from data_sim.projection import Projector


def image_with(pixels, shape=(12, 14), hu=3000.0):
    image = np.zeros(shape, np.float32)
    for row, col in pixels:
        image[row, col] = hu
    return image


# --- metal mask -----------------------------------------------------------------------------------


def test_threshold_is_inclusive():
    image = np.array([[2499.0, 2500.0, 2501.0, 3071.0]], np.float32)
    mask = metal_mask(image, smallest_mm2=0, dilation=0)
    assert METAL_THRESHOLD_HU == 2500
    np.testing.assert_array_equal(mask, [[False, True, True, True]])
    np.testing.assert_array_equal(metal_mask(image, threshold_hu=3000, smallest_mm2=0, dilation=0).sum(), 1)


def test_dilation_is_the_cross():
    mask = metal_mask(image_with([(5, 5)]))
    expected = image_with([(5, 5), (4, 5), (6, 5), (5, 4), (5, 6)]) > 0
    np.testing.assert_array_equal(mask, expected)
    rows, cols = np.indices((12, 14))
    np.testing.assert_array_equal(metal_mask(image_with([(5, 5)]), dilation=3), abs(rows - 5) + abs(cols - 5) <= 3)


@pytest.mark.parametrize(
    ("pixel_mm", "kept"), [(1.0, [False, True, True]), (0.5, [False, False, True]), (2.0, [True] * 3)]
)
def test_specks_go_by_their_area(pixel_mm, kept):
    """Regions of 1, 2 (touching at a corner) and 8 pixels; 2 mm2 are 2, 8 and half a pixel."""
    regions = [[(1, 1)], [(5, 5), (6, 6)], [(9, c) for c in range(2, 10)]]
    mask = metal_mask(
        image_with(p for region in regions for p in region), smallest_mm2=2.0, pixel_mm=pixel_mm, dilation=0
    )
    assert [all(mask[p] for p in region) for region in regions] == kept
    assert mask.sum() == sum(len(r) for r, k in zip(regions, kept, strict=True) if k)


def test_a_stack_is_masked_slice_by_slice():
    """What touches across slices does not add up to a region, and dilation stays within its slice."""
    one, two = image_with([(5, 5)]), image_with([(5, 6), (5, 7), (8, 2)])
    stack = np.stack([one, np.zeros_like(one), two])
    mask = metal_mask(stack, smallest_mm2=2)
    assert not mask[:2].any()
    np.testing.assert_array_equal(mask[2], metal_mask(two, smallest_mm2=2))
    assert mask[2].sum() == 8  # two pixels in a row and the six around them


def test_no_metal():
    assert not metal_mask(np.full((4, 5), 2499.0, np.float32)).any()


# --- dilation -------------------------------------------------------------------------------------


def test_dilate_leaves_its_input_alone():
    mask = image_with([(0, 0)]) > 0
    for steps in (0, 1):
        grown = dilate(mask, steps)
        assert grown is not mask
        assert grown.sum() == 1 + 2 * steps  # at the corner, only two neighbours
        assert mask.sum() == 1


def test_dilate_does_not_grow_across_slices():
    stack = np.zeros((3, 5, 5), bool)
    stack[1, 2, 2] = True
    assert dilate(stack).sum(axis=(1, 2)).tolist() == [0, 5, 0]


# --- metal trace ----------------------------------------------------------------------------------


def test_path_and_trace_of_a_square():
    """A block of 4 x 6 pixels of 2 mm seen from above: 8 mm of metal over 12 mm of detector."""
    grid = ImageGrid(20, 20, 2.0)
    mask = np.zeros((1, *grid.shape), bool)
    mask[0, 8:12, 7:13] = True  # x from -6 to 6, y from -4 to 4 mm
    path = metal_path_mm(mask, Projector(Parallel(views=2, bins=31, bin_pitch_mm=1.0), grid, device="cpu"))
    s_mm = np.arange(31) - 15
    assert path.shape == (1, 2, 31)
    np.testing.assert_allclose(path[0, 0, np.abs(s_mm) <= 5], 8, atol=1e-4)
    np.testing.assert_allclose(path[0, 1, np.abs(s_mm) <= 3], 12, atol=1e-4)
    trace = metal_trace(path)
    # interpolation spreads the edge over the neighbouring pixel's centre
    assert not trace[0, 0, np.abs(s_mm) > 7].any()
    assert not trace[0, 1, np.abs(s_mm) > 5].any()
    assert trace[0, 0, np.abs(s_mm) <= 6].all()


# --- three means ----------------------------------------------------------------------------------


def lloyd(values, means):
    """Lloyd's iterations on the values themselves; lowest values of the upper classes as class borders."""
    means = np.array(means, float)
    for _ in range(500):
        label = np.abs(values[:, None] - means).argmin(axis=1)
        new = np.array([values[label == k].mean() if (label == k).any() else means[k] for k in range(3)])
        if np.array_equal(new, means):
            break
        means = new
    return (means[:-1] + means[1:]) / 2


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_brute_force(seed):
    rng = np.random.default_rng(seed)
    values = np.concatenate(
        [rng.normal(-1000, 15, 3000), rng.normal(30, rng.uniform(20, 80), 4000), rng.normal(900, 250, 500)]
    ).astype(np.float32)
    start = (-900.0, 0.0, 1000.0)
    bin_width = np.ptp(values) / 4096
    # a value at a border that falls to the other side moves the means, and those the borders, by a few more
    np.testing.assert_allclose(three_means(values, start), lloyd(values, start), atol=8 * bin_width)
    classes = [np.digitize(values, bounds) for bounds in (three_means(values, start), lloyd(values, start))]
    assert np.mean(classes[0] != classes[1]) < 0.005


def test_three_values_are_told_apart():
    values = np.repeat([0.0, 1.0, 3.0], [50, 30, 20]).astype(np.float32).reshape(10, 10)
    low, high = three_means(values, (0.1, 0.9, 2.0))
    assert low == pytest.approx(0.5, abs=1e-3)
    assert high == pytest.approx(2.0, abs=2e-3)


def test_an_empty_class_keeps_its_mean():
    """Air and water without bone: the upper border lies between water and the first guess of bone."""
    values = np.repeat([-1000.0, 0.0], 50).astype(np.float32)
    low, high = three_means(values, (-900.0, 0.0, 1000.0))
    assert low == pytest.approx(-500, abs=1)
    assert high == pytest.approx(500, abs=1)


def test_a_constant_image_has_no_classes():
    assert three_means(np.full((3, 3), 7.0, np.float32), (0.0, 1.0, 2.0)) == (1.0, 2.0)
