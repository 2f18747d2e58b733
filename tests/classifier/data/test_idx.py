"""IDX files: what is read is what was written, and what is damaged is refused in a sentence."""

import gzip
import struct
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from classifier.data import idx
from classifier.errors import InputError

MNIST = Path(__file__).parents[2] / "fixtures" / "mnist"
MEBIBYTE = 1 << 20
READERS = [idx.read, lambda path: idx.unpack(path, path.with_suffix(".out"))]
any_image_array = arrays.arrays(
    np.uint8, arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=6)
)
in_one_folder = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def header(*lengths, element=0x08):
    return struct.pack(f">2x2B{len(lengths)}I", element, len(lengths), *lengths)


@pytest.fixture
def make(tmp_path):
    """Writes bytes to a file, and gives its path."""

    def make(content, name="images.idx"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return make


@contextmanager
def peak_memory_below(limit):
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit


@given(array=any_image_array)
@in_one_folder
def test_every_way_of_reading_gives_back_what_was_written(array, tmp_path):
    plain, zipped, unpacked = (tmp_path / name for name in ("plain", "zipped", "unpacked"))
    idx.write(plain, array)
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    for path in (plain, zipped):
        assert idx.shape(path) == array.shape
        assert idx.unpack(path, unpacked) == array.shape
        assert unpacked.read_bytes() == plain.read_bytes()
        np.testing.assert_array_equal(idx.read(path), array, strict=True)
    np.testing.assert_array_equal(idx.stored(plain)[:], array, strict=True)


def test_writes_the_published_format(tmp_path):
    idx.write(tmp_path / "pairs", np.array([[1, 2, 3], [4, 5, 6]], np.uint8))
    expected = "00 00 08 02  00 00 00 02  00 00 00 03  01 02 03 04 05 06"
    assert (tmp_path / "pairs").read_bytes() == bytes.fromhex(expected)


def test_values_are_written_row_by_row_whatever_their_order_in_memory(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    idx.write(tmp_path / "transposed", array.T)
    assert (tmp_path / "transposed").read_bytes()[16:] == array.T.tobytes()


@pytest.mark.parametrize("array", [np.zeros(3), np.uint8(1)[()], np.zeros((1,) * 5, np.uint8)])
def test_writes_only_bytes_of_one_to_four_dimensions(array, tmp_path):
    with pytest.raises(InputError, match="numbers cannot be written: an IDX file takes uint8"):
        idx.write(tmp_path / "numbers", np.asarray(array))
    assert not (tmp_path / "numbers").exists()


def test_reads_the_first_digits_of_mnist():
    images = idx.read(MNIST / "train-images-idx3-ubyte.gz")
    labels = idx.read(MNIST / "train-labels-idx1-ubyte.gz")
    assert images.shape == (800, 28, 28)
    assert images.max() == 255
    assert labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert idx.shape(MNIST / "t10k-images-idx3-ubyte.gz") == (200, 28, 28)


def test_a_name_that_ends_in_gz_makes_no_gzip_of_a_plain_file(make):
    path = make(header(3) + b"abc", name="labels.gz")
    assert idx.read(path).tolist() == [97, 98, 99]


@pytest.mark.parametrize("limit", [None, 0, 2, 99])
def test_a_stored_file_gives_slices_of_its_first_rows(limit, make):
    array = np.arange(5 * 6, dtype=np.uint8).reshape(5, 2, 3)
    rows = idx.stored(make(header(5, 2, 3) + array.tobytes()), limit=limit)
    assert rows.shape == array[:limit].shape
    assert len(rows) == len(array[:limit])
    for start, stop in ((0, 2), (1, 4), (3, 99), (4, 2), (None, None)):
        np.testing.assert_array_equal(rows[start:stop], array[:limit][start:stop], strict=True)


def test_only_unpacked_files_are_read_in_pieces(make):
    with pytest.raises(InputError, match=r"images\.idx is gzipped.*unpack it first"):
        idx.stored(make(gzip.compress(header(3) + b"abc")))


REJECTED = {
    "empty": (b"", "is not an IDX file: it begins with nothing"),
    "wrong magic": (b"\x89PNG\r\n\x1a\n", "is not an IDX file: it begins with 89 50 4e 47"),
    "float elements": (header(1, element=0x0D) + bytes(4), "elements of type 0x0d"),
    "no dimensions": (header() + b"a", "has 0 dimensions"),
    "five dimensions": (header(1, 1, 1, 1, 1) + b"a", "has 5 dimensions"),
    "half a header": (header(2, 3)[:7], "is truncated: it ends inside its header"),
    "no array can be so large": (header(*[2**32 - 1] * 3), "no array can have the shape"),
    "truncated": (header(2, 3) + b"abcde", "is truncated: 5 of 6 bytes"),
    "oversized": (header(2, 3) + b"abcdefg", "is oversized: it goes on after the 6 bytes"),
}


@pytest.mark.parametrize(("content", "sentence"), REJECTED.values(), ids=REJECTED)
@pytest.mark.parametrize("wrap", [bytes, gzip.compress], ids=["plain", "gzipped"])
@pytest.mark.parametrize("read", READERS, ids=["read", "unpack"])
def test_rejects_what_is_no_whole_idx_file_of_bytes(read, wrap, content, sentence, make):
    with pytest.raises(InputError, match=rf"images\.idx.*{sentence}"):
        read(make(wrap(content)))


@pytest.mark.parametrize(("content", "sentence"), REJECTED.values(), ids=REJECTED)
def test_stores_no_file_that_it_would_not_read(content, sentence, make):
    with pytest.raises(InputError, match=rf"images\.idx.*{sentence}"):
        idx.stored(make(content))


WHOLE = gzip.compress(header(4) + b"abcd", mtime=0)
DAMAGED = {
    "wrong checksum": (WHOLE[:-8] + bytes([WHOLE[-8] ^ 1]) + WHOLE[-7:], "damaged gzip.*CRC"),
    "wrong length": (WHOLE[:-4] + b"\x09\0\0\0", "damaged gzip.*length"),
    "no checksum": (WHOLE[:-8], "damaged gzip"),
    "bad stream": (WHOLE[:10] + b"\xff" * 20, "damaged gzip"),
    "unknown method": (WHOLE[:2] + b"\x07" + WHOLE[3:], "damaged gzip"),
    "nothing but the first bytes": (WHOLE[:2], "damaged gzip"),
    "rubbish after the end": (WHOLE + b"rubbish", "damaged gzip"),
}


@pytest.mark.parametrize(("content", "sentence"), DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("read", READERS, ids=["read", "unpack"])
def test_rejects_damaged_gzip(read, content, sentence, make):
    with pytest.raises(InputError, match=rf"images\.idx.*{sentence}"):
        read(make(content))


def test_says_how_much_of_a_cut_gzip_stream_there_was(make):
    noise = np.random.default_rng(0).bytes(100_000)
    half = gzip.compress(header(100_000) + noise)[:50_000]
    with pytest.raises(InputError, match=r"is truncated: 49\d\d\d of 100000 bytes"):
        idx.read(make(half))


@pytest.mark.parametrize("content", [b"nonsense", header(4) + b"abc", WHOLE[:-1]])
def test_a_failed_unpack_leaves_no_target(content, make, tmp_path):
    target = make(b"from an earlier time", name="target.idx")
    with pytest.raises(InputError):
        idx.unpack(make(content), target)
    assert not target.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["images.idx"]


@pytest.mark.parametrize("name", ["missing", "."])
def test_names_a_file_that_cannot_be_opened(name, tmp_path):
    with pytest.raises(InputError, match=r"cannot be read: (No such file|Is a directory)"):
        idx.shape(tmp_path / name)


@pytest.mark.parametrize("read", READERS, ids=["read", "unpack"])
def test_a_gzip_bomb_is_left_after_the_bytes_that_its_header_promises(read, make):
    bomb = make(gzip.compress(header(4) + bytes(256 * MEBIBYTE), compresslevel=1))
    with peak_memory_below(MEBIBYTE), pytest.raises(InputError, match="oversized"):
        read(bomb)


@pytest.mark.parametrize("wrap", [bytes, gzip.compress], ids=["plain", "gzipped"])
@pytest.mark.parametrize("read", READERS, ids=["read", "unpack"])
def test_a_promise_of_a_tebibyte_sets_no_memory_aside(read, wrap, make):
    path = make(wrap(header(2**20, 2**10, 2**10) + b"abc"))
    with (
        peak_memory_below(2 * MEBIBYTE),
        pytest.raises(InputError, match=f"truncated: 3 of {2**40} bytes"),
    ):
        read(path)


def test_unpacking_takes_no_more_memory_for_a_larger_file(make, tmp_path):
    large = make(gzip.compress(header(64, MEBIBYTE) + bytes(64 * MEBIBYTE), compresslevel=1))
    with peak_memory_below(8 * MEBIBYTE):
        assert idx.unpack(large, tmp_path / "unpacked") == (64, MEBIBYTE)
    assert (tmp_path / "unpacked").stat().st_size == 12 + 64 * MEBIBYTE


def refusal(read, path):
    """The sentence with which the file is refused; None when it is read."""
    try:
        read(path)
    except InputError as error:
        return str(error)
    return None


lengths = st.lists(st.integers(0, 2**32 - 1) | st.integers(0, 3), max_size=6)
likely_idx = st.builds(lambda ends, tail: header(*ends) + tail, lengths, st.binary(max_size=40))
any_bytes = st.binary(max_size=80) | likely_idx
any_file = any_bytes | any_bytes.map(gzip.compress) | st.binary().map(b"\x1f\x8b\x08".__add__)


@given(content=any_file, cut=st.integers(0, 60), place=st.integers(0, 60), flip=st.integers(0, 255))
@in_one_folder
def test_any_bytes_are_read_or_refused_and_nothing_else(content, cut, place, flip, make):
    changed = bytearray(content[: len(content) - cut])
    if place < len(changed):
        changed[place] ^= flip
    path = make(bytes(changed))
    refusals = [refusal(read, path) for read in (idx.shape, idx.stored, *READERS)]
    assert all(str(path) in sentence for sentence in refusals if sentence)
    assert refusals[-1] == refusals[-2]
    if refusals[-1] is None:
        assert idx.shape(path) == idx.read(path).shape
