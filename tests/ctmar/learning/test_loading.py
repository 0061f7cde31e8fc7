import itertools
import time

import numpy as np
import pytest
import torch

from ctmar.learning.loading import Loader
from ctmar.learning.patches import Patches, record_type


def some_patches(count=20, side=8):
    rng = np.random.default_rng(0)
    records = np.zeros(count, record_type(2, side))
    records["inputs"] = rng.random(records["inputs"].shape)
    records["target"] = rng.random(records["target"].shape)
    records["distance_mm"] = rng.integers(0, 256, records["distance_mm"].shape)
    return Patches(records, ("ti",))


@pytest.fixture(params=["memory", "file"])
def patches(request, tmp_path):
    patches = some_patches()
    if request.param == "memory":
        return patches
    np.save(tmp_path / "records.npy", patches.records)
    return Patches(np.load(tmp_path / "records.npy", mmap_mode="r"), patches.metals)


def test_batches_are_the_patches_asked_for_in_that_order(patches):
    parts = [np.array(part, int) for part in ([3, 1], [19], [], [0, 0, 7], *([k] for k in range(20)))]
    batches = list(Loader(patches, torch.device("cpu"))(parts))
    assert len(batches) == len(parts)
    for part, batch in zip(parts, batches, strict=True):
        np.testing.assert_array_equal(batch.index, part)
        np.testing.assert_array_equal(batch.inputs.numpy(), patches.inputs[part])
        np.testing.assert_array_equal(batch.target.numpy(), patches.targets[part])
        np.testing.assert_array_equal(batch.distance_mm.numpy(), patches.records["distance_mm"][part])


def test_an_odd_side_can_be_read(tmp_path):
    np.save(tmp_path / "records.npy", some_patches(side=7).records)
    mapped = Patches(np.load(tmp_path / "records.npy", mmap_mode="r"), ("ti",))
    (batch,) = Loader(mapped, torch.device("cpu"))([np.arange(5)])
    np.testing.assert_array_equal(batch.inputs.numpy(), mapped.inputs[:5])


class Slow(Loader):
    """As if the disk took 20 ms a batch."""

    def _fetch(self, index):
        time.sleep(0.02)
        return super()._fetch(index)


def test_a_busy_device_does_not_wait_for_files(tmp_path):
    np.save(tmp_path / "records.npy", some_patches().records)
    mapped = Patches(np.load(tmp_path / "records.npy", mmap_mode="r"), ("ti",))
    parts = [np.arange(4)] * 20
    waited = []
    for patches in (some_patches(), mapped):
        loader = Slow(patches, torch.device("cpu"))
        for _ in loader(parts):
            time.sleep(0.03)
        waited.append(loader.waited_s)
    assert waited[0] > 20 * 0.02
    # the first batch cannot be had in advance; the threads bring the others while the device computes
    assert waited[1] < 0.4 * waited[0]


def test_a_loader_that_is_left_early_ends(patches):
    batches = Loader(patches, torch.device("cpu"))([np.arange(2)] * 50)
    assert len(list(itertools.islice(batches, 3))) == 3
    batches.close()
