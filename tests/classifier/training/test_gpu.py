"""On a GPU: captured steps give what eager ones give, resumed or not."""

import numpy as np
import pytest
import torch

from classifier.training import loop, networks
from classifier.training.checkpoints import Checkpoint
from classifier.training.recipe import RECIPES
from classifier.training.rows import InMemoryRows

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here")
CUDA = torch.device("cuda")


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    return (
        random.random((2_000, 28, 28), dtype=np.float32),
        random.integers(0, 10, 2_000).astype(np.uint8),
    )


def train(data, name, *, captures=True, checkpoint=None, **options):
    """Weights and history after a training in float32."""
    recipe = RECIPES[name].override({"precision": "float32", "min_steps": 0} | options)
    network = networks.build(recipe.network, (28, 28), 10, {}, 0)
    rows = InMemoryRows(*loop.to_device(network, recipe, CUDA)(*data))
    history = loop.fit(
        network, rows, recipe, seed=0, device=CUDA, captures=captures, checkpoint=checkpoint
    )
    return {name: value.cpu() for name, value in network.state_dict().items()}, history


@pytest.mark.parametrize("name", ["post", "mlp", "cnn"])
def test_captured_steps_agree_with_eager_ones(data, name):
    captured, history = train(data, name, epochs=2)
    eager, expected = train(data, name, epochs=2, captures=False)
    assert history.loss == pytest.approx(expected.loss, rel=1e-3)
    for weights in eager:
        torch.testing.assert_close(captured[weights], eager[weights], rtol=1e-2, atol=1e-3)


def test_ten_steps_of_best_are_captured_and_finite(data):
    weights, history = train(data, "best", epochs=2, batch=256)
    assert np.isfinite(history.loss).all()
    assert all(torch.isfinite(value).all() for value in weights.values())


def test_a_resumed_training_captures_again_and_ends_alike(data, tmp_path):
    whole, expected = train(data, "mlp", epochs=4)
    checkpoint = Checkpoint(path=tmp_path / "checkpoint", key="a", seconds=0)

    class Interrupted(Exception):
        pass

    recipe = RECIPES["mlp"].override({"precision": "float32", "min_steps": 0, "epochs": 4})
    network = networks.build(recipe.network, (28, 28), 10, {}, 0)
    rows = InMemoryRows(*loop.to_device(network, recipe, CUDA)(*data))

    def stop(history):
        if history.epochs == 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        loop.fit(network, rows, recipe, seed=0, device=CUDA, on_epoch=stop, checkpoint=checkpoint)
    weights, history = train(data, "mlp", epochs=4, checkpoint=checkpoint)
    assert history.loss == pytest.approx(expected.loss, rel=1e-3)
    for name, value in whole.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-2, atol=1e-3)
