from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ctmar.config import DEFAULT_LR, AugmentationSettings, TrainingSettings, load_toml, settings_from
from ctmar.errors import UsageError


@dataclass(frozen=True)
class Inner:
    kvp: float = 120.0


@dataclass(frozen=True)
class Outer:
    folder: Path | None = None
    pair: tuple[float, int] = (1.0, 2)
    strict: bool = False
    inner: Inner = field(default_factory=Inner)


def test_defaults_are_the_papers_patches():
    settings = TrainingSettings()
    assert (settings.patches, settings.patch, settings.patch_grid, settings.hard_fraction) == (
        10_000,
        64,
        8,
        0.6,
    )
    assert settings.learning_rate == DEFAULT_LR["adam"]
    assert TrainingSettings(optimiser="sgd").learning_rate == 0.02
    assert TrainingSettings(lr=0.5).learning_rate == 0.5


def test_a_toml_file_fills_settings_and_flags_win(tmp_path):
    file = tmp_path / "training.toml"
    file.write_text('epochs = 3\nlr = 1\nexclude_patients = ["a", "b"]\npath = "both"\n')
    settings = settings_from(TrainingSettings, load_toml(file), overrides={"epochs": 7, "path": None})
    assert settings == TrainingSettings(epochs=7, lr=1.0, exclude_patients=("a", "b"), path="both")
    assert isinstance(settings.lr, float)


def test_nested_optional_and_fixed_tuples():
    made = settings_from(Outer, {"folder": "x/y", "pair": [3, 4], "strict": True, "inner": {"kvp": 80}})
    assert made == Outer(Path("x/y"), (3.0, 4), True, Inner(80.0))


@pytest.mark.parametrize(
    ("cls", "values", "message"),
    [
        (TrainingSettings, {"epoch": 3}, "did you mean epochs"),
        (TrainingSettings, {"zzz": 3}, "known are arch"),
        (TrainingSettings, {"epochs": "3"}, "epochs must be of type int"),
        (TrainingSettings, {"epochs": True}, "epochs must be of type int"),
        (TrainingSettings, {"epochs": 2.5}, "epochs must be of type int"),
        (TrainingSettings, {"epochs": 0}, "at least 1"),
        (TrainingSettings, {"channels": 4}, "one of 2, 3, 5"),
        (TrainingSettings, {"optimiser": "lbfgs"}, "one of adam, sgd"),
        (TrainingSettings, {"patch": 60}, "multiple of patch_grid"),
        (TrainingSettings, {"hard_fraction": 1.5}, "hard_fraction"),
        (TrainingSettings, {"validation_fraction": 1.0}, "validation_fraction"),
        (TrainingSettings, {"lr": float("nan")}, "lr must be positive"),
        (TrainingSettings, {"lr": -1}, "lr must be positive"),
        (TrainingSettings, {"seed": -1}, "seed"),
        (TrainingSettings, {"exclude_patients": "p1"}, "must be a list"),
        (TrainingSettings, {"ema": 1.0}, "ema must be at least 0 and below 1"),
        (TrainingSettings, {"warmup": 2.0}, "warmup must lie in 0..1"),
        (TrainingSettings, {"patience": -1}, "patience must not be negative"),
        (TrainingSettings, {"precision": "half"}, "one of float32, bfloat16, float16"),
        (TrainingSettings, {"loss": "mae"}, "loss must be one of mse, rmse, l1"),
        (TrainingSettings, {"augmentation": {"flip": True}}, "augmentation: there is no setting 'flip'; did you mean"),
        (TrainingSettings, {"augmentation": {"max_degrees": 90.0}}, "max_degrees must lie in 0..45"),
        (Outer, {"pair": [1, 2, 3]}, "must hold 2 values"),
        (Outer, {"inner": {"kv": 3}}, "did you mean kvp"),
        (Outer, {"inner": 3}, "inner must be of type Inner"),
    ],
)
def test_mistakes_are_named(cls, values, message):
    with pytest.raises(UsageError, match=message) as caught:
        settings_from(cls, values, origin="my.toml")
    assert str(caught.value).startswith("my.toml")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("content", [b"epochs = ", b"\xff\xfe"])
def test_a_broken_toml_file_is_a_usage_error(tmp_path, content):
    file = tmp_path / "bad.toml"
    file.write_bytes(content)
    with pytest.raises(UsageError, match="not valid TOML"):
        load_toml(file)


def test_a_missing_toml_file_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        load_toml(tmp_path / "none.toml")


def test_a_table_in_the_file_is_settings_of_its_own(tmp_path):
    file = tmp_path / "training.toml"
    file.write_text('ema = 0.999\n[augmentation]\nturns = "all"\nmax_degrees = 5\n')
    settings = settings_from(TrainingSettings, load_toml(file))
    assert settings.ema == 0.999
    assert settings.augmentation == AugmentationSettings(turns="all", max_degrees=5.0)
