"""Time of a training step of the U-Net in mixed precision, beside float32, and what it does to the image.

As a training, but for the scaling of losses in float16.

python -m benchmarks.precision
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch

from benchmarks.machine import describe, seconds
from ctmar.learning.device import choose_device
from ctmar.learning.losses import LOSSES
from ctmar.network_input import image_names
from ctmar.restorer import DEFAULT_MODEL
from ctmar.weights import load_model
from data_sim.units import MU_WATER_PER_MM

PRECISIONS = {"cpu": ("float32", "bfloat16"), "cuda": ("float32", "bfloat16", "float16")}
"""On the processor at hand, a step in float16 took more than twenty times as long as in float32."""
BATCH, PATCH, SEED = 4, 256, 0


def main() -> None:
    """Print the machine and the figures."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    device = choose_device("auto")
    machine = describe() if device.type == "cpu" else torch.cuda.get_device_name()
    print(f"{machine}, torch {torch.__version__}")
    network, card = load_model(DEFAULT_MODEL)
    network = network.requires_grad_(True).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    generator = torch.Generator().manual_seed(SEED)
    water = 10 * MU_WATER_PER_MM
    noise = torch.rand(BATCH, len(card.channels), PATCH, PATCH, generator=generator)
    inputs = (water * (0.5 + noise)).to(device).contiguous(memory_format=torch.channels_last)
    images = len(image_names(card.channels))
    target = inputs[:, -images:].mean(dim=1, keepdim=True)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.0)  # the weights stay, the work is the same

    def step_in(precision: torch.dtype) -> Callable[[], torch.Tensor]:
        def step() -> torch.Tensor:
            optimiser.zero_grad()
            with torch.autocast(device.type, precision, enabled=precision is not torch.float32):
                output = network(inputs).float()
            LOSSES["rmse"](output, target, torch.full_like(target, 255), 0.0).mean().backward()
            optimiser.step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            return output.detach()

        return step

    exact, first_s = step_in(torch.float32)(), 0.0
    print(f"{BATCH} patches of {PATCH} x {PATCH}, forward, backward and Adam")
    for name in PRECISIONS[device.type]:
        step = step_in(getattr(torch, name))
        off_hu = float((step() - exact).square().mean().sqrt()) / water * 1000
        step_s = seconds(step, repeats=5)
        first_s = first_s or step_s
        print(f"{name}: {1e3 * step_s:.0f} ms, {first_s / step_s:.2f} times as fast, {off_hu:.2f} HU off")


if __name__ == "__main__":
    main()
