"""Rows are removed from the inputs themselves, and nothing else changes."""

import gzip
import hashlib

import numpy as np
import pyarrow.parquet as pq
import pytest

from classifier.data import idx, inputs, tables
from classifier.data.inputs import idx_pairs
from classifier.data.inputs import parquet as form
from classifier.errors import InputError
from tests.classifier.data.inputs.material import (
    CLASSES,
    SHAPE,
    drawn,
    encoded,
    floats,
    pair,
    parquet,
    png,
    put,
    read,
    subject,
)


def digest(image):
    return hashlib.sha256(image.tobytes()).digest()


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_pictures_are_deleted_wherever_they_lie_and_whatever_their_label(tmp_path):
    images = drawn(3)
    for name, image in {
        "box/a.png": images[0],
        "box/b.png": images[1],
        "ring/ann/c.png": images[1],
        "tree/d.png": images[1],
        "loose.png": images[1],
        "star/e.png": images[2],
    }.items():
        put(tmp_path / name, png(image))
    (tmp_path / "star" / "link.png").symlink_to(tmp_path / "box" / "b.png")
    assert inputs.erase(tmp_path, {digest(images[1])}, subject()) == 5
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")}
    assert left == {"box/a.png", "star/e.png"}
    assert inputs.erase(tmp_path, {digest(images[1])}, subject()) == 0


def test_a_link_that_leads_out_is_left_with_its_target(tmp_path):
    image = drawn(1)[0]
    outside = put(tmp_path / "elsewhere.png", png(image))
    put(tmp_path / "toys" / "box" / "x.png", png(image))
    (tmp_path / "toys" / "box" / "out.png").symlink_to(outside)
    assert inputs.erase(tmp_path / "toys", {digest(image)}, subject()) == 1
    assert outside.exists()
    assert (tmp_path / "toys" / "box" / "out.png").is_symlink()


def test_a_table_loses_the_rows_and_stays_a_table(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROW_GROUP", 7)
    images = drawn(20)
    about = tables.Description(dataset="toys", shape=SHAPE, classes=CLASSES, source="-")
    path = tmp_path / "train" / "part-00000.parquet"
    tables.write(path, images, np.arange(20, dtype=np.uint8) % 3, about)
    gone = [3, 8, 19]
    before = pq.read_table(path)
    count = inputs.erase(path, [digest(images[row]) for row in gone], subject())
    kept = [row for row in range(20) if row not in gone]
    assert count == 3
    after = pq.read_table(path)
    assert after.equals(before.take(kept))
    assert after.schema.equals(before.schema, check_metadata=True)
    assert np.array_equal(read(path).images, images[kept])
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("rows", [500, 3])
def test_a_foreign_table_keeps_its_other_columns_and_metadata(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(form, "PICTURES", rows)
    images = drawn(9)
    path = parquet(
        tmp_path / "x",
        {"note": "kept"},
        image=encoded([png(image) for image in images]),
        label=[0, 12] * 4 + [1],
        note=list("abcdefghi"),
        row_group_size=4,
    )
    before = pq.read_table(path)
    path.chmod(0o640)
    assert inputs.erase(path, {digest(images[1]), digest(images[8]), bytes(32)}, subject()) == 2
    after = pq.read_table(path)
    assert after.equals(before.take([0, 2, 3, 4, 5, 6, 7]), check_metadata=True)
    assert after.schema.metadata[b"note"] == b"kept"
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("alone", [True, False])
def test_a_pair_loses_the_rows_of_both_files(alone, end, tmp_path, monkeypatch):
    monkeypatch.setattr(idx_pairs, "ROWS", 10)
    images = drawn(33)
    pair(tmp_path, images, np.arange(33) % 4, end)
    path = tmp_path / f"train-images-idx3-ubyte{end}"
    digests = [digest(images[row]) for row in (0, 15, 32)]
    assert inputs.erase(path if alone else tmp_path, digests, subject()) == 3
    kept = [row for row in range(33) if row not in {0, 15, 32}]
    assert np.array_equal(idx.read(path), images[kept])
    labels = tmp_path / f"train-labels-idx1-ubyte{end}"
    assert idx.read(labels).tolist() == [row % 4 for row in kept]
    assert len(contents(tmp_path)) == 2
    assert (path.read_bytes()[:2] == b"\x1f\x8b") == bool(end)
    if end:
        assert len(gzip.decompress(path.read_bytes())) == 16 + 30 * len(kept)


def test_labels_beside_an_images_file_that_lie_elsewhere_are_left(tmp_path):
    images = drawn(3)
    here = pair(tmp_path / "incoming", images, [0, 1, 2])
    labels = here / "train-labels-idx1-ubyte"
    outside = labels.rename(tmp_path / "theirs")
    labels.symlink_to(outside)
    before = contents(tmp_path)
    with pytest.raises(InputError, match="has no labels"):
        inputs.erase(here / "train-images-idx3-ubyte", {digest(images[1])}, subject())
    assert contents(tmp_path) == before
    assert labels.is_symlink()


def test_a_link_to_an_images_file_that_is_named_itself_is_followed(tmp_path):
    images = drawn(3)
    here = pair(tmp_path / "here", images, [0, 1, 2])
    named = here / "train-images-idx3-ubyte"
    outside = named.rename(tmp_path / "theirs")
    named.symlink_to(outside)
    assert inputs.erase(named, {digest(images[1])}, subject()) == 1
    assert np.array_equal(idx.read(named), images[[0, 2]])
    assert idx.read(here / "train-labels-idx1-ubyte").tolist() == [0, 2]


def test_every_row_may_go(tmp_path):
    images = drawn(3)
    put(tmp_path / "a" / "box" / "x.png", png(images[0]))
    pair(tmp_path / "b", images, [0] * 3)
    parquet(tmp_path / "c", image=floats(images), label=[0] * 3)
    digests = [digest(image) for image in images]
    assert [inputs.erase(tmp_path / name, digests, subject()) for name in "abc"] == [1, 3, 3]
    assert [inputs.erase(tmp_path / name, digests, subject()) for name in "abc"] == [0, 0, 0]
    assert len(read([tmp_path / "b", tmp_path / "c"]).labels) == 0


def test_nothing_is_written_where_no_digest_matches(tmp_path):
    put(tmp_path / "box" / "x.png", png(drawn(1)[0]))
    parquet(tmp_path / "y", image=floats(drawn(2)), label=[0] * 2)
    before, written = contents(tmp_path), (tmp_path / "y").stat().st_mtime_ns
    assert inputs.erase(tmp_path, {bytes(32)}, subject()) == 0
    assert inputs.erase(tmp_path, [], subject()) == 0
    assert contents(tmp_path) == before
    assert (tmp_path / "y").stat().st_mtime_ns == written


def test_a_damaged_file_is_left_as_it_is(tmp_path):
    images = drawn(400)
    path = parquet(tmp_path / "x", image=floats(images), label=[0] * 400, row_group_size=200)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged Parquet"):
        inputs.erase(path, {digest(images[0])}, subject())
    assert contents(tmp_path) == {path: bytes(data)}
