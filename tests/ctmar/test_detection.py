"""Metal across slices, on a body of water with a spine; everything painted in mm, so that expected values are known."""

import tracemalloc
from dataclasses import dataclass

import numpy as np
import pytest
from scipy import ndimage

from ctmar.components import CONTRAST, DENSE, OUTSIDE
from ctmar.config import settings_from
from ctmar.detection import DetectionSettings, detect, detect_in_image, thicknesses_mm
from ctmar.errors import UsageError
from ctmar.raw import DILATION_MM

PIXEL_MM = 0.8
SIZE = 256


@dataclass
class Slice:
    image_hu: np.ndarray
    pixel_mm: tuple[float, float] = (PIXEL_MM, PIXEL_MM)
    padding: np.ndarray = None

    def __post_init__(self):
        self.image_hu = self.image_hu.astype(np.float32)
        if self.padding is None:
            self.padding = np.zeros(self.image_hu.shape, bool)


def grid(pixel_mm=(PIXEL_MM, PIXEL_MM), size=SIZE):
    """y downwards and x to the right in mm from the image's centre."""
    y = (np.arange(size) - size / 2) * pixel_mm[0]
    x = (np.arange(size) - size / 2) * pixel_mm[1]
    return y[:, None], x[None, :]


def body(pixel_mm=(PIXEL_MM, PIXEL_MM)):
    """An ellipse of 160 x 120 mm of water in air, with a vertebra and a 3 mm table shell 15 mm below."""
    y, x = grid(pixel_mm)
    image = np.full((SIZE, SIZE), -1000.0)
    image[(x / 80) ** 2 + (y / 60) ** 2 < 1] = 0
    image[np.hypot(x, y - 30) < 15] = 900
    image[(np.abs(y - 76.5) < 1.5) & (np.abs(x) < 90)] = -100
    return image


def disc(y_mm, x_mm, radius_mm, pixel_mm=(PIXEL_MM, PIXEL_MM)):
    y, x = grid(pixel_mm)
    return np.hypot(y - y_mm, x - x_mm) <= radius_mm


def painted(*parts):
    """The body with (mask, HU) painted in."""
    image = body()
    for mask, hu in parts:
        image[mask] = hu
    return Slice(image)


def alike(mask, expected):
    """All but the single pixels at the tips of a painted disc, which are thinner than a ridge."""
    assert (mask ^ expected).sum() <= 8


def found(images, settings=None, step_mm=1.0):
    return detect(images, [step_mm * k for k in range(len(images))], settings or DetectionSettings(dilation_mm=0))


# --- threshold, growth, slices --------------------------------------------------------------------


def test_no_metal():
    result = found([painted()] * 3)
    assert result.slices == []
    assert len(result.masks) == 3
    assert (result.kept, result.left_out, result.specks) == ((), (), 0)


def test_what_touches_metal_belongs_to_it_across_slices():
    """A wire that is cut in part by the second slice is dark there; bone of the same value elsewhere is none."""
    wire, bone = disc(-20, 10, 2), disc(30, 0, 2)
    images = [painted((wire, 3071)), painted((wire, 2100), (bone, 2100)), painted((wire, 1900))]
    result = found(images)
    assert result.slices == [0, 1]
    np.testing.assert_array_equal(result.masks[0], wire)
    np.testing.assert_array_equal(result.masks[1], wire)
    (part,) = result.kept
    assert part.slices == (0, 1)
    assert part.volume_mm3 == pytest.approx(2 * wire.sum() * PIXEL_MM**2, abs=0.01)
    assert (part.peak_hu, part.brightest) == (3071, 0)
    assert wire[part.row, part.col]
    # far apart nothing belongs together
    assert found(images, step_mm=11.0).slices == [0]


def test_pieces_that_meet_later_are_one():
    """Two legs that join in the last slice: a union of what has been counted apart."""
    legs = [disc(-20, -6, 2) | disc(-20, 6, 2)] * 3
    bridge = legs[0] | ((np.abs(grid()[0] + 20) < 1) & (np.abs(grid()[1]) < 6))
    result = found([painted((m, 3071)) for m in (*legs, bridge)])
    assert len(result.kept) == 1
    assert result.kept[0].slices == (0, 3)
    assert result.kept[0].volume_mm3 == pytest.approx((3 * legs[0].sum() + bridge.sum()) * PIXEL_MM**2, abs=0.01)


