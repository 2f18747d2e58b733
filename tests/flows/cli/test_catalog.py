"""`./run recipes` and `./run datasets`: what there is to choose from."""

import json
import subprocess
import sys
from dataclasses import asdict

import pytest

from classifier import datasets
from classifier.datasets import Dataset
from classifier.sources import Mirror, Npm, OpenML
from classifier.training.recipe import RECIPES, Recipe
from tests.conftest import PROJECT


@pytest.fixture
def shapes(monkeypatch, tmp_path):
    """One dataset more, with a recipe, a network and sources of its own."""

    def draw(folder):
        pass

    own = Dataset(
        name="shapes",
        shape=(32, 24, 3),
        classes=("disc", "ring"),
        sources=(
            OpenML("shapes_1", version=1, train_rows=9),
            Mirror("http://x/y"),
            Npm("z", "1"),
            draw,
        ),
        default_recipe="slow",
        networks={"small": print},
        recipes={"slow": Recipe(network="small", epochs=777)},
    )
    monkeypatch.setitem(datasets.declared(), "shapes", (own, tmp_path / "shapes.py"))
    return own


def blocks(text):
    """The indented lines below each line that is not, as pairs of a name and the rest."""
    found, lines = {}, []
    for line in text.splitlines():
        if line.startswith("  "):
            name, _, value = line.strip().partition("  ")
            lines.append((name, value.strip()))
        elif line:
            lines = found.setdefault(line, [])
    return {name: dict(lines) for name, lines in found.items()}


def test_recipes_as_json_have_every_field(flows, shapes):
    done = flows("recipes", "--json")
    assert (done.code, done.err) == (0, "")
    found = {row.pop("recipe"): row for row in json.loads(done.out)}
    everything = RECIPES | {"slow": shapes.recipes["slow"]}
    assert found == {name: asdict(recipe) for name, recipe in everything.items()}


def test_recipes_in_words_show_the_network_and_what_differs_from_the_defaults(flows, shapes):
    done = flows("recipes")
    assert (done.code, done.err) == (0, "")
    found = blocks(done.out)
    assert list(found)[: len(RECIPES) + 1] == [*RECIPES, "slow  (of one dataset)"]
    assert found["slow  (of one dataset)"] == {"network": "small", "epochs": "777"}
    assert found["mlp"]["network"] == "post"
    assert found["mlp"]["learning-rate"] == "0.012"
    assert found["mlp"].keys().isdisjoint({"shift", "averaging", "precision"})
    assert found["best"]["precision"] == "auto"
    assert "./run train" in done.out.splitlines()[-1]


def test_datasets_as_json_have_what_they_declare(flows, shapes):
    done = flows("datasets", "--json")
    assert (done.code, done.err) == (0, "")
    found = {row["dataset"]: row for row in json.loads(done.out)}
    assert set(found) == {"fashion-mnist", "folder", "mnist", "shapes"}
    assert found["shapes"] == {
        "dataset": "shapes",
        "shape": [32, 24, 3],
        "classes": ["disc", "ring"],
        "default_recipe": "slow",
        "recipes": ["slow"],
        "networks": ["small"],
        "sources": ["OpenML shapes_1", "http://x/y", "npm z@1", f"{__name__}.draw"],
    }
    assert found["mnist"]["default_recipe"] == "post"
    assert found["mnist"]["shape"] == [28, 28]
    assert found["folder"]["shape"] is None
    assert found["folder"]["sources"] == []


def test_datasets_in_words_show_the_same(flows, shapes):
    done = flows("datasets")
    assert (done.code, done.err) == (0, "")
    found = blocks(done.out)
    assert found["shapes"] == {
        "shape": "32 x 24 x 3",
        "classes": "disc, ring",
        "default recipe": "slow",
        "own recipes": "slow",
        "own networks": "small",
        "sources": f"OpenML shapes_1, http://x/y, npm z@1, {__name__}.draw",
    }
    assert found["folder"] == {
        "shape": "read from the files",
        "classes": "read from the files",
        "default recipe": "mlp",
        "sources": "--source DIR",
    }


@pytest.mark.parametrize("command", ["recipes", "datasets"])
def test_a_superfluous_argument_is_refused_in_a_sentence(flows, command):
    done = flows(command, "mnist")
    assert done.code == 2
    assert "'mnist'" in done.sentence


def test_a_reader_that_leaves_early_ends_it_quietly():
    command = [sys.executable, "-m", "flows", "recipes"]
    with subprocess.Popen(
        command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == ""


def test_a_closed_standard_output_is_no_error():
    command = f"exec {sys.executable} -m flows recipes >&-"
    done = subprocess.run(
        ["sh", "-c", command], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("option", ["--data", "--source"])
def test_an_empty_folder_name_is_refused(flows, option):
    done = flows("recipes", option, "")
    assert done.code == 2
    assert option in done.sentence
