"""Settings as frozen dataclasses, filled from TOML files and flags."""

from __future__ import annotations

import tomllib
import types
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ctmar.errors import UsageError
from ctmar.words import did_you_mean

T = TypeVar("T")


def _within(settings: object, limits: Mapping[str, tuple[float, float]]) -> None:
    for name, (low, high) in limits.items():
        value = getattr(settings, name)
        if not low <= value <= high:
            raise ValueError(f"{name} must lie in {low}..{high}, not {value}")


@dataclass(frozen=True)
class AugmentationSettings:
    """How training patches are varied, anew in every epoch; input and target alike.

    The default is the paper's: half of the patches turned by 90 degrees, nothing else.

    Parameters
    ----------
    turns
        ``none``; ``paper`` (0 or 90 degrees); ``all`` (0, 90, 180 or 270 degrees).
    flips
        Mirror half of the patches.
    max_degrees
        Rotate by up to this angle either way, interpolating.
    max_scale
        Enlarge or shrink by up to this share, 0.1 for 0.9 to 1.1, interpolating.
    max_intensity
        Multiply the attenuation by up to 1 plus or minus this share.
    clean
        Share of the patches whose input images are all the reference: a network that sees no artifacts is to change
        nothing.
    """

    turns: Literal["none", "paper", "all"] = "paper"
    flips: bool = False
    max_degrees: float = 0.0
    max_scale: float = 0.0
    max_intensity: float = 0.0
    clean: float = 0.0

    def __post_init__(self) -> None:
        _within(self, {"max_degrees": (0, 45), "max_scale": (0, 0.5), "max_intensity": (0, 0.5), "clean": (0, 1)})


@dataclass(frozen=True)
class UseSettings:
    """What the method `cnn-mar` makes of a network's image; a matter of the network, so that its card says it.

    Parameters
    ----------
    prior
        ``tissue``: the image goes through `ctmar.prior.tissue_prior`, as in the paper; ``image``: it is the prior.
    raw, dicom
        On each path: ``replacement``, the image whose metal trace comes from the prior, as in the paper; ``image``, the
        network's image itself; or ``mean``, the mean of the two (from images, the network's around the patient).
    bone
        Whether bone beside metal that the prior has lost is put back into it, see `ctmar.bone`; the paper does not.
    """

    prior: Literal["tissue", "image"] = "tissue"
    raw: Literal["replacement", "image", "mean"] = "replacement"
    dicom: Literal["replacement", "image", "mean"] = "replacement"
    bone: bool = False


@dataclass(frozen=True)
class TrainingSettings:
    """How a network is trained (`ctmar train`); every field is a line of its TOML file.

    The paper's own (Zhang & Yu 2018, section III): ``optimiser = "sgd"``, ``epochs = 2000``.

    Parameters
    ----------
    arch
        Architecture, a name in `ctmar.network.ARCHITECTURES`.
    init
        Model, by name or path, whose weights to begin with instead of new ones; "" for new ones.
    after
        With 8 channels: the model, by name or path, whose result the network refines.
    channels
        2, 3, 5, 6, 7 or 8 inputs, see `ctmar.network.CHANNELS`.
    path
        Which images of the case files to learn from: ``raw`` (from the scanner's raw data), ``dicom``
        (from the stored image, projected again), or ``both``.
    epochs, batch_size
        Passes over the training patches; patches a step, those of all processes together.
    optimiser
        ``adam``, or ``sgd`` with momentum 0.9.
    lr
        Highest learning rate; by default `DEFAULT_LR` of the optimiser.
    schedule, warmup
        After a rise over the share `warmup` of all steps the learning rate falls to 0 as a ``cosine``, or is
        ``constant``.
    loss, loss_weight
        A name in `ctmar.learning.losses.LOSSES`; how much its second part counts, where it has one.
    clip_norm
        Gradients are scaled down to this norm; 0 leaves them.
    ema
        Decay of the moving average of the weights, e.g. 0.999: it is what is validated and kept. 0 for none.
    precision
        ``float32``, or mixed precision with ``bfloat16`` or ``float16`` (with scaled losses) for what tensor cores do.
    patience
        Stop after this many epochs without a lower validation loss; 0 goes through all.
    patch, patch_grid
        Side of the square patches and spacing of the corners they may have, pixels.
    patches
        Patches taken from the whole database, training and validation together.
    hard_fraction
        Share of the patches that are those with the largest error, in equal parts for every channel.
    validation_fraction
        Share of the patients (and of the patches) held back to choose the best weights.
    validation_patients
        Those who choose the best weights, in the place of a share that is drawn: a second stage validates on whom the
        first has not learned from.
    seed
        What everything is drawn from.
    exclude_patients
        Patients that are not read at all, to be evaluated on later.
    augmentation, use
        Tables of their own.
    skip_damaged
        Leave out case files that cannot be used, with a warning, instead of stopping.
    memory_gb
        Patches that take more are kept in a file beside the weights, and read from there by all processes.
    checkpoint_steps
        Besides after every epoch, a checkpoint is written after so many steps; 0 for never.
    pictures, picture_epochs
        How many validation patches are drawn (0 for none), every how many epochs.
    tensorboard
        Write TensorBoard logs, too.
    """

    arch: str = "cnn"
    init: str = ""
    after: str = ""
    channels: Literal[2, 3, 5, 6, 7, 8] = 3
    path: Literal["raw", "dicom", "both"] = "both"
    epochs: int = 60
    batch_size: int = 16
    optimiser: Literal["adam", "sgd"] = "adam"
    lr: float | None = None
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: float = 0.05
    loss: Literal["mse", "rmse", "l1", "charbonnier", "near-metal", "edge"] = "mse"
    loss_weight: float = 4.0
    clip_norm: float = 0.0
    ema: float = 0.0
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    patience: int = 0
    patch: int = 64
    patch_grid: int = 8
    patches: int = 10_000
    hard_fraction: float = 0.6
    validation_fraction: float = 0.2
    validation_patients: tuple[str, ...] = ()
    seed: int = 0
    exclude_patients: tuple[str, ...] = ()
    augmentation: AugmentationSettings = AugmentationSettings()
    use: UseSettings = UseSettings()
    skip_damaged: bool = False
    memory_gb: float = 4.0
    checkpoint_steps: int = 5000
    pictures: int = 6
    picture_epochs: int = 1
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "patch", "patch_grid", "patches", "picture_epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("loss_weight", "clip_norm", "patience", "memory_gb", "checkpoint_steps", "pictures"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must not be negative, not {getattr(self, name)}")
        if bool(self.after) != (self.channels == WITH_FIRST):
            raise ValueError(f"{WITH_FIRST} channels, and only they, need a first model: after = NAME")
        if self.patch % self.patch_grid:
            raise ValueError(f"patch ({self.patch}) must be a multiple of patch_grid ({self.patch_grid})")
        _within(self, {"hard_fraction": (0, 1), "warmup": (0, 1)})
        if not 0 < self.validation_fraction < 1:
            raise ValueError(f"validation_fraction must lie between 0 and 1, not {self.validation_fraction}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must be at least 0 and below 1, not {self.ema}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, not {self.seed}")
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"lr must be positive, not {self.lr}")

    @property
    def learning_rate(self) -> float:
        """The highest learning rate."""
        return DEFAULT_LR[self.optimiser] if self.lr is None else self.lr


