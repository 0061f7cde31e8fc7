"""Several processes on this machine's loopback, started as torchrun starts them."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest

from benchmarks.processes import free_port
from ctmar.config import TrainingSettings
from ctmar.errors import UsageError
from ctmar.learning.distributed import is_first, joined
from ctmar.learning.training import train
from ctmar.weights import load_model
from tests.ctmar.toy_database import write_toy_database

# 5 steps an epoch, the last of 3 patches for 2 processes
SETTINGS = TrainingSettings(
    epochs=10, patches=47, patch=32, batch_size=8, validation_fraction=0.25, pictures=0, ema=0.9, optimiser="sgd"
)
WORKER = """
import json, os, signal, sys
from pathlib import Path
from ctmar.config import TrainingSettings, settings_from
from ctmar.learning.training import train

def stop(epoch, epochs, step, steps):
    if epoch == int(os.environ.get("STOP_AT", 0)) and step == 2:
        os.kill(os.getpid(), signal.SIGKILL)

settings = settings_from(TrainingSettings, json.loads(sys.argv[3]))
train([Path(sys.argv[1])], Path(sys.argv[2]), settings, device="cpu", resume=sys.argv[4] == "resume", progress=stop)
"""


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    return write_toy_database(tmp_path_factory.mktemp("db"))


@pytest.fixture(scope="module")
def alone(database, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "net.safetensors"
    return out, train([database], out, SETTINGS, device="cpu")


def run_team(size, database, out, *, resume=False, stop_at=0):
    """Start `size` processes with the environment of torchrun; returns their exit codes and messages."""
    values = json.dumps({k: v for k, v in asdict(SETTINGS).items() if v is not None})
    command = [sys.executable, "-c", WORKER, str(database), str(out), values, "resume" if resume else "new"]
    shared = {"WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "STOP_AT": stop_at}
    processes = []
    for rank in range(size):
        own = {"RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": 1, "CUDA_VISIBLE_DEVICES": ""}
        environment = os.environ | {name: str(value) for name, value in (shared | own).items()}
        processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    messages = [process.communicate(timeout=600)[1] for process in processes]
    return [process.returncode for process in processes], messages


def same_but_for_rounding(out, card, alone):
    other_out, other = alone
    np.testing.assert_allclose(card["metrics"]["curve"], other.metrics["curve"], rtol=2e-5)
    assert card["metrics"]["best_epoch"] == other.metrics["best_epoch"]
    weights, expected = (load_model(path)[0].state_dict() for path in (out, other_out))
    for name, value in expected.items():
        np.testing.assert_allclose(weights[name], value, rtol=1e-3, atol=2e-6)


@pytest.mark.slow
def test_two_processes_learn_what_one_does(database, alone, tmp_path):
    out = tmp_path / "net.safetensors"
    codes, messages = run_team(2, database, out)
    assert codes == [0, 0], messages
    card = json.loads(out.with_suffix(".json").read_text())
    assert len(card["metrics"]["curve"]) * 5 == 50
    same_but_for_rounding(out, card, alone)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.json", "net.safetensors", "net.training"]
    assert not (tmp_path / "net.training" / "patches").exists()


@pytest.mark.slow
def test_killed_and_resumed_is_the_same_to_the_bit(database, tmp_path):
    whole, out = tmp_path / "whole.safetensors", tmp_path / "net.safetensors"
    assert run_team(1, database, whole)[0] == [0]
    for epoch in (3, 7):
        assert run_team(1, database, out, resume=True, stop_at=epoch)[0] == [-signal.SIGKILL]
    codes, messages = run_team(1, database, out, resume=True)
    assert codes == [0], messages
    assert out.read_bytes() == whole.read_bytes()
    cards = [json.loads(path.with_suffix(".json").read_text())["metrics"] for path in (out, whole)]
    assert cards[0] == cards[1]


@pytest.mark.slow
def test_two_processes_go_on_as_one(database, alone, tmp_path):
    out = tmp_path / "net.safetensors"
    codes, messages = run_team(2, database, out, stop_at=5)
    assert codes[0] == -signal.SIGKILL, messages
    card = train([database], out, SETTINGS, device="cpu", resume=True)
    same_but_for_rounding(out, {"metrics": card.metrics}, alone)


@pytest.mark.slow
def test_one_goes_on_as_three(database, alone, tmp_path):
    """Three processes, of which one has nothing to do in the last step of an epoch but to take part."""
    out = tmp_path / "net.safetensors"
    codes, messages = run_team(1, database, out, stop_at=4)
    assert codes == [-signal.SIGKILL], messages
    codes, messages = run_team(3, database, out, resume=True)
    assert codes == [0, 0, 0], messages
    same_but_for_rounding(out, json.loads(out.with_suffix(".json").read_text()), alone)


@pytest.mark.slow
def test_a_database_that_cannot_be_read_ends_all(tmp_path):
    codes, messages = run_team(2, tmp_path, tmp_path / "net.safetensors")
    assert all(codes)
    assert "holds no case files" in messages[0]
    assert "another process of this training has ended" in messages[1]


def test_an_incomplete_environment(monkeypatch):
    assert is_first()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(UsageError, match="torchrun"), joined("cpu"):
        pass
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(UsageError, match="must be a number"), joined("cpu"):
        pass
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not is_first()
