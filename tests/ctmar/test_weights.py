import copy
import json
import pickle
from dataclasses import replace

import pytest
import safetensors.torch
import torch

from ctmar import weights
from ctmar.config import UseSettings
from ctmar.errors import ModelError, UsageError
from ctmar.network import CHANNELS, build
from ctmar.weights import ModelCard, list_models, load_model, save_model

CARD = ModelCard(name="toy", arch="cnn", channels=CHANNELS[3], data={"patients_trained": ["p1"]}, licence="CC0-1.0")


@pytest.fixture
def model(tmp_path):
    network = build("cnn", CHANNELS[3])
    network.initialise(0)
    path = tmp_path / "toy.safetensors"
    return network, save_model(path, network, CARD), path


def test_round_trip(model):
    network, card, path = model
    loaded, read = load_model(path)
    assert read == card == replace(CARD, sha256=card.sha256)
    assert len(card.sha256) == 64
    image = torch.rand(1, 3, 16, 16)
    assert torch.equal(loaded(image), network(image))
    assert not loaded.training
    assert sorted(p.name for p in path.parent.iterdir()) == ["toy.json", "toy.safetensors"]


def test_weights_stored_in_16_bits_are_used_in_32(model, tmp_path):
    network, _, _ = model
    save_model(tmp_path / "half.safetensors", copy.deepcopy(network).half(), CARD)
    loaded, _ = load_model(tmp_path / "half.safetensors")
    image = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(loaded(image), network(image), rtol=0, atol=1e-3)


def test_channels_last_weights_are_stored_alike(model, tmp_path):
    network, card, _ = model
    moved = network.to(memory_format=torch.channels_last)
    assert save_model(tmp_path / "moved.safetensors", moved, CARD).sha256 == card.sha256


def test_one_flipped_bit_is_noticed(model):
    *_, path = model
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match="SHA-256"):
        load_model(path)


def _with_content(path, content):
    """Put `content` in place of the weights, with a card that vouches for it."""
    path.write_bytes(content)
    card = path.with_suffix(".json")
    values = json.loads(card.read_text())
    values["sha256"] = weights.hashlib.sha256(content).hexdigest()
    card.write_text(json.dumps(values))


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("the pickle was loaded",))


def test_a_pickle_under_the_right_name_is_not_loaded(model):
    *_, path = model
    _with_content(path, pickle.dumps(Bomb()))
    with pytest.raises(ModelError, match="not a safetensors file"):
        load_model(path)


def test_truncated_weights_with_a_matching_hash(model):
    *_, path = model
    _with_content(path, path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="not a safetensors file"):
        load_model(path)


@pytest.mark.parametrize("change", ["shape", "name", "dtype", "nan"])
def test_weights_of_another_network_are_refused(model, change):
    network, _, path = model
    tensors = {k: v.clone() for k, v in network.state_dict().items()}
    if change == "shape":
        tensors = {k: v.clone() for k, v in build("cnn", CHANNELS[2]).state_dict().items()}
    elif change == "name":
        tensors["extra"] = torch.zeros(1)
    elif change == "dtype":
        tensors["layers.0.bias"] = tensors["layers.0.bias"].double()
    else:
        tensors["layers.0.bias"][0] = float("nan")
    _with_content(path, safetensors.torch.save(tensors))
    with pytest.raises(ModelError, match="not finite" if change == "nan" else "do not fit"):
        load_model(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b'{"name": "a", "arch": "cnn", "channels": 3}',
        b'{"name": "a", "arch": "cnn", "channels": [1, 2]}',
        b'{"name": "a", "arch": "cnn", "channels": []}',
        b'{"name": "a", "arch": "cnn", "channels": ["li"], "data": 3}',
        b'{"name": "a", "arch": ["cnn"], "channels": ["li"]}',
    ],
)
def test_a_broken_card_is_refused(model, content):
    *_, path = model
    path.with_suffix(".json").write_bytes(content)
    with pytest.raises(ModelError, match="not a model card"):
        load_model(path)


def test_an_unknown_architecture_is_refused(model):
    *_, path = model
    path.with_suffix(".json").write_text('{"name": "a", "arch": "transformer", "channels": ["li"]}')
    with pytest.raises(ModelError, match="not known to this version"):
        load_model(path)


def test_how_a_network_is_used_is_on_its_card(model):
    *_, path = model
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["use"] == {"prior": "tissue", "raw": "replacement", "dicom": "replacement", "bone": False}
    path.with_suffix(".json").write_text(json.dumps(card | {"use": {"dicom": "image"}}))
    assert load_model(path)[1].use == UseSettings(dicom="image")
    del card["use"]  # of a model from before there was a choice
    path.with_suffix(".json").write_text(json.dumps(card))
    assert load_model(path)[1].use == UseSettings()


def test_what_is_missing_is_named(model, tmp_path):
    *_, path = model
    with pytest.raises(ModelError, match="no such weights file"):
        load_model(tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="no model 'nonsense'"):
        load_model("nonsense")
    with pytest.raises(ModelError, match="no model"):
        load_model("../toy")
    wrong = tmp_path / "net.pt"
    wrong.write_bytes(b"x")
    with pytest.raises(ModelError, match=r"not a \.safetensors file"):
        load_model(wrong)
    path.with_suffix(".json").unlink()
    with pytest.raises(ModelError, match=r"toy\.json: is missing"):
        load_model(path)


def test_shipped_models_are_found_by_name(model, monkeypatch):
    _, card, path = model
    monkeypatch.setattr(weights, "SHIPPED", path.parent)
    assert list_models() == {"toy": card}
    assert load_model("toy")[1] == card


def test_every_shipped_model_loads():
    for name, card in list_models().items():
        assert load_model(name)[1] == card


def test_only_safetensors_are_written(tmp_path):
    with pytest.raises(UsageError, match=r"\.safetensors"):
        save_model(tmp_path / "net.pt", build("cnn", CHANNELS[3]), CARD)