WITH_FIRST = 8
"""Channels of a network that refines the result of another."""

DEFAULT_LR: Mapping[str, float] = types.MappingProxyType({"adam": 2e-3, "sgd": 0.02})
"""Highest learning rate of each optimiser, where none is given."""


def load_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises
    ------
    UsageError
        Where the file cannot be read or is not TOML.
    """
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); check the name given with --config") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: is not valid TOML: {error}") from None


def settings_from(
    cls: type[T],
    values: Mapping[str, Any] | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    origin: str = "settings",
) -> T:
    """Make settings of class `cls` from what a file says and what flags override.

    Parameters
    ----------
    cls
        A dataclass whose fields are int, float, str, bool, Path, Literal, tuple, one of these or None, or
        another such dataclass.
    values
        As `load_toml` gives them; what is missing keeps its default.
    overrides
        Win over `values`, except where they are None (a flag that was not given).
    origin
        Where the values come from, for messages.

    Raises
    ------
    UsageError
        For an unknown name (with the nearest known one), a value of the wrong type or out of range.
    """
    given = {**(values or {}), **{k: v for k, v in (overrides or {}).items() if v is not None}}
    hints = get_type_hints(cls)
    known = [field.name for field in fields(cls) if field.init]  # type: ignore[arg-type]
    for name in given:
        if name not in known:
            hint = did_you_mean(name, known) or f"known are {', '.join(known)}"
            raise UsageError(f"{origin}: there is no setting {name!r}; {hint}")
    converted = {name: _convert(value, hints[name], f"{origin}: {name}") for name, value in given.items()}
    try:
        return cls(**converted)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{origin}: {error}") from None


def _convert(value: Any, hint: Any, name: str) -> Any:
    """`value` as the type `hint`, without guessing: only lists to tuples, int to float and str to Path."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return None if value is None else _convert(value, inner, name)
    if origin is Literal:
        # 1 == True == 1.0, but only the int was meant.
        if not any(value == choice and type(value) is type(choice) for choice in arguments):
            raise UsageError(f"{name} must be one of {', '.join(map(str, arguments))}, not {value!r}")
        return value
    if origin is tuple:
        return _convert_tuple(value, arguments, name)
    if isinstance(hint, type) and is_dataclass(hint) and isinstance(value, Mapping):
        return settings_from(hint, value, origin=name)
    return _convert_scalar(value, hint, name)


def _convert_tuple(value: Any, arguments: tuple[Any, ...], name: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise UsageError(f"{name} must be a list, not {value!r}")
    if arguments[-1] is Ellipsis:
        arguments = arguments[:1] * len(value)
    if len(value) != len(arguments):
        raise UsageError(f"{name} must hold {len(arguments)} values, not {len(value)}")
    return tuple(_convert(item, hint, name) for item, hint in zip(value, arguments, strict=True))


def _convert_scalar(value: Any, hint: type, name: str) -> Any:
    # bool is an int to Python, but "epochs = true" is a mistake.
    if isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    if hint is float and type(value) is int:
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    raise UsageError(f"{name} must be of type {hint.__name__}, not {value!r}")
