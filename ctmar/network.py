"""Network architectures: corrected images in, one image with fewer artifacts out.

Inputs and output are attenuation in 1/cm (water about 0.19), the unit of the paper, so that losses can be
compared with the published ones. How images become inputs is `ctmar.network_input`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn

from ctmar.network_input import image_names
from ctmar.unet import ResidualUNet

CHANNELS: Mapping[int, tuple[str, ...]] = MappingProxyType(
    {
        2: ("uncorrected", "li"),
        3: ("uncorrected", "bhc", "li"),
        5: ("uncorrected", "bhc", "li", "nmar1", "nmar2"),
        6: ("metal", "uncorrected", "bhc", "li", "nmar2", "tv"),
        7: ("metal", "uncorrected", "bhc", "li", "nmar2", "tv", "ebhc"),
        8: ("metal", "uncorrected", "bhc", "li", "nmar2", "tv", "ebhc", "cnn-mar"),
    }
)
"""Names of the input images for each number of channels: Zhang & Yu 2018, table 3; the metal and the best
of the classical images; and for a network that refines the result of another."""


class CnnMar(nn.Module):
    """Five 3x3 convolutions, ReLU after the first four, linear output (Zhang & Yu 2018, fig. 4).

    Zero padding keeps the image size, so any size can be given. With three channels and 32 features it has
    28,929 parameters and sees 11 x 11 pixels.
    """

    def __init__(self, channels: int = 3, features: int = 32) -> None:
        super().__init__()
        widths = [channels, features, features, features, features]
        layers: list[nn.Module] = []
        for inputs in widths[:-1]:
            layers += [nn.Conv2d(inputs, features, 3, padding=1), nn.ReLU(inplace=True)]
        layers.append(nn.Conv2d(features, 1, 3, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, rows, cols) in 1/cm to (batch, 1, rows, cols) in 1/cm."""
        result: Tensor = self.layers(images)
        return result

    def initialise(self, seed: int) -> None:
        """Set the weights so that the output is nearly the last channel; `seed` alone decides the rest.

        The first features carry the channels through unchanged (they are never negative, so the ReLUs let
        them pass) and the last layer begins with the last of them, the most corrected image. The other
        features start small and random. Training then starts where the
        classical correction ends, instead of learning to copy an image first.
        """
        generator = torch.Generator().manual_seed(seed)
        convolutions = [layer for layer in self.layers if isinstance(layer, nn.Conv2d)]
        channels = convolutions[0].in_channels
        for layer in convolutions:
            bound = (9 * layer.in_channels) ** -0.5
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            for layer in convolutions[:-1]:
                layer.weight[:channels] = 0
                for channel in range(channels):
                    layer.weight[channel, channel, 1, 1] = 1
            last = convolutions[-1].weight
            last *= RANDOM_SHARE
            last[0, :channels] = 0
            last[0, channels - 1, 1, 1] = 1


RANDOM_SHARE = 0.1
"""How much the random features count in the output before training."""

ARCHITECTURES: dict[str, Callable[[Sequence[str]], nn.Module]] = {
    "cnn": lambda names: CnnMar(len(names)),
    "unet": lambda names: ResidualUNet(len(names), images=len(image_names(names))),
}
"""Architectures by name; each takes the names of the channels, maps first."""


def register_architecture(name: str, network: Callable[[Sequence[str]], nn.Module]) -> None:
    """Make an architecture of your own known to training, to model cards and to corrections.

    Parameters
    ----------
    name
        What ``--arch`` and the cards of its models call it. One of your own may be registered again.
    network
        From the names of the channels (`CHANNELS`) to an untrained `torch.nn.Module` that maps (batch, channels, rows,
        cols) in 1/cm to (batch, 1, rows, cols) in 1/cm for images of any size. Where it has a method
        ``initialise(seed)``, that sets the weights before training; otherwise they are as torch makes them.

    Raises
    ------
    ValueError
        Where the name is one of ours.
    """
    if name in ("cnn", "unet", ""):
        raise ValueError(f"{name!r} is an architecture of ctmar's own: choose another name")
    ARCHITECTURES[name] = network


def build(arch: str, names: Sequence[str]) -> nn.Module:
    """An untrained network.

    Raises
    ------
    ValueError
        Where the architecture is unknown, or there is no image or a map after an image among `names`.
    """
    if arch not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {arch!r}: expected one of {', '.join(ARCHITECTURES)}")
    images = image_names(names)
    if not images or tuple(names[-len(images) :]) != images:
        raise ValueError(
            f"a network needs at least one image, and maps before images, not {', '.join(names) or 'none'}"
        )
    return ARCHITECTURES[arch](names)


def untrained(arch: str, names: Sequence[str], seed: int) -> nn.Module:
    """A network at the beginning of its training; `seed` alone decides; torch's generator on the CPU is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build(arch, names)
    if hasattr(network, "initialise"):
        network.initialise(seed)  # type: ignore[operator]
    return network
