from dataclasses import replace

import numpy as np
import pytest

from ctmar.errors import ModelError
from ctmar.network import CHANNELS, build
from ctmar.network_input import HIGHEST_HU, image_names
from ctmar.restorer import NetworkRestorer
from ctmar.weights import ModelCard, read_card, save_model
from tests.ctmar.small import write_tiny_model

SHAPE = (2, 24, 20)


def images(restorer, *, bright=0.0):
    rng = np.random.default_rng(0)
    return {name: rng.uniform(-900, 900 + bright, SHAPE).astype(np.float32) for name in restorer.channels}


def test_an_initialised_network_gives_its_last_channel_back(tmp_path):
    """So values pass HU -> 1/cm -> HU, and metal with its neighbours arrives as water."""
    restorer = NetworkRestorer(write_tiny_model(tmp_path), device="cpu")
    given = images(restorer)
    metal = np.zeros(SHAPE, bool)
    metal[1, 10, 10] = True
    result = restorer(given, metal)
    assert result.shape == SHAPE
    assert result.dtype == np.float32
    expected = given["li"].copy()
    expected[1, [10, 9, 11, 10, 10], [10, 10, 10, 9, 11]] = 0
    change = result - expected
    assert np.abs(change).mean() < 60  # a tenth of random features is in it
    assert np.corrcoef(result[0].ravel(), given["li"][0].ravel())[0, 1] > 0.99


def test_slices_do_not_see_one_another(tmp_path):
    restorer = NetworkRestorer(write_tiny_model(tmp_path), device="cpu")
    given = images(restorer)
    metal = np.zeros(SHAPE, bool)
    both = restorer(given, metal)
    one = restorer({name: stack[1:] for name, stack in given.items()}, metal[1:])
    np.testing.assert_array_equal(both[1:], one)


def test_more_images_than_channels_are_fine_and_fewer_are_not(tmp_path):
    restorer = NetworkRestorer(write_tiny_model(tmp_path), device="cpu")
    given = images(restorer)
    metal = np.zeros(SHAPE, bool)
    np.testing.assert_array_equal(restorer({**given, "other": given["li"] + 9}, metal), restorer(given, metal))
    del given["bhc"]
    with pytest.raises(KeyError):
        restorer(given, metal)


def test_the_shipped_default_loads_and_changes_no_shape():
    restorer = NetworkRestorer(device="cpu")
    assert restorer.card.name == "default"
    assert "uncorrected" in restorer.channels
    result = restorer(images(restorer, bright=2 * HIGHEST_HU), np.zeros(SHAPE, bool))
    assert result.shape == SHAPE
    assert np.isfinite(result).all()


def test_missing_model():
    with pytest.raises(ModelError, match="no-such-model"):
        NetworkRestorer("no-such-model", device="cpu")


def write_second(folder, **changes):
    first = write_tiny_model(folder)
    network = build("cnn", CHANNELS[8])
    network.initialise(0)
    card = ModelCard("second", "cnn", CHANNELS[8], after="tiny", after_sha256=read_card(first).sha256)
    save_model(folder / "second.safetensors", network, replace(card, **changes))
    return folder / "second.safetensors"


def test_a_model_that_refines_another_finds_it_beside_it(tmp_path):
    restorer = NetworkRestorer(write_second(tmp_path), device="cpu")
    assert restorer.first.card.name == "tiny"
    assert restorer.first.first is None
    assert restorer.channels == image_names(CHANNELS[8])
    (tmp_path / "tiny.json").unlink()
    with pytest.raises(ModelError):
        NetworkRestorer(tmp_path / "second.safetensors", device="cpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"after": "gone"}, "not in the same folder"),
        ({"after": "../tiny"}, "not in the same folder"),
        ({"after_sha256": "0"}, "another model"),
        ({"after": "second"}, "another model"),
        ({"after": ""}, "does not say of which"),
    ],
)
def test_a_model_that_does_not_belong_to_its_first_is_refused(tmp_path, changes, message):
    path = write_second(tmp_path, **changes)
    with pytest.raises(ModelError, match=message):
        NetworkRestorer(path, device="cpu")
