import json
from dataclasses import replace

import numpy as np
import pytest

from ctmar.config import TrainingSettings
from ctmar.database import list_cases, write_case
from ctmar.learning.split import split_cases
from ctmar.learning.store import fits_memory, make_patches, store_patches
from tests.ctmar.toy_database import toy_case, write_toy_database

SETTINGS = TrainingSettings(patches=24, patch=32, validation_fraction=0.25, channels=2)


@pytest.fixture
def split(tmp_path):
    return split_cases(list_cases(write_toy_database(tmp_path / "db")), SETTINGS)


def test_patches_in_files_are_those_in_memory(split, tmp_path):
    folder = tmp_path / "patches"
    inside = make_patches(split, SETTINGS, folder)
    assert not folder.exists()
    mapped = make_patches(split, replace(SETTINGS, memory_gb=0.0), folder)
    for one, other in zip(inside, mapped, strict=True):
        assert isinstance(other.records, np.memmap)
        assert one.metals == other.metals
        assert one.digest == other.digest
        assert one.records.tobytes() == other.records.tobytes()


def test_files_are_used_again_only_for_the_same_cases_and_settings(split, tmp_path):
    folder = tmp_path / "patches"
    store_patches(split, SETTINGS, folder)
    first = (folder / "training.npy").stat().st_ino
    store_patches(split, replace(SETTINGS, epochs=3, lr=1.0, memory_gb=0.0), folder)
    assert (folder / "training.npy").stat().st_ino == first
    digest = store_patches(split, replace(SETTINGS, seed=1), folder)[0].digest
    assert digest != store_patches(split, SETTINGS, folder)[0].digest
    before = store_patches(split, SETTINGS, folder)[0].digest
    write_case(split.train[0], toy_case(99, patient="p1"))
    assert store_patches(split, SETTINGS, folder)[0].digest != before


@pytest.mark.parametrize("content", ["", "{", "[]", json.dumps({"key": 3})])
def test_a_damaged_index_is_made_anew(split, tmp_path, content):
    folder = tmp_path / "patches"
    first = store_patches(split, SETTINGS, folder)[0].digest
    (folder / "patches.json").write_text(content)
    assert store_patches(split, SETTINGS, folder)[0].digest == first


def test_what_fits_in_memory():
    # 64 x 64 x (3 + 1 channels of 2 bytes + 1 byte) = 36,864 bytes and 6 more a patch
    settings = TrainingSettings(patches=100_000, channels=3)
    assert fits_memory(replace(settings, memory_gb=3.69))
    assert not fits_memory(replace(settings, memory_gb=3.68))
