import csv
import itertools
import json
import logging
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ctmar.config import AugmentationSettings, TrainingSettings, load_toml, settings_from
from ctmar.database import list_cases, read_case, write_case
from ctmar.errors import ModelError, NoUsableSeriesError, OutputExistsError, UnsupportedInputError, UsageError
from ctmar.learning.training import train
from ctmar.network import CHANNELS, build
from ctmar.network_input import network_channels
from ctmar.restorer import NetworkRestorer
from ctmar.weights import load_model, read_card
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

    def __call__(self, epoch, epochs, batch, batches):
        self.calls.append((epoch, epochs, batch, batches))
        if (epoch, batch) == (self.epoch, 2):
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def finished(database, tmp_path_factory):
    """A short run that nobody disturbed."""
    out = tmp_path_factory.mktemp("out") / "whole.safetensors"
    progress = Interrupt()
    return out, train([database], out, SMALL, device="cpu", progress=progress), progress.calls


def test_it_learns(database, tmp_path):
    settings = TrainingSettings(epochs=10, patches=60, patch=32, batch_size=8, validation_fraction=0.25)
    card = train([database], tmp_path / "net.safetensors", settings, device="cpu")
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
    assert sorted(p.name for p in out.parent.iterdir()) == ["whole.json", "whole.safetensors", "whole.training"]
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
    again = train([database], tmp_path / "again.safetensors", SMALL, device="cpu")
    other = train([database], tmp_path / "other.safetensors", TrainingSettings(**{**vars(SMALL), "seed": 1}))
    assert again.sha256 == finished[1].sha256 != other.sha256


@pytest.mark.parametrize("epoch", [1, 3])
def test_an_interrupted_run_resumes_bit_for_bit(finished, database, tmp_path, epoch):
    out = tmp_path / "net.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train([database], out, SMALL, device="cpu", progress=Interrupt(epoch))
    assert not out.exists()
    assert (tmp_path / "net.training" / "last.checkpoint").exists() == (epoch > 1)
    if epoch > 1:  # as a process leaves it that is killed while it writes
        (tmp_path / "net.training" / ".last.checkpoint.1.partial").write_bytes(b"half")
    progress = Interrupt()
    card = train([database], out, SMALL, device="cpu", resume=True, progress=progress)
    assert progress.calls[0][0] == epoch
    assert card.sha256 == finished[1].sha256
    assert card.metrics == finished[1].metrics
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.json", "net.safetensors", "net.training"]
    left = {"last.json", "last.safetensors", "log.csv", "pictures", "training.toml"}
    assert {p.name for p in (tmp_path / "net.training").iterdir()} == left


@pytest.fixture
def interrupted(database, tmp_path):
    out = tmp_path / "net.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train([database], out, SMALL, device="cpu", progress=Interrupt(2))
    return out


def test_a_checkpoint_is_not_thrown_away(interrupted, database):
    with pytest.raises(OutputExistsError, match="--resume"):
        train([database], interrupted, SMALL, device="cpu")


def test_a_checkpoint_of_something_else_is_refused(interrupted, database, tmp_path_factory):
    with pytest.raises(UsageError, match=r"other settings \(epochs: 4 then, 5 now"):
        train([database], interrupted, TrainingSettings(**{**vars(SMALL), "epochs": 5}), resume=True)
    other = write_toy_database(tmp_path_factory.mktemp("other"), ("x", "y"))
    with pytest.raises(UsageError, match="another database"):
        train([other], interrupted, SMALL, resume=True)


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_a_damaged_checkpoint_is_refused(interrupted, database, content):
    checkpoint = interrupted.with_suffix(".training") / "last.checkpoint"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-2000] if content is None else content)
    with pytest.raises(ModelError, match="damaged"):
        train([database], interrupted, SMALL, resume=True)


def test_five_channels_on_the_dicom_path_without_a_patient(database, tmp_path):
    settings = TrainingSettings(
        **{**vars(SMALL), "channels": 5, "path": "both", "epochs": 1, "exclude_patients": ("p2",)}
    )
    card = train([database], tmp_path / "net.safetensors", settings, device="cpu")
    assert card.path == "both"
    assert len(card.channels) == 5
    assert "p2" not in card.data["patients_trained"] + card.data["patients_validated"]
    assert card.data["patients_held_out"] == ["p2"]
    assert json.loads((tmp_path / "net.json").read_text())["settings"]["exclude_patients"] == ["p2"]


def test_sgd_learns_too(database, tmp_path):
    settings = TrainingSettings(**{**vars(SMALL), "optimiser": "sgd", "epochs": 3})
    curve = train([database], tmp_path / "net.safetensors", settings, device="cpu").metrics["curve"]
    assert curve[-1][0] < curve[0][0]


