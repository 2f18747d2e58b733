"""Erasure: a batch without some rows has the bytes of one in which they never were."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from classifier.data import batches, erasure, tables
from classifier.data.inputs import Chunk, Refused
from classifier.errors import InputError

TOYS = tables.Description(
    dataset="toys", shape=(4, 3), classes=("a", "b", "c"), source=batches.SOURCE
)
in_one_folder = settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(autouse=True)
def _small_row_groups(monkeypatch):
    monkeypatch.setattr(tables, "ROW_GROUP", 5)


def pixels(number):
    return np.random.default_rng(number).integers(0, 256, TOYS.shape, dtype=np.uint8)


def digest(number):
    return hashlib.sha256(pixels(number).tobytes()).hexdigest()


def write(folder, rows, refused, size=4):
    """Write rows (number, label, group) and refused rows (number or None, reason)."""
    folder.mkdir(exist_ok=True)
    chunks = [
        Chunk(
            images=np.array([pixels(n) for n, _, _ in rows[start : start + size]], np.uint8),
            labels=np.array([label for _, label, _ in rows[start : start + size]], np.uint8),
            groups=[group for _, _, group in rows[start : start + size]],
            names=[str(n) for n, _, _ in rows[start : start + size]],
            refused=[],
        )
        for start in range(0, len(rows), size)
    ]
    left = [
        Refused(what="x", reason=reason, image=None if n is None else pixels(n))
        for n, reason in refused
    ]
    nothing = np.empty((0, *TOYS.shape), np.uint8), np.empty(0, np.uint8)
    chunks.append(Chunk(images=nothing[0], labels=nothing[1], groups=[], names=[], refused=left))
    batches.write(folder, chunks, TOYS)
    return content(folder)


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def erased(folder, target, digests):
    target.mkdir(exist_ok=True)
    return erasure.write_without(folder, target, digests)


NUMBERS = st.integers(0, 12)


@in_one_folder
@given(
    rows=st.lists(st.tuples(NUMBERS, st.integers(0, 2), st.sampled_from([None, "x", "y"]))),
    refused=st.lists(st.tuples(st.one_of(st.none(), NUMBERS), st.sampled_from(["blank", "far"]))),
    gone=st.sets(st.integers(0, 14)),
)
def test_the_bytes_are_those_of_a_batch_in_which_the_rows_never_were(tmp_path, rows, refused, gone):
    write(tmp_path / "before", rows, refused)
    kept = [row for row in rows if row[0] not in gone]
    still_refused = [row for row in refused if row[0] not in gone]
    expected = write(tmp_path / "never", kept, still_refused)
    keep, about = erased(tmp_path / "before", tmp_path / "after", [digest(n) for n in gone])
    assert content(tmp_path / "after") == expected
    assert keep.tolist() == [row[0] not in gone for row in rows]
    assert about == json.loads(expected["batch.json"])


@pytest.mark.parametrize("refused", [[], [(None, "blank")], [(2, "blank"), (3, "blank")]])
@pytest.mark.parametrize("rows", [[], [(1, 0, None)], [(n, n % 3, "x") for n in range(12)]])
def test_no_digest_changes_no_byte(tmp_path, rows, refused):
    before = write(tmp_path / "before", rows, refused)
    erased(tmp_path / "before", tmp_path / "after", [])
    assert content(tmp_path / "after") == before


def test_erasing_everything_leaves_an_empty_batch(tmp_path):
    write(tmp_path / "before", [(n, 0, None) for n in range(12)], [(20, "blank")])
    expected = write(tmp_path / "never", [], [])
    keep, about = erased(
        tmp_path / "before", tmp_path / "after", {digest(n) for n in (*range(12), 20)}
    )
    assert content(tmp_path / "after") == expected
    assert not keep.any()
    assert (about["train"], about["recent"], about["refused"]) == (0, 0, 0)


def test_erasing_twice_equals_erasing_both_at_once(tmp_path):
    write(tmp_path / "before", [(n, 0, None) for n in range(20)], [])
    erased(tmp_path / "before", tmp_path / "one", [digest(3)])
    erased(tmp_path / "one", tmp_path / "two", [digest(11)])
    erased(tmp_path / "before", tmp_path / "both", [digest(11), digest(3)])
    assert content(tmp_path / "two") == content(tmp_path / "both")


def test_the_old_batch_stays_as_it_is(tmp_path):
    before = write(tmp_path / "before", [(n, 0, None) for n in range(9)], [(2, "blank")])
    erased(tmp_path / "before", tmp_path / "after", [digest(2)])
    assert content(tmp_path / "before") == before


@pytest.mark.parametrize(
    "name", ["rows.parquet", "train.parquet", "recent.parquet", "refused.parquet", "batch.json"]
)
@pytest.mark.parametrize("damage", ["missing", "empty"])
def test_a_damaged_batch_names_the_file_and_a_backup(tmp_path, name, damage):
    write(tmp_path / "before", [(n, 0, None) for n in range(9)], [(2, "blank")])
    path = tmp_path / "before" / name
    path.unlink()
    if damage == "empty":
        path.touch()
    with pytest.raises(InputError, match="backup") as raised:
        erased(tmp_path / "before", tmp_path / "after", [digest(2)])
    assert str(path.parent) in str(raised.value)
