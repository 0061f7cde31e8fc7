import h5py
import numpy as np
import pytest

from ctmar.config import UseSettings
from ctmar.database import list_cases, read_case
from ctmar.errors import UnsupportedInputError
from ctmar.learning.patches import FARTHEST_MM, choose_corners, distance_mm, hard_shares, sample_patches, window_errors
from ctmar.network_input import network_channels
from tests.ctmar.toy_database import NAMES, write_toy_database


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return list_cases(write_toy_database(tmp_path_factory.mktemp("db")))


def test_window_errors_are_sums_over_each_patch():
    rng = np.random.default_rng(0)
    channels, target = rng.random((2, 35, 50), np.float32), rng.random((35, 50), np.float32)
    errors = window_errors(channels, target, patch=16, grid=8)
    assert errors.shape == (2, 3, 5)
    for c, i, j in np.ndindex(errors.shape):
        rows, cols = slice(8 * i, 8 * i + 16), slice(8 * j, 8 * j + 16)
        expected = ((channels[c, rows, cols].astype(float) - target[rows, cols]) ** 2).sum()
        assert errors[c, i, j] == pytest.approx(expected, rel=1e-5)


def test_the_hardest_of_each_channel_are_taken_and_none_twice():
    errors = np.zeros((3, 10, 10))
    errors[0].flat[:20] = np.arange(100, 80, -1)
    errors[1].flat[20:40] = 50
    errors[2].flat[:40] = errors[:2].reshape(2, 100)[:, :40].max(0) / 10
    corners = choose_corners(errors, 20, hard=(4, 4, 4), rng=np.random.default_rng(0))
    chosen = [10 * row + col for row, col in corners]
    assert len(set(chosen)) == 20
    assert {0, 1, 2, 3} <= set(chosen)  # channel 0
    assert {20, 21, 22, 23} <= set(chosen)  # channel 1
    assert {4, 5, 6, 7} <= set(chosen)  # channel 2, whose best four were taken already


@pytest.mark.parametrize("share", [0, 1])
def test_no_more_patches_than_places(share):
    errors = np.random.default_rng(1).random((3, 2, 3))
    for count in (1, 2, 6, 100):
        corners = choose_corners(errors, count, hard=[share * count // 3] * 3, rng=np.random.default_rng(0))
        assert len({tuple(corner) for corner in corners}) == min(count, 6) == len(corners)


def test_patches_are_windows_of_the_prepared_images(cases):
    names = NAMES[:3]
    patches = sample_patches(cases[:1], 9, names=names, patch=64, grid=16)
    case = read_case(cases[0])
    stack = network_channels(case.images, case.mask_metal, (*names, "reference"), case.mu_water_per_mm)
    windows = {stack[:, r : r + 64, c : c + 64].astype(np.float16).tobytes() for r in (0, 16, 32) for c in (0, 16, 32)}
    assert len(windows) == 9
    taken = np.concatenate([patches.inputs, patches.targets], axis=1)
    assert {patch.tobytes() for patch in taken} == windows


def test_every_case_gives_its_share_and_the_seed_decides(cases):
    arguments = {"names": NAMES[:2], "patch": 32, "grid": 8}
    patches = sample_patches(cases, 22, seed=5, **arguments)
    again = sample_patches(cases, 22, seed=5, **arguments)
    other = sample_patches(cases, 22, seed=6, **arguments)
    assert patches.inputs.shape == (22, 2, 32, 32)
    assert patches.targets.shape == (22, 1, 32, 32)
    np.testing.assert_array_equal(patches.inputs, again.inputs)
    assert not np.array_equal(patches.inputs, other.inputs)


def test_both_paths_are_used(cases):
    arguments = {"names": ("li",), "patch": 64, "grid": 8, "hard_fraction": 0.0}
    one, two, both = (sample_patches(cases[:1], 50, path=p, **arguments) for p in ("raw", "dicom", "both"))
    assert (len(one), len(two), len(both)) == (25, 25, 50)
    # The toy's stored images have streaks 1.5 times as strong.
    of_one, of_two, of_both = (np.mean(np.square(p.inputs.astype(float) - p.targets)) for p in (one, two, both))
    assert of_two / of_one == pytest.approx(2.25, rel=0.02)
    assert of_both == pytest.approx((of_one + of_two) / 2, rel=1e-3)
    assert both.records["path"].tolist() == [0] * 25 + [1] * 25


@pytest.mark.parametrize("each", [1, 2, 3, 7, 16, 100])
@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.6, 1.0])
def test_the_share_of_the_hardest_is_kept_with_few_patches_a_case(each, fraction):
    rng = np.random.default_rng(0)
    counts = each + rng.integers(0, 2, 2500)
    hard = hard_shares(counts, 3, fraction)
    assert hard.min() >= 0
    assert (hard.sum(axis=1) <= counts).all()
    assert np.abs(hard.sum(axis=0) - fraction * counts.sum() / 3).max() <= 1
    # and no stretch of the cases has more or less than its share
    assert np.abs(hard[:250].sum() - fraction * counts[:250].sum()) <= 1


