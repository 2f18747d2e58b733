"""Pairs of IDX files, images and labels, plain or gzipped; rows are taken as they are."""

import gzip
import math
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from classifier.data import idx
from classifier.data.inputs import files, idx_rows
from classifier.data.inputs.rows import MAX_PIXELS, NO_LABEL, Job, Rows, Subject
from classifier.data.inputs.wording import no_label, shown
from classifier.errors import InputError

ROWS = 10_000  # of a job
SECONDS_PER_PIXEL = 1e-8
MAX_RATIO = 1032  # deflate makes no more bytes of one


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two files that belong together."""

    images: str
    labels: str
    images_stamp: files.Stamp
    labels_stamp: files.Stamp
    rows: int


@dataclass(frozen=True, kw_only=True)
class IdxJob(Job):
    """The rows `start` to `start + rows` of a pair."""

    pair: Pair
    start: int

    @property
    def source(self) -> str:
        """The images file."""
        return self.pair.images

    def rows_of(self, subject: Subject, *, everything: bool = False) -> Rows:
        """Read the rows; raises InputError for damaged files, and those that change meanwhile."""
        del everything  # all pixels are there anyway
        pair, classes = self.pair, subject.classes
        numbers = idx_rows.read(pair.labels, pair.labels_stamp, self.start, self.rows, ())
        images = idx_rows.read(pair.images, pair.images_stamp, self.start, self.rows, subject.shape)
        labels = numbers.tolist()
        name = Path(pair.images).name
        return Rows(
            images=images,
            decoded=np.ones(self.rows, np.bool_),
            labels=[label if label < len(classes) else NO_LABEL for label in labels],
            groups=[None] * self.rows,
            names=[f"{name} row {row}" for row in range(self.start, self.start + self.rows)],
            reasons=[None if n < len(classes) else no_label(n, classes) for n in labels],
        )


def jobs(paths: Sequence[str], subject: Subject) -> Iterator[IdxJob]:
    """Pair the files and cut each pair into jobs, in the order of the images files.

    Raises:
        InputError: a file without its other half, or a pair that does not fit.
    """
    most = subject.rows_within(ROWS)
    for images, labels in sorted(pairs(paths)):
        pair = _opened(images, labels, subject)
        for start in range(0, pair.rows, most):
            rows = min(most, pair.rows - start)
            seconds = SECONDS_PER_PIXEL * rows * subject.pixels
            yield IdxJob(pair=pair, start=start, rows=rows, seconds=seconds)


def pairs(paths: Sequence[str]) -> list[tuple[str, str]]:
    """Pair images with labels by their names; one images and one labels file pair by themselves.

    Raises:
        InputError: a file without its other half, or two of the same name.
    """
    images: dict[tuple[str, str], str] = {}
    labels: dict[tuple[str, str], str] = {}
    for path in paths:
        half = labels if len(idx.shape(Path(path))) == 1 else images
        if (twin := half.setdefault(_key(path), path)) != path:
            raise InputError(f"{shown(path)} and {shown(twin)} are two of a kind: leave one.")
    found = [(images.pop(key), labels.pop(key)) for key in sorted(images.keys() & labels.keys())]
    if len(images) == len(labels) == 1:
        return [*found, (images.popitem()[1], labels.popitem()[1])]
    if images:
        lonely = shown(min(images.values()))
        raise InputError(f"{lonely} has no labels: give its labels file too, of the same name.")
    if labels:
        lonely = shown(min(labels.values()))
        raise InputError(f"{lonely} has no images: give its images file too, of the same name.")
    return found


def _key(path: str) -> tuple[str, str]:
    """Return the folder, and what the names of both halves have in common."""
    folder, name = os.path.split(path)
    name = name.lower().removesuffix(".gz").replace("images", "*").replace("labels", "*")
    for dimensions in "134":
        name = name.replace(f"idx{dimensions}", "idx")
    return folder, name


def _opened(images: str, labels: str, subject: Subject) -> Pair:
    stamps, lengths = {}, {}
    for path in (images, labels):
        _, stamps[path] = files.form(path)
        lengths[path] = idx.shape(Path(path))
        _check_size(path, lengths[path], stamps[path])
    rows, *shape = lengths[images]
    if tuple(shape) != subject.shape:
        raise InputError(
            f"{shown(images)} holds images of {tuple(shape)}, and {subject.dataset} has "
            f"{subject.shape}: give images of this shape."
        )
    if lengths[labels] != (rows,):
        raise InputError(
            f"{shown(images)} has {rows} images and {shown(labels)} {lengths[labels][0]} labels: "
            "give files that belong together."
        )
    return Pair(
        images=images,
        labels=labels,
        images_stamp=stamps[images],
        labels_stamp=stamps[labels],
        rows=rows,
    )


def _check_size(path: str, lengths: tuple[int, ...], stamp: files.Stamp) -> None:
    """A header is a claim: the jobs of billions of rows would fill the memory before any fails."""
    promised = math.prod(lengths)
    zipped = idx_rows.is_zipped(path)
    if zipped and promised > MAX_RATIO * stamp[2]:
        raise InputError(
            f"{shown(path)} is damaged: its header promises {promised:,} bytes of values, more "
            "than it can hold. Fetch it again."
        )
    if not zipped:
        idx.stored(Path(path))  # compares the promise with the size


def without(pair: Pair, kept: NDArray[np.bool_]) -> None:
    """Rewrite both files with the rows that are kept, bool [N]: the images first.

    Raises:
        InputError: a file changes meanwhile, or is damaged.
    """
    halves = ((pair.images, pair.images_stamp), (pair.labels, pair.labels_stamp))
    with ExitStack() as stack:
        for path, stamp in reversed(halves):  # the stack closes, and so replaces, backwards
            beside = stack.enter_context(files.replacing(path))
            _write_kept(path, stamp, beside, kept)


def _write_kept(path: str, stamp: files.Stamp, beside: Path, kept: NDArray[np.bool_]) -> None:
    shape = idx.shape(Path(path))[1:]
    step = max(1, min(ROWS, MAX_PIXELS // math.prod(shape)))
    lengths = (int(kept.sum()), *shape)
    header = struct.pack(f">2x2B{len(lengths)}I", idx.UNSIGNED_BYTE, len(lengths), *lengths)
    with ExitStack() as stack:
        target: BinaryIO = stack.enter_context(beside.open("wb"))
        if idx_rows.is_zipped(path):
            zipped = gzip.GzipFile(filename="", fileobj=target, mode="wb", mtime=0)
            target = stack.enter_context(zipped)  # type: ignore[assignment]
        target.write(header)
        for start in range(0, len(kept), step):
            mask = kept[start : start + step]
            target.write(idx_rows.read(path, stamp, start, len(mask), shape)[mask].tobytes())
