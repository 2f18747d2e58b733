import numpy as np
import pytest
import torch

from classifier.errors import ArgumentError, InputError
from classifier.training import networks


def test_post_starts_with_glorot_normal_weights_and_zero_biases():
    network = networks.build("post", (28, 28), 10, {}, seed=0)
    assert [tuple(value.shape) for value in network.parameters()] == [
        (784, 100),
        (100,),
        (100, 10),
        (10,),
    ]
    for weight, fans in ((network.weight_1, 784 + 100), (network.weight_2, 100 + 10)):
        expected = (2 / fans) ** 0.5
        values = weight.detach().numpy()
        # four standard errors of a standard deviation and of a mean
        assert values.std() == pytest.approx(expected, rel=4 / (2 * values.size) ** 0.5)
        assert abs(values.mean()) < 4 * expected / values.size**0.5
    assert not network.bias_1.any()
    assert not network.bias_2.any()


def test_post_computes_what_numpy_computes():
    network = networks.build("post", (4, 3), 5, {}, seed=1)
    images = np.random.default_rng(0).random((7, 4, 3), dtype=np.float32)
    w1, b1, w2, b2 = (value.detach().double().numpy() for value in network.parameters())
    expected = np.maximum(images.reshape(7, 12) @ w1 + b1, 0) @ w2 + b2
    np.testing.assert_allclose(
        network(torch.from_numpy(images)).detach().numpy(), expected, rtol=1e-5, atol=1e-6
    )


def test_a_seed_gives_the_same_weights_and_leaves_the_global_generator_alone():
    torch.manual_seed(123)
    before = torch.get_rng_state()
    first, again, other = (
        networks.build("post", (2, 2), 2, {}, seed=seed).weight_1 for seed in (7, 7, 8)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_unknown_network_is_refused_with_those_there_are():
    with pytest.raises(ArgumentError, match="choose one of post, cnn, best, tiny"):
        networks.build("big", (2, 2), 2, {"tiny": networks.Post})


@pytest.mark.parametrize("name", ["cnn", "best"])
@pytest.mark.parametrize("shape", [(16, 16), (28, 28, 1), (17, 40, 3)])
def test_convolutional_networks_take_any_shape_from_16_by_16(name, shape):
    network = networks.build(name, shape, 7, {})
    assert network(torch.rand(3, *shape)).shape == (3, 7)


def test_the_cnn_refuses_smaller_images():
    with pytest.raises(InputError, match="from 16 x 16, not 15 x 30"):
        networks.build("cnn", (15, 30), 2, {})


@pytest.mark.parametrize("channels", [1, 3])
def test_convolutions_are_laid_out_with_their_channels_last(channels):
    """Also the first one of grey images, where torch takes either layout for both."""
    weight = networks.build("cnn", (28, 28, channels), 10, {}).convolutions[0].weight
    assert weight.stride() == (25 * channels, 1, 5 * channels, channels)