def test_the_threshold_decides_for_all_slices():
    part = disc(-20, 10, 2)
    assert found([painted((part, 2400))]).slices == []
    assert found([painted((part, 2400))], DetectionSettings(threshold_hu=2400, dilation_mm=0)).slices == [0]
    low = found([painted((part, 1500))], DetectionSettings(threshold_hu=1200))
    assert (low.threshold_hu, low.grow_hu, low.slices) == (1200, 1200, [0])


def test_thick_metal_leaves_its_bright_halo_out():
    """The halo of 2000 to 3000 HU around a hip is artifact, that around a wire the blur of its edge."""
    hip, around_hip = disc(-10, -30, 8), disc(-10, -30, 13)
    wire, around_wire = disc(-10, 30, 1.5), disc(-10, 30, 3)
    mask = found([painted((around_hip, 2400), (hip, 3071), (around_wire, 2400), (wire, 3071))]).masks[0]
    alike(mask, hip | around_wire)


def test_streaks_from_implant_to_implant_are_not_swallowed():
    """As bright as metal, but thinner than 1.6 mm; a wire of its own is as thin and stays."""
    y, x = grid()
    fillings, streak = disc(-20, -15, 4) | disc(-20, 15, 4), (np.abs(y + 20) < 0.5) & (np.abs(x) < 15)
    wire = (np.abs(y + 40) < 0.5) & (np.abs(x) < 15)
    mask = found([painted((streak | fillings | wire, 3071))]).masks[0]
    alike(mask, fillings | wire)


def test_dilation_is_in_mm():
    """Outlines move out by as much in either direction, also where pixels are not square."""
    pixel_mm = (1.0, 0.5)
    y, x = grid(pixel_mm)
    square = (np.abs(y + 10) <= 3) & (np.abs(x - 5) <= 3)
    image = body(pixel_mm)
    image[square] = 3071
    for by_mm in (0.0, 1.0, 2.0):
        mask = found([Slice(image, pixel_mm)], DetectionSettings(dilation_mm=by_mm)).masks[0]
        rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert rows.size * 1.0 == square.any(axis=1).sum() + 2 * by_mm
        assert abs(cols.size * 0.5 - (square.any(axis=0).sum() * 0.5 + 2 * by_mm)) <= 1.0


@pytest.mark.parametrize("pixel_mm", [0.45, 0.8, 1.2])
def test_images_get_no_margin_and_raw_data_a_pixel_of_any_usual_size(pixel_mm):
    square = (pixel_mm, pixel_mm)
    y, x = grid(square)
    dot = (np.abs(y + 20) <= 2) & (np.abs(x - 10) <= 2)
    image = body(square)
    image[dot] = 3071
    np.testing.assert_array_equal(found([Slice(image, square)], DetectionSettings()).masks[0], dot)
    mask = found([Slice(image, square)], DetectionSettings(dilation_mm=DILATION_MM)).masks[0]
    rows = np.flatnonzero(mask.any(axis=1))
    assert rows.size == dot.any(axis=1).sum() + 2
    assert not (ndimage.binary_dilation(dot) & ~mask).any()


def test_specks_go_by_their_volume():
    two = np.zeros((SIZE, SIZE), bool)
    two[100, 100:102] = True  # 1.28 mm2
    thin, thick = DetectionSettings(smallest_mm3=2), DetectionSettings(smallest_mm3=2.6)
    for settings, slices, kept in ((thin, 1, False), (thin, 2, True), (thick, 2, False)):
        result = found([painted((two, 3071))] * slices, settings)
        assert bool(result.slices) == kept
        assert result.specks == (not kept)
    assert thicknesses_mm([0, 1, 1, 4, 40]).tolist() == [1, 0.5, 1.5, 5, 5]
    assert thicknesses_mm([3]).tolist() == thicknesses_mm([3, 3])[:1].tolist() == [1]


