"""Class folders without a declaration: --dataset folder with a size."""

import json

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.usefixtures("server")
QUICK = ("--recipe", "post", "--epochs", "1", "--json")
FOLDER = ("--dataset", "folder")


@pytest.fixture
def pictures(root, tmp_path, monkeypatch):
    """Twelve pictures of cats and dogs, in a folder that is the source."""
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            for number in range(3):
                pixels = random.integers(0, 256, (20, 31, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    monkeypatch.setenv("RETRAIN_SOURCE", str(tmp_path / "pictures"))
    return root


@pytest.mark.parametrize(("size", "shape"), [("12x10", (12, 10)), ("8x9x3", (8, 9, 3))])
def test_size_and_folders_make_a_dataset(pictures, flows, size, shape):
    from classifier.data.parts import official

    done = flows("train", *QUICK, *FOLDER, "--image-size", size)
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert (result["train_rows"], result["test_rows"]) == (6, 6)
    (table,) = pictures.glob("cache/tables/*/")
    description = official(table).description
    assert description.shape == shape
    assert description.classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (FOLDER, 1, "give --image-size, such as 64x64 or 64x64x3"),
        ((*FOLDER, "--image-size", "12"), 2, "--image-size"),
        ((*FOLDER, "--image-size", "0x5"), 2, "--image-size"),
        ((*FOLDER, "--image-size", "8x8x2"), 2, "--image-size"),
        (("--dataset", "mnist", "--image-size", "8x8"), 2, "mnist declares its own"),
    ],
)
def test_a_size_that_is_missing_or_none_is_named(pictures, flows, options, code, sentence):
    done = flows("train", *QUICK, *options)
    assert done.code == code
    assert sentence in done.sentence


def test_a_class_called_drop_is_a_class_and_drops_nothing(pictures, flows, tmp_path):
    for split in ("train", "test"):
        (tmp_path / "pictures" / split / "dog").rename(tmp_path / "pictures" / split / "drop")
    assert flows("train", *QUICK, *FOLDER, "--image-size", "12x10").code == 0
    listed = flows("data", "rows", *FOLDER)
    assert listed.out.count(",drop,") == 6
    (tmp_path / "rows.csv").write_text(listed.out)
    found = json.loads(flows("data", "correct", tmp_path / "rows.csv", *FOLDER, "--json").out)
    assert (found["corrected"], found["dropped"]) == (12, 0)
