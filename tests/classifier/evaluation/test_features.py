"""Features are what the last linear layer takes, whatever the network."""

import numpy as np
import pytest
import torch
from torch import nn

from classifier.errors import InputError
from classifier.evaluation.features import features
from classifier.models import EVALUATION_ROWS, Model, predict
from classifier.training import networks

CPU = torch.device("cpu")


def normal(rows, width=5, *, shift=0.0, seed=0):
    """float32 [rows, width], whose first column has the mean `shift`."""
    drawn = np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)
    drawn[:, 0] += shift
    return drawn


def model_of(network, shape=(28, 28), classes=10):
    return Model(network=network, dataset="mnist", shape=shape, classes=("a",) * classes)


def images_of(rows, *shape):
    return np.random.default_rng(0).random((rows, *shape), dtype=np.float32)


def probabilities(logits):
    return torch.from_numpy(logits).softmax(1).numpy()


@pytest.mark.parametrize("name", ["cnn", "best"])
def test_features_are_what_the_last_linear_layer_takes(name):
    model, images = model_of(networks.build(name, (28, 28), 10, {})), images_of(7, 28, 28)
    model.network.train()
    found = features(model, images, CPU)
    last = model.network.layers[-1]
    logits = found @ last.weight.detach().numpy().T + last.bias.detach().numpy()
    assert found.dtype == np.float32
    np.testing.assert_allclose(probabilities(logits), predict(model, images, CPU), atol=1e-5)


def test_features_of_a_network_without_linear_layers_are_its_logits():
    model, images = model_of(networks.build("post", (28, 28), 10, {})), images_of(7, 28, 28)
    found = features(model, images, CPU)
    np.testing.assert_allclose(probabilities(found), predict(model, images, CPU), atol=1e-6)


class Reversed(nn.Module):
    """Its last layer is registered first and called by keyword; a third one never runs."""

    def __init__(self):
        super().__init__()
        self.last, self.first, self.idle = nn.Linear(6, 3), nn.Linear(4, 6), nn.Linear(2, 2)
        self.seen = []

    def forward(self, images):
        self.seen.append(len(images))
        return self.last(input=self.first(images.flatten(1)))


def test_the_last_linear_layer_is_the_one_that_runs_last():
    model, images = model_of(Reversed(), (2, 2), 3), images_of(5, 2, 2)
    first = model.network.first
    expected = images.reshape(5, 4) @ first.weight.detach().numpy().T + first.bias.detach().numpy()
    np.testing.assert_allclose(features(model, images, CPU), expected, atol=1e-6)


def test_images_go_through_the_network_in_parts_and_no_hook_stays():
    model = model_of(Reversed(), (2, 2), 3)
    assert len(features(model, images_of(2 * EVALUATION_ROWS + 1, 2, 2), CPU)) == 4_001
    assert model.network.seen == [EVALUATION_ROWS, EVALUATION_ROWS, 1]
    assert not any(module._forward_pre_hooks for module in model.network.modules())


def test_features_of_a_row_do_not_depend_on_its_neighbours():
    network = nn.Sequential(
        nn.Flatten(), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 6), nn.Linear(6, 3)
    )
    model, images = model_of(network, (2, 2), 3), images_of(20, 2, 2)
    alone = np.concatenate([features(model, images[i : i + 1], CPU) for i in range(20)])
    np.testing.assert_allclose(features(model, images, CPU), alone, atol=1e-6)


class Tokens(nn.Module):
    """A Linear over tokens, [N, 14, 28], and then their mean."""

    def __init__(self, merged):
        super().__init__()
        self.layer, self.merged = nn.Linear(28, 3), merged

    def forward(self, images):
        tokens = images[:, :14].reshape(-1, 28) if self.merged else images[:, :14]
        return self.layer(tokens).reshape(len(images), -1, 3).mean(1)


def test_many_features_are_projected_so_that_distances_about_stay():
    images = images_of(30, 28, 28)
    found = features(model_of(Tokens(merged=False), classes=3), images, CPU)
    assert found.shape == (30, 256)
    whole = images[:, :14].reshape(30, -1)
    ratios = [
        np.linalg.norm(found[i] - found[j]) / np.linalg.norm(whole[i] - whole[j])
        for i in range(30)
        for j in range(i)
    ]
    assert 0.97 < np.mean(ratios) < 1.03  # a ratio has a deviation of 1 / sqrt(2 * 256), 0.044
    assert 0.8 < min(ratios) < max(ratios) < 1.2


def test_rows_that_a_network_merges_give_its_logits():
    model, images = model_of(Tokens(merged=True), classes=3), images_of(5, 28, 28)
    found = features(model, images, CPU)
    np.testing.assert_allclose(probabilities(found), predict(model, images, CPU), atol=1e-6)


def test_features_of_images_of_another_shape_are_refused():
    with pytest.raises(InputError, match=r"\(5, 5\), but the model is for \(28, 28\)"):
        features(model_of(Reversed()), images_of(2, 5, 5), CPU)
