from dataclasses import fields

import pytest

from classifier import datasets
from classifier.errors import ArgumentError
from classifier.training import networks
from classifier.training.recipe import NETWORKS, RECIPES, Recipe


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("learning_rate", -0.1, "value > 0"),
        ("learning_rate", float("nan"), "value > 0"),
        ("learning_rate", 1e9, "value <= 100"),
        ("learning_rate", "fast", "type float"),
        ("epochs", 0, "value >= 1"),
        ("epochs", 2.5, "type int"),
        ("epochs", True, "type int"),
        ("label_smoothing", 1.0, "value < 1"),
        ("optimiser", "lion", "sgd, adam, adamw"),
    ],
)
def test_rejects_an_absurd_value_and_names_its_option(name, value, sentence):
    with pytest.raises(ArgumentError, match=f"--{name.replace('_', '-')} is .*{sentence}"):
        Recipe(**{name: value})


def test_overrides_only_what_is_given():
    recipe = RECIPES["post"].override({"epochs": 5, "learning_rate": None})
    assert recipe.epochs == 5
    assert recipe.learning_rate == RECIPES["post"].learning_rate == 0.8


def test_every_field_has_a_description_for_the_form():
    assert all(item.metadata["description"] for item in fields(Recipe))


def test_knows_the_networks_without_loading_them():
    assert set(NETWORKS) == set(networks.BUILDERS)


def test_names_the_recipes_and_datasets_there_are():
    with pytest.raises(ArgumentError, match=r"choose one of fashion-mnist, folder, mnist"):
        datasets.load("mnst")
    with pytest.raises(ArgumentError, match="choose one of post, mlp, cnn"):
        datasets.resolve_recipe("pst", datasets.load("mnist"), {})
