"""Files that someone else may still be writing: opened without waiting, and compared afterwards."""

import os
import re
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO

from classifier.data.inputs.wording import shown
from classifier.errors import InputError

#: Device, inode, bytes, time of the last change in ns: equal as long as nobody writes.
Stamp = tuple[int, int, int, int]

HEAD = 16  # bytes that tell the form
ZIPPED_HEAD = 1024  # as many bytes may come before the first is unpacked
GZIP, PARQUET = b"\x1f\x8b", b"PAR1"
IDX = re.compile(rb"\0\0[\x08\x09\x0b-\x0e][\1-\4]")  # an element type, 1 to 4 dimensions
PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
WITHOUT_WAITING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # a pipe would wait


def stamp_of(status: os.stat_result) -> Stamp:
    """Return what is compared before and after."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def changed(path: str) -> InputError:
    """Return the error of a file that someone writes while it is read."""
    return InputError(f"{shown(path)} changed while it was read: give it again when it is whole.")


def content(path: str, expected: Stamp) -> bytes:
    """Return the bytes of a file that still has its stamp, before and after.

    Raises:
        InputError: it changed.
        OSError: it cannot be read.
    """
    try:
        number = os.open(path, os.O_RDONLY | WITHOUT_WAITING)
    except FileNotFoundError:
        raise changed(path) from None
    try:
        if stamp_of(os.fstat(number)) != expected:
            raise changed(path)
        data = os.read(number, expected[2] + 1)
        while len(data) < expected[2] and (more := os.read(number, expected[2] + 1 - len(data))):
            data += more
        if len(data) != expected[2] or stamp_of(os.fstat(number)) != expected:
            raise changed(path)
    finally:
        os.close(number)
    return data


@contextmanager
def unchanged(path: str, expected: Stamp) -> Iterator[BinaryIO]:
    """Open a file that has its stamp before and after the block.

    Raises:
        InputError: it changed, or cannot be opened.
    """
    try:
        file = open(os.open(path, os.O_RDONLY | WITHOUT_WAITING), "rb")  # noqa: PTH123, SIM115
    except FileNotFoundError:
        raise changed(path) from None
    except OSError as error:
        raise InputError(f"{shown(path)} cannot be read: {error.strerror}.") from error
    with file:
        if stamp_of(os.fstat(file.fileno())) != expected:
            raise changed(path)
        try:
            yield file
        except InputError as error:  # half-written files look damaged: name the cause
            if stamp_of(os.fstat(file.fileno())) != expected:
                raise changed(path) from error
            raise
        if stamp_of(os.fstat(file.fileno())) != expected:
            raise changed(path)


def form(path: str) -> tuple[str | None, Stamp]:
    """Return `parquet`, `idx`, `picture` or None, as the first bytes say, and the stamp.

    Raises:
        InputError: it cannot be read, or is not a regular file.
    """
    try:
        if not S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - a pipe would wait to be opened
            raise InputError(f"{shown(path)} is not a regular file or folder: remove it.")
        number = os.open(path, os.O_RDONLY | WITHOUT_WAITING)
        try:
            status = os.fstat(number)
            head = os.read(number, ZIPPED_HEAD)
        finally:
            os.close(number)
    except OSError as error:
        raise InputError(f"{shown(path)} cannot be read: {error.strerror}.") from error
    return _form_of(head), stamp_of(status)


def _form_of(head: bytes) -> str | None:
    if head.startswith(GZIP):
        try:
            head = zlib.decompressobj(wbits=31).decompress(head, HEAD)
        except zlib.error:
            return None
    if head.startswith(PARQUET):
        return "parquet"
    if IDX.match(head):
        return "idx"
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    return "picture" if webp or head.startswith(PICTURES) else None


@contextmanager
def replacing(path: str) -> Iterator[Path]:
    """Give a file beside the path, which takes its place when the block ends without an error."""
    target = Path(path)
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")  # hidden: never read as input
    try:
        yield beside
        shutil.copymode(path, beside)
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
