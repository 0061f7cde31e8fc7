import numpy as np
import pytest
import torch

from ctmar.network import CHANNELS, build
from ctmar.network_input import network_channels, network_output_hu

MU_WATER = 0.0193


@pytest.mark.parametrize(("channels", "parameters"), [(2, 28_641), (3, 28_929), (5, 29_505)])
def test_parameters_as_published(channels, parameters):
    network = build("cnn", CHANNELS[channels])
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert len(CHANNELS[channels]) == channels


def test_any_size_is_kept_and_eleven_pixels_are_seen():
    network = build("cnn", CHANNELS[3])
    network.initialise(0)
    image = torch.zeros(1, 3, 31, 40)
    image[0, 1, 15, 20] = 1.0
    response = (network(image) - network(torch.zeros_like(image)))[0, 0]
    assert response.shape == (31, 40)
    rows, cols = torch.nonzero(response.abs() > 1e-9, as_tuple=True)
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (10, 20, 15, 25)


def test_initialisation_follows_the_seed_alone():
    first, again, other = (build("cnn", CHANNELS[2]) for _ in range(3))
    first.initialise(3)
    torch.manual_seed(99)
    again.initialise(3)
    other.initialise(4)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


@pytest.mark.parametrize("channels", [2, 3, 5])
def test_an_untrained_network_is_nearly_its_last_channel(channels):
    network = build("cnn", CHANNELS[channels])
    network.initialise(0)
    image = 0.2 * torch.rand(1, channels, 24, 24, generator=torch.Generator().manual_seed(1))
    output = network(image)[:, 0].detach()
    difference = [float((output - image[:, c]).square().mean().sqrt()) for c in range(channels)]
    assert difference[-1] < 0.5 * min(difference[:-1])
    assert float((output - image[:, -1]).abs().max()) > 0  # the random features do take part


def test_an_unknown_architecture_is_refused():
    with pytest.raises(ValueError, match="unknown architecture"):
        build("transformer", CHANNELS[3])
    with pytest.raises(ValueError, match="at least one image"):
        build("cnn", ())


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


def unet(seed=0):
    network = build("unet", CHANNELS[6])
    network.initialise(seed)
    return network.eval()


def test_the_unet_keeps_any_size_and_begins_as_its_last_image():
    images = 0.2 * torch.rand(1, 6, 37, 50, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        output = unet()(images)[:, 0]
    assert output.shape == (1, 37, 50)
    difference = [float((output - images[:, c]).square().mean().sqrt()) for c in range(6)]
    assert difference[-1] < 0.5 * min(difference[:-1])


def test_the_unet_returns_what_all_images_agree_on_before_training():
    image = 0.2 * torch.rand(1, 1, 48, 48, generator=torch.Generator().manual_seed(1))
    network = unet()
    with torch.no_grad():
        network.tail.weight.zero_()
        output = network(torch.cat([torch.zeros_like(image), image.expand(-1, 5, -1, -1)], dim=1))
    torch.testing.assert_close(output, image, rtol=1e-5, atol=1e-7)


def test_the_unet_sees_the_metal_and_far_away():
    images = torch.full((1, 6, 256, 256), 0.19)
    marked = images.clone()
    marked[0, 0, 128, 128] = 0.0
    with torch.no_grad():
        network = unet()
        seen = (network(marked) - network(images))[0, 0].abs() > 0
    rows, cols = torch.nonzero(seen, as_tuple=True)
    assert rows.max() - rows.min() > 100
    assert cols.max() - cols.min() > 100


def test_the_unet_follows_the_seed_alone():
    first, other = unet(3), unet(4)
    torch.manual_seed(99)
    again = unet(3)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.head.weight, other.head.weight)


def test_maps_stand_before_images():
    with pytest.raises(ValueError, match="maps before images"):
        build("unet", ("li", "metal"))
    with pytest.raises(ValueError, match="at least one image"):
        build("cnn", ("metal",))


def test_the_map_of_the_metal_is_its_mask_grown():
    mask = np.zeros((5, 5), bool)
    mask[2, 2] = True
    (channel,) = network_channels({}, mask, ("metal",), MU_WATER)
    assert np.array_equal(channel > 0, np.array([[abs(r - 2) + abs(c - 2) <= 1 for c in range(5)] for r in range(5)]))
