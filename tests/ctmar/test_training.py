import itertools
import json
import logging

import numpy as np
import pytest
import torch

from ctmar.config import TrainingSettings
from ctmar.database import list_cases, read_case
from ctmar.errors import ModelError, NoUsableSeriesError, OutputExistsError, UnsupportedInputError, UsageError
from ctmar.network_input import network_channels
from ctmar.training import choose_device, schedule, train
from ctmar.weights import load_model
from tests.ctmar.toy_database import write_toy_database

SMALL = TrainingSettings(epochs=4, patches=24, patch=32, batch_size=8, validation_fraction=0.25)


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    return write_toy_database(tmp_path_factory.mktemp("db"))


class Interrupt:
    """Acts like Ctrl-C at the second step of an epoch; counts what it is told."""

    def __init__(self, epoch=None):
        self.epoch = epoch
        self.calls = []

    def __call__(self, epoch, epochs, batch, batches, loss):
        self.calls.append((epoch, epochs, batch, batches))
        assert loss > 0
        if (epoch, batch) == (self.epoch, 2):
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def finished(database, tmp_path_factory):
    """A short run that nobody disturbed."""
    out = tmp_path_factory.mktemp("out") / "whole.safetensors"
    progress = Interrupt()
    return out, train(database, out, SMALL, device="cpu", progress=progress), progress.calls


def test_it_learns(database, tmp_path):
    settings = TrainingSettings(epochs=10, patches=60, patch=32, batch_size=8, validation_fraction=0.25)
    card = train(database, tmp_path / "net.safetensors", settings, device="cpu")
    curve = np.array(card.metrics["curve"])
    assert curve.shape == (10, 2)
    assert curve[-1, 0] < curve[0, 0] / 5
    # On a patient never seen, clearly better than the best of its inputs.
    assert card.metrics["validation"] < 0.1 * min(card.metrics["validation_of_inputs"].values())


def test_card_and_weights(finished, database):
    out, card, _ = finished
    network, read = load_model(out)
    assert read.channels == ("uncorrected", "bhc", "li")
    assert read.sha256 == card.sha256
    assert read.metrics == card.metrics
    assert read.settings["epochs"] == 4
    data = card.data
    assert (data["split_by"], data["cases_trained"], data["cases_validated"]) == ("patient", 3, 1)
    assert sorted(data["patients_trained"] + data["patients_validated"]) == ["p1", "p2", "p3", "p4"]
    assert (data["patches_trained"], data["patches_validated"]) == (18, 6)
    assert sorted(p.name for p in out.parent.iterdir()) == ["whole.json", "whole.safetensors"]
    case = read_case(list_cases(database)[0])
    image = network_channels(case.images, case.mask_metal, read.channels, case.mu_water_per_mm)
    assert network(torch.from_numpy(image)[None]).shape == (1, 1, 96, 96)


def test_the_best_epoch_is_kept(finished):
    _, card, _ = finished
    validation = [pair[1] for pair in card.metrics["curve"]]
    assert card.metrics["validation"] == min(validation)
    assert card.metrics["best_epoch"] == 1 + validation.index(min(validation))


def test_progress_is_told_every_step(finished):
    *_, calls = finished
    assert calls == [(e, 4, b, 3) for e, b in itertools.product(range(1, 5), range(1, 4))]


def test_the_same_settings_give_the_same_weights(finished, database, tmp_path):
    again = train(database, tmp_path / "again.safetensors", SMALL, device="cpu")
    other = train(database, tmp_path / "other.safetensors", TrainingSettings(**{**vars(SMALL), "seed": 1}))
    assert again.sha256 == finished[1].sha256 != other.sha256


@pytest.mark.parametrize("epoch", [1, 3])
def test_an_interrupted_run_resumes_bit_for_bit(finished, database, tmp_path, epoch):
    out = tmp_path / "net.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(database, out, SMALL, device="cpu", progress=Interrupt(epoch))
    assert not out.exists()
    assert (tmp_path / "net.checkpoint").exists() == (epoch > 1)
    progress = Interrupt()
    card = train(database, out, SMALL, device="cpu", resume=True, progress=progress)
    assert progress.calls[0][0] == epoch
    assert card.sha256 == finished[1].sha256
    assert card.metrics == finished[1].metrics
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.json", "net.safetensors"]