def test_a_diverging_run_says_so(database, tmp_path):
    settings = TrainingSettings(**{**vars(SMALL), "optimiser": "sgd", "lr": 1e4})
    with pytest.raises(UsageError, match="lower lr"):
        train([database], tmp_path / "net.safetensors", settings, device="cpu")


def test_a_single_patient_is_noted_on_the_card(tmp_path, caplog):
    database = write_toy_database(tmp_path / "db", ("a", "a"))
    with caplog.at_level(logging.WARNING):
        card = train([database], tmp_path / "net.safetensors", TrainingSettings(**{**vars(SMALL), "epochs": 1}))
    assert card.data["split_by"] == "case"
    assert "same patient" in caplog.text


def test_what_is_in_the_way_is_named(database, tmp_path):
    (tmp_path / "empty").mkdir()
    out = tmp_path / "net.safetensors"
    for folder in (tmp_path / "empty", tmp_path / "none"):
        with pytest.raises(NoUsableSeriesError):
            train([folder], out, SMALL)
    with pytest.raises(UnsupportedInputError, match="smaller patch"):
        train([database], out, TrainingSettings(epochs=1, patch=128))
    with pytest.raises(UsageError, match=r"\.safetensors"):
        train([database], tmp_path / "net.pt", SMALL)
    with pytest.raises(UsageError, match="architecture 'transformer'; known are cnn"):
        train([database], out, replace(SMALL, arch="transformer"))
    out.touch()
    with pytest.raises(OutputExistsError):
        train([database], out, SMALL)


EVERYTHING = replace(
    SMALL,
    ema=0.9,
    clip_norm=0.05,
    loss="near-metal",
    augmentation=AugmentationSettings(turns="all", flips=True, max_degrees=5, max_scale=0.1, max_intensity=0.05),
    checkpoint_steps=2,
)
"""Whatever has a state of its own."""


@pytest.mark.parametrize("memory_gb", [4.0, 0.0])
def test_an_epoch_is_resumed_in_its_middle_bit_for_bit(database, tmp_path, memory_gb):
    """Checkpoints are written after steps 2 of 3; the one of epoch 3 is what the second run goes on from."""
    settings = replace(EVERYTHING, memory_gb=memory_gb)
    whole = train([database], tmp_path / "whole.safetensors", settings, device="cpu")
    out = tmp_path / "net.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train([database], out, settings, device="cpu", progress=Interrupt(3))
    assert (out.with_suffix(".training") / "patches").exists() == (memory_gb == 0)
    progress = Interrupt()
    card = train([database], out, settings, device="cpu", resume=True, progress=progress)
    assert progress.calls[0] == (3, 4, 3, 3)
    assert card.sha256 == whole.sha256
    assert card.metrics == whole.metrics
    logs = [log_of(path) for path in (out, tmp_path / "whole.safetensors")]
    for one, other in zip(*logs, strict=True):
        for timing in ("seconds", "waiting"):
            assert float(one.pop(timing)) >= 0
            other.pop(timing)
        assert one == other


def log_of(out):
    with (out.with_suffix(".training") / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_log_and_its_pictures(finished):
    out, card, _ = finished
    rows = log_of(out)
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4]
    assert [[float(row["train_loss"]), float(row["validation_loss"])] for row in rows] == card.metrics["curve"]
    last = 11 / 12  # of the steps, when the last one begins
    assert float(rows[-1]["lr"]) == pytest.approx(2e-3 * 0.5 * (1 + np.cos(np.pi * last)))
    columns = {name for name in rows[0] if name.startswith("rmse_")}
    assert columns == {"rmse_raw_hu", "rmse_dicom_hu", "rmse_raw_ti_hu", "rmse_dicom_ti_hu"}
    # one metal, so that its RMSE is that of the path; the dicom path's streaks are stronger
    assert rows[0]["rmse_raw_ti_hu"] == rows[0]["rmse_raw_hu"]
    assert float(rows[0]["rmse_raw_hu"]) < float(rows[0]["rmse_dicom_hu"])
    assert card.metrics["validation_rmse_hu"]["rmse_raw_hu"] == float(
        rows[card.metrics["best_epoch"] - 1]["rmse_raw_hu"]
    )
    folder = out.with_suffix(".training")
    sheets = sorted(folder.glob("pictures/*.png"))
    assert [sheet.name for sheet in sheets] == [f"epoch-{epoch:04d}.png" for epoch in range(1, 5)]
    with Image.open(sheets[0]) as first, Image.open(sheets[-1]) as final:
        one, other = np.asarray(first).astype(int), np.asarray(final).astype(int)
    # six rows of 192 pixels; inputs, output, reference, difference
    assert one.shape == (20 + 6 * 196, 86 + 6 * 196, 3)
    left, cell = 86, 196
    for column, same in enumerate((True, True, True, False, True, False)):
        part = np.s_[20:, left + column * cell : left + (column + 1) * cell]
        assert np.array_equal(one[part], other[part]) == same


