"""Tables over parts: whatever is skipped or corrected, they read as one plain list of rows."""

from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from classifier.data import tables
from classifier.data.parts import BACKUP, REMEDY, Part, Table, official
from classifier.errors import InputError

SMALL = tables.Description(dataset="small", shape=(2, 3), classes=("a", "b", "c"), source="5e" * 32)
MORE = replace(SMALL, classes=("a", "b", "c", "d", "e"), source="ingested")
ROW_GROUP = 4  # rows, so that few rows make several row groups
in_one_folder = settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(autouse=True)
def _small_row_groups(monkeypatch):
    monkeypatch.setattr(tables, "ROW_GROUP", ROW_GROUP)


def noise(count, description=SMALL, seed=0):
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count, *description.shape), dtype=np.uint8)
    return images, generator.integers(0, len(description.classes), count, dtype=np.uint8)


@dataclass
class Case:
    """A part's rows, which of them are skipped, and new labels of some."""

    count: int
    skipped: list[bool]
    labels: dict[int, int] = field(default_factory=dict)

    @property
    def ranges(self):
        """Each skipped row as a range, neighbours joined two at a time."""
        rows = [row for row, skipped in enumerate(self.skipped) if skipped]
        found = []
        for row in rows:
            if found and found[-1] == (row - 1, row):
                found[-1] = (row - 1, row + 1)
            else:
                found.append((row, row + 1))
        return tuple(found)


@st.composite
def cases(draw):
    count = draw(st.integers(0, 11))
    flags = st.lists(st.booleans(), min_size=count, max_size=count)
    skipped = draw(st.one_of(flags, st.just([True] * count), st.just([False] * count)))
    labels = draw(st.dictionaries(st.integers(0, max(count - 1, 0)), st.integers(0, 2), max_size=5))
    return Case(count, skipped, labels)


def written(folder, given_cases):
    """Write the parts; return the table, and its rows as two plain lists."""
    parts, images, labels = [], [], []
    for number, case in enumerate(given_cases):
        path = folder / f"{number}.parquet"
        pixels, names = noise(case.count, seed=number)
        tables.write(path, pixels, names, SMALL)
        parts.append(Part(path=path, skip=case.ranges, labels=case.labels))
        for row in range(case.count):
            if not case.skipped[row]:
                images.append(pixels[row])
                labels.append(case.labels.get(row, int(names[row])))
    return Table(parts), images, labels


def same(found, images, labels, numbers):
    """Whether these are the rows of those numbers, float32 in 0..1 and uint8."""
    expected = np.array([images[n] for n in numbers], np.float32).reshape(-1, *SMALL.shape) / 255
    np.testing.assert_array_equal(found[0], expected, strict=True)
    np.testing.assert_array_equal(
        found[1], np.array([labels[n] for n in numbers], np.uint8), strict=True
    )


@in_one_folder
@given(given_cases=st.lists(cases(), min_size=1, max_size=4), data=st.data())
def test_any_mix_of_parts_reads_as_the_plain_list_of_its_rows(tmp_path, given_cases, data):
    table, images, labels = written(tmp_path, given_cases)
    assert len(table) == len(labels)
    same(table.read(), images, labels, range(len(labels)))
    limit = data.draw(st.integers(0, len(labels) + 2))
    same(table.read(limit), images, labels, range(min(limit, len(labels))))


@in_one_folder
@given(given_cases=st.lists(cases(), min_size=1, max_size=4))
def test_chunks_are_bounded_and_give_all_rows_as_uint8(tmp_path, given_cases):
    table, images, labels = written(tmp_path, given_cases)
    chunks = list(table.chunks())
    assert all(len(names) <= ROW_GROUP for _, names in chunks)
    assert [image.tolist() for pixels, _ in chunks for image in pixels] == [
        image.tolist() for image in images
    ]
    assert [int(label) for _, names in chunks for label in names] == labels
    assert all(pixels.dtype == np.uint8 for pixels, _ in chunks)


