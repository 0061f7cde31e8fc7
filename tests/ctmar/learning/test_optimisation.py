import pytest
import torch

from ctmar.learning.optimisation import MovingAverage, rate


def test_the_learning_rate_rises_and_falls():
    factors = [rate(step, 1000) for step in range(1001)]
    assert factors[0] == pytest.approx(1 / 50)
    assert max(factors) == factors[49] > 0.99
    assert factors[500] == pytest.approx(0.5)
    assert factors[1000] == pytest.approx(0.0)
    assert 0 < rate(0, 1) <= 1
    constant = [rate(step, 1000, kind="constant", warmup=0.1) for step in range(1000)]
    assert constant[49] == pytest.approx(0.5)
    assert constant[99:] == [1.0] * 901
    assert rate(0, 1000, warmup=0.0) == 1


def test_the_average_follows_the_weights_as_written_down():
    network = torch.nn.Linear(1, 1, bias=False)
    average = MovingAverage(network, 0.5)
    expected = network.weight.item()
    for step in range(12):
        with torch.no_grad():
            network.weight.fill_(step)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
        assert average.weights["weight"].item() == pytest.approx(expected, rel=1e-6)
    other = MovingAverage(torch.nn.Linear(1, 1, bias=False), 0.5)
    other.load_state_dict(average.state_dict())
    assert other.weights == average.weights


def test_no_average_is_the_network_itself():
    network = torch.nn.Linear(1, 1)
    average = MovingAverage(network, 0.0)
    with torch.no_grad():
        network.weight.fill_(7)
    average.update(0)
    assert average.weights["weight"] == 7
    assert average.state_dict() == {}
