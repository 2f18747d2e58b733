"""Batches: equal data is equal bytes, groups stay together, and every row comes back."""

import hashlib
import json
from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from classifier.data import batches, tables
from classifier.data.inputs import Chunk, Refused
from classifier.data.parts import Part, Table
from classifier.errors import InputError

TOYS = tables.Description(
    dataset="toys", shape=(4, 3), classes=("a", "b", "c"), source=batches.SOURCE
)
FILES = ["batch.json", "recent.parquet", "refused.parquet", "rows.parquet", "train.parquet"]
in_one_folder = settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(autouse=True)
def _small_row_groups(monkeypatch):
    monkeypatch.setattr(tables, "ROW_GROUP", 5)


def good(number, label=0, group=None):
    """A row: its image follows from the number."""
    return pixels(number), label, group


def pixels(number):
    random = np.random.default_rng(number)
    return random.integers(0, 256, TOYS.shape, dtype=np.uint8)


def chunk(rows):
    """A chunk of good rows and refused ones, each in its order."""
    taken = [row for row in rows if not isinstance(row, Refused)]
    return Chunk(
        images=np.array([i for i, _, _ in taken], np.uint8).reshape(-1, *TOYS.shape),
        labels=np.array([label for _, label, _ in taken], np.uint8),
        groups=[group for _, _, group in taken],
        names=[f"{number}.png" for number in range(len(taken))],
        refused=[row for row in rows if isinstance(row, Refused)],
    )


def written(folder, rows, bounds=()):
    """Write the rows as chunks that end at the bounds; return the bytes of each file."""
    folder.mkdir(exist_ok=True)
    ends = [0, *sorted(bounds), len(rows)]
    chunks = [chunk(rows[start:stop]) for start, stop in pairwise(ends)]
    batches.write(folder, chunks, TOYS)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def table(folder, split):
    return Table([Part(path=folder / f"{split}.parquet")])


ROWS = st.lists(
    st.one_of(
        st.builds(
            good,
            st.integers(0, 30),
            st.integers(0, 2),
            st.sampled_from([None, None, "anna", "bert", "cleo", "\udcff"]),
        ),
        st.builds(
            Refused,
            what=st.just("x.png"),
            reason=st.sampled_from(["blank", "no class"]),
            image=st.sampled_from([None, pixels(1), pixels(2)]),
        ),
    ),
    max_size=25,
)


@in_one_folder
@given(rows=ROWS, bounds=st.lists(st.integers(0, 25), max_size=5))
def test_how_the_rows_are_cut_into_chunks_changes_no_byte(tmp_path, rows, bounds):
    whole = written(tmp_path / "whole", rows)
    assert list(whole) == FILES
    assert written(tmp_path / "cut", rows, [min(b, len(rows)) for b in bounds]) == whole


def test_writing_the_same_rows_twice_gives_the_same_bytes(tmp_path):
    rows = [good(n, n % 3, f"writer {n % 4}") for n in range(20)]
    assert written(tmp_path / "a", rows) == written(tmp_path / "b", rows)


def test_names_and_what_was_refused_are_in_no_byte(tmp_path):
    rows = [*(good(n) for n in range(5)), Refused(what="first name", reason="blank")]
    others = [*rows[:5], Refused(what="another name", reason="blank")]
    found = written(tmp_path / "a", rows)
    assert written(tmp_path / "b", others) == found
    assert not any(b"first name" in content for content in found.values())
    one, two = chunk(rows), chunk(rows)
    two.names[:] = ["renamed"] * 5
    for name, each in (("c", one), ("d", two)):
        (tmp_path / name).mkdir()
        batches.write(tmp_path / name, [each], TOYS)
    assert all(
        (tmp_path / "c" / name).read_bytes() == (tmp_path / "d" / name).read_bytes()
        for name in FILES
    )


@in_one_folder
@given(rows=ROWS)
def test_every_good_row_comes_back_in_its_split_and_order(tmp_path, rows):
    written(tmp_path / "a", rows)
    taken = [row for row in rows if not isinstance(row, Refused)]
    expected = {"train": [], "recent": []}
    recents = []
    for image, label, group in taken:
        key = image.tobytes() if group is None else group.encode("utf-8", "surrogateescape")
        leading = int.from_bytes(hashlib.sha256(key).digest()[:4], "big")
        recents.append(leading < 2**32 / 5)
        expected["recent" if recents[-1] else "train"].append((image.tolist(), label))
    for split in ("train", "recent"):
        chunks = list(table(tmp_path / "a", split).chunks())
        images = [image.tolist() for pixels, _ in chunks for image in pixels]
        labels = [int(label) for _, names in chunks for label in names]
        assert list(zip(images, labels, strict=True)) == expected[split]
    found = batches.read_rows(tmp_path / "a")
    assert len(found) == len(taken)
    assert [d.tobytes() for d in found.digests] == [
        hashlib.sha256(image.tobytes()).digest() for image, _, _ in taken
    ]
    assert found.recent.tolist() == recents
    assert found.labels.tolist() == [label for _, label, _ in taken]
    assert (found.digests.dtype, found.recent.dtype, found.labels.dtype) == ("u1", "?", "u1")