@pytest.fixture
def interrupted(database, tmp_path):
    out = tmp_path / "net.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(database, out, SMALL, device="cpu", progress=Interrupt(2))
    return out


def test_a_checkpoint_is_not_thrown_away(interrupted, database):
    with pytest.raises(OutputExistsError, match="--resume"):
        train(database, interrupted, SMALL, device="cpu")


def test_a_checkpoint_of_something_else_is_refused(interrupted, database, tmp_path_factory):
    with pytest.raises(UsageError, match="other settings"):
        train(database, interrupted, TrainingSettings(**{**vars(SMALL), "epochs": 5}), resume=True)
    other = write_toy_database(tmp_path_factory.mktemp("other"), ("x", "y"))
    with pytest.raises(UsageError, match="another database"):
        train(other, interrupted, SMALL, resume=True)


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_a_damaged_checkpoint_is_refused(interrupted, database, content):
    checkpoint = interrupted.with_suffix(".checkpoint")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-2000] if content is None else content)
    with pytest.raises(ModelError, match="damaged"):
        train(database, interrupted, SMALL, resume=True)


def test_five_channels_on_the_dicom_path_without_a_patient(database, tmp_path):
    settings = TrainingSettings(
        **{**vars(SMALL), "channels": 5, "path": "both", "epochs": 1, "exclude_patients": ("p2",)}
    )
    card = train(database, tmp_path / "net.safetensors", settings, device="cpu")
    assert card.path == "both"
    assert len(card.channels) == 5
    assert "p2" not in card.data["patients_trained"] + card.data["patients_validated"]
    assert card.data["patients_held_out"] == ["p2"]
    assert json.loads((tmp_path / "net.json").read_text())["settings"]["exclude_patients"] == ["p2"]


def test_sgd_learns_too(database, tmp_path):
    settings = TrainingSettings(**{**vars(SMALL), "optimiser": "sgd", "epochs": 3})
    curve = train(database, tmp_path / "net.safetensors", settings, device="cpu").metrics["curve"]
    assert curve[-1][0] < curve[0][0]


def test_a_diverging_run_says_so(database, tmp_path):
    settings = TrainingSettings(**{**vars(SMALL), "optimiser": "sgd", "lr": 1e4})
    with pytest.raises(UsageError, match="lower lr"):
        train(database, tmp_path / "net.safetensors", settings, device="cpu")


def test_a_single_patient_is_noted_on_the_card(tmp_path, caplog):
    database = write_toy_database(tmp_path / "db", ("a", "a"))
    with caplog.at_level(logging.WARNING):
        card = train(database, tmp_path / "net.safetensors", TrainingSettings(**{**vars(SMALL), "epochs": 1}))
    assert card.data["split_by"] == "case"
    assert "same patient" in caplog.text


def test_what_is_in_the_way_is_named(database, tmp_path):
    (tmp_path / "empty").mkdir()
    out = tmp_path / "net.safetensors"
    for folder in (tmp_path / "empty", tmp_path / "none"):
        with pytest.raises(NoUsableSeriesError):
            train(folder, out, SMALL)
    with pytest.raises(UnsupportedInputError, match="smaller patch"):
        train(database, out, TrainingSettings(epochs=1, patch=128))
    with pytest.raises(UsageError, match=r"\.safetensors"):
        train(database, tmp_path / "net.pt", SMALL)
    out.touch()
    with pytest.raises(OutputExistsError):
        train(database, out, SMALL)


def test_devices():
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(UsageError, match="auto, cpu or cuda"):
        choose_device("tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_that_is_not_there():
    with pytest.raises(UsageError, match="no CUDA device"):
        choose_device("cuda")


def test_the_learning_rate_rises_and_falls():
    factors = [schedule(step, 1000) for step in range(1001)]
    assert factors[0] == pytest.approx(1 / 50)
    assert max(factors) == factors[49] > 0.99
    assert factors[500] == pytest.approx(0.5)
    assert factors[1000] == pytest.approx(0.0)
    assert 0 < schedule(0, 1) <= 1
