"""A trained network as the methods use it: images in HU in, an image in HU out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ctmar.errors import ModelError
from ctmar.learning.device import choose_device
from ctmar.method_names import NEEDS_NETWORK, needs_network
from ctmar.methods import Restorer
from ctmar.network_input import image_names, network_channels, network_output_hu
from ctmar.weights import SUFFIX, ModelCard, load_model, model_path, read_card
from data_sim.units import MU_WATER_PER_MM

logger = logging.getLogger(__name__)

DEFAULT_MODEL = "default"


class NetworkRestorer:
    """A network with its card, on a device; see `ctmar.methods.Restorer`.

    Parameters
    ----------
    name_or_path
        Name of a shipped model, or a .safetensors file with its card beside it.
    device
        "auto", "cpu" or "cuda".

    Raises
    ------
    ModelError
        Where the weights are missing, damaged or do not match their card, those of a first model included.
    """

    def __init__(self, name_or_path: str | Path = DEFAULT_MODEL, *, device: str = "auto") -> None:
        network, self.card = load_model(name_or_path)
        card = self.card
        logger.info("model %s: %s, channels %s, sha256 %s", card.name, card.arch, ", ".join(card.channels), card.sha256)
        self.channels = image_names(self.card.channels)
        self.use = self.card.use
        self.first: Restorer | None = None
        if self.card.after:
            self.first = _first(model_path(name_or_path), self.card, device)
        elif set(self.channels) & set(NEEDS_NETWORK):
            raise ModelError(f"{name_or_path}: sees the result of another model, and its card does not say of which")
        self._device = choose_device(device)
        self._network = network.eval().to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    card: ModelCard

    @torch.inference_mode()
    def __call__(self, images_hu: Mapping[str, NDArray[np.float32]], metal: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Artifact-reduced images in HU, (slices, rows, cols), one slice at a time to bound the memory."""
        out = np.empty(metal.shape, np.float32)
        for index, mask in enumerate(metal):
            named = {name: images_hu[name][index] for name in self.channels}
            # the network works in attenuation, so any value of water would do as long as both ways use it
            channels = network_channels(named, mask, self.card.channels, MU_WATER_PER_MM)
            result = self._network(torch.from_numpy(channels)[None].to(self._device))
            out[index] = network_output_hu(result[0, 0].cpu().numpy(), MU_WATER_PER_MM)
        return out


def restorer_for(method: str, model: str | Path = DEFAULT_MODEL, *, device: str = "auto") -> NetworkRestorer | None:
    """The network that a method needs; None where it needs none, and the model is then not looked at."""
    return NetworkRestorer(model, device=device) if needs_network(method) else None


def _first(path: Path, card: ModelCard, device: str) -> NetworkRestorer:
    """The model that `card`, of the weights at `path`, refines."""
    first = path.parent / f"{card.after}{SUFFIX}"
    if first.parent != path.parent or not first.is_file():
        raise ModelError(f"{path}: refines the model {card.after!r}, which is not in the same folder")
    found = read_card(first)
    if found.sha256 != card.after_sha256 or found.after:
        raise ModelError(f"{path}: refines another model {card.after!r} than the one beside it; get both again")
    return NetworkRestorer(first, device=device)