@in_one_folder
@given(rows=ROWS)
def test_refused_rows_come_back_with_their_pixels_where_they_have_any(tmp_path, rows):
    written(tmp_path / "a", rows)
    refused = [row for row in rows if isinstance(row, Refused)]
    found = batches.read_refused(tmp_path / "a")
    assert [reason for reason, _ in found] == [row.reason for row in refused]
    assert batches.read_reasons(tmp_path / "a") == [row.reason for row in refused]
    for (_, image), row in zip(found, refused, strict=True):
        if row.image is None:
            assert image is None
        else:
            np.testing.assert_array_equal(image, row.image, strict=True)


def test_batch_json_says_what_is_there(tmp_path):
    rows = [*(good(n, n % 3) for n in range(40)), Refused(what="x", reason="blank")]
    about = json.loads(written(tmp_path / "a", rows)["batch.json"])
    recent = len(table(tmp_path / "a", "recent"))
    assert (about["train"], about["recent"], about["refused"]) == (40 - recent, recent, 1)
    assert (about["dataset"], about["shape"]) == ("toys", [4, 3])
    parts = [
        hashlib.sha256(image.tobytes()).digest() * 2 + bytes([label])
        for image, label, _ in rows[:40]
    ]
    assert about["content"] == hashlib.sha256(b"".join(parts)).hexdigest()


@pytest.mark.parametrize(
    "changed",
    [
        [good(0), good(1)],
        [good(1), good(0), good(2)],
        [good(0), good(1, label=1), good(2)],
        [good(0), good(1), good(2, group="anna")],
        [good(0), good(1), good(3)],
    ],
    ids=["fewer", "order", "label", "group", "pixels"],
)
def test_the_content_digest_tells_other_rows_apart(tmp_path, changed):
    one = json.loads(written(tmp_path / "a", [good(n) for n in range(3)])["batch.json"])
    two = json.loads(written(tmp_path / "b", changed)["batch.json"])
    assert one["content"] != two["content"]


def test_what_was_refused_does_not_change_the_content_digest(tmp_path):
    rows = [good(n) for n in range(3)]
    refused = Refused(what="x", reason="blank")
    one, two = written(tmp_path / "a", rows), written(tmp_path / "b", [refused, *rows])
    contents = [json.loads(each["batch.json"])["content"] for each in (one, two)]
    assert contents[0] == contents[1]


def test_a_group_goes_into_one_split_whatever_else_is_in_the_batch(tmp_path):
    writers = [f"writer {number}" for number in range(30)]
    splits = {}
    for seed in range(3):
        rows = [good(100 * seed + n, 0, writers[n % 30]) for n in range(90)]
        written(tmp_path / str(seed), rows)
        recent = batches.read_rows(tmp_path / str(seed)).recent
        for (_, _, writer), is_recent in zip(rows, recent.tolist(), strict=True):
            assert splits.setdefault(writer, is_recent) == is_recent
    assert set(splits.values()) == {True, False}


def test_about_a_fifth_of_many_groups_is_recent():
    """20,000 groups: four standard deviations of a binomial share of 0.2 are 0.0113."""
    digests = [hashlib.sha256(f"group {n}".encode()).digest() for n in range(20_000)]
    groups = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
    assert abs(batches.in_recent(groups).mean() - batches.RECENT_SHARE) < 0.0113


@pytest.mark.parametrize("leading", [0, 0x33333333, 0x33333334, 0xFFFFFFFF])
def test_the_share_is_cut_at_a_fifth_of_the_range_of_digests(leading):
    group = np.zeros((1, 32), np.uint8)
    group[0, :4] = list(leading.to_bytes(4, "big"))
    assert batches.in_recent(group).tolist() == [leading < 2**32 / 5]


@pytest.mark.parametrize("bounds", [(), (0, 0)])
def test_a_batch_of_nothing_is_whole(tmp_path, bounds):
    assert list(written(tmp_path / "a", [], bounds)) == FILES
    assert len(batches.read_rows(tmp_path / "a")) == 0
    assert batches.read_refused(tmp_path / "a") == []
    assert batches.read_classes(tmp_path / "a") == TOYS.classes


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("rows.parquet", batches.read_rows),
        ("refused.parquet", batches.read_refused),
        ("refused.parquet", batches.read_reasons),
        ("train.parquet", batches.read_classes),
        ("batch.json", batches.read_refused),
    ],
)
@pytest.mark.parametrize("content", [None, b"", b"{}", b"[1]"])
def test_a_damaged_file_names_the_batch_and_a_backup(tmp_path, name, read, content):
    written(tmp_path / "a", [good(0), Refused(what="x", reason="blank", image=pixels(1))])
    path = tmp_path / "a" / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match="backup") as raised:
        read(tmp_path / "a")
    assert str(tmp_path / "a") in str(raised.value)


def test_rows_of_another_schema_are_refused(tmp_path):
    written(tmp_path / "a", [good(0)])
    path = tmp_path / "a" / "rows.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["recent"]), path)
    with pytest.raises(InputError, match="another schema"):
        batches.read_rows(tmp_path / "a")


def test_a_label_without_a_class_leaves_no_table(tmp_path):
    with pytest.raises(InputError, match="label 3 has no class"):
        batches.write(tmp_path, [chunk([good(n, 3) for n in range(9)])], TOYS)
    assert not (tmp_path / "train.parquet").exists()
