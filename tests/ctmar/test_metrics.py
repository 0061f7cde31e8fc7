"""Metrics against values worked out by hand or by a second, direct implementation."""

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from ctmar import metrics


def test_rmse_of_a_hand_computed_example():
    reference = np.zeros((2, 2))
    image = np.array([[3.0, 4.0], [0.0, 1000.0]])
    mask = np.array([[True, True], [False, False]])
    assert metrics.rmse_hu(image, reference, mask=mask) == pytest.approx(np.sqrt(12.5))


def test_rmse_refuses_an_empty_mask_nan_and_other_shapes():
    zero = np.zeros((2, 2))
    with pytest.raises(ValueError, match="empty"):
        metrics.rmse_hu(zero, zero, mask=zero)
    with pytest.raises(ValueError, match="finite"):
        metrics.rmse_hu(zero * np.nan, zero, mask=zero + 1)
    with pytest.raises(ValueError, match="shapes differ"):
        metrics.rmse_hu(zero, zero, mask=np.ones((1, 2)))
    # what the mask leaves out may be anything
    assert metrics.rmse_hu([[np.nan, 2.0]], [[0.0, 0.0]], mask=[[False, True]]) == 2


def direct_ssim(x, y):
    """Wang 2004, equation 13, window by window with an explicit 11 x 11 Gaussian, valid positions only."""
    offset = np.arange(-5, 6)
    window = np.exp(-(offset[:, None] ** 2 + offset**2) / (2 * 1.5**2))
    window /= window.sum()

    def local(values):
        return np.einsum("ijkl,kl->ij", sliding_window_view(values, (11, 11)), window)

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mx, my = local(x), local(y)
    vx, vy, cov = local(x * x) - mx * mx, local(y * y) - my * my, local(x * y) - mx * my
    return np.mean((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))


def test_ssim_is_wangs_index_on_the_papers_grey_values():
    rng = np.random.default_rng(5)
    reference = rng.uniform(0, 0.04, (40, 37))
    image = reference + rng.normal(0, 0.01, reference.shape)
    metal = np.zeros(reference.shape, bool)
    metal[10:15, 20:26] = True
    image[metal] = 9.0
    x = np.clip(image / reference.max() * 255, 0, 255)
    y = reference / reference.max() * 255
    x[metal] = y[metal] = 0
    value = metrics.paper_ssim(image, reference, metal)
    assert 0.5 < value < 0.98
    assert value == pytest.approx(direct_ssim(x, y), abs=1e-9)
    # scale cancels; what lies under the metal does not matter
    image[metal] = -3.0
    assert metrics.paper_ssim(50 * image, 50 * reference, metal) == pytest.approx(value, abs=1e-9)


def test_ssim_of_equal_and_of_constant_images():
    flat = np.full((16, 16), 100.0)
    none = np.zeros((16, 16), bool)
    assert metrics.paper_ssim(flat, flat, none) == pytest.approx(1)
    # constant images have no structure: (2 m1 m2 + c1) / (m1^2 + m2^2 + c1) with grey values 127.5 and 255
    c1 = 2.55**2
    expected = (2 * 127.5 * 255 + c1) / (127.5**2 + 255**2 + c1)
    assert metrics.paper_ssim(flat / 2, flat, none) == pytest.approx(expected)
    with pytest.raises(ValueError, match="positive"):
        metrics.paper_ssim(flat, -flat, none)
    with pytest.raises(ValueError, match="at least 11"):
        metrics.paper_ssim(flat[:10], flat[:10], none[:10])


def test_evaluate_image_separates_body_image_and_metal():
    reference = np.full((20, 20), -1000.0)
    body = np.zeros((20, 20), bool)
    body[:10] = True
    reference[body] = 0
    metal = np.zeros_like(body)
    metal[0, 0] = True
    image = reference.copy()
    image[metal] = 3000
    image[5, 5] += 30
    image[15, 15] += 40
    values = metrics.evaluate_image(image, reference, metal, body)
    assert set(values) == set(metrics.METRICS)
    assert values["rmse_body_hu"] == pytest.approx(np.sqrt(900 / 199))
    assert values["rmse_hu"] == pytest.approx(np.sqrt(2500 / 399))
    assert values["ssim"] == pytest.approx(metrics.paper_ssim(image + 1000, reference + 1000, metal))


