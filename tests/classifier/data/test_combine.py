"""Manifests: which rows count, compared with a plain list of rows and with data that was right."""

import hashlib
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from classifier.data import batches, combine, manifests, tables
from classifier.data.combine import DROP, NEAR, Source
from classifier.data.inputs import Chunk
from classifier.data.parts import Table
from classifier.errors import InputError

SIDE = 12
TOYS = tables.Description(
    dataset="toys", shape=(SIDE, SIDE), classes=("a", "b", "c"), source="5e" * 32
)
SPLITS = ("train", "recent", "test")
some = settings(
    deadline=None,
    max_examples=12,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@dataclass(frozen=True)
class Row:
    """A row: its drawing, how many pixels that is shifted to the right, the label.

    And the number of a pixel that is a grey level off.
    """

    drawing: int
    label: int = 0
    shift: int = 0
    group: str | None = None
    speck: int | None = None

    @property
    def image(self):
        """Noise that is as high as it is wide; what enters at the border is other noise."""
        wide = np.random.default_rng(self.drawing).integers(0, 256, (SIDE, SIDE + 2), np.uint8)
        image = wide[:, 2 - self.shift : SIDE + 2 - self.shift].copy()
        if self.speck is not None:
            image.flat[self.speck] ^= 1
        return image

    @property
    def digest(self):
        return hashlib.sha256(self.image.tobytes()).hexdigest()

    @property
    def recent(self):
        named = self.group.encode() if self.group else self.image.tobytes()
        return int.from_bytes(hashlib.sha256(named).digest()[:4], "big") < 2**32 / 5


RECENT_GROUP = next(f"g{n}" for n in range(99) if Row(0, group=f"g{n}").recent)
TRAIN_GROUP = next(f"g{n}" for n in range(99) if not Row(0, group=f"g{n}").recent)


def base(folder, train, test, description=TOYS):
    for split, rows in (("train", train), ("test", test)):
        path = folder / split / "part-00000.parquet"
        tables.write(path, images(rows), labels(rows), description)
    return Source(kind="tables", digest="b" * 64, folder=folder)


def batch(folder, rows, description=TOYS):
    folder.mkdir(exist_ok=True)
    chunk = Chunk(
        images=images(rows),
        labels=labels(rows),
        groups=[row.group for row in rows],
        names=[""] * len(rows),
        refused=[],
    )
    batches.write(folder, [chunk], replace(description, source=batches.SOURCE))
    return Source(kind="batches", digest=f"batch {folder.name}", folder=folder)


def images(rows):
    return np.array([row.image for row in rows], np.uint8).reshape(-1, SIDE, SIDE)


def labels(rows):
    return np.array([row.label for row in rows], np.uint8)


@dataclass
class World:
    """Data and what is said of it, as plain lists."""

    train: list
    test: list
    new: list
    corrections: dict
    erased: frozenset = frozenset()

    def combined(self, folder, classes=3):
        """Return the manifest, and its rows as [(image, label)] by split."""
        folder.mkdir(exist_ok=True)
        given_base = base(folder / "base", self.train, self.test)
        added = [batch(folder / str(n), rows) for n, rows in enumerate(self.new)]
        return read(given_base, added, self.corrections, self.erased, classes)

    def effective(self):
        """Return, slowly, the rows by split, and the reasons by batch and row."""
        earlier = [("train", row) for row in self.train] + [("test", row) for row in self.test]
        why = {}
        for number, rows in enumerate(self.new):
            for place, row in enumerate(rows):
                same = [(split, other) for split, other in earlier if other.digest == row.digest]
                if row.digest in self.erased:
                    why[number, place] = "erased"
                elif self.corrections.get(row.digest) == DROP:
                    why[number, place] = "dropped"
                elif same and same[0][1].label != row.label and row.digest not in self.corrections:
                    why[number, place] = "another label"
                elif same:
                    test = same[0][0] == "test" or (same[0][0] == "new" and same[0][1].recent)
                    why[number, place] = "test image" if test else "duplicate"
                earlier.append(("new", row))
        self._leave_out_near(why, self._kept(self.test), {True, False})
        self._leave_out_near(why, self._kept(self.train), {True}, "near a train image")
        recent = [row for _, row in self._counting(why) if row.recent]
        self._leave_out_near(why, recent, {False})
        added = [row for _, row in self._counting(why)]
        rows = {
            "train": [*self._kept(self.train), *(row for row in added if not row.recent)],
            "recent": [row for row in added if row.recent],
            "test": self._kept(self.test),
        }
        return {split: [self._pair(row) for row in rows[split]] for split in SPLITS}, why

    def _counting(self, why):
        numbered = [((n, p), r) for n, rows in enumerate(self.new) for p, r in enumerate(rows)]
        return [(place, row) for place, row in numbered if place not in why]

    def _leave_out_near(self, why, others, recent, reason=NEAR):
        drawings = {row.drawing for row in others}
        for place, row in self._counting(why):
            if row.recent in recent and row.drawing in drawings:
                why[place] = reason

    def _kept(self, rows):
        gone = {d for d, label in self.corrections.items() if label == DROP} | self.erased
        return [row for row in rows if row.digest not in gone]

    def _pair(self, row):
        return row.image.tolist(), self.corrections.get(row.digest, row.label)


def read(given_base, added, corrections, erased=frozenset(), classes=3):
    made = combine.combine(given_base, added, corrections, erased, classes=classes)
    folders = {source.digest: source.folder for source in (given_base, *added)}
    rows = {}
    for split in SPLITS:
        entries = [entry for entry in made.entries if entry.split == split]
        parts = [entry.part(folders[entry.digest]) for entry in entries]
        chunks = list(Table(parts, classes=classes).chunks()) if parts else []
        rows[split] = [
            (image.tolist(), int(label))
            for pixels, names in chunks
            for image, label in zip(pixels, names, strict=True)
        ]
    return made, rows


def reasons(made):
    return {(int(batch.split()[1]), row): reason for batch, row, reason in made.left_out}


def content(folder, made):
    folder.mkdir(exist_ok=True)
    made.write(folder)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


ROW = st.builds(
    Row,
    st.integers(0, 7),
    st.integers(0, 2),
    st.integers(0, 1),
    st.sampled_from([None, None, RECENT_GROUP, TRAIN_GROUP]),
)
ROWS = st.lists(ROW, max_size=7)
DIGESTS = st.builds(Row, st.integers(0, 7), shift=st.integers(0, 1)).map(lambda row: row.digest)
WORLDS = st.builds(
    World,
    ROWS,
    ROWS,
    st.lists(ROWS, max_size=3),
    st.dictionaries(DIGESTS, st.integers(DROP, 2), max_size=5),
    st.frozensets(DIGESTS, max_size=2),
)


@some
@given(world=WORLDS)
def test_rows_labels_and_reasons_are_those_of_the_plain_rule(tmp_path, world):
    made, rows = world.combined(tmp_path)
    expected, why = world.effective()
    assert rows == expected
    assert reasons(made) == why
    assert list(made.left_out) == sorted(made.left_out, key=lambda each: (each[0], each[1]))
    assert {split: made.rows(split) for split in SPLITS} == {s: len(rows[s]) for s in SPLITS}
    for entry in made.entries:
        assert not any(a <= row < b for row in entry.labels for a, b in entry.skip)
    order = [(SPLITS.index(entry.split), entry.digest) for entry in made.entries]
    assert order == sorted(order, key=lambda each: (each[0], each[1].replace("b" * 64, "")))


@some
@given(world=WORLDS)
def test_corrections_give_the_rows_of_data_that_was_right_from_the_start(tmp_path, world):
    _, corrected = world.combined(tmp_path / "corrected")
    gone = {digest for digest, label in world.corrections.items() if label == DROP} | world.erased

    def right(rows):
        return [
            replace(row, label=world.corrections.get(row.digest, row.label))
            for row in rows
            if row.digest not in gone
        ]

    never_wrong = World(right(world.train), right(world.test), list(map(right, world.new)), {})
    _, rows = never_wrong.combined(tmp_path / "right")
    assert corrected == rows


@some
@given(world=WORLDS)
def test_a_manifest_comes_back_from_its_files_as_it_was_and_the_base_has_all_rows(tmp_path, world):
    made, _ = world.combined(tmp_path)
    folder = tmp_path / "manifest"
    written = content(folder, made)
    back = manifests.read(folder)
    assert back == replace(made, left_out=())
    assert content(tmp_path / "again", replace(back, left_out=made.left_out)) == written


def row_of(split, drawing=1, **fields):
    """A row that goes into that split of a batch."""
    group = RECENT_GROUP if split == "recent" else TRAIN_GROUP
    return Row(drawing, group=group, **fields)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_copy_that_came_first_stays(tmp_path, order):
    given_base = base(tmp_path / "base", [Row(8)], [Row(9)])
    copies = [
        batch(tmp_path / "0", [row_of("train"), row_of("train", 2)]),
        batch(tmp_path / "1", [row_of("train"), row_of("train", 3)]),
    ]
    made, rows = read(given_base, [copies[n] for n in order], {})
    assert made.left_out == ((f"batch {order[1]}", 0, "duplicate"),)
    drawings = [8, 1, 2, 3] if order == (0, 1) else [8, 1, 3, 2]
    assert [image for image, _ in rows["train"]] == [Row(n).image.tolist() for n in drawings]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (row_of("train", 1, label=1), "duplicate"),
        (row_of("recent", 1, label=1), "duplicate"),
        (row_of("train", 1, label=0), "another label"),
        (row_of("train", 2, label=2), "test image"),
        (row_of("recent", 2, label=2), "test image"),
        (row_of("train", 2, label=0), "another label"),
        (row_of("train", 2, label=2, shift=1), NEAR),
        (row_of("recent", 2, label=2, shift=1), NEAR),
        (row_of("train", 2, label=0, shift=1), NEAR),
        (row_of("train", 1, label=1, shift=1), None),
        (row_of("train", 3), None),
        (row_of("recent", 3), None),
    ],
)
def test_each_reason_against_the_base(tmp_path, row, reason):
    world = World([Row(1, 1)], [Row(2, 2)], [[row]], {})
    made, rows = world.combined(tmp_path)
    assert reasons(made) == ({(0, 0): reason} if reason else {})
    assert rows["train"][0] == (Row(1).image.tolist(), 1)
    assert rows["test"] == [(Row(2).image.tolist(), 2)]
    assert len(rows["train"]) + len(rows["recent"]) == (2 if reason is None else 1)


