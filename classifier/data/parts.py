"""Parts read as one table: official rows, and those of new data, less the rows that are skipped."""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from classifier.data.digests import to_uint8
from classifier.data.tables import SPLITS, Bytes, Description, explain_unreadable, schema
from classifier.errors import InputError

DECODED_ROWS = 500  # these stay in the processor's cache, where a whole row group would not
REMEDY = "delete it; the next run computes it again"
#: Of what cannot be computed again. An erasure may replace a batch while it is read.
BACKUP = "restore it from a backup, or run the same command again if rows of it were just erased"

Pixels = NDArray[np.float32]
Ranges = Sequence[tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One file of rows.

    Fields:
        path: of the Parquet file.
        skip: ranges of its rows, start to stop, that do not count.
        labels: corrected labels, by row of the file.
        remedy: what to do when the file is damaged.
    """

    path: Path
    skip: Ranges = ()
    labels: Mapping[int, int] = field(default_factory=dict)
    remedy: str = REMEDY


def official(folder: Path, *splits: str) -> "Table":
    """Open the official rows of a table's folder: of one split, or of all.

    Raises:
        InputError: there are no parts, or one is damaged, of another schema, or of other classes.
    """
    found = [
        Part(path=path)
        for split in splits or SPLITS
        for path in sorted((folder / split).glob("part-*.parquet"))
    ]
    if not found:
        raise InputError(f"{folder} has no {' or '.join(splits or SPLITS)} part: {REMEDY}.")
    return Table(found)


class Table:
    """Parts as one sequence of rows: those that are not skipped, in the order of the parts.

    Raises:
        InputError: a part is damaged, or differs from the first in schema, dataset or shape; or in
            its classes, unless their number is given.
    """

    def __init__(self, parts: Sequence[Part], *, classes: int | None = None) -> None:
        self._files = [_File.open(part, classes) for part in parts]
        self.description = self._files[0].description
        for other in self._files[1:]:
            expected = replace(self.description, source=other.description.source)
            if classes is not None:  # their names were checked when the parts were chosen
                expected = replace(expected, classes=other.description.classes)
            if other.description != expected:
                raise InputError(
                    f"{other.part.path} and {self._files[0].part.path} differ in dataset, shape or "
                    "classes."
                )
        self.classes = len(self.description.classes) if classes is None else classes
        self._groups = [group for file in self._files for group in file.groups]
        self._ends = np.cumsum([group.rows for group in self._groups], dtype=np.int64)

    @property
    def parts(self) -> list[Part]:
        """The parts, in their order."""
        return [file.part for file in self._files]

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def read(self, limit: int | None = None) -> tuple[Pixels, Bytes]:
        """Return the rows, or the first `limit` of them.

        Gives float32 images [N, *shape] in 0..1 and uint8 labels [N]. Row groups are decoded side
        by side, each straight into its place.

        Raises:
            InputError: pages are damaged.
        """
        count = len(self) if limit is None else min(limit, len(self))
        images = np.empty((count, *self.description.shape), np.float32)
        labels = np.empty(count, np.uint8)
        self.decode([(0, count)], images, labels)
        return images, labels

    def chunks(self) -> Iterator[tuple[Bytes, Bytes]]:
        """Yield all rows in order, a bounded number at a time, as uint8 images and labels."""
        step = self.description.row_group
        for start in range(0, len(self), step):
            stop = min(start + step, len(self))
            images = np.empty((stop - start, *self.description.shape), np.float32)
            labels = np.empty(stop - start, np.uint8)
            self.decode([(start, stop)], images, labels)
            yield to_uint8(images), labels

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> tuple[Pixels, Bytes]:
        """Return the rows of these numbers, in their order; raises as `read`."""
        order = np.argsort(np.asarray(rows, np.int64), kind="stable")
        ascending = np.asarray(rows, np.int64)[order]
        images = np.empty((len(ascending), *self.description.shape), np.float32)
        labels = np.empty(len(ascending), np.uint8)
        groups = np.searchsorted(self._ends, ascending, side="right")
        for index in np.unique(groups).tolist():
            group = self._groups[index]
            place = slice(*np.searchsorted(groups, [index, index + 1]).tolist())
            numbers = ascending[place] - (int(self._ends[index]) - group.rows)
            group.decode(numbers, images[place], labels[place])
        back = np.argsort(order, kind="stable")
        return images[back], labels[back]

    def decode(self, ranges: Ranges, images: Pixels, labels: Bytes) -> None:
        """Fill images [N, *shape] and labels [N] with these ranges of rows, side by side.

        Raises:
            InputError: pages are damaged.
        """
        done = 0
        with ThreadPoolExecutor(pa.cpu_count()) as pool:
            jobs = []
            for start, stop in ranges:
                for group, first, last in self._overlap(start, stop):
                    place = slice(done, done + last - first)
                    numbers = np.arange(first, last)
                    jobs.append(pool.submit(group.decode, numbers, images[place], labels[place]))
                    done = place.stop
        for job in jobs:
            job.result()

    def _overlap(self, start: int, stop: int) -> Iterator[tuple["_Group", int, int]]:
        """Yield the row groups that hold some of the rows, with the range within each."""
        index = int(np.searchsorted(self._ends, start, side="right"))
        while start < stop:
            group = self._groups[index]
            before = int(self._ends[index]) - group.rows
            last = min(stop - before, group.rows)
            if group.rows:
                yield group, start - before, last
            start = before + last
            index += 1


@dataclass(frozen=True, kw_only=True)
class _File:
    """A part whose schema was asserted."""

    part: Part
    metadata: pq.FileMetaData
    description: Description
    classes: int  # of the table that it is read in

    @classmethod
    def open(cls, part: Part, classes: int | None) -> "_File":
        with explain_unreadable(part.path, part.remedy), pq.ParquetFile(part.path) as file:
            description = _description(file.schema_arrow.metadata or {})
            if not file.schema_arrow.equals(schema(description), check_metadata=True):
                raise ValueError("it has another schema")
            count = len(description.classes) if classes is None else classes
            opened = cls(part=part, metadata=file.metadata, description=description, classes=count)
            if sum(opened.row_groups) != file.metadata.num_rows:  # an allocation will trust them
                raise ValueError("its row groups do not add up")
        return opened

    @property
    def row_groups(self) -> list[int]:
        """Rows of each, skipped ones included."""
        return [self.metadata.row_group(i).num_rows for i in range(self.metadata.num_row_groups)]

    @cached_property
    def groups(self) -> list["_Group"]:
        """The row groups."""
        found, start = [], 0
        for index, count in enumerate(self.row_groups):
            keep = None
            skipped = [(a, b) for a, b in self.part.skip if a < start + count and b > start]
            if skipped:
                keep = np.ones(count, np.bool_)
                for first, stop in skipped:
                    keep[max(first - start, 0) : stop - start] = False
            rows = count if keep is None else int(keep.sum())
            found.append(_Group(file=self, index=index, start=start, rows=rows, keep=keep))
            start += count
        return found


@dataclass(frozen=True, kw_only=True)
class _Group:
    """A row group.

    Fields:
        file, index: where it is.
        start: number of its first row in the file.
        rows: how many of its rows count.
        keep: bool, those of its rows that count; None for all.
    """

    file: _File
    index: int
    start: int
    rows: int
    keep: NDArray[np.bool_] | None

    def decode(self, numbers: NDArray[np.int64], images: Pixels, labels: Bytes) -> None:
        """Fill the arrays with these of the rows that count, numbered in ascending order."""
        path = self.file.part.path
        checked = {"metadata": self.file.metadata, "page_checksum_verification": True}
        with explain_unreadable(path, self.file.part.remedy), pq.ParquetFile(path, **checked) as f:
            wanted = numbers if self.keep is None else np.flatnonzero(self.keep)[numbers]
            done = start = 0
            for batch in f.iter_batches(DECODED_ROWS, row_groups=[self.index], use_threads=False):
                stop = done + int(np.searchsorted(wanted[done:], start + batch.num_rows))
                if stop > done:
                    chosen = wanted[done:stop] - start
                    _copy(batch, chosen, images[done:stop], labels[done:stop])
                done, start = stop, start + batch.num_rows
                if done == len(labels):
                    break
            if done < len(labels):
                raise ValueError("rows are missing")
            _check_labels(labels, len(self.file.description.classes))
            self._correct(wanted, labels)
            _check_labels(labels, self.file.classes)

    def _correct(self, wanted: NDArray[np.int64], labels: Bytes) -> None:
        """Put corrected labels in the place of those in the file."""
        corrected = self.file.part.labels
        if not corrected:
            return
        rows = np.array(sorted(corrected), np.int64)
        new = np.array([corrected[row] for row in rows.tolist()], np.uint8)
        places = np.searchsorted(rows, wanted + self.start).clip(0, len(rows) - 1)
        there = rows[places] == wanted + self.start  # a row may be wanted more than once
        labels[there] = new[places[there]]


def _check_labels(labels: Bytes, classes: int) -> None:
    if len(labels) and labels.max() >= classes:
        raise ValueError(f"label {labels.max()} has no class")


def _copy(batch: pa.RecordBatch, chosen: NDArray[np.int64], images: Pixels, labels: Bytes) -> None:
    """Copy the chosen rows of a decoded piece: in ascending order, some more than once."""
    pixels = batch.column("image").flatten().to_numpy().reshape(-1, *images.shape[1:])
    names = batch.column("label").to_numpy()
    if (np.diff(chosen) == 1).all():  # a range, so no intermediate copy
        span = slice(chosen[0], chosen[-1] + 1)
        images[:], labels[:] = pixels[span], names[span]
    else:
        images[:], labels[:] = pixels[chosen], names[chosen]


def _description(metadata: Mapping[bytes, bytes]) -> Description:
    if not metadata.keys() >= {b"dataset", b"shape", b"classes", b"source"}:
        raise ValueError("it does not say what it holds")
    return Description(
        dataset=metadata[b"dataset"].decode(),
        shape=tuple(json.loads(metadata[b"shape"])),
        classes=tuple(map(str, json.loads(metadata[b"classes"]))),
        source=metadata[b"source"].decode(),
    )
