"""Another subject is one file: fixtures/shapes.py in classifier/datasets/, and no other edit."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.conftest import PROJECT, project_copy

EXAMPLE = PROJECT / "tests" / "fixtures" / "shapes.py"
STEPS = ("download", "normalise", "manifest", "train", "evaluate", "plot")
PICTURES = ("samples", "predictions", "mistakes", "confusion", "curves")


class Shapes:
    """A project with that one file more, in which it was trained on once."""

    def __init__(self, project):
        self.project = project
        self.file = project.folder / "classifier" / "datasets" / "shapes.py"
        shutil.copyfile(EXAMPLE, self.file)
        self.root = project.folder.parent / "data"
        self.first = self.train()

    def train(self):
        # The source is the file's own: not the folder that other tests read.
        done = self.project(
            "train", "--dataset", "shapes", "--recipe", "shapes", "--json", RETRAIN_SOURCE=""
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def ran_after(self, *edits):
        """The steps that run once these replacements were made in the file."""
        text = self.file.read_text()
        try:
            for old, new in edits:
                assert old in text
                text = text.replace(old, new)
            self.file.write_text(text)
            steps = self.train()["steps"]
        finally:
            shutil.copyfile(EXAMPLE, self.file)
        assert tuple(steps) == STEPS
        return {name for name, outcome in steps.items() if outcome == "ran"}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory, server):
    return Shapes(project_copy(tmp_path_factory.mktemp("own") / "project", server))


def opened(shapes, name):
    with Image.open(shapes.root / shapes.first["report"] / f"{name}.png") as picture:
        picture.load()
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"), dtype=int)


def test_the_first_run_takes_the_subject_from_its_source_to_a_model(shapes):
    assert set(shapes.first["steps"].values()) == {"ran"}
    assert shapes.first["test_rows"] == 80
    assert shapes.first["test_accuracy"] > 0.6  # chance is 0.25
    about = json.loads((shapes.root / shapes.first["model"] / "model.json").read_text())
    assert about["shape"] == [32, 32, 3]
    assert about["classes"] == ["disc", "square", "cross", "ring"]
    assert about["recipe"]["network"] == "small"


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_is_a_png_with_something_on_it(shapes, name):
    pixels = opened(shapes, name)
    assert pixels.shape[0] > 200
    assert pixels.shape[1] > 200
    assert pixels.std() > 5


def test_images_in_colour_are_drawn_in_colour(shapes):
    pixels = opened(shapes, "samples")
    spread = pixels.max(axis=2) - pixels.min(axis=2)
    assert (spread > 50).mean() > 0.01


def test_a_comment_another_source_and_a_second_run_reuse_everything(shapes):
    ran = shapes.ran_after(
        ("CLASSES = (", "# In the order of their labels.\nCLASSES = ("),
        ("sources=(draw,),", "sources=(draw, lambda folder: draw(folder)),"),
    )
    assert ran == set()


def test_another_recipe_trains_again_on_the_same_table(shapes):
    assert shapes.ran_after(("epochs=5", "epochs=2")) == {"train", "evaluate", "plot"}


def test_another_network_trains_again(shapes):
    ran = shapes.ran_after(("(shape[2], 16,", "(shape[2], 8,"), ("(16, 32,", "(8, 32,"))
    assert ran >= {"train", "evaluate", "plot"}


def test_initial_weights_are_what_a_training_starts_from_and_count_by_their_content(shapes):
    weights = shapes.root / shapes.first["model"] / "weights.safetensors"
    shutil.copyfile(weights, shapes.project.folder / "start.safetensors")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    text = shapes.file.read_text()
    declared = f'initial_weights=Weights("start.safetensors", "{digest}", "small"),'
    try:
        shapes.file.write_text(
            text.replace("sources=(draw,),", f"sources=(draw,),\n    {declared}")
            .replace("epochs=5", "epochs=1")
            .replace("5e-3", "1e-5")  # too small to learn anything
            .replace(
                "from classifier.training.recipe",
                "from classifier.sources import Weights\nfrom classifier.training.recipe",
            )
        )
        found = shapes.train()
        lineage = shapes.project("cache", "lineage", found["run_id"], "--json")
        (shapes.project.folder / "start.safetensors").unlink()
        again = shapes.train()
    finally:
        shutil.copyfile(EXAMPLE, shapes.file)
    ran = {name for name, outcome in found["steps"].items() if outcome == "ran"}
    assert ran >= {"initial-weights", "train", "evaluate", "plot"}
    assert abs(found["test_accuracy"] - shapes.first["test_accuracy"]) < 0.1
    assert "initial-weights" in lineage.stdout
    assert set(again["steps"].values()) == {"cached"}


@pytest.mark.slow
def test_a_file_that_cannot_be_used_leaves_the_other_datasets_usable(project):
    (project.folder / "classifier" / "datasets" / "broken.py").write_text("1 / 0\n")
    exits = project.folder / "classifier" / "datasets" / "exits.py"
    exits.write_text("raise SystemExit(0)\n")
    named = "broken.py cannot be used (ZeroDivisionError: division by zero)."
    listed = project("datasets", "--json")
    assert listed.returncode == 0
    assert "mnist" in [row["dataset"] for row in json.loads(listed.stdout)]
    assert named in listed.stderr
    assert "exits.py cannot be used (SystemExit: 0)." in listed.stderr
    options = ("--recipe", "post", "--epochs", "1", "--limit", "50", "--json")
    trained = project("train", "--dataset", "folder", *options)
    assert trained.returncode == 0, trained.stderr
    assert named in trained.stderr
    assert "UserWarning" not in trained.stderr
    asked = project("train", "--dataset", "broken", *options)
    assert asked.returncode == 2
    assert named in asked.stderr
