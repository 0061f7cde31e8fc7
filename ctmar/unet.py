"""A residual U-Net that mixes the corrected images pixel by pixel and adds what none of them has.

Streaks reach across the whole image, so the network has to see far; tissue beside metal is a matter of pixels. The
images are therefore folded 2 x 2 into channels, which makes every convolution four times cheaper, and unfolded at the
end. Its output is ``sum_k w_k image_k + residual`` with weights from a softmax: where an image is right, choosing it
costs no detail. No normalisation layers: they would make the HU of a place depend on the rest of the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from data_sim.units import MU_WATER_PER_MM

WIDTHS = (32, 64, 128, 192, 256)
"""Features at 2, 4, 8, 16 and 32 pixels."""

_FOLD = 2
_WATER_PER_CM = 10 * MU_WATER_PER_MM
_RESIDUAL = 0.3
"""Output of 1 is this share of water: 300 HU."""
_LEAD = 2.0
"""How far the last image's weight is ahead before training: exp(2) times the others'."""


class ResidualUNet(nn.Module):
    """A U-Net (Ronneberger et al., MICCAI 2015) of residual blocks (He et al., CVPR 2016).

    Images of any size: their borders are continued up to the next multiple of 32 pixels.

    Parameters
    ----------
    channels
        Input images and maps.
    images
        How many of them, the last, are images to mix; the rest are maps, such as the metal.
    """

    def __init__(self, channels: int, images: int) -> None:
        super().__init__()
        self.images = images
        folded = _FOLD**2
        self.head = nn.Conv2d(channels * folded, WIDTHS[0], 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(WIDTHS))
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in pairwise(WIDTHS))
        self.encode = nn.ModuleList(_Block(width) for width in WIDTHS)
        self.join = nn.ModuleList(nn.Conv2d(2 * width, width, 1) for width in WIDTHS[:-1])
        self.decode = nn.ModuleList(_Block(width) for width in WIDTHS[:-1])
        self.tail = nn.Conv2d(WIDTHS[0], (images + 1) * folded, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, rows, cols) in 1/cm to (batch, 1, rows, cols) in 1/cm."""
        rows, cols = images.shape[2:]
        multiple = _FOLD * 2 ** (len(WIDTHS) - 1)
        padded = functional.pad(images, (0, -cols % multiple, 0, -rows % multiple), mode="replicate")
        features = self.head(functional.pixel_unshuffle(padded / _WATER_PER_CM - 1, _FOLD))
        kept = []
        for level, block in enumerate(self.encode):
            features = block(features)
            if level < len(self.down):
                kept.append(features)
                features = self.down[level](features)
        for level in reversed(range(len(self.down))):
            features = self.join[level](torch.cat([kept[level], self.up[level](features)], dim=1))
            features = self.decode[level](features)
        mixed = functional.pixel_shuffle(self.tail(features), _FOLD)[:, :, :rows, :cols]
        weights = mixed[:, : self.images].softmax(dim=1)
        result: Tensor = (weights * images[:, -self.images :]).sum(dim=1, keepdim=True)
        return result + _RESIDUAL * _WATER_PER_CM * mixed[:, self.images :]

    def initialise(self, seed: int) -> None:
        """Set the weights so that the output is nearly the last image; `seed` alone decides the rest."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
                    nn.init.zeros_(module.bias)  # type: ignore[arg-type]
            for block in (*self.encode, *self.decode):
                block.second.weight *= 0.1
            self.tail.weight *= 0.01
            folded = _FOLD**2
            last = (self.images - 1) * folded
            self.tail.bias[last : last + folded] = _LEAD  # type: ignore[index]


def seeing_another_image(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a `ResidualUNet`, for one that sees one more image, the last.

    It goes on as the narrower one, but for a share of the new image that is small where others have been learned to be
    right; in the rest of the network what it shows has no influence yet.
    """
    head, tail, bias = weights["head.weight"], weights["tail.weight"], weights["tail.bias"]
    folded = _FOLD**2
    unseen = head.new_zeros((len(head), folded, *head.shape[2:]))
    return {
        **weights,
        "head.weight": torch.cat([head, unseen], dim=1),
        "tail.weight": torch.cat([tail[:-folded], torch.zeros_like(tail[:folded]), tail[-folded:]]),
        "tail.bias": torch.cat([bias[:-folded], torch.zeros_like(bias[:folded]), bias[-folded:]]),
    }


class _Block(nn.Module):
    """Two convolutions, added to what went in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        hidden = functional.relu(self.first(functional.relu(features)))
        result: Tensor = features + self.second(hidden)
        return result