def test_streaks_count_only_in_soft_tissue_within_40_mm():
    reference = np.zeros((1, 50))
    metal = np.zeros((1, 50), bool)
    metal[0, 0] = True
    reference[0, 3] = 600  # bone
    image = reference.copy()
    image[0, 1:9:2] += 20
    image[0, 2:9:2] += -20  # up to 8 pixels of 5 mm: 40 mm
    image[0, 3] = -900
    image[0, 9:] = 5000
    image[0, 0] = 20000
    # the seven pixels 1 2 4 5 6 7 8: 20 -20 -20 20 -20 20 -20
    expected = np.sqrt(400 - (20 / 7) ** 2)
    assert metrics.streak_amplitude_hu(image, reference, metal, pixel_mm=5.0) == pytest.approx(expected)
    assert metrics.streak_amplitude_hu(reference + 7, reference, metal, pixel_mm=5.0) == pytest.approx(0)
    assert np.isnan(metrics.streak_amplitude_hu(image, reference, metal & False, pixel_mm=5.0))


def test_bone_dice_by_hand():
    reference = np.array([[149, 150, 700, 2500, 2501, 700]])
    image = np.array([[200, 150, 0, 2500, 2501, 700]])
    metal = np.array([[0, 0, 0, 0, 0, 1]])
    # bone of the image: pixels 0 1 3; of the reference: 1 2 3; metal is out
    assert metrics.bone_dice(image, reference, metal) == pytest.approx(2 * 2 / 6)
    assert np.isnan(metrics.bone_dice(image * 0, reference * 0, metal))
    both = metrics.clinical_metrics(image, reference, metal, pixel_mm=1.0)
    assert set(both) == {"streak_hu", "bone_dice"}


def test_excess():
    assert metrics.excess(33, 18) == pytest.approx(27.65863)
    assert metrics.excess(17, 18) == 0
    with pytest.raises(ValueError, match="negative"):
        metrics.excess(-1, 0)


def disk(shape, row, col, radius):
    r, c = np.indices(shape)
    return (r - row) ** 2 + (c - col) ** 2 <= radius**2


def test_body_mask_fills_cavities_and_drops_the_table():
    shape = (200, 200)
    body, lung = disk(shape, 90, 100, 60), disk(shape, 85, 80, 25)
    image = np.full(shape, -1000.0)
    image[153:156, 10:190] = 100  # a table's shell, 3 pixels, three rows below the body
    image[5:9, 5:9] = 40  # a line
    image[body] = 20
    image[lung] = -850
    np.testing.assert_array_equal(metrics.body_mask(image), body)


def test_body_mask_keeps_two_legs_and_thin_skin():
    shape = (120, 200)
    legs = disk(shape, 60, 50, 35) | disk(shape, 60, 150, 33)
    image = np.where(legs, 30.0, -1000.0)
    image[23:26, 48:52] = 30  # an ear: three pixels above the first leg's top row
    mask = metrics.body_mask(image)
    np.testing.assert_array_equal(mask[26:], legs[26:])
    assert mask[23:25, 48:52].all()
    assert not metrics.body_mask(image, smallest_part=1.0)[:, 110:].any()


def test_body_mask_of_a_patient_cut_by_the_field_of_view_and_of_air():
    image = np.full((60, 60), -1000.0)
    image[:, :30] = 0
    np.testing.assert_array_equal(metrics.body_mask(image), image == 0)
    assert not metrics.body_mask(np.full((60, 60), np.nan)).any()


def test_summarise_means_by_path_and_method():
    rows = [
        {"case": "b", "path": "dicom", "method": "li", "rmse_hu": 9.0, "rmse_body_hu": 8.0, "ssim": 0.5},
        {
            "case": "a",
            "path": "raw",
            "method": "uncorrected",
            "rmse_hu": 10,
            "rmse_body_hu": 20,
            "ssim": 0.25,
        },
        {"case": "a", "path": "raw", "method": "li", "rmse_hu": 1, "rmse_body_hu": 2, "ssim": 0.9},
        {
            "case": "b",
            "path": "raw",
            "method": "uncorrected",
            "rmse_hu": 30,
            "rmse_body_hu": 60,
            "ssim": 0.75,
        },
    ]
    table = metrics.summarise(rows)
    assert [(row["path"], row["method"], row["n"]) for row in table] == [
        ("raw", "li", 1),
        ("raw", "uncorrected", 2),
        ("dicom", "li", 1),
    ]
    assert table[1]["rmse_hu"] == 20
    assert table[1]["rmse_body_hu"] == 40
    assert table[1]["ssim"] == 0.5
    assert metrics.summarise([]) == []
    with pytest.raises(ValueError, match="lacks ssim"):
        metrics.summarise([{"path": "raw", "method": "li", "rmse_hu": 1, "rmse_body_hu": 2}])


def test_summarise_leaves_nan_out_of_a_mean():
    rows = [{"path": "raw", "method": "li", "bone_dice": value} for value in (0.5, float("nan"), 1.0)]
    assert metrics.summarise(rows, metrics=["bone_dice"]) == [
        {"path": "raw", "method": "li", "bone_dice": 0.75, "n": 3}
    ]