def test_the_settings_it_was_trained_with_train_it_again(finished):
    out, _, _ = finished
    values = load_toml(out.with_suffix(".training") / "training.toml")
    assert settings_from(TrainingSettings, values) == SMALL


def test_the_last_weights_are_kept_beside_the_best(database, tmp_path):
    """With a rate that is too high in the end the best epoch is not the last."""
    settings = replace(SMALL, lr=2e-2, schedule="constant", epochs=6, optimiser="adam", seed=2)
    out = tmp_path / "net.safetensors"
    card = train([database], out, settings, device="cpu")
    assert card.metrics["best_epoch"] < 6
    last = read_card(out.with_suffix(".training") / "last.safetensors")
    assert last.sha256 != card.sha256
    assert (last.name, last.metrics["epoch"]) == ("net-last", 6)
    assert last.metrics["validation"] == card.metrics["curve"][-1][1]
    load_model(out.with_suffix(".training") / "last.safetensors")


def test_the_best_weights_so_far_can_be_used_before_the_end(interrupted):
    network, card = load_model(interrupted.with_suffix(".training") / "best.safetensors")
    assert card.metrics["epoch"] == 1
    assert network(torch.zeros(1, 3, 16, 16)).shape == (1, 1, 16, 16)


def test_it_stops_when_nothing_improves(database, tmp_path):
    # weights that cannot move: the first epoch stays the best
    settings = replace(SMALL, epochs=50, patience=3, lr=1e-30)
    card = train([database], tmp_path / "net.safetensors", settings, device="cpu")
    assert len(card.metrics["curve"]) == 4
    assert card.metrics["best_epoch"] == 1


@pytest.mark.parametrize(("precision", "rtol"), [("bfloat16", 1.0), ("float16", 0.25)])
def test_mixed_precision_learns_nearly_the_same(finished, database, tmp_path, precision, rtol):
    """bfloat16 keeps 3 digits of the attenuation, which is 2 HU in water."""
    out = tmp_path / "net.safetensors"
    card = train([database], out, replace(SMALL, precision=precision), device="cpu")
    assert card.sha256 != finished[1].sha256
    curve, exact = np.array(card.metrics["curve"]), np.array(finished[1].metrics["curve"])
    np.testing.assert_allclose(curve, exact, rtol=rtol)
    assert all(value.dtype == torch.float32 for value in load_model(out)[0].state_dict().values())


def test_float16_resumes_with_its_loss_scale(database, tmp_path):
    settings = replace(SMALL, precision="float16")
    whole = train([database], tmp_path / "whole.safetensors", settings, device="cpu")
    out = tmp_path / "net.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train([database], out, settings, device="cpu", progress=Interrupt(3))
    assert train([database], out, settings, device="cpu", resume=True).sha256 == whole.sha256


def test_clipped_gradients_move_less(database, tmp_path):
    """SGD's first step is lr times the gradient: with a norm of 1e-6 nothing has changed that could be seen."""
    settings = replace(SMALL, optimiser="sgd", epochs=1, clip_norm=1e-6)
    train([database], tmp_path / "net.safetensors", settings, device="cpu")
    untrained = build("cnn", CHANNELS[3])
    untrained.initialise(0)
    weights = load_model(tmp_path / "net.safetensors")[0].state_dict()
    moved = sum(float((weights[name] - value).norm()) ** 2 for name, value in untrained.state_dict().items()) ** 0.5
    assert 0 < moved < 3 * 0.02 * 1e-6 * (1 + 0.9 + 0.81)


def test_a_damaged_case_stops_the_training_or_is_left_out(database, tmp_path, caplog):
    shutil.copytree(database, tmp_path / "db")
    broken = tmp_path / "db" / "case-000009.h5"
    broken.write_bytes(list_cases(database)[0].read_bytes()[:3000])
    (tmp_path / "db" / "case-000010.h5").write_bytes(b"no case")
    out = tmp_path / "net.safetensors"
    with pytest.raises(UnsupportedInputError, match=r"2 of 6 case files cannot .*case-000009\.h5.*case-000010"):
        train([tmp_path / "db"], out, SMALL, device="cpu")
    assert not out.with_suffix(".training").exists()
    card = train([tmp_path / "db"], out, replace(SMALL, epochs=1, skip_damaged=True), device="cpu")
    assert card.data["cases_trained"] + card.data["cases_validated"] == 4
    assert "case-000009.h5" in caplog.text


