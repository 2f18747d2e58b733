"""Pictures without labels, to be predicted: files, folders of any depth, and Parquet.

A picture that cannot be used is named with its reason, and the others go through. Parquet holds
them in the column `image`, as `inputs` takes them; further columns are passed over.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from classifier.data.inputs import Refused, Subject, columns, decoding, files, parquet_schema
from classifier.data.inputs.pictures import visible
from classifier.data.inputs.wording import shown
from classifier.errors import InputError

ROWS = 500  # of a chunk, at most


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Some pictures, prepared.

    Fields:
        names: N, as they were given: the path, or the Parquet file and its row, counted from 0.
        images: uint8 [N, *shape].
        refused: those that cannot be used.
    """

    names: list[str]
    images: NDArray[np.uint8]
    refused: list[Refused]


def read(paths: Sequence[Path], subject: Subject) -> Iterator[Pictures]:
    """Yield all pictures in the order of the paths, a bounded number at a time.

    Raises:
        InputError: a path is not there, or a folder cannot be listed.
    """
    found = (file for path in paths for file in _files(path))
    most = subject.rows_within(ROWS)
    held: list[str] = []
    for file in found:
        if _is_parquet(file):
            if held:
                yield _decoded(held, subject)
                held = []
            try:
                yield from _of_parquet(file, subject, most)
            except InputError as error:
                name = shown(os.path.relpath(file))
                yield _none(Refused(what=name, reason=str(error)), subject)
        else:
            held.append(file)
            if len(held) == most:
                yield _decoded(held, subject)
                held = []
    if held:
        yield _decoded(held, subject)


def _files(path: Path) -> Iterator[str]:
    if path.is_dir():
        waiting: list[str | os.DirEntry[str]] = [str(path)]
        while waiting:
            entry = waiting.pop()
            if isinstance(entry, str) or entry.is_dir(follow_symlinks=False):
                waiting += reversed(visible(os.fspath(entry)))
            else:
                yield entry.path
    elif path.exists():
        yield str(path)
    else:
        raise InputError(f"{shown(path)} is not there: give pictures, folders or Parquet files.")


def _is_parquet(path: str) -> bool:
    try:
        return files.form(path)[0] == "parquet"
    except InputError:  # it cannot be read: refused by name where it is decoded
        return False


def _decoded(paths: Sequence[str], subject: Subject) -> Pictures:
    images = np.zeros((len(paths), *subject.shape), np.uint8)
    with decoding.quiet():
        reasons = [_decode(image, path, subject) for image, path in zip(images, paths, strict=True)]
    return _parted([shown(os.path.relpath(path)) for path in paths], images, reasons)


def _decode(image: NDArray[np.uint8], path: str, subject: Subject) -> str | None:
    try:
        _, stamp = files.form(path)
        if stamp[2] > decoding.MAX_BYTES:
            return f"not a readable picture (the file has {stamp[2]:,} bytes)"
        return decoding.decode_into(image, files.content(path, stamp), subject)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except InputError as error:  # it changed meanwhile, or is no file
        return str(error)


def _of_parquet(path: str, subject: Subject, most: int) -> Iterator[Pictures]:
    _, stamp = files.form(path)
    with parquet_schema.opened(path, stamp) as file:
        schema = file.schema_arrow
        kind = schema.field("image").type if "image" in schema.names else None
        is_encoded = kind is not None and columns.is_encoded(kind)
        if kind is None or not (is_encoded or columns.is_values(kind, subject.shape)):
            raise InputError(
                f"{shown(path)} has no column `image` with pictures, or with lists of "
                f"{subject.shape} values: write it again."
            )
        read = columns.decoded if is_encoded else columns.quantised
        start = 0
        for batch in file.iter_batches(most, columns=["image"], use_threads=False):
            images = np.zeros((batch.num_rows, *subject.shape), np.uint8)
            reasons = read(batch.column("image"), images, subject)
            name = shown(os.path.relpath(path))
            names = [f"{name} row {row}" for row in range(start, start + batch.num_rows)]
            yield _parted(names, images, reasons)
            start += batch.num_rows


def _none(refused: Refused, subject: Subject) -> Pictures:
    return Pictures(names=[], images=np.empty((0, *subject.shape), np.uint8), refused=[refused])


def _parted(names: list[str], images: NDArray[np.uint8], reasons: Sequence[str | None]) -> Pictures:
    """Part the usable pictures from the others, blank ones included."""
    flat = images.reshape(len(images), -1)
    blank = (flat == flat[:, :1]).all(axis=1)
    why = [
        reason or ("a blank image" if is_blank else None)
        for reason, is_blank in zip(reasons, blank.tolist(), strict=True)
    ]
    good = [row for row, reason in enumerate(why) if reason is None]
    refused = [
        Refused(what=name, reason=reason)
        for name, reason in zip(names, why, strict=True)
        if reason is not None
    ]
    return Pictures(names=[names[row] for row in good], images=images[good], refused=refused)
