"""Pictures to be predicted: of any form, in order, and what cannot be used by name."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from classifier.data import unlabelled
from classifier.data.inputs import Subject
from classifier.datasets import resize_to_shape
from classifier.errors import InputError

SUBJECT = Subject(dataset="toys", shape=(6, 5), classes=("a", "b"), prepare=resize_to_shape)


def drawn(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 6, 5), np.uint8)


def saved(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def read(*paths):
    found = list(unlabelled.read(paths, SUBJECT))
    images = np.concatenate([part.images for part in found])
    names = [name for part in found for name in part.names]
    return names, images, {r.what: r.reason for part in found for r in part.refused}


def encoded(image):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": None}


def test_files_and_folders_of_any_depth_come_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = drawn(4)
    for name, image in zip(("z.png", "b/c/1.png", "b/2.bmp", "b/.hidden.png"), images, strict=True):
        saved(tmp_path / name, image)
    names, found, refused = read(tmp_path / "z.png", tmp_path / "b")
    assert names == ["z.png", "b/2.bmp", "b/c/1.png"]
    np.testing.assert_array_equal(found, images[[0, 2, 1]])
    assert refused == {}


@pytest.mark.parametrize("form", ["encoded", "floats", "bytes"])
def test_parquet_without_labels(tmp_path, monkeypatch, form):
    monkeypatch.chdir(tmp_path)
    images = drawn(3)
    flat = images.reshape(3, -1)
    column = {
        "encoded": pa.array([encoded(image) for image in images]),
        "floats": pa.array(list(flat.astype(np.float32) / 255)),
        "bytes": pa.array(list(flat)),
    }[form]
    pq.write_table(pa.table({"image": column, "note": ["x"] * 3}), tmp_path / "x.parquet")
    names, found, refused = read(tmp_path / "x.parquet")
    assert names == ["x.parquet row 0", "x.parquet row 1", "x.parquet row 2"]
    np.testing.assert_array_equal(found, images)
    assert refused == {}


def test_what_cannot_be_used_is_named_and_the_rest_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "a.png", drawn(1)[0])
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n half")
    (tmp_path / "c.txt").write_text("no picture")
    saved(tmp_path / "d.png", np.full((6, 5), 9, np.uint8))
    (tmp_path / "e\n.png").symlink_to(tmp_path / "nowhere")
    names, _, refused = read(tmp_path)
    assert names == ["a.png"]
    assert refused.keys() == {"b.png", "c.txt", "d.png", "e\\n.png"}
    assert refused["d.png"] == "a blank image"
    assert "not a readable picture" in refused["b.png"]


def test_more_pictures_than_a_chunk_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(unlabelled, "ROWS", 3)
    images = drawn(8)
    for number, image in enumerate(images):
        saved(tmp_path / f"{number}.png", image)
    parts = list(unlabelled.read([tmp_path], SUBJECT))
    assert [len(part.names) for part in parts] == [3, 3, 2]
    np.testing.assert_array_equal(np.concatenate([part.images for part in parts]), images)


def test_a_path_that_is_not_there_is_a_sentence_and_a_parquet_without_images_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not there"):
        read(tmp_path / "none.png")
    pq.write_table(pa.table({"label": [1]}), tmp_path / "x.parquet")
    _, _, refused = read(tmp_path / "x.parquet")
    assert "no column `image`" in next(iter(refused.values()))