def test_tensorboard_that_is_absent_is_named_before_anything_is_done(database, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'ctmar\[tensorboard\]'"):
        train([database], tmp_path / "net.safetensors", replace(SMALL, tensorboard=True), device="cpu")
    assert not list(tmp_path.iterdir())


def test_tensorboard_holds_what_the_log_holds(database, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    out = tmp_path / "net.safetensors"
    settings = replace(SMALL, tensorboard=True)
    with pytest.raises(KeyboardInterrupt):
        train([database], out, settings, device="cpu", progress=Interrupt(3))
    card = train([database], out, settings, device="cpu", resume=True)
    events = accumulator.EventAccumulator(str(out.with_suffix(".training") / "tensorboard"))
    events.Reload()
    losses = events.Scalars("loss/validation_loss")
    assert [event.step for event in losses] == [1, 2, 3, 4]
    assert [event.value for event in losses] == pytest.approx([pair[1] for pair in card.metrics["curve"]], rel=1e-6)
    assert {"run/lr", "rmse/rmse_raw_ti_hu", "run/seconds"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Images("samples")] == [1, 2, 3, 4]


def test_the_log_of_an_earlier_training_is_not_written_over(finished, database, tmp_path):
    shutil.copytree(finished[0].with_suffix(".training"), tmp_path / "net.training")
    with pytest.raises(OutputExistsError, match="earlier training"):
        train([database], tmp_path / "net.safetensors", SMALL, device="cpu")


UNET = replace(
    SMALL, arch="unet", channels=6, epochs=1, patch=32, loss="rmse", augmentation=AugmentationSettings(clean=0.2)
)


def with_all(database):
    """The cases with images by TV and EBHC, which the toy database does not have."""
    for path in list_cases(database):
        case = read_case(path)
        images, dicom_images = ({**of, "tv": of["nmar2"], "ebhc": of["bhc"]} for of in (case.images, case.dicom_images))
        write_case(path, replace(case, images=images, dicom_images=dicom_images))


def test_a_training_begins_with_the_weights_of_another(database, tmp_path):
    with_all(database)
    out = tmp_path / "first.safetensors"
    train([database], out, UNET, device="cpu")
    settings = replace(UNET, init=str(out), lr=1e-12)
    train([database], tmp_path / "second.safetensors", settings, device="cpu")
    first, second = (load_model(tmp_path / f"{name}.safetensors")[0] for name in ("first", "second"))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)
    cards = [read_card(tmp_path / f"{name}.safetensors") for name in ("first", "second")]
    assert cards[0].data["patients_before"] == []
    assert set(cards[1].data["patients_before"]) == cards[0].patients_seen == {"p1", "p2", "p3", "p4"}
    with pytest.raises(UsageError, match="begin with a model only of its own architecture"):
        train([database], tmp_path / "third.safetensors", replace(SMALL, init=str(out)), device="cpu")


def test_cases_of_several_databases_are_learned_from(database, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    moved = list_cases(database)[-1]
    shutil.copy(moved, other / "case-000077.h5")
    card = train([database, other], tmp_path / "net.safetensors", replace(SMALL, epochs=1), device="cpu")
    assert card.data["cases_trained"] + card.data["cases_validated"] == 5


def test_a_second_network_is_trained_on_what_the_first_makes(database, tmp_path):
    with_all(database)
    train([database], tmp_path / "first.safetensors", replace(SMALL, epochs=1), device="cpu")
    settings = replace(UNET, channels=8, after=str(tmp_path / "first.safetensors"))
    card = train([database], tmp_path / "second.safetensors", settings, device="cpu")
    assert (card.after, card.after_sha256) == ("first", read_card(tmp_path / "first.safetensors").sha256)
    assert "cnn-mar" in card.metrics["validation_of_inputs"]
    assert NetworkRestorer(tmp_path / "second.safetensors", device="cpu").first is not None
    for wrong in ({"channels": 8}, {"after": "default"}):
        with pytest.raises(ValueError, match="need a first model"):
            replace(SMALL, **wrong)


def test_a_network_that_sees_another_image_begins_as_before(database, tmp_path):
    with_all(database)
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    train([database], first, UNET, device="cpu")
    settings = replace(UNET, channels=7, init=str(first), lr=1e-12)
    train([database], second, settings, device="cpu")
    networks = [load_model(path)[0] for path in (first, second)]
    images = 0.2 * torch.rand(1, 6, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        before = networks[0](images)
        same, other = (networks[1](torch.cat([images, before + shift], dim=1)) - before for shift in (0, 0.01))
    # a share of the new image, no larger than that of the images that nothing was known of, and nothing else of it
    assert 0 < float((other - same).max()) < 0.01 / 3
    assert float(same.abs().max()) < float((before - images[:, 1:]).abs().max()) / 3
    with pytest.raises(UsageError, match="begin with a model only of its own architecture"):
        train([database], tmp_path / "third.safetensors", replace(settings, arch="cnn"), device="cpu")
