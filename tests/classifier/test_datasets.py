"""Datasets: which recipe each is trained with unless another is asked for."""

import pytest

from classifier import datasets
from classifier.datasets import Dataset
from classifier.errors import ArgumentError, InputError
from classifier.sources import Weights
from classifier.training.recipe import RECIPES, Recipe


def declare(shape=(28, 28), **fields):
    return Dataset(name="mine", shape=shape, classes=("a", "b"), **fields)


@pytest.mark.parametrize(
    ("name", "expected"), [("mnist", "post"), ("fashion-mnist", "cnn"), ("folder", "mlp")]
)
def test_the_datasets_here_have_their_default_recipes(name, expected):
    assert datasets.default_recipe_of(datasets.load(name)) == expected
    assert datasets.resolve_recipe(None, datasets.load(name), {}) == RECIPES[expected]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((28, 28), "cnn"),
        ((16, 16), "cnn"),
        ((64, 48, 3), "cnn"),
        ((16, 16, 1), "cnn"),
        ((15, 28), "mlp"),
        ((28, 15), "mlp"),
        ((8, 8), "mlp"),
        ((15, 28, 16), "mlp"),
        (None, "mlp"),
    ],
    ids=str,
)
def test_the_default_recipe_follows_from_the_shape(shape, expected):
    assert datasets.default_recipe_of(declare(shape)) == expected


def test_a_declared_default_recipe_comes_before_the_shape():
    own = Recipe(epochs=3)
    dataset = declare(default_recipe="quick", recipes={"quick": own})
    assert datasets.default_recipe_of(dataset) == "quick"
    assert datasets.default_recipe_of(declare(default_recipe="mlp")) == "mlp"


def test_a_default_recipe_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(ArgumentError, match=r"no recipe 'slow'.*post, mlp, cnn, best, quick"):
        declare(default_recipe="slow", recipes={"quick": Recipe()})


@pytest.mark.parametrize("name", list(RECIPES))
def test_an_own_recipe_may_not_take_the_name_of_a_common_one(name):
    with pytest.raises(ArgumentError, match=f"every dataset has a recipe '{name}' already"):
        declare(recipes={name: Recipe(epochs=3)})


def test_an_own_network_may_not_take_the_name_of_a_common_one():
    with pytest.raises(ArgumentError, match="every dataset has a network 'cnn' already"):
        declare(networks={"cnn": print})


def test_overrides_replace_fields_of_the_default_recipe():
    recipe = datasets.resolve_recipe(None, declare(), {"epochs": 2, "batch": None})
    assert recipe == RECIPES["cnn"].override({"epochs": 2})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A project whose datasets lie here."""
    folder = tmp_path / "classifier" / "datasets"
    folder.mkdir(parents=True)
    monkeypatch.setattr(datasets, "__file__", str(folder / "__init__.py"))
    monkeypatch.setattr(datasets, "PROJECT", tmp_path.resolve())
    return folder


def test_a_dataset_that_leads_out_of_the_project_is_refused(folder, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "linked.py"
    outside.write_text("1 / 0")
    (folder / "linked.py").symlink_to(outside)
    with pytest.raises(InputError, match=r"linked\.py leads out of the project"):
        datasets._read("linked")


def test_a_dataset_that_is_a_folder_is_refused(folder):
    (folder / "boxes").mkdir()
    with pytest.raises(InputError, match="boxes is a folder: a dataset is one file"):
        datasets._read("boxes")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"initial_weights": Weights("w", "a" * 63, "cnn")}, "64 hexadecimal"),
        ({"initial_weights": Weights("w", "a" * 64, "vit")}, "a network 'vit'"),
        ({"metric": "f1"}, "accuracy, macro-recall"),
        ({"max_parameters": 0}, "max_parameters is a number above 0"),
        ({"max_latency_ratio": "2"}, "max_latency_ratio is a number above 0"),
    ],
    ids=str,
)
def test_weights_and_terms_are_checked_when_they_are_declared(fields, named):
    with pytest.raises(ArgumentError, match=named):
        declare(**fields)