@in_one_folder
@given(given_cases=st.lists(cases(), min_size=1, max_size=4), data=st.data())
def test_take_gives_any_rows_in_any_order_as_often_as_asked(tmp_path, given_cases, data):
    table, images, labels = written(tmp_path, given_cases)
    numbers = st.integers(0, max(len(labels) - 1, 0))
    chosen = data.draw(st.lists(numbers, max_size=20 if labels else 0))
    same(table.take(chosen), images, labels, chosen)
    same(table.take(np.array(chosen, np.int64)), images, labels, chosen)


@in_one_folder
@given(given_cases=st.lists(cases(), min_size=1, max_size=4), data=st.data())
def test_decode_fills_arrays_with_any_ranges(tmp_path, given_cases, data):
    table, images, labels = written(tmp_path, given_cases)
    ends = st.tuples(*(st.integers(0, len(labels)),) * 2).map(sorted)
    ranges = data.draw(st.lists(ends, max_size=4))
    numbers = [row for start, stop in ranges for row in range(start, stop)]
    found = np.empty((len(numbers), *SMALL.shape), np.float32), np.empty(len(numbers), np.uint8)
    table.decode(ranges, *found)
    same(found, images, labels, numbers)


@pytest.mark.parametrize("numbers", [[0, 0, 2], [0, 2, 2], [1, 1, 1], [3, 1, 3, 1, 0]])
def test_a_row_that_is_taken_twice_keeps_its_place_and_its_corrected_label(tmp_path, numbers):
    images, labels = noise(4)
    labels[:] = 0
    tables.write(tmp_path / "a.parquet", images, labels, SMALL)
    found = Table([Part(path=tmp_path / "a.parquet", labels={3: 2, 1: 1})]).take(numbers)
    same(found, images, [0, 1, 0, 2], numbers)


@pytest.mark.parametrize("count", [0, 6])
def test_a_table_without_rows_reads_as_nothing(tmp_path, count):
    tables.write(tmp_path / "a.parquet", *noise(count), SMALL)
    table = Table([Part(path=tmp_path / "a.parquet", skip=((0, count),))])
    assert len(table) == 0
    assert list(table.chunks()) == []
    for images, labels in (table.read(), table.read(3), table.take([])):
        assert images.shape == (0, *SMALL.shape)
        assert labels.shape == (0,)


def test_parts_with_appended_classes_need_their_number(tmp_path):
    first, second = tmp_path / "a.parquet", tmp_path / "b.parquet"
    tables.write(first, *noise(5), SMALL)
    images, labels = noise(5, MORE)
    labels[:] = 4
    tables.write(second, images, labels, MORE)
    both = [Part(path=first), Part(path=second)]
    with pytest.raises(InputError, match="differ in dataset, shape or classes"):
        Table(both)
    table = Table(both, classes=5)
    assert table.classes == 5
    assert table.read()[1].tolist() == [*noise(5)[1], 4, 4, 4, 4, 4]


def test_another_dataset_differs_even_where_the_number_of_classes_is_given(tmp_path):
    first, second = tmp_path / "a.parquet", tmp_path / "b.parquet"
    tables.write(first, *noise(2), SMALL)
    tables.write(second, *noise(2), replace(SMALL, dataset="other"))
    with pytest.raises(InputError, match=r"b\.parquet and .*a\.parquet differ"):
        Table([Part(path=first), Part(path=second)], classes=3)


def test_a_label_that_the_table_has_no_class_for_is_an_error(tmp_path):
    images, labels = noise(5, MORE)
    labels[:] = [0, 1, 2, 4, 0]
    tables.write(tmp_path / "a.parquet", images, labels, MORE)
    table = Table([Part(path=tmp_path / "a.parquet")], classes=3)
    assert table.read(3)[1].tolist() == [0, 1, 2]
    for read in (table.read, lambda: table.take([3]), lambda: list(table.chunks())):
        with pytest.raises(InputError, match=r"a\.parquet .*label 4 has no class"):
            read()


def test_a_label_outside_is_no_error_where_its_row_is_skipped_or_corrected(tmp_path):
    images, labels = noise(3, MORE)
    labels[:] = [0, 4, 4]
    tables.write(tmp_path / "a.parquet", images, labels, MORE)
    part = Part(path=tmp_path / "a.parquet", skip=((1, 2),), labels={2: 1})
    assert Table([part], classes=3).read()[1].tolist() == [0, 1]


