"""Parquet: our table's schema, or encoded pictures as Hugging Face writes them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from classifier.data.inputs import columns, files, parquet_schema
from classifier.data.inputs.rows import Bytes, Job, Rows, Subject

ROWS, PICTURES = 10_000, 500  # of a job: values, encoded pictures
SECONDS_PER_PIXEL, SECONDS, SECONDS_PER_BYTE = 1e-8, 2e-4, 3e-8
BATCH = 500  # rows of values in hand: these stay in the processor's cache
BATCH_PIXELS = 1 << 22  # and fewer rows of larger images
ENCODED_BATCH = 50
BYTES = 1 << 26  # of the pictures of a job
PIECES = 16  # of a row group, where memory allows
MAX_JOBS = 1_000_000  # of one file: row counts are claims


@dataclass(frozen=True, kw_only=True)
class ParquetJob(Job):
    """The rows `start` to `start + rows` of a row group, or the whole of it.

    Fields:
        file, stamp: the file, as it was planned.
        row_group: its number.
        start: the first row of the job within the row group.
        first: the number of that row within the file.
        batch: rows in hand at a time.
        names: of the file's classes, by its labels; None: it does not say.
    """

    file: str
    stamp: files.Stamp
    row_group: int
    start: int
    first: int
    batch: int
    names: tuple[str, ...] | None

    @property
    def source(self) -> str:
        """The file."""
        return self.file

    def rows_of(self, subject: Subject, *, everything: bool = False) -> Rows:
        """Read the rows; raises InputError for a damaged file, or one that changes meanwhile."""
        del everything  # pixels of all rows are read anyway
        rows = _Filling.of(self.rows, subject)
        with parquet_schema.readable(self.file):
            for batch in self.batches():
                rows.add(batch, self.names, subject)
        file = Path(self.file).name
        return Rows(
            images=rows.images,
            decoded=rows.decoded,
            labels=rows.labels,
            groups=rows.groups,
            names=[f"{file} row {row}" for row in range(self.first, self.first + self.rows)],
            reasons=rows.reasons,
        )

    def batches(self, wanted: list[str] | None = None) -> Iterator[Any]:
        """Read the job's rows in pieces, with the columns that count or those wanted."""
        with parquet_schema.opened(self.file, self.stamp) as file:
            held = file.schema_arrow.names
            wanted = wanted or [name for name in ("image", "label", "group") if name in held]
            position = 0
            chosen = {"row_groups": [self.row_group], "columns": wanted, "use_threads": False}
            for batch in file.iter_batches(self.batch, **chosen):
                start = max(0, self.start - position)
                stop = min(batch.num_rows, self.start + self.rows - position)
                position += batch.num_rows
                if start < stop:
                    yield batch.slice(start, stop - start)
                if position >= self.start + self.rows:
                    return
            raise ValueError("rows are missing")


@dataclass(frozen=True, kw_only=True)
class _Filling:
    """The rows of a job, while its batches come in."""

    images: Bytes
    decoded: NDArray[np.bool_]
    labels: list[int] = field(default_factory=list)
    groups: list[str | None] = field(default_factory=list)
    reasons: columns.Reasons = field(default_factory=list)

    @classmethod
    def of(cls, rows: int, subject: Subject) -> "_Filling":
        """Return room for so many rows."""
        images = np.zeros((rows, *subject.shape), np.uint8)
        return cls(images=images, decoded=np.zeros(rows, np.bool_))

    def add(self, batch: Any, names: Sequence[str] | None, subject: Subject) -> None:
        """Read the next rows."""
        place = slice(len(self.labels), len(self.labels) + batch.num_rows)
        image = batch.column("image")
        read = columns.decoded if columns.is_encoded(image.type) else columns.quantised
        of_images = read(image, self.images[place], subject)
        labels, of_labels = columns.labelled(batch.column("label"), names, subject)
        self.decoded[place] = [reason is None for reason in of_images]
        self.labels.extend(labels)
        self.reasons.extend(one or other for one, other in zip(of_images, of_labels, strict=True))
        if "group" in batch.schema.names:
            self.groups.extend(columns.grouped(batch.column("group")))
        else:
            self.groups.extend([None] * batch.num_rows)


def jobs(path: str, stamp: files.Stamp, subject: Subject) -> Iterator[ParquetJob]:
    """Cut a file into jobs: a row group each, or pieces of a large one.

    Raises:
        InputError: the file is damaged, or has another schema.
    """
    with parquet_schema.opened(path, stamp) as file:
        parquet_schema.check_schema(path, file.schema_arrow, subject)
        encoded = columns.is_encoded(file.schema_arrow.field("image").type)
        names = parquet_schema.class_names(file.schema_arrow.metadata or {}, path)
        metadata = file.metadata
        counts = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        sizes = [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]
        if sum(counts) != metadata.num_rows or min(counts, default=0) < 0:
            raise ValueError("its row groups do not add up")
        if sum(counts) > MAX_JOBS * subject.rows_within(PICTURES):
            raise ValueError("it claims more rows than can be read")
    first = 0
    batch = ENCODED_BATCH if encoded else max(1, min(BATCH, BATCH_PIXELS // subject.pixels))
    for number, (count, size) in enumerate(zip(counts, sizes, strict=True)):
        most = _rows_of_job(count, size, subject, encoded=encoded)
        for start in range(0, count, most):
            rows = min(most, count - start)
            seconds = SECONDS_PER_PIXEL * rows * subject.pixels
            if encoded:
                seconds = SECONDS * rows + SECONDS_PER_BYTE * size * rows / count
            yield ParquetJob(
                file=path,
                stamp=stamp,
                row_group=number,
                start=start,
                first=first + start,
                batch=batch,
                names=names,
                rows=rows,
                seconds=seconds,
            )
        first += count


def _rows_of_job(count: int, size: int, subject: Subject, *, encoded: bool) -> int:
    """Return how many rows of a row group go together.

    Rows before a job's first are passed over, and so read: a row group is cut into few pieces.
    """
    wanted = min(PICTURES, BYTES * count // max(1, size)) if encoded else ROWS
    return subject.rows_within(max(wanted, -(-count // PIECES)))


def without(parts: list[ParquetJob], kept: list[NDArray[np.bool_]]) -> None:
    """Rewrite a file atomically with the rows that are kept, bool [rows] of each of its jobs.

    Raises:
        InputError: it changes meanwhile.
    """
    path, stamp = parts[0].file, parts[0].stamp
    with parquet_schema.opened(path, stamp) as file, files.replacing(path) as beside:
        schema = file.schema_arrow
        compression = file.metadata.row_group(0).column(0).compression
        name = "none" if compression == "UNCOMPRESSED" else compression.lower()
        with pq.ParquetWriter(
            Path(beside), schema, compression=name, write_page_checksum=True
        ) as writer:
            for job, mask in zip(parts, kept, strict=True):
                whole = pa.Table.from_batches(list(job.batches(schema.names)), schema=schema)
                writer.write_table(whole.filter(pa.array(mask)))