def test_slices_of_any_shape_and_some_that_cannot_be_read():
    wire = disc(-20, 10, 2)
    small = Slice(painted((wire, 3071)).image_hu[:200, :220])
    padded = painted((wire, 3071))
    padded.padding = wire
    result = found([painted((wire, 3071)), None, small, padded, painted((wire, 2200)), painted((wire, 3071))])
    assert result.slices == [0, 2, 4, 5]
    assert [m.shape for m in result.masks] == [(SIZE, SIZE), (0, 0), (200, 220), *[(SIZE, SIZE)] * 3]
    assert len(result.kept) == 3
    with pytest.raises(ValueError, match="1 images for 2"):
        detect([painted()], [0.0, 1.0])
    with pytest.raises(ValueError, match="more images"):
        detect([painted()] * 3, [0.0, 1.0])


def test_a_single_image():
    wire = disc(-20, 10, 2)
    mask = detect_in_image(
        painted((wire, 3071)).image_hu, (PIXEL_MM, PIXEL_MM), DetectionSettings(dilation_mm=0)
    ).masks[0]
    np.testing.assert_array_equal(mask, wire)


def test_duplicates_count_half():
    wire = disc(-20, 10, 2)
    twice = detect([painted((wire, 3071))] * 4, [0.0, 0.0, 2.0, 2.0], DetectionSettings())
    once = detect([painted((wire, 3071))] * 2, [0.0, 2.0], DetectionSettings())
    assert len(twice.kept) == 1
    assert twice.kept[0].volume_mm3 == pytest.approx(once.kept[0].volume_mm3, rel=0.5)


# --- what is no metal -----------------------------------------------------------------------------


def smooth(image, mm=1.0):
    return Slice(ndimage.gaussian_filter(image.image_hu, mm / PIXEL_MM))


@pytest.mark.parametrize("hu", [2600, 2950])
def test_dense_contrast_is_left_out(hu):
    """A bladder, a renal pelvis: thick, and still darker than metal that is as thick."""
    result = found([smooth(painted((disc(-10, 0, radius), hu))) for radius in (8, 20, 20, 8)])
    assert result.slices == []
    (part,) = result.left_out
    assert part.reason == CONTRAST
    assert part.slices == (0, 3)
    noisy = [smooth(painted((disc(-10, 0, radius), hu))) for radius in (8, 20, 20, 8)]
    for k, one in enumerate(noisy):
        one.image_hu += np.random.default_rng(k).normal(0, 30, one.image_hu.shape).astype(np.float32)
    assert found(noisy).slices == []
    kept = found([painted((disc(-10, 0, 20), hu))], DetectionSettings(exclude=False))
    assert kept.slices == [0]


def test_a_lower_threshold_is_taken_at_its_word():
    """An aluminium splint: thick, and no brighter than contrast."""
    splint, rail = disc(-10, 0, 10), disc(76, 40, 2)
    result = found([painted((splint, 2200), (rail, 2200))], DetectionSettings(threshold_hu=2000, dilation_mm=0))
    np.testing.assert_array_equal(result.masks[0], splint)
    assert [part.reason for part in result.left_out] == [OUTSIDE]


def test_in_extended_data_thick_metal_is_told_from_brighter_contrast():
    """Where the scale does not end at 3071 HU, 3500 HU in something thick is no metal; in 12-bit data it may be."""
    contrast, nail = disc(-10, -30, 10), disc(-10, 30, 5)
    both = found([painted((contrast, 3500), (nail, 9000))])
    alike(both.masks[0], nail)
    assert [part.reason for part in both.left_out] == [CONTRAST]
    clipped = found([painted((contrast, 3071), (nail, 3071))])
    alike(clipped.masks[0], contrast | nail)


def test_enamel_and_dense_bone_are_left_out():
    """2 mm of 2800 HU in dentine of 1500 HU."""
    result = found([painted((disc(-40, 0, 5), 1500), (disc(-40, 0, 1.5), 2800))] * 3)
    assert result.slices == []
    assert [part.reason for part in result.left_out] == [DENSE]
    filling = found([painted((disc(-40, 0, 5), 1500), (disc(-40, 0, 1.5), 3071))] * 3)
    assert filling.slices == [0, 1, 2]


