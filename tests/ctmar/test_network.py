import numpy as np
import pytest
import torch

from ctmar.network import CHANNELS, build
from ctmar.network_input import network_channels, network_output_hu

MU_WATER = 0.0193


@pytest.mark.parametrize(("channels", "parameters"), [(2, 28_641), (3, 28_929), (5, 29_505)])
def test_parameters_as_published(channels, parameters):
    network = build("cnn", channels)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert len(CHANNELS[channels]) == channels


def test_any_size_is_kept_and_eleven_pixels_are_seen():
    network = build("cnn", 3)
    network.initialise(0)
    image = torch.zeros(1, 3, 31, 40)
    image[0, 1, 15, 20] = 1.0
    response = (network(image) - network(torch.zeros_like(image)))[0, 0]
    assert response.shape == (31, 40)
    rows, cols = torch.nonzero(response.abs() > 1e-9, as_tuple=True)
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (10, 20, 15, 25)


def test_initialisation_follows_the_seed_alone():
    first, again, other = (build("cnn", 2) for _ in range(3))
    first.initialise(3)
    torch.manual_seed(99)
    again.initialise(3)
    other.initialise(4)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


@pytest.mark.parametrize("channels", [2, 3, 5])
def test_an_untrained_network_is_nearly_its_last_channel(channels):
    network = build("cnn", channels)
    network.initialise(0)
    image = 0.2 * torch.rand(1, channels, 24, 24, generator=torch.Generator().manual_seed(1))
    output = network(image)[:, 0].detach()
    difference = [float((output - image[:, c]).square().mean().sqrt()) for c in range(channels)]
    assert difference[-1] < 0.5 * min(difference[:-1])
    assert float((output - image[:, -1]).abs().max()) > 0  # the random features do take part


def test_an_unknown_architecture_is_refused():
    with pytest.raises(ValueError, match="unknown architecture"):
        build("transformer", 3)
    with pytest.raises(ValueError, match="at least one channel"):
        build("cnn", 0)


def test_channels_are_attenuation_per_cm_with_water_for_metal():
    mask = np.zeros((5, 5), bool)
    mask[2, 2] = True
    li = np.zeros((5, 5))
    uncorrected = np.full((5, 5), 1000.0)
    uncorrected[0, 0] = -3000.0
    uncorrected[2, 3] = 9000.0
    channels = network_channels({"li": li, "uncorrected": uncorrected}, mask, ("uncorrected", "li"), MU_WATER)
    expected = np.full((5, 5), 0.386)
    expected[0, 0] = 0.0
    for row, col in [(2, 2), (1, 2), (3, 2), (2, 1), (2, 3)]:
        expected[row, col] = 0.193
    assert channels.dtype == np.float32
    np.testing.assert_allclose(channels, [expected, np.full((5, 5), 0.193)], rtol=1e-6)


def test_a_stack_is_its_slices():
    rng = np.random.default_rng(0)
    images = {name: rng.normal(0, 300, (3, 8, 9)) for name in CHANNELS[3]}
    mask = rng.random((3, 8, 9)) < 0.05
    whole = network_channels(images, mask, CHANNELS[3], MU_WATER)
    assert whole.shape == (3, 3, 8, 9)
    for k in range(3):
        one = network_channels({n: i[k] for n, i in images.items()}, mask[k], CHANNELS[3], MU_WATER)
        np.testing.assert_array_equal(whole[k], one)


def test_output_is_the_inverse_of_input():
    image = np.array([[-1000.0, 0.0, 1500.0]])
    channels = network_channels({"a": image}, np.zeros((1, 3), bool), ["a"], MU_WATER)
    np.testing.assert_allclose(network_output_hu(channels[0], MU_WATER), image, atol=1e-3)


def test_missing_or_misshapen_images_are_refused():
    mask = np.zeros((4, 4), bool)
    with pytest.raises(ValueError, match="no image 'li'"):
        network_channels({"bhc": mask}, mask, ["li"], MU_WATER)
    with pytest.raises(ValueError, match="the metal mask"):
        network_channels({"li": np.zeros((4, 5))}, mask, ["li"], MU_WATER)
