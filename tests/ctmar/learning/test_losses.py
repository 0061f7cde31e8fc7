"""Losses against their formulas, written out with NumPy."""

import numpy as np
import pytest
import torch

from ctmar.config import TrainingSettings
from ctmar.learning.losses import LOSSES, UNITS

RNG = np.random.default_rng(0)
OUTPUT = RNG.uniform(0, 0.3, (3, 1, 6, 5)).astype(np.float32)
TARGET = RNG.uniform(0, 0.3, (3, 1, 6, 5)).astype(np.float32)
DISTANCE = RNG.integers(0, 60, (3, 1, 6, 5)).astype(np.float32)


def value(name, weight=0.0, output=OUTPUT):
    tensors = (torch.from_numpy(array) for array in (output, TARGET, DISTANCE))
    return LOSSES[name](*tensors, weight).numpy()


def each_mean(values):
    return values.mean(axis=(1, 2, 3))


def test_plain_losses():
    error = OUTPUT.astype(float) - TARGET
    assert value("mse") == pytest.approx(each_mean(error**2), rel=1e-5)
    assert value("l1") == pytest.approx(each_mean(abs(error)), rel=1e-5)
    assert value("charbonnier") == pytest.approx(each_mean(np.hypot(error, 1e-3) - 1e-3), rel=1e-5)


def test_tissue_near_the_metal_counts_more():
    error = OUTPUT.astype(float) - TARGET
    tissue = TARGET > 0.7 * 0.19285  # -300 HU at 70 keV
    weights = 1 + 3 * tissue * np.exp(-DISTANCE / 20)
    assert value("near-metal", 3.0) == pytest.approx(each_mean(weights * error**2), rel=1e-4)
    assert value("near-metal", 0.0) == pytest.approx(value("mse"), rel=1e-6)


def test_edges_that_are_missing_or_made_up():
    error = OUTPUT.astype(float) - TARGET
    down, across = np.diff(error, axis=2) ** 2, np.diff(error, axis=3) ** 2
    expected = each_mean(error**2) + 2 * (each_mean(down) + each_mean(across))
    assert value("edge", 2.0) == pytest.approx(expected, rel=1e-4)
    # a shift has no edges
    assert value("edge", 2.0, output=TARGET + 0.5) == pytest.approx(np.full(3, 0.25), rel=1e-4)


def test_every_loss_of_the_settings_is_there_and_zero_for_a_perfect_output():
    for name in LOSSES:
        assert TrainingSettings(loss=name).loss == name
        assert name in UNITS
        assert value(name, 4.0, output=TARGET) == pytest.approx(np.zeros(3), abs=1e-9)
    for tensors in LOSSES.values():
        output = torch.from_numpy(TARGET.copy()).requires_grad_()
        tensors(output, torch.from_numpy(TARGET), torch.from_numpy(DISTANCE), 4.0).sum().backward()
        assert torch.isfinite(output.grad).all()  # the square root and the absolute value at 0
