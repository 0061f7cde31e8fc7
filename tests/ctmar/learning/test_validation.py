import numpy as np
import pytest
import torch

from ctmar.learning.distributed import Team
from ctmar.learning.loading import Loader
from ctmar.learning.losses import mse
from ctmar.learning.patches import Patches, record_type
from ctmar.learning.pictures import choose_patches
from ctmar.learning.validation import Channel, rmse_columns, validate

ALONE = Team(0, 1, torch.device("cpu"))


def toy_patches():
    """Four patches of two paths and two metals, the input wrong by a known number of HU, half of each patch metal."""
    records = np.zeros(150, record_type(1, 4))
    records["hu"] = 5120.0  # so that 10 HU are a power of two, which float16 holds
    records["path"] = np.arange(150) % 2
    records["metal"] = np.arange(150) // 2 % 2
    records["distance_mm"][:, :, :2] = 7
    error_hu = 10 * (1 + records["path"] + 2 * records["metal"])
    records["target"] = 0.25
    records["inputs"] = 0.25 + (error_hu / 5120)[:, None, None, None]
    records["inputs"][:, :, 2:] += 0.5  # in the metal: it counts for the loss alone
    return Patches(records, ("fe", "au"))


def test_rmse_in_hu_by_path_and_metal_without_the_metal():
    patches = toy_patches()
    scores = validate(Channel(0), patches, Loader(patches, ALONE.device), mse, weight=0.0, team=ALONE)
    assert list(scores.rmse_hu) == rmse_columns(patches)
    assert list(scores.rmse_hu) == [
        "rmse_raw_hu", "rmse_dicom_hu", "rmse_raw_au_hu", "rmse_raw_fe_hu", "rmse_dicom_au_hu", "rmse_dicom_fe_hu",
    ]  # fmt: skip
    expected = {"raw_fe": 10, "dicom_fe": 20, "raw_au": 30, "dicom_au": 40}
    for name, value in expected.items():
        assert scores.rmse_hu[f"rmse_{name}_hu"] == pytest.approx(value)
    fe, au = 38, 37  # of 75 on the raw path
    assert scores.rmse_hu["rmse_raw_hu"] == pytest.approx(np.sqrt((fe * 10**2 + au * 30**2) / 75))
    error = patches.inputs.astype(float) - patches.targets
    assert scores.loss == pytest.approx((error**2).mean(), rel=1e-5)


def test_the_patches_to_draw_are_spread_over_each_group():
    patches = toy_patches()
    rank = np.random.default_rng(0).permutation(150)
    patches.records["inputs"] = (patches.targets + 0.01 * rank[:, None, None, None]).astype(np.float16)
    group = patches.records["path"] * 2 + patches.records["metal"]
    chosen = choose_patches(patches, 10)
    # raw fe, raw au, dicom fe, dicom au in turn
    assert group[chosen].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    for one in range(4):
        errors = np.sort(rank[group == one])[::-1]
        own = [rank[number] for number in chosen if group[number] == one]
        # the sixth, the half and five sixths of the group, the hardest first
        assert own == [errors[int(share * len(errors))] for share in (1 / 6, 1 / 2, 5 / 6)][: len(own)]
    assert sorted(choose_patches(patches, 1000)) == list(range(150))
    assert len(choose_patches(patches, 0)) == 0
