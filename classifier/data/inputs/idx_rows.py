"""Rows out of the middle of an IDX file, plain or gzipped."""

import gzip
import math
import threading
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np

from classifier.data import idx
from classifier.data.inputs import files
from classifier.data.inputs.rows import Bytes
from classifier.data.inputs.wording import shown
from classifier.errors import InputError

PIECE = 1 << 20  # bytes decompressed at a time where rows are passed over

#: The gzipped files that this thread reads on in, by path: rows are not decompressed twice when
#: jobs follow each other.
_open = threading.local()


def is_zipped(path: str) -> bool:
    """Whether the file is gzipped."""
    with Path(path).open("rb") as file:
        return file.read(2) == files.GZIP


def read(path: str, stamp: files.Stamp, start: int, rows: int, shape: tuple[int, ...]) -> Bytes:
    """Return rows of a file: uint8 [rows, *shape].

    Raises:
        InputError: it is damaged, or changes meanwhile.
    """
    size = math.prod(shape)
    with files.unchanged(path, stamp) as file:
        if is_zipped(path):
            data = _unzipped(path, stamp, start * size, rows * size)
        else:
            stored = idx.stored(Path(path))
            file.seek(stored.offset + start * size)
            data = file.read(rows * size)
    if len(data) < rows * size:
        raise InputError(f"{shown(path)} is truncated. Fetch it again.")
    return np.frombuffer(data, np.uint8).reshape(rows, *shape).copy()  # writable


def _unzipped(path: str, stamp: files.Stamp, start: int, count: int) -> bytes:
    """Return `count` bytes of the values from `start`; at their end, compare the checksum."""
    lengths = idx.shape(Path(path))
    start += 4 + 4 * len(lengths)
    total = 4 + 4 * len(lengths) + math.prod(lengths)
    stream = _stream(path, stamp, start)
    try:
        while stream.tell() < start and stream.read(min(PIECE, start - stream.tell())):
            pass
        data = stream.read(count)
        if start + count < total:
            _open.__dict__[path] = (stamp, stream)
            return data
        goes_on = stream.read(1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        stream.close()
        raise InputError(f"{shown(path)} is damaged gzip ({error}): fetch it again.") from error
    stream.close()
    if goes_on:
        raise InputError(f"{shown(path)} is oversized: it goes on after its values.")
    return data


def _stream(path: str, stamp: files.Stamp, start: int) -> gzip.GzipFile:
    """Return the stream where the last job left it, or a new one."""
    kept = _open.__dict__.pop(path, None)
    if kept is not None:
        if kept[0] == stamp and kept[1].tell() <= start:
            stream: gzip.GzipFile = kept[1]
            return stream
        kept[1].close()
    forget()
    return gzip.open(path)


def forget() -> None:
    """Close the streams that no job came back for."""
    while len(_open.__dict__) > 1:
        with suppress(KeyError):
            _open.__dict__.popitem()[1][1].close()