def test_a_train_row_near_a_recent_row_is_left_out_whichever_batch_came_first(tmp_path):
    near, recent = row_of("train", 1, shift=1), row_of("recent", 1)
    for number, new in enumerate(([[near], [recent]], [[recent], [near]], [[near, recent]])):
        made, rows = World([Row(8)], [Row(9)], new, {}).combined(tmp_path / str(number))
        assert [reason for *_, reason in made.left_out] == [NEAR]
        assert [image for image, _ in rows["recent"]] == [recent.image.tolist()]
        assert len(rows["train"]) == 1


def test_recent_rows_near_a_published_train_row_all_go(tmp_path):
    rows = [row_of("recent", 1, shift=1), row_of("recent", 1, shift=2), row_of("recent", 3)]
    made, found = World([Row(1)], [Row(9)], [rows], {}).combined(tmp_path)
    assert reasons(made) == {(0, 0): "near a train image", (0, 1): "near a train image"}
    assert [image for image, _ in found["recent"]] == [rows[2].image.tolist()]


def test_recent_rows_near_a_published_train_row_all_go_however_many(tmp_path):
    """More than a search compares for one row."""
    rows = [row_of("recent", 1, speck=number) for number in range(20)]
    made, found = World([Row(1)], [Row(9)], [rows], {}).combined(tmp_path)
    assert set(reasons(made).values()) == {"near a train image"}
    assert len(made.left_out) == 20
    assert not found["recent"]


