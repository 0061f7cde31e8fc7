"""Trained networks on disk: ``NAME.safetensors`` and, beside it, the model card ``NAME.json``.

The card says what the network is, what it learned from and the SHA-256 of the weights. Nothing is ever
unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from ctmar.config import UseSettings, settings_from
from ctmar.errors import ModelError, UsageError
from ctmar.files import replacing
from ctmar.method_names import METHODS
from ctmar.network import ARCHITECTURES, build
from ctmar.words import did_you_mean

SHIPPED = Path(__file__).parent / "models"
SUFFIX = ".safetensors"
MAX_WEIGHTS_BYTES = 2**28
MAX_CARD_BYTES = 2**24
MAX_CHANNELS = 16


@dataclass(frozen=True)
class ModelCard:
    """What there is to know about a trained network.

    Parameters
    ----------
    name
        How `--model` and derived series call it.
    arch
        A name in `ctmar.network.ARCHITECTURES`.
    channels
        Names of the input images, in order.
    path
        ``raw``, ``dicom`` or ``both``: what it was trained for.
    use
        What `cnn-mar` makes of its image.
    after, after_sha256
        Name and weights of the model whose result this one refines, which lies in the same folder; "" for none.
    settings
        The `TrainingSettings` it was trained with.
    data
        Cases and patients (pseudonyms) trained on, validated on and held out, and those whom the weights that training
        began with, or the model that this one refines, had seen before.
    metrics
        Losses, (1/cm)^2 per pixel.
    version, licence, date
        Of ctmar, of the weights, and the day (ISO 8601).
    sha256
        Of the weights file; `save_model` sets it.
    """

    name: str
    arch: str
    channels: tuple[str, ...]
    path: str = "raw"
    use: UseSettings = field(default_factory=UseSettings)
    after: str = ""
    after_sha256: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""
    licence: str = ""
    date: str = ""
    sha256: str = ""

    @property
    def patients_seen(self) -> frozenset[str]:
        """Patients who tell nothing about the model: learned from, or the weights were chosen by them."""
        parts = ("patients_trained", "patients_validated", "patients_before")
        return frozenset(patient for part in parts for patient in self.data.get(part, ()))


def save_model(path: Path, network: nn.Module, card: ModelCard) -> ModelCard:
    """Write weights and card; each file appears only when it is complete.

    Returns
    -------
    ModelCard
        `card` with the hash of the weights.

    Raises
    ------
    UsageError
        Where `path` does not end in .safetensors.
    """
    if path.suffix != SUFFIX:
        raise UsageError(f"{path}: a model is written to a file whose name ends in {SUFFIX}")
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    content = safetensors.torch.save(tensors, metadata={"format": "pt"})
    card = replace(card, sha256=hashlib.sha256(content).hexdigest())
    with replacing(path) as partial:
        partial.write_bytes(content)
    # A crash between the two leaves a card that does not match, which load_model reports.
    with replacing(path.with_suffix(".json")) as partial:
        partial.write_text(json.dumps(asdict(card), indent=2) + "\n", encoding="utf-8")
    return card


def load_model(name_or_path: str | Path) -> tuple[nn.Module, ModelCard]:
    """A trained network, ready for use on the CPU, and its card; weights stored in 16 bits are used in 32.

    Parameters
    ----------
    name_or_path
        A shipped model's name (``default``) or a .safetensors file with its card beside it.

    Raises
    ------
    ModelError
        Where the weights or the card are missing, damaged, of another kind, or do not belong together.
    """
    path = model_path(name_or_path)
    card = read_card(path)
    content = _read(path, MAX_WEIGHTS_BYTES)
    if hashlib.sha256(content).hexdigest() != card.sha256:
        raise ModelError(f"{path}: the weights do not match the SHA-256 on their card; get both files again")
    try:
        tensors = safetensors.torch.load(content)
    except (SafetensorError, ValueError, KeyError, RuntimeError):
        raise ModelError(f"{path}: is not a safetensors file; only that format is loaded") from None
    tensors = {name: value.float() if value.dtype == torch.float16 else value for name, value in tensors.items()}
    network = _build(path, card)
    if _layout(tensors) != _layout(network.state_dict()):
        kind = f"{card.arch!r} network with {len(card.channels)} channels"
        raise ModelError(f"{path}: the weights do not fit the {kind} that their card describes")
    if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
        raise ModelError(f"{path}: the weights hold values that are not finite; train the model again")
    network.load_state_dict(tensors)
    return network.eval().requires_grad_(False), card


def read_card(path: Path) -> ModelCard:
    """The card of a weights file, checked.

    Raises
    ------
    ModelError
        Where there is none, or it is not a card.
    """
    beside = path.with_suffix(".json")
    content = _read(beside, MAX_CARD_BYTES)
    try:
        values = json.loads(content)
        known = {one.name for one in fields(ModelCard)}
        card = ModelCard(**{key: value for key, value in values.items() if key in known})
        channels = tuple(card.channels)
        use = settings_from(UseSettings, values.get("use"), origin=f"{beside}: use")
    except (ValueError, TypeError, AttributeError, RecursionError, UsageError):
        raise ModelError(f"{beside}: is not a model card of ctmar") from None
    texts = (
        card.name,
        card.arch,
        card.path,
        card.version,
        card.licence,
        card.date,
        card.sha256,
        card.after,
        card.after_sha256,
    )
    if not all(isinstance(text, str) for text in texts + channels) or not 1 <= len(channels) <= MAX_CHANNELS:
        raise ModelError(f"{beside}: is not a model card of ctmar")
    if not all(isinstance(part, dict) for part in (card.settings, card.data, card.metrics)):
        raise ModelError(f"{beside}: is not a model card of ctmar")
    if card.arch not in ARCHITECTURES:
        raise ModelError(
            f"{beside}: the architecture {card.arch!r} is not known to this version of ctmar; one of your own needs "
            "ctmar --plugin FILE before the command"
        )
    return replace(card, channels=channels, use=use)


def list_models() -> dict[str, ModelCard]:
    """Cards of the models shipped with ctmar, by the name to give to `load_model`.

    Raises
    ------
    ModelError
        Where a shipped card is damaged.
    """
    return {path.stem: read_card(path) for path in sorted(SHIPPED.glob(f"*{SUFFIX}"))}


def model_path(name_or_path: str | Path) -> Path:
    """The weights file that a name or path means.

    Raises
    ------
    ModelError
        Where it is neither a shipped model nor a .safetensors file that exists.
    """
    path = Path(name_or_path)
    if path.suffix == SUFFIX:
        if not path.is_file():
            raise ModelError(f"{path}: there is no such weights file")
        return path
    shipped = SHIPPED / f"{path.name}{SUFFIX}"
    if path.name == str(name_or_path) and shipped.is_file():
        return shipped
    if path.is_file():
        raise ModelError(f"{path}: is not a {SUFFIX} file; only that format is loaded")
    names = sorted(one.stem for one in SHIPPED.glob(f"*{SUFFIX}"))
    if str(name_or_path) in METHODS:
        raise ModelError(f"{name_or_path} is a method, not a model: --method {name_or_path}")
    hint = did_you_mean(str(name_or_path), names) or f"shipped models: {', '.join(names) or 'none'}"
    raise ModelError(f"there is no model {str(name_or_path)!r}; {hint}")


def _build(path: Path, card: ModelCard) -> nn.Module:
    try:
        return build(card.arch, card.channels)
    except ValueError as error:
        raise ModelError(f"{path.with_suffix('.json')}: {error}") from None


def _layout(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError:
        raise ModelError(f"{path}: is missing or cannot be read; weights and card belong side by side") from None
    if len(content) > limit:
        raise ModelError(f"{path}: is larger than any model of ctmar")
    return content