def test_a_corrected_label_without_a_class_is_an_error(tmp_path):
    tables.write(tmp_path / "a.parquet", *noise(3), SMALL)
    table = Table([Part(path=tmp_path / "a.parquet", labels={1: 3})])
    with pytest.raises(InputError, match="label 3 has no class"):
        table.read()


@pytest.mark.parametrize("remedy", [REMEDY, BACKUP])
def test_damaged_pages_name_the_file_and_the_remedy(tmp_path, remedy):
    path = tmp_path / "a.parquet"
    tables.write(path, *noise(40), SMALL)
    content = bytearray(path.read_bytes())
    content[100:140] = bytes(40)
    path.write_bytes(content)
    table = Table([Part(path=path, remedy=remedy)])
    for read in (table.read, lambda: table.take([0, 1]), lambda: list(table.chunks())):
        with pytest.raises(InputError) as raised:
            read()
        assert str(path) in str(raised.value)
        assert str(raised.value).endswith(f"{remedy}.")


@pytest.mark.parametrize(
    "content", [None, b"", b"PAR1", b"no table at all", "cut"], ids=lambda c: str(c)[:8]
)
def test_a_file_that_is_no_table_names_itself_and_the_remedy(tmp_path, content):
    path = tmp_path / "a.parquet"
    tables.write(path, *noise(40), SMALL)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-20] if content == "cut" else content)
    with pytest.raises(InputError) as raised:
        Table([Part(path=path, remedy=BACKUP)])
    assert str(path) in str(raised.value)
    assert str(raised.value).endswith(f"{BACKUP}.")


def test_official_rows_are_the_parts_of_the_split_in_order(tmp_path):
    for split, number in (("train", 1), ("train", 0), ("test", 0)):
        path = tmp_path / split / f"part-{number:05}.parquet"
        tables.write(path, *noise(3, seed=number + 10 * (split == "test")), SMALL)
    for split, seeds in (("train", (0, 1)), ("test", (10,))):
        expected = np.concatenate([noise(3, seed=seed)[1] for seed in seeds])
        assert official(tmp_path, split).read()[1].tolist() == expected.tolist()
    assert len(official(tmp_path)) == 9


def test_official_rows_that_are_not_there_are_an_error(tmp_path):
    with pytest.raises(InputError, match="has no train or test part"):
        official(tmp_path)


@in_one_folder
@given(
    count=st.integers(0, 3 * ROW_GROUP + 2),
    cuts=st.lists(st.integers(0, 3 * ROW_GROUP + 2), max_size=6),
)
def test_how_rows_are_cut_into_pieces_changes_no_byte(tmp_path, count, cuts):
    images, labels = noise(count)
    tables.write(tmp_path / "whole.parquet", images, labels, SMALL)
    bounds = sorted([0, *(min(cut, count) for cut in cuts), count])
    with tables.Writer(tmp_path / "pieces.parquet", SMALL) as part:
        for start, stop in pairwise(bounds):
            part.write(images[start:stop], labels[start:stop])
    assert part.rows == count
    whole, pieces = ((tmp_path / f"{n}.parquet").read_bytes() for n in ("whole", "pieces"))
    assert pieces == whole


@pytest.mark.parametrize("rows", [0, 2, 2 * ROW_GROUP + 1])
def test_a_failing_block_leaves_no_file(tmp_path, rows):
    path = tmp_path / "new" / "a.parquet"

    def fail():
        with tables.Writer(path, SMALL) as part:
            part.write(*noise(rows))
            raise KeyError("the reader failed")

    with pytest.raises(KeyError, match="the reader failed"):
        fail()
    assert list(path.parent.iterdir()) == []


def test_a_piece_that_is_refused_leaves_no_file(tmp_path):
    path = tmp_path / "a.parquet"
    images, labels = noise(3)

    def write():
        with tables.Writer(path, SMALL) as part:
            part.write(images, labels)
            part.write(images, np.full(3, 3, np.uint8))

    with pytest.raises(InputError, match="label 3 has no class"):
        write()
    assert not path.exists()