def test_recent_rows_that_are_near_each_other_both_count(tmp_path):
    rows = [row_of("recent", 1), row_of("recent", 1, shift=1)]
    made, found = World([Row(8)], [Row(9)], [rows], {}).combined(tmp_path)
    assert made.left_out == ()
    assert len(found["recent"]) == 2


def test_rows_near_a_test_image_return_when_that_is_dropped(tmp_path):
    world = World([Row(8)], [Row(2)], [[row_of("train", 2, shift=1)]], {Row(2).digest: DROP})
    made, rows = world.combined(tmp_path)
    assert made.left_out == ()
    assert (len(rows["train"]), len(rows["test"])) == (2, 0)


def test_dropped_and_erased_rows_say_so_and_count_nowhere(tmp_path):
    train, test = [Row(1), Row(2), Row(3)], [Row(4), Row(5), Row(6)]
    rows = [row_of("train", n) for n in (1, 4, 7, 8)]
    dropped = {Row(n).digest: DROP for n in (1, 4, 7)}
    erased = frozenset({Row(4).digest, Row(2).digest, Row(8).digest})
    made, found = World(train, test, [rows], dropped, erased).combined(tmp_path)
    assert reasons(made) == {
        (0, 0): "dropped",
        (0, 1): "erased",
        (0, 2): "dropped",
        (0, 3): "erased",
    }
    assert [image for image, _ in found["train"]] == [Row(3).image.tolist()]
    assert [image for image, _ in found["test"]] == [Row(n).image.tolist() for n in (5, 6)]


