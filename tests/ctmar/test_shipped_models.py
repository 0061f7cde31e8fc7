"""The models in the package: made as their files say, on nobody whom they are judged by."""

from dataclasses import asdict, is_dataclass
from pathlib import Path

import pytest

import ctmar
from ctmar.config import TrainingSettings, load_toml, settings_from
from ctmar.simulation_settings import read_request
from ctmar.weights import load_model

MODELS = Path(ctmar.__file__).parent / "models"
NAMES = sorted(path.stem for path in MODELS.glob("*.safetensors"))
CONFIGS = {
    "default": ("default-4", {}),
    "default-first": ("default-3", {}),
    "cnn-mar": ("cnn-mar", {}),
    "cnn-mar-2": ("cnn-mar", {"channels": 2}),
    "cnn-mar-5": ("cnn-mar", {"channels": 5}),
}
"""The settings file of each, and the flags beside it."""


def cases(name):
    """The settings of a file of cases."""
    return read_request(load_toml(MODELS / f"{name}.toml"), sources=["phantom"], overrides={}, scan={})[1]


def test_every_model_is_known_here():
    assert sorted(CONFIGS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_card_says_what_its_file_asks_for(name):
    file, flags = CONFIGS[name]
    settings = settings_from(TrainingSettings, load_toml(MODELS / f"{file}.toml"), overrides=flags, origin=file)
    _, card = load_model(name)
    for key in {*load_toml(MODELS / f"{file}.toml"), *flags} - {"use", "memory_gb"}:  # what makes no other weights
        value = getattr(settings, key)
        value = list(value) if isinstance(value, tuple) else asdict(value) if is_dataclass(value) else value
        assert card.settings[key] == value, key
    assert card.use == settings.use
    assert len(card.metrics["curve"]) == settings.epochs
    assert (MODELS / f"{name}.safetensors").stat().st_size < 20e6  # they are in the package


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("judged_by", ["test-cases", "test-jaw-cases", "paper-cases"])
def test_nobody_is_judged_by_who_was_learned_from(name, judged_by):
    seen = load_model(name)[1].patients_seen
    assert len(seen) > 20
    assert not seen & set(cases(judged_by).patients)


def test_the_cases_to_learn_from_leave_out_who_is_judged_by():
    judged_by = {*cases("test-cases").patients, *cases("test-jaw-cases").patients, *cases("paper-cases").patients}
    for name in ("training-cases", "phantom-cases"):
        phantoms = name == "phantom-cases"
        wanted = {patient for patient in judged_by if patient.startswith("phantom") == phantoms}
        assert wanted <= set(cases(name).exclude_patients)
