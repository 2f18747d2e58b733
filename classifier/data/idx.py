"""IDX, the format in which MNIST is published: arrays of unsigned bytes, plain or gzipped.

A big-endian header (two zero bytes, the element type, the number of dimensions, a uint32 for the
length of each) and then the values, the last dimension varying fastest. Whether a file is gzipped
is told from its first bytes, not from its name. A header is a claim, not a fact: no more is read
than it promises and one byte, and no memory is set aside for what has not been read.
"""

import gzip
import math
import struct
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from classifier.errors import InputError

CHUNK = 1 << 20  # most bytes held at a time
MAX_DIMENSIONS = 4  # rows, height, width, channels
UNSIGNED_BYTE = 0x08
GZIP = b"\x1f\x8b"


def shape(path: Path) -> tuple[int, ...]:
    """What the header of a plain or gzipped file promises; the values are not looked at.

    Raises:
        InputError: it cannot be read, or is not an IDX file of unsigned bytes.
    """
    with _opened(path) as stream:
        return _read_header(stream, path)


def unpack(source: Path, target: Path) -> tuple[int, ...]:
    """Copy a plain or gzipped file to another, plain one; returns its shape.

    Raises:
        InputError: the source is not an IDX file of unsigned bytes, is truncated, goes on after its
            values, or is damaged gzip. After any failure there is no target.
    """
    try:
        with _opened(source) as stream, target.open("wb") as plain:
            lengths = _read_header(stream, source)
            plain.write(_header(lengths))
            for chunk in _values(stream, lengths, source):
                plain.write(chunk)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return lengths


def read(path: Path) -> NDArray[np.uint8]:
    """The whole of a plain or gzipped file.

    Raises:
        InputError: as for `unpack`.
    """
    values = bytearray()
    with _opened(path) as stream:
        lengths = _read_header(stream, path)
        for chunk in _values(stream, lengths, path):
            values += chunk
    return np.frombuffer(values, dtype=np.uint8).reshape(lengths)


@dataclass(frozen=True, kw_only=True)
class Stored:
    """The array of a plain file, which stays on disk: slices of its rows are read when asked for.

    Unlike a memory map, whose pages count as the process's, it takes no memory of its own.
    """

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: ClassVar[np.dtype[np.uint8]] = np.dtype(np.uint8)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> NDArray[np.uint8]:
        start, stop, _ = rows.indices(len(self))
        size = math.prod(self.shape[1:])
        count = max(0, stop - start)
        values = np.fromfile(
            self.path, np.uint8, count=count * size, offset=self.offset + start * size
        )
        return values.reshape(count, *self.shape[1:])


def stored(path: Path, *, limit: int | None = None) -> Stored:
    """The first `limit` rows of a plain file, or all, left on disk.

    Raises:
        InputError: as for `unpack`, or it is gzipped.
    """
    with _opened(path) as stream:
        if isinstance(stream, gzip.GzipFile):
            raise InputError(f"{path} is gzipped and cannot be read in pieces: unpack it first.")
        lengths = _read_header(stream, path)
        offset = stream.tell()
    found, promised = path.stat().st_size - offset, math.prod(lengths)
    if found < promised:
        raise _truncated(path, found, promised)
    if found > promised:
        raise _oversized(path, promised)
    rows = lengths[0] if limit is None else min(limit, lengths[0])
    return Stored(path=path, offset=offset, shape=(rows, *lengths[1:]))


def write(path: Path, array: NDArray[np.uint8]) -> None:
    """Write a uint8 array of 1 to 4 dimensions to a plain file.

    Raises:
        InputError: it is another kind of array.
    """
    if array.dtype != np.uint8 or not 1 <= array.ndim <= MAX_DIMENSIONS:
        raise InputError(
            f"{path} cannot be written: an IDX file takes uint8 of 1 to {MAX_DIMENSIONS} "
            f"dimensions, not {array.dtype} of {array.ndim}."
        )
    with path.open("wb") as file:
        file.write(_header(array.shape))
        file.write(np.ascontiguousarray(array).data)


@contextmanager
def _opened(path: Path) -> Iterator[BufferedIOBase]:
    """The plain content of the file; what its gzip wrapper may raise becomes InputError."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    with file:
        if file.peek(len(GZIP))[: len(GZIP)] != GZIP:
            yield file
            return
        try:
            with gzip.GzipFile(fileobj=file) as unzipped:
                yield unzipped
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(f"{path} is damaged gzip ({error}): fetch it again.") from error


def _header(lengths: tuple[int, ...]) -> bytes:
    return struct.pack(f">2x2B{len(lengths)}I", UNSIGNED_BYTE, len(lengths), *lengths)


def _read_header(stream: BufferedIOBase, path: Path) -> tuple[int, ...]:
    """The lengths of the dimensions; the stream then stands at the first value."""
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0":  # noqa: PLR2004 - the format
        raise InputError(
            f"{path} is not an IDX file: it begins with {magic.hex(' ') or 'nothing'}, not 00 00."
        )
    element, dimensions = magic[2:]
    if element != UNSIGNED_BYTE:
        raise InputError(f"{path} has elements of type 0x{element:02x}, not unsigned bytes, 0x08.")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise InputError(f"{path} has {dimensions} dimensions, not 1 to {MAX_DIMENSIONS}.")
    packed = stream.read(4 * dimensions)
    if len(packed) < 4 * dimensions:
        raise InputError(f"{path} is truncated: it ends inside its header. Fetch it again.")
    lengths = struct.unpack(f">{dimensions}I", packed)
    if math.prod(length or 1 for length in lengths) > sys.maxsize:
        raise InputError(
            f"{path} is damaged: no array can have the shape {lengths}. Fetch it again."
        )
    return lengths


def _values(stream: BufferedIOBase, lengths: tuple[int, ...], path: Path) -> Iterator[bytes]:
    """All values that the header promises, in pieces; then the file must end."""
    promised = math.prod(lengths)
    done = 0
    while done < promised:
        chunk = b""
        with suppress(EOFError):  # gzip that stops early: told like a plain file that does
            chunk = stream.read1(min(CHUNK, promised - done))
        if not chunk:
            raise _truncated(path, done, promised)
        done += len(chunk)
        yield chunk
    if stream.read(1):  # at the end, this also makes gzip compare its checksum
        raise _oversized(path, promised)


def _truncated(path: Path, found: int, promised: int) -> InputError:
    return InputError(
        f"{path} is truncated: {found} of {promised} bytes of values. Fetch it again."
    )


def _oversized(path: Path, promised: int) -> InputError:
    return InputError(
        f"{path} is oversized: it goes on after the {promised} bytes of values that its header "
        "promises. Fetch it again."
    )