def test_a_retracted_batch_leaves_no_trace_and_its_duplicates_return(tmp_path):
    given_base = base(tmp_path / "base", [Row(8)], [Row(9)])
    first = batch(tmp_path / "0", [row_of("train", n) for n in (1, 2, 3)])
    others = [
        batch(tmp_path / "1", [row_of("train", n) for n in (2, 4)]),
        batch(tmp_path / "2", [row_of("recent", 3), row_of("train", 5)]),
    ]
    all_live, _ = read(given_base, [first, *others], {})
    assert reasons(all_live) == {(1, 0): "duplicate", (2, 0): "duplicate"}
    retracted, rows = read(given_base, others, {})
    assert retracted.left_out == ()
    assert [i for i, _ in rows["train"]] == [Row(n).image.tolist() for n in (8, 2, 4, 5)]

    again = base(tmp_path / "never" / "base", [Row(8)], [Row(9)])
    same = [
        batch(tmp_path / "never" / "1", [row_of("train", n) for n in (2, 4)]),
        batch(tmp_path / "never" / "2", [row_of("recent", 3), row_of("train", 5)]),
    ]
    never, _ = read(again, same, {})
    assert content(tmp_path / "a", retracted) == content(tmp_path / "b", never)
    assert first.digest.encode() not in content(tmp_path / "a", retracted)["manifest.json"]


def test_restoring_gives_the_same_bytes_as_before(tmp_path):
    given_base = base(tmp_path / "base", [Row(8)], [Row(9)])
    new = [batch(tmp_path / str(n), [row_of("train", n), row_of("train", 5)]) for n in range(3)]
    before, _ = read(given_base, new, {})
    read(given_base, [new[0], new[2]], {})
    after, _ = read(given_base, new, {})
    assert content(tmp_path / "a", before) == content(tmp_path / "b", after)


@pytest.mark.parametrize("corrections", [{}, {Row(99).digest: 1}, {Row(99).digest: DROP}])
def test_corrections_of_rows_that_are_not_there_change_no_byte(tmp_path, corrections):
    world = World([Row(1), Row(2)], [Row(3)], [], {})
    plain, _ = world.combined(tmp_path)
    world.corrections = corrections
    made, _ = world.combined(tmp_path)
    assert content(tmp_path / "a", plain) == content(tmp_path / "b", made)


