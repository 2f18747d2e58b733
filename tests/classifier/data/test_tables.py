"""Tables: one schema for every reader, the same bytes for the same rows, and no damage unseen."""

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from classifier.data import idx, parts, tables
from classifier.errors import InputError

MNIST = Path(__file__).parents[2] / "fixtures" / "mnist"
DIGITS = tables.Description(
    dataset="mnist", shape=(28, 28), classes=tuple("0123456789"), source="5e" * 32
)
SMALL = tables.Description(dataset="small", shape=(2, 3), classes=("no", "yes"), source="ab" * 32)
MEBIBYTE = 1 << 20
in_one_folder = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def noise(count, description, seed=0):
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count, *description.shape), dtype=np.uint8)
    return images, generator.integers(0, len(description.classes), count, dtype=np.uint8)


def part(folder, split="train", number=0):
    return folder / split / f"part-{number:05}.parquet"


def assert_rows(rows, images, labels):
    np.testing.assert_array_equal(rows[0], images.astype(np.float32) / 255, strict=True)
    np.testing.assert_array_equal(rows[1], labels, strict=True)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A table of 200 real digits, with the images and labels that it was written from."""
    folder = tmp_path_factory.mktemp("digits")
    images, labels = (
        idx.read(MNIST / f"t10k-{name}-ubyte.gz") for name in ("images-idx3", "labels-idx1")
    )
    tables.write(part(folder), images, labels, DIGITS)
    return folder, images, labels


@pytest.fixture
def small(tmp_path):
    """A table of 20 small images in each split, and the rows of `train`."""
    images, labels = noise(20, SMALL)
    tables.write(part(tmp_path), images, labels, SMALL)
    tables.write(part(tmp_path, "test"), *noise(20, SMALL, seed=1), SMALL)
    return tmp_path, images, labels


def test_the_schema_is_exactly_this():
    pixels = pa.list_(pa.field("element", pa.float32(), nullable=False), 784)
    expected = pa.schema(
        [pa.field("image", pixels, nullable=False), pa.field("label", pa.uint8(), nullable=False)],
        metadata={
            "dataset": "mnist",
            "shape": "[28, 28]",
            "classes": '["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]',
            "scale": "1/255",
            "source": "5e" * 32,
        },
    )
    assert tables.schema(DIGITS).equals(expected, check_metadata=True)


def test_the_schema_on_disk_is_that_schema(digits):
    assert pq.read_schema(part(digits[0])).equals(tables.schema(DIGITS), check_metadata=True)


def with_pyarrow(path, _):
    table = pq.read_table(path)
    return table["image"].to_pylist(), table["label"].to_pylist()


def with_pandas(path, _):
    import pandas as pd

    frame = pd.read_parquet(path)
    return frame["image"].to_list(), frame["label"]


def with_polars(path, _):
    import polars as pl

    frame = pl.read_parquet(path)
    return frame["image"].to_list(), frame["label"]


def with_duckdb(path, _):
    import duckdb

    columns = duckdb.sql(f"SELECT image, label FROM '{path}'").fetchnumpy()  # noqa: S608 - our path
    return columns["image"].tolist(), columns["label"]


def with_hugging_face(path, cache):
    import datasets

    rows = datasets.load_dataset(
        "parquet", data_files=str(path), split="train", cache_dir=str(cache)
    )
    return rows["image"][:], rows["label"][:]


READERS = [with_pyarrow, with_pandas, with_polars, with_duckdb, with_hugging_face]


@pytest.mark.parametrize("reader", READERS)
def test_common_readers_get_the_same_numbers(reader, digits, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    folder, images, labels = digits
    pixels, names = reader(part(folder), tmp_path)
    expected = images.reshape(-1, 784).astype(np.float32) / 255
    np.testing.assert_array_equal(np.array(pixels, np.float32), expected)
    np.testing.assert_array_equal(np.array(names), labels)


def test_reads_back_real_digits_in_their_order(digits):
    folder, images, labels = digits
    assert_rows(parts.official(folder, "train").read(), images, labels)
    assert len(parts.official(folder, "train")) == 200
    assert parts.official(folder).description == DIGITS


@given(
    shape=st.lists(st.integers(1, 5), min_size=2, max_size=3).map(tuple),
    count=st.integers(0, 12),
    classes=st.integers(2, 256),
    limit=st.none() | st.integers(0, 15),
)
@in_one_folder
def test_reads_back_any_shape_up_to_any_limit(shape, count, classes, limit, tmp_path):
    names = tuple(f"ç {number}" for number in range(classes))
    description = replace(SMALL, shape=shape, classes=names)
    images, labels = noise(count, description)
    tables.write(part(tmp_path), images, labels, description)
    assert parts.official(tmp_path).description == description
    assert_rows(parts.official(tmp_path, "train").read(limit), images[:limit], labels[:limit])


def test_equal_rows_give_equal_bytes_wherever_they_come_from(tmp_path):
    images, labels = noise(50, SMALL)
    idx.write(tmp_path / "images", images)
    paths = [part(tmp_path, number=number) for number in range(3)]
    tables.write(paths[0], images, labels, SMALL)
    tables.write(paths[1], idx.stored(tmp_path / "images"), labels, SMALL)
    tables.write(paths[2], np.asfortranarray(images), labels, SMALL)
    assert len({path.read_bytes() for path in paths}) == 1


def test_parts_follow_each_other_by_name_and_keep_their_sources_to_themselves(tmp_path):
    images, labels = noise(30, SMALL)
    for number in (2, 0, 1):
        rows = slice(10 * number, 10 * number + 10)
        about = replace(SMALL, source=f"{number}" * 64)
        tables.write(part(tmp_path, number=number), images[rows], labels[rows], about)
    assert_rows(parts.official(tmp_path, "train").read(), images, labels)
    assert_rows(parts.official(tmp_path, "train").read(25), images[:25], labels[:25])
    assert len(parts.official(tmp_path, "train")) == 30
    assert parts.official(tmp_path).description == replace(SMALL, source="0" * 64)


def row_groups(path):
    file = pq.read_metadata(path)
    return [file.row_group(index).num_rows for index in range(file.num_row_groups)]


def test_row_groups_of_ten_thousand_rows_are_decoded_in_any_order(tmp_path):
    images, labels = noise(25_000, SMALL)
    tables.write(part(tmp_path), images, labels, SMALL)
    assert row_groups(part(tmp_path)) == [10_000, 10_000, 5_000]
    decoded = np.empty((15_000, *SMALL.shape), np.float32), np.empty(15_000, np.uint8)
    parts.official(tmp_path, "train").decode([(20_000, 25_000), (0, 10_000)], *decoded)
    order = [*range(20_000, 25_000), *range(10_000)]
    assert_rows(decoded, images[order], labels[order])
    assert_rows(parts.official(tmp_path, "train").read(), images, labels)
    assert_rows(parts.official(tmp_path, "train").read(10_700), images[:10_700], labels[:10_700])


def test_a_row_group_of_large_images_has_fewer_rows(tmp_path):
    large = replace(SMALL, shape=(1_000, 1_000, 3))
    images = np.broadcast_to(np.arange(5, dtype=np.uint8)[:, None, None, None], (5, *large.shape))
    tables.write(part(tmp_path), images, np.zeros(5, np.uint8), large)
    assert row_groups(part(tmp_path)) == [2, 2, 1]
    found, _ = parts.official(tmp_path, "train").read()
    assert [round(float(image.mean() * 255)) for image in found] == [*range(5)]


def peak_of_writing(count, path):
    """Most bytes allocated by NumPy and by Arrow while `count` images of 16x16 are written."""
    description = replace(SMALL, shape=(16, 16))
    image, _ = noise(1, description)
    images, labels = np.broadcast_to(image, (count, 16, 16)), np.zeros(count, np.uint8)
    usual = pa.default_memory_pool()
    counting = pa.proxy_memory_pool(usual)
    pa.set_memory_pool(counting)
    tracemalloc.start()
    try:
        tables.write(path, images, labels, description)
        return tracemalloc.get_traced_memory()[1] + counting.max_memory()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(usual)


def test_writing_more_rows_takes_no_more_memory(tmp_path):
    few = peak_of_writing(20_000, part(tmp_path))
    many = peak_of_writing(60_000, part(tmp_path, number=1))
    assert few > 10 * MEBIBYTE  # a row group: the measure sees what it is for
    assert many < few + MEBIBYTE


@pytest.mark.parametrize(
    ("images", "labels", "sentence"),
    [
        (np.zeros((3, 2, 3)), np.zeros(3, np.uint8), "images are float64"),
        (np.zeros((3, 2, 3), np.uint8), np.zeros(3, np.int64), "labels int64"),
        (np.zeros((3, 2, 3), np.uint8), np.zeros(2, np.uint8), r"need images of \(2, 2, 3\)"),
        (np.zeros((3, 3, 2), np.uint8), np.zeros(3, np.uint8), r"not \(3, 3, 2\)"),
        (np.zeros((3, 2, 3), np.uint8), np.zeros((3, 1), np.uint8), r"labels of \(3, 1\)"),
        (np.zeros((1, 2, 3), np.uint8), np.full(1, 2, np.uint8), "label 2 has no class"),
    ],
)
def test_writes_only_rows_that_fit_the_description(images, labels, sentence, tmp_path):
    with pytest.raises(InputError, match=rf"part-00000\.parquet cannot be written: .*{sentence}"):
        tables.write(part(tmp_path), images, labels, SMALL)
    assert not part(tmp_path).exists()


class Unreadable(np.ndarray):
    """Images of which only the first row group can be read."""

    def __getitem__(self, key):
        if isinstance(key, slice) and key.start:
            raise InterruptedError
        return super().__getitem__(key)


def test_an_interrupted_write_leaves_no_file(tmp_path):
    images, labels = noise(20_000, SMALL)
    with pytest.raises(InterruptedError):
        tables.write(part(tmp_path), images.view(Unreadable), labels, SMALL)
    assert not part(tmp_path).exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"shape": (28,)}, r"an image is \(H, W\) or \(H, W, C\)"),
        ({"shape": (1, 2, 3, 4)}, "an image is"),
        ({"shape": (28, 0)}, "an image is"),
        ({"shape": (28, 28.0)}, "an image is"),
        ({"shape": (4_000, 4_000)}, "too large"),
        ({"classes": ("one",)}, "2 to 256 classes"),
        ({"classes": tuple(map(str, range(257)))}, "2 to 256 classes"),
    ],
)
def test_a_description_is_of_images_and_classes(change, sentence):
    with pytest.raises(InputError, match=f"small: .*{sentence}"):
        replace(SMALL, **change)


def test_an_empty_folder_is_no_table(tmp_path):
    for use in (parts.official, lambda folder: parts.official(folder, "train").read()):
        with pytest.raises(InputError, match=r"has no train.* part: delete it"):
            use(tmp_path)


def test_a_part_with_other_classes_is_refused(small):
    folder, images, labels = small
    tables.write(part(folder, number=1), images, labels, replace(SMALL, classes=("yes", "no")))
    for use in (parts.official, lambda folder: parts.official(folder, "train").read()):
        with pytest.raises(InputError, match=r"part-00001.*differ in dataset, shape or classes"):
            use(folder)


SCHEMA = tables.schema(SMALL)


def one_row(*, label=1, schema=SCHEMA):
    """A table that `read` takes, but for what is changed."""
    return pa.table({"image": [[0.0] * 6], "label": [label]}, schema=schema)


def described(**changes):
    usual = {key.decode(): value for key, value in SCHEMA.metadata.items()}
    return one_row(schema=SCHEMA.with_metadata(usual | changes))


WRONG = {
    "no description": one_row(schema=SCHEMA.remove_metadata()),
    "another scale": described(scale="1"),
    "another shape": described(shape="[3, 3]"),
    "a shape of four": described(shape="[1, 1, 2, 3]"),
    "a shape that is no list": described(shape="6"),
    "a shape that is no JSON": described(shape="(2, 3)"),
    "numbers for classes": described(classes="[0, 1]"),
    "metadata of pandas": described(pandas="{}"),
    "nulls": one_row(label=None, schema=SCHEMA.set(1, pa.field("label", pa.uint8()))),
    "wide labels": one_row(schema=SCHEMA.set(1, pa.field("label", pa.int64(), nullable=False))),
    "another column": one_row().append_column("more", [[1]]),
    "a label without a class": one_row(label=2),
}


def test_takes_a_table_that_another_program_wrote_in_the_schema(tmp_path):
    part(tmp_path).parent.mkdir()
    pq.write_table(one_row(), part(tmp_path))
    assert_rows(
        parts.official(tmp_path, "train").read(), np.zeros((1, 2, 3)), np.array([1], np.uint8)
    )


@pytest.mark.parametrize("table", WRONG.values(), ids=WRONG)
def test_refuses_a_table_of_another_schema(table, tmp_path):
    part(tmp_path).parent.mkdir()
    pq.write_table(table, part(tmp_path))
    with pytest.raises(InputError, match=r"part-00000\.parquet is not a table.*: delete it"):
        parts.official(tmp_path, "train").read()


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" * 10, b"\x1f\x8b\x08" + bytes(50)])
def test_refuses_a_file_that_is_not_parquet(content, small):
    part(small[0]).write_bytes(content)
    for use in (parts.official, lambda folder: len(parts.official(folder, "train"))):
        with pytest.raises(InputError, match=r"part-00000\.parquet is not a table.*: delete it"):
            use(small[0])


def read_or_refusal(folder):
    try:
        return parts.official(folder, "train").read(), None
    except InputError as error:
        return None, str(error)


@given(data=st.data())
@settings(in_one_folder, max_examples=200)
def test_a_flipped_bit_is_found_or_changes_nothing(data, small):
    folder, images, labels = small
    path = part(folder)
    whole = path.read_bytes()
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    damaged = bytearray(whole)
    damaged[bit // 8] ^= 1 << bit % 8
    path.write_bytes(damaged)
    rows, refusal = read_or_refusal(folder)
    path.write_bytes(whole)
    if refusal is None:
        assert_rows(rows, images, labels)
    else:
        assert str(path) in refusal


def test_pages_carry_a_checksum_that_is_compared(small):
    path = part(small[0])
    whole = path.read_bytes()
    chunk = pq.read_metadata(path).row_group(0).column(0)
    last = chunk.dictionary_page_offset + chunk.total_compressed_size - 1
    path.write_bytes(whole[:last] + bytes([whole[last] ^ 1]) + whole[last + 1 :])
    with pytest.raises(InputError, match=r"(?i)crc"):
        parts.official(small[0], "train").read()


def test_a_footer_that_promises_more_rows_is_refused(small):
    folder, images, labels = small
    path = part(folder)
    whole = path.read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    twenty, twenty_one = 40, 42  # as Thrift writes them
    refusals = []
    for place in (i for i in range(footer, len(whole)) if whole[i] == twenty):
        path.write_bytes(whole[:place] + bytes([twenty_one]) + whole[place + 1 :])
        rows, refusal = read_or_refusal(folder)
        if refusal is None:
            assert_rows(rows, images, labels)
        refusals.append(refusal)
    assert sum("do not add up" in str(refusal) for refusal in refusals) == 2


@given(length=st.floats(0, 1, exclude_max=True))
@in_one_folder
def test_a_cut_file_is_refused(length, small):
    whole = part(small[0]).read_bytes()
    part(small[0]).write_bytes(whole[: int(length * len(whole))])
    with pytest.raises(InputError, match=r"part-00000\.parquet"):
        parts.official(small[0], "train").read()
    part(small[0]).write_bytes(whole)
