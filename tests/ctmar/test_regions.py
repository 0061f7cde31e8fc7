import numpy as np
import pytest

from ctmar.regions import (
    MOST_REGIONS,
    dark_parts,
    label_regions,
    linked,
    moved_out,
    patient_zone,
    regions_of,
    without_halo,
)


def test_linked_regions_touch_also_at_corners():
    before, after = np.zeros((6, 7), np.int32), np.zeros((6, 7), np.int32)
    before[0, 0], before[3, 3], before[5, 6] = 1, 2, 3
    after[1, 1], after[3:5, 4], after[0, 6] = 1, 2, 3
    assert linked(before, after).tolist() == [[1, 1], [2, 2]]
    before[5, 5] = 3  # now beside the second, too
    assert linked(before, after).tolist() == [[1, 1], [2, 2], [3, 2]]
    assert linked(before, np.zeros_like(after)).shape == (0, 2)


def test_too_many_regions_are_noise():
    bright = np.zeros((300, 300), bool)
    bright[::2, ::2] = True
    bright[100:110, 100:110] = True
    labels = label_regions(bright)
    assert labels.max() == MOST_REGIONS
    assert (labels[100:110, 100:110] > 0).all()
    # the same mask gives the same numbers: masks are labelled again when all slices are known
    np.testing.assert_array_equal(labels, label_regions(labels > 0))


def test_measures_of_regions():
    image = np.full((80, 80), 50.0, np.float32)
    image[10:30, 10:30] = 2700  # 10 x 10 mm
    image[20, 20] = 3100
    image[50:54, 50:54] = 2900  # 2 x 2 mm within 1000 HU
    around = np.zeros_like(image, bool)
    around[40:64, 40:64] = True
    image[around & (image < 100)] = 1000
    regions = regions_of(image, image >= 2000, (0.5, 0.5), sure_hu=3000)
    assert regions.pixels.tolist() == [400, 16]
    assert regions.peak_hu.tolist() == [3100, 2900]
    assert regions.deep.tolist() == [100, 0]  # 5 x 5 mm, from 2.5 mm inside
    assert regions.bright.tolist() == [[1, 0], [0, 0]]
    assert regions.deep_bright.tolist() == [[1, 0], [0, 0]]
    assert (regions.dense / regions.ring).tolist() == [0, 1]


def test_halo_goes_only_around_thick_metal():
    image = np.zeros((60, 60), np.float32)
    image[5:30, 5:30] = 2200
    image[9:26, 9:26] = 3000  # 17 mm
    image[40:46, 40:46] = 2200
    image[42:44, 42:44] = 3000
    bright = image >= 2000
    out = without_halo(image, bright, (1.0, 1.0), solid_hu=3000)
    np.testing.assert_array_equal(out[:35, :35], image[:35, :35] >= 3000)
    np.testing.assert_array_equal(out[35:, 35:], bright[35:, 35:])
    # ridges of one pixel go, also from the corner of the smallest block that stays
    image[9, 26:35] = 3071
    image[26:28, 26:28] = 3071
    out = without_halo(image, image >= 2000, (1.0, 1.0), solid_hu=3000)
    assert not out[9, 26:35].any()
    assert out[26:28, 26:28].all()


@pytest.mark.parametrize("pixel_mm", [(1.0, 1.0), (0.5, 2.0)])
def test_outlines_move_out_in_mm(pixel_mm):
    mask = np.zeros((41, 41), bool)
    mask[20, 20] = True
    out = moved_out(mask, 3.0, pixel_mm)
    reach_mm = 3.0 + max(pixel_mm) / 2
    for axis, step in enumerate(pixel_mm):
        half = (out.any(axis=1 - axis).sum() - 1) // 2
        assert half == int(reach_mm / step)
    assert moved_out(mask, 0.0, pixel_mm).sum() == 1


def body(x_mm):
    image = np.full((200, 200), -1000.0, np.float32)
    y, x = np.indices(image.shape) - 100.0
    for centre in x_mm:
        image[np.hypot(x - centre, y) < 30] = 40
    image[180:184, 20:180] = 0  # a shell of 4 mm
    return image


def test_patient_zone_has_both_legs_and_no_table():
    image = body([-40, 40])
    zone = patient_zone(image, np.zeros(image.shape, bool), (1.0, 1.0))
    assert zone[100, 60]
    assert zone[100, 140]
    assert zone[100, 108]  # 2 mm from the right leg
    assert not zone[130, 100]  # between the legs
    assert not zone[182, 100]
    assert zone[100 + 30 + 3, 60]
    assert not zone[100 + 30 + 12, 60]


def test_patient_zone_bridges_what_artifacts_cut():
    image = body([0])
    image[60:101, 95:105] = -1000
    assert patient_zone(image, np.zeros(image.shape, bool), (1.0, 1.0))[75, 100]
    nothing = np.full((50, 50), -1000.0, np.float32)
    assert patient_zone(nothing, np.zeros((50, 50), bool), (1.0, 1.0)).all()


def test_what_is_too_dark_for_the_mask_of_thin_metal():
    image = np.full((100, 100), 50.0, np.float32)
    image[50, 20:80] = 1500  # a wire, bright where it fills its pixels
    image[50, 45:55] = 3071
    image[50, 62] = 400  # what lies beyond is not connected
    image[60, 40:60] = 1500  # bone that does not touch it
    metal = image >= 3000
    parts = dark_parts(image, metal, (1.0, 1.0))
    expected = np.zeros_like(metal)
    expected[50, 37:45] = expected[50, 55:62] = True  # up to 8 mm
    np.testing.assert_array_equal(parts, expected)
    assert not dark_parts(image, np.zeros_like(metal), (1.0, 1.0)).any()


def test_around_thick_metal_nothing_is_kept():
    y, x = np.mgrid[:100, :100] - 50.0
    radius = np.hypot(y, x)
    image = np.where(radius < 8, 3071, np.where(radius < 12, 1500, 50)).astype(np.float32)
    assert not dark_parts(image, radius < 8, (1.0, 1.0)).any()