@pytest.mark.parametrize("new", [[], [[]], [[], []], [[row_of("train", 1)]]])
@pytest.mark.parametrize("train", [[], [Row(8)]])
@pytest.mark.parametrize("test", [[], [Row(9)]])
def test_splits_and_batches_may_be_empty(tmp_path, train, test, new):
    made, rows = World(train, test, new, {}).combined(tmp_path)
    assert len(rows["train"]) == len(train) + len(new[:1] and new[0])
    assert len(rows["test"]) == len(test)
    assert all(entry.rows for entry in made.entries)


def test_a_base_without_any_test_part_takes_new_data(tmp_path):
    given_base = base(tmp_path / "base", [Row(8)], [])
    (tmp_path / "base" / "test" / "part-00000.parquet").unlink()
    made, rows = read(given_base, [batch(tmp_path / "0", [row_of("train", 1)])], {})
    assert made.left_out == ()
    assert len(rows["train"]) == 2


def test_several_official_parts_count_in_their_order(tmp_path):
    given_base = base(tmp_path / "base", [Row(1), Row(2)], [Row(3)])
    rows = [Row(4), Row(5)]
    path = tmp_path / "base" / "train" / "part-00001.parquet"
    tables.write(path, images(rows), labels(rows), TOYS)
    new = batch(tmp_path / "0", [row_of("train", 5), row_of("train", 6)])
    made, found = read(given_base, [new], {Row(4).digest: 2, Row(1).digest: DROP})
    assert reasons(made) == {(0, 0): "duplicate"}
    expected = [(2, 0), (4, 2), (5, 0), (6, 0)]
    assert found["train"] == [(Row(n).image.tolist(), label) for n, label in expected]


def test_batches_with_appended_classes_are_combined(tmp_path):
    more = replace(TOYS, classes=("a", "b", "c", "d"))
    given_base = base(tmp_path / "base", [Row(8)], [Row(9)])
    new = batch(tmp_path / "0", [row_of("train", 1, label=3), row_of("recent", 2, label=3)], more)
    made, rows = read(given_base, [new], {Row(8).digest: 3}, classes=4)
    assert made.classes == 4
    assert [label for _, label in rows["train"]] == [3, 3]
    assert [label for _, label in rows["recent"]] == [3]


def test_a_damaged_batch_names_its_file_and_a_backup(tmp_path):
    given_base = base(tmp_path / "base", [Row(8)], [Row(9)])
    new = batch(tmp_path / "0", [row_of("train", 1)])
    (new.folder / "rows.parquet").write_bytes(b"")
    with pytest.raises(InputError, match=r"rows\.parquet .*backup"):
        combine.combine(given_base, [new], {}, classes=3)


def test_a_part_of_a_batch_asks_for_a_backup_and_one_of_the_base_does_not(tmp_path):
    made, _ = World([Row(8)], [Row(9)], [[row_of("train", 1)]], {}).combined(tmp_path)
    remedies = {entry.kind: entry.part(tmp_path).remedy for entry in made.entries}
    assert "backup" in remedies["batches"]
    assert "computes it again" in remedies["tables"]


@pytest.mark.parametrize("damage", ["{}", "[]", "", "null", '{"parts": 3}', '{"parts": [{}]}'])
def test_a_damaged_manifest_names_the_file_and_the_remedy(tmp_path, damage):
    made, _ = World([Row(8)], [Row(9)], [], {}).combined(tmp_path)
    content(tmp_path / "manifest", made)
    (tmp_path / "manifest" / "manifest.json").write_text(damage)
    with pytest.raises(InputError, match=r"manifest\.json .*computes it again"):
        manifests.read(tmp_path / "manifest")


@given(flags=st.lists(st.booleans(), max_size=12))
def test_ranges_are_the_chosen_rows_and_no_two_touch(flags):
    ranges = combine.ranges_of(np.array(flags, np.bool_))
    covered = [row for start, stop in ranges for row in range(start, stop)]
    assert covered == [row for row, chosen in enumerate(flags) if chosen]
    assert all(stop < start for (_, stop), (start, _) in pairwise(ranges))