@pytest.mark.parametrize("blur_mm", [0.5, 0.6, 0.8])
def test_a_clip_that_does_not_saturate_is_kept(blur_mm):
    """A clip of 2 x 6 mm in soft tissue, 2700 HU with the blur of a soft kernel (0.6 mm are 1.4 mm FWHM)."""
    y, x = grid()
    clip = ndimage.gaussian_filter(((np.abs(y + 20) < 1) & (np.abs(x - 10) < 3)).astype(float), blur_mm / PIXEL_MM)
    assert found([Slice(painted().image_hu + 2700 * clip / clip.max())]).slices == [0]


def test_hardware_of_the_table_is_left_out_and_a_pacemaker_under_the_skin_is_not():
    rail, can = disc(76, 40, 2), disc(-52, 0, 4)
    result = found([painted((rail, 3071), (can, 3071))] * 2)
    alike(result.masks[0], can)
    assert [(part.reason, part.peak_hu) for part in result.left_out] == [(OUTSIDE, 3071)]


def test_teeth_that_artifacts_cut_off_are_kept():
    """A dark band before the foremost filling: it lies outside of the tissue that is left, but beside other metal."""
    y, _ = grid()
    image = painted().image_hu
    image[np.broadcast_to(y < -30, image.shape)] = -1000
    alone = image.copy()
    alone[disc(-42, 0, 3)] = 3071
    image[disc(-42, 0, 3) | disc(-20, 10, 3)] = 3071
    assert found([Slice(alone)]).slices == []
    assert len(found([Slice(image)]).kept) == 2


def test_a_slice_with_nothing_but_metal():
    image = np.full((SIZE, SIZE), -1000.0)
    image[disc(0, 0, 10)] = 3071
    assert found([Slice(image)]).slices == [0]


# --- cost -----------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_slices():
    """Of a slice some hundred bytes stay."""
    wire = painted((disc(-20, 10, 2), 3071))

    def run(slices):
        tracemalloc.start()
        detect((wire for _ in range(slices)), [0.5 * k for k in range(slices)])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    run(2)
    assert run(60) - run(10) < 50 * 4000


def test_pixels_far_from_square():
    """A bar of one column that is thick in mm, and no ridge in pixels that are ten times as wide as high."""
    pixel_mm = (0.3, 3.0)
    y, x = grid(pixel_mm)
    image = np.where((np.abs(y) < 35) & (np.abs(x) < 100), 0.0, -1000.0)
    image[(np.abs(y) < 5) & (np.abs(x) < 1)] = 3071
    found([Slice(image, pixel_mm)])
    image[(np.abs(y) < 5) & (np.abs(x) < 4)] = 3071
    assert found([Slice(image, pixel_mm)]).slices == [0]


def test_noise_without_end_is_bounded():
    noise = np.random.default_rng(0).choice([-1000.0, 3071.0], (SIZE, SIZE), p=[0.8, 0.2])
    result = detect([Slice(noise)] * 2, [0.0, 1.0])
    assert len(result.kept) <= 4096


# --- settings and report --------------------------------------------------------------------------


def test_settings_from_toml():
    assert settings_from(DetectionSettings, {"threshold_hu": 3000, "exclude": False}).threshold_hu == 3000
    for wrong in (
        {"grow_hu": 2600.0, "threshold_hu": 2500.0},
        {"threshold_hu": -1.0},
        {"smallest_mm3": -1.0},
        {"dilation_mm": 30.0},
        {"dilation_mm": float("nan")},
    ):
        with pytest.raises(UsageError):
            settings_from(DetectionSettings, wrong)


def test_report_is_json():
    import json

    result = found([painted((disc(-20, 10, 2), 3071), (disc(76, 40, 2), 3071))])
    report = json.loads(json.dumps(result.report()))
    assert report["threshold_hu"] == 2500
    assert report["left_out"][0]["reason"] == OUTSIDE
    assert report["components"][0]["slices"] == [1, 1]
