"""Exports give what the network gives, without this project's code."""

import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from classifier import exports, models
from classifier.errors import InputError
from classifier.training import networks
from classifier.training.recipe import NETWORKS
from tests.conftest import PROJECT

CLEAN = """
import sys
import torch
program = torch.export.load(sys.argv[1]).module()
images = torch.load(sys.argv[2], weights_only=True)
torch.save(program(images), sys.argv[3])
assert not [name for name in sys.modules if name.startswith(("classifier", "artifacts"))]
"""


def model(network, shape=(28, 28)):
    return models.Model(network=network, dataset="mnist", shape=shape, classes=tuple("0123456789"))


def loaded(folder):
    return torch.export.load(folder / "model.pt2").module()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("rows", [1, 3])
def test_an_export_gives_the_same_probabilities(tmp_path, name, rows):
    network = model(networks.build(name, (28, 28), 10, {}, seed=0))
    exports.write(tmp_path, network)
    images = np.random.default_rng(0).random((rows, 28, 28), np.float32)
    expected = models.predict(network, images, torch.device("cpu"))
    np.testing.assert_allclose(
        loaded(tmp_path)(torch.from_numpy(images)).numpy(), expected, atol=1e-6
    )
    np.testing.assert_allclose(expected.sum(1), 1, atol=1e-5)


def test_an_export_runs_in_a_process_that_cannot_import_the_project(tmp_path):
    network = model(networks.build("cnn", (28, 28), 10, {}, seed=0))
    exports.write(tmp_path, network)
    images = np.random.default_rng(0).random((5, 28, 28), np.float32)
    torch.save(torch.from_numpy(images), tmp_path / "images.pt")
    paths = [str(tmp_path / name) for name in ("model.pt2", "images.pt", "found.pt")]
    subprocess.run([sys.executable, "-I", "-c", CLEAN, *paths], check=True, cwd=tmp_path)
    found = torch.load(paths[2], weights_only=True).numpy()
    expected = models.predict(network, images, torch.device("cpu"))
    np.testing.assert_allclose(found, expected, atol=1e-6)


class Undecided(nn.Module):
    """Takes another way where the image is dark."""

    def forward(self, images):
        if images.mean() > 0.5:
            return images.flatten(1)[:, :10]
        return -images.flatten(1)[:, :10]


def test_a_network_that_cannot_be_exported_is_a_sentence(tmp_path):
    with pytest.raises(InputError, match="cannot be exported"):
        exports.write(tmp_path, model(Undecided()))


def test_the_latency_ratio_tells_a_slow_model_from_a_fast_one():
    slow, fast = (
        model(
            nn.Sequential(
                *(nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, width)),
                *(nn.ReLU(), nn.Linear(width, 10)),
            )
        )
        for width in (3000, 10)
    )
    assert exports.latency_ratio(slow, fast) > 2
    assert exports.latency_ratio(fast, slow) < 0.5
    assert 0.3 < exports.latency_ratio(fast, fast) < 3


@pytest.mark.parametrize("name", NETWORKS)
def test_an_export_names_no_file_of_this_machine(tmp_path, name):
    exports.write(tmp_path, model(networks.build(name, (28, 28), 10, {}, seed=0)))
    with zipfile.ZipFile(tmp_path / "model.pt2") as archive:
        content = b"".join(archive.read(entry) for entry in archive.infolist())
    assert b"flatten" in content
    for folder in (PROJECT, tmp_path, sys.prefix):
        assert str(folder).encode() not in content
