"""Models on disk: a loaded model predicts what the saved one did, whatever its network."""

import numpy as np
import pytest
import torch
from safetensors.torch import save as serialised
from torch import nn

from classifier import datasets, models
from classifier.datasets import Dataset
from classifier.errors import InputError
from classifier.training import networks
from classifier.training.checkpoints import storable
from classifier.training.recipe import Recipe


class Tied(nn.Module):
    """Two layers with the same weights."""

    def __init__(self, shape, classes):
        super().__init__()
        self.first = nn.Linear(shape[0] * shape[1], shape[0] * shape[1])
        self.second = nn.Linear(shape[0] * shape[1], shape[0] * shape[1])
        self.second.weight = self.first.weight
        self.last = nn.Linear(shape[0] * shape[1], classes)

    def forward(self, images):
        return self.last(self.second(self.first(images.flatten(1))))


def deep(shape, classes):
    """With weights of five dimensions."""
    height, width, _ = shape
    return nn.Sequential(
        nn.Unflatten(1, (1, height)),
        nn.Conv3d(1, 2, (5, 5, 3)),
        nn.Flatten(),
        nn.Linear(2 * (height - 4) * (width - 4), classes),
    )


NETWORKS = {"tied": Tied, "deep": deep}


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("post", (28, 28)),
        ("cnn", (28, 28)),
        ("cnn", (32, 24, 3)),
        ("tied", (8, 8)),
        ("deep", (16, 16, 3)),
    ],
)
def test_a_model_that_was_saved_and_loaded_predicts_the_same(tmp_path, monkeypatch, name, shape):
    own = Dataset(name="own", shape=shape, classes=("a", "b", "c"), networks=NETWORKS)
    monkeypatch.setitem(datasets.declared(), "own", (own, tmp_path))
    about = {"dataset": "own", "shape": shape, "classes": own.classes}
    images = np.random.default_rng(0).random((5, *shape), dtype=np.float32)
    network = networks.build(name, shape, 3, NETWORKS, seed=1)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        models.save(
            tmp_path / folder,
            network,
            recipe=Recipe(network=name),
            seed=1,
            history={},
            code={},
            **about,
        )
    loaded = models.load(tmp_path / "one")
    with torch.inference_mode():
        expected = network.eval()(torch.from_numpy(images)).softmax(1).numpy()
    assert np.allclose(models.predict(loaded, images, torch.device("cpu")), expected, atol=1e-6)
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("one", "two")]
    assert weights[0] == weights[1]


def pretrained(folder, network):
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(serialised(storable(network.state_dict())))
    return folder


def test_initial_weights_of_other_classes_keep_all_layers_but_the_last(tmp_path):
    trained = networks.build("cnn", (28, 28), 7, {}, seed=1)
    network = networks.build("cnn", (28, 28), 3, {}, seed=2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    said = models.start_from_pretrained(network, pretrained(tmp_path / "w", trained))
    for name, value in network.state_dict().items():
        fits = value.shape == trained.state_dict()[name].shape
        assert torch.equal(value, (trained.state_dict() if fits else before)[name])
    other = [n for n, v in before.items() if v.shape != trained.state_dict()[n].shape]
    assert 0 < len(other) < len(before)
    assert f"{len(before) - len(other)} of the network's {len(before)} tensors" in said[0]
    assert f"{', '.join(other)} stay random" in said[1]


def test_initial_weights_of_which_nothing_fits_are_an_error_that_names_both(tmp_path):
    folder = pretrained(tmp_path / "w", nn.Linear(2, 2))
    with pytest.raises(InputError, match=r"No layer of the network.*weight_1.*bias, weight"):
        models.start_from_pretrained(networks.build("post", (8, 8), 3, {}, 0), folder)


def test_initial_weights_that_are_no_safetensors_are_an_error(tmp_path):
    folder = pretrained(tmp_path / "w", nn.Linear(2, 2))
    (folder / "weights.safetensors").write_bytes(b"PK a pickle")
    with pytest.raises(InputError, match="initial weights are no safetensors file"):
        models.start_from_pretrained(networks.build("post", (8, 8), 3, {}, 0), folder)


@pytest.mark.parametrize(
    "wrong",
    [lambda v: v * float("nan"), lambda v: v.double() * 1e300, lambda v: (v * 100).to(torch.uint8)],
    ids=["nan", "overflow", "quantised"],
)
def test_initial_weights_that_are_no_finite_numbers_are_refused(tmp_path, wrong):
    network = networks.build("post", (8, 8), 3, {}, 0)
    spoilt = {name: value.clone() for name, value in network.state_dict().items()}
    spoilt["weight_1"] = wrong(spoilt["weight_1"])
    (tmp_path / "weights.safetensors").write_bytes(serialised(spoilt))
    with pytest.raises(InputError, match="Values of weight_1 in the initial weights"):
        models.start_from_pretrained(network, tmp_path)


def test_counters_in_initial_weights_are_taken_as_they_are(tmp_path):
    """As `num_batches_tracked` of a batch norm."""
    trained = nn.BatchNorm1d(3)
    trained.num_batches_tracked.fill_(7)
    network = nn.BatchNorm1d(3)
    models.start_from_pretrained(network, pretrained(tmp_path / "w", trained))
    assert network.num_batches_tracked == 7