def test_a_database_with_one_patch_a_case_has_hard_ones(tmp_path):
    """Rounded case by case there would be none: round(0.6 / 2) is 0. On both paths alike."""
    cases = list_cases(write_toy_database(tmp_path, ("p",) * 30))
    hardest = 0
    for path in ("raw", "dicom"):
        patches = sample_patches(cases, 30, names=("li", "bhc"), path=path, patch=32, grid=32, hard_fraction=0.6)
        assert len(patches) == 30
        for case, record in zip(cases, patches.records, strict=True):
            every = sample_patches([case], 9, names=("li", "bhc"), path=path, patch=32, grid=32).records
            errors = [np.square(one["inputs"].astype(float) - one["target"]).sum(axis=(1, 2)) for one in every]
            mine = np.square(record["inputs"].astype(float) - record["target"]).sum(axis=(1, 2))
            hardest += bool((mine >= np.max(errors, axis=0) * (1 - 1e-6)).any())
    # 18 of 30 by choice, and of the other 12 a few by chance
    assert 36 <= hardest <= 48


def test_a_damaged_case_is_named_or_left_out(tmp_path, caplog):
    cases = list_cases(write_toy_database(tmp_path, ("p1", "p2", "p3")))
    with h5py.File(cases[1], "r+") as file:
        file["image/li"][5, 5] = np.nan
    arguments = {"names": ("li",), "patch": 32, "path": "raw"}
    with pytest.raises(UnsupportedInputError, match=r"case-000002\.h5: has values in image/li that are not finite"):
        sample_patches(cases, 12, **arguments)
    assert len(sample_patches(cases, 12, skip_damaged=True, **arguments)) == 8
    assert "case-000002.h5" in caplog.text


class SevenMore:
    """A first network: LI's image and 7 HU, which is what its card has shown."""

    channels, use, first = ("li",), UseSettings(raw="image", dicom="image"), None

    def __call__(self, images_hu, metal):
        return images_hu["li"] + np.float32(7)


def test_what_a_first_network_has_made_is_a_channel(tmp_path, caplog):
    cases = list_cases(write_toy_database(tmp_path, ("p1", "p2", "p3")))
    arguments = {"names": ("li", "cnn-mar"), "patch": 64, "grid": 8, "path": "both", "first": SevenMore()}
    records = sample_patches(cases, 12, **arguments).records
    li, result = records["inputs"].astype(float).swapaxes(0, 1)
    tissue = (records["distance_mm"][:, 0] > 0) & (li > 0.1)
    assert (result - li)[tissue].mean() * records["hu"][0] == pytest.approx(7, abs=0.1)
    with h5py.File(cases[1], "r+") as file:  # which the images of the case do not show
        file["sinogram/metal"][5, 5] = np.nan
    with h5py.File(cases[2], "r+") as file:
        del file["mask/metal"]
    with pytest.raises(UnsupportedInputError, match=r"case-000002\.h5: has values in sinogram/metal"):
        sample_patches(cases, 12, **arguments)
    assert len(sample_patches(cases, 12, skip_damaged=True, **arguments)) == 4
    assert all(f"case-00000{number}.h5" in caplog.text for number in (2, 3))


def test_distance_from_the_metal_in_mm():
    metal = np.zeros((9, 20), bool)
    assert (distance_mm(metal, 0.5) == FARTHEST_MM).all()
    metal[4, 4] = True
    row = distance_mm(metal, 0.5)[4]
    assert row[3:6].tolist() == [0, 0, 0]
    assert row[6:14].tolist() == [1, 1, 2, 2, 3, 3, 4, 4]


def test_where_patches_come_from_is_kept(cases):
    patches = sample_patches(cases, 8, names=("li",), patch=32, path="both")
    assert patches.metals == ("ti",)
    assert set(patches.records["metal"]) == {0}
    assert patches.records["hu"] == pytest.approx(np.full(8, 1000 / 0.193))
    assert patches.labels.itemsize == 6
    for name in ("hu", "path", "metal"):
        np.testing.assert_array_equal(patches.labels[name], patches.records[name])
    metal = patches.records["distance_mm"] == 0
    water = np.float16(0.193)
    assert (patches.targets[metal] == water).all()
    other = sample_patches(cases[1:], 8, names=("li",), patch=32, path="both")
    assert patches.digest != other.digest
    assert patches.digest == sample_patches(cases, 8, names=("li",), patch=32, path="both").digest


def test_half_precision_costs_less_than_the_loss_can_show(cases):
    names = NAMES[:1]
    case = read_case(cases[0])
    whole = network_channels(case.images, case.mask_metal, names, case.mu_water_per_mm)
    assert np.square(whole - whole.astype(np.float16).astype(np.float32)).mean() < 3e-9


def test_what_cannot_be_sampled(cases):
    with pytest.raises(UnsupportedInputError, match="image/tv"):
        sample_patches(cases, 4, names=("tv",))
    with pytest.raises(ValueError, match="as large as a patch"):
        sample_patches(cases, 4, names=("li",), patch=128)
