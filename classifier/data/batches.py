"""A batch: labelled images that came in together, immutable once written.

    train.parquet     rows to train on, in the table's schema; every row is good by itself
    recent.parquet    rows of the recent test set, the same
    rows.parquet      each good row: digest of its pixels, digest of its group, split, label
    refused.parquet   each refused row: reason, and its pixels where it has any
    batch.json        format, dataset, shape, share of the recent test set, counts, content

No name, time or path is in the bytes, so equal data is equal bytes.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from classifier.data.digests import SIZE, row_digests
from classifier.data.parts import BACKUP, Part, Table
from classifier.data.tables import Description, Writer, explain_unreadable
from classifier.datasets import check_classes
from classifier.errors import InputError

if TYPE_CHECKING:
    from classifier.data.inputs import Chunk, Refused

FORMAT = 1
#: A fifth of the groups: a gate decides from 500 recent rows on, so less would take it months.
RECENT_SHARE = 0.2
SOURCE = "ingested"  # in place of the digest of raw files
TRAIN, RECENT = "train", "recent"
SPLITS = (TRAIN, RECENT)

ROWS = pa.schema(
    [
        pa.field("digest", pa.binary(SIZE), nullable=False),
        pa.field("group", pa.binary(SIZE), nullable=False),
        pa.field("recent", pa.bool_(), nullable=False),
        pa.field("label", pa.uint8(), nullable=False),
    ]
)
REFUSED = pa.schema([pa.field("reason", pa.string(), nullable=False), ("image", pa.binary())])


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of a batch, in the order in which they came.

    Fields:
        digests: uint8 [N, 32], of their pixels.
        recent: bool [N], those of the recent test set.
        labels: uint8 [N].
    """

    digests: NDArray[np.uint8]
    recent: NDArray[np.bool_]
    labels: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.labels)


def write(folder: Path, chunks: Iterable["Chunk"], description: Description) -> dict[str, Any]:
    """Write a batch into an existing folder, and return what batch.json says.

    Memory does not grow with the rows. A row of a group goes where its group goes; a row without
    one is a group of its own.
    """
    content = hashlib.sha256()
    refused = 0
    with (
        Writer(folder / "train.parquet", description) as train,
        Writer(folder / "recent.parquet", description) as recent,
        RowsWriter(folder / "rows.parquet", ROWS, description) as rows,
        RowsWriter(folder / "refused.parquet", REFUSED, description) as others,
    ):
        for chunk in chunks:
            if chunk.refused:
                others.write(pa.Table.from_batches([_refused(chunk.refused)]))
                refused += len(chunk.refused)
            if not len(chunk.labels):
                continue
            digests = row_digests(chunk.images)
            groups = _group_digests(chunk.groups, digests)
            is_recent = in_recent(groups)
            for part, chosen in ((train, ~is_recent), (recent, is_recent)):
                part.write(chunk.images[chosen], chunk.labels[chosen])
            described = _rows(digests, groups, is_recent, chunk.labels)
            rows.write(pa.Table.from_batches([described]))
            content.update(content_of(digests, groups, chunk.labels))
    about = {
        "format": FORMAT,
        "dataset": description.dataset,
        "shape": description.shape,
        "recent_share": RECENT_SHARE,
        "train": train.rows,
        "recent": recent.rows,
        "refused": refused,
        "content": content.hexdigest(),
    }
    write_about(folder, about)
    return about


def write_about(folder: Path, about: dict[str, Any]) -> None:
    """Write batch.json."""
    (folder / "batch.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


class RowsWriter:
    """Writes rows.parquet or refused.parquet; how rows are cut into pieces changes no byte.

    At most a row group of the description is held, besides the last piece.
    """

    def __init__(self, path: Path, schema: pa.Schema, description: Description) -> None:
        self._file = pq.ParquetWriter(path, schema, compression="zstd")
        self._size = description.row_group
        self._waiting: list[pa.Table] = []
        self._rows = 0

    def __enter__(self) -> Self:
        return self

    def write(self, rows: pa.Table) -> None:
        """Add rows of the schema."""
        self._waiting.append(rows)
        self._rows += len(rows)
        self._flush(self._rows - self._rows % self._size)

    def _flush(self, count: int) -> None:
        """Write that many of the waiting rows, as row groups of one size."""
        if count:
            table = pa.concat_tables(self._waiting).combine_chunks()
            self._file.write_table(table.slice(0, count), row_group_size=self._size)
            self._waiting, self._rows = [table.slice(count)], self._rows - count

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        with self._file:
            if failed is None:
                self._flush(self._rows)


def content_of(
    digests: NDArray[np.uint8], groups: NDArray[np.uint8], labels: NDArray[np.uint8]
) -> bytes:
    """Return what the content digest of a batch is made of, row after row."""
    return np.concatenate([digests, groups, labels[:, None]], axis=1).tobytes()


def in_recent(groups: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return bool [N]: which groups, by digest [N, 32], belong to the recent test set."""
    leading = groups[:, :4].copy().view(">u4").ravel()
    return np.asarray(leading < RECENT_SHARE * 2**32)


def read_rows(folder: Path) -> Rows:
    """Return what a batch says of its rows.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / "rows.parquet"
    with explain_unreadable(path, BACKUP):
        table = pq.read_table(path)
        if not table.schema.equals(ROWS):
            raise ValueError("it has another schema")
        return Rows(
            digests=as_bytes(table.column("digest")),
            recent=table.column("recent").to_numpy(),
            labels=table.column("label").to_numpy(),
        )


def read_groups(folder: Path) -> NDArray[np.uint8]:
    """Return the digest [N, 32] of the group of each row; raises as `read_rows`."""
    with explain_unreadable(folder / "rows.parquet", BACKUP):
        return as_bytes(pq.read_table(folder / "rows.parquet", columns=["group"])["group"])


def as_bytes(column: pa.ChunkedArray) -> NDArray[np.uint8]:
    """Return a column of digests as uint8 [N, 32]."""
    joined = b"".join(column.to_pylist())
    return np.frombuffer(joined, np.uint8).reshape(-1, SIZE)


def read_classes(folder: Path) -> tuple[str, ...]:
    """Return the names of the classes when the batch came in; raises as `read_rows`."""
    return Table([Part(path=folder / "train.parquet", remedy=BACKUP)]).description.classes


def check_fits(folder: Path, name: str, shape: tuple[int, ...], classes: tuple[str, ...]) -> None:
    """Check that a batch can be read beside rows of this shape, in these classes.

    Raises:
        InputError: it cannot, or it is damaged.
    """
    found = Table([Part(path=folder / "train.parquet", remedy=BACKUP)]).description
    if found.shape != shape:
        raise InputError(
            f"Batch {name} has images of {found.shape}, but the published rows are {shape}: give "
            "the --image-size of before, or retract the batch."
        )
    check_classes(found.dataset, found.classes, classes)


def read_refused(folder: Path) -> list[tuple[str, NDArray[np.uint8] | None]]:
    """Return the reason of each refused row of a batch, and its pixels where it has any."""
    path = folder / "refused.parquet"
    with explain_unreadable(path, BACKUP):
        shape = json.loads((folder / "batch.json").read_text(encoding="utf-8"))["shape"]
        return [
            (row["reason"], row["image"] and np.frombuffer(row["image"], np.uint8).reshape(shape))
            for row in pq.read_table(path).to_pylist()
        ]


def read_reasons(folder: Path) -> list[str]:
    """Return the reason of each refused row; raises as `read_rows`."""
    path = folder / "refused.parquet"
    with explain_unreadable(path, BACKUP):
        return [
            str(reason) for reason in pq.read_table(path, columns=["reason"])["reason"].to_pylist()
        ]


def _group_digests(groups: list[str | None], digests: NDArray[np.uint8]) -> NDArray[np.uint8]:
    found = digests.copy()
    for row, group in enumerate(groups):
        if group is not None:
            named = hashlib.sha256(group.encode("utf-8", "surrogateescape")).digest()
            found[row] = np.frombuffer(named, np.uint8)
    return found


def _fixed(values: NDArray[np.uint8]) -> pa.Array:
    buffer = pa.py_buffer(np.ascontiguousarray(values).tobytes())
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(SIZE), len(values), [None, buffer])


def _rows(
    digests: NDArray[np.uint8],
    groups: NDArray[np.uint8],
    recent: NDArray[np.bool_],
    labels: NDArray[np.uint8],
) -> pa.RecordBatch:
    columns = [_fixed(digests), _fixed(groups), pa.array(recent), pa.array(labels)]
    return pa.record_batch(columns, schema=ROWS)


def _refused(refused: "list[Refused]") -> pa.RecordBatch:
    images = [None if row.image is None else row.image.tobytes() for row in refused]
    return pa.record_batch([[row.reason for row in refused], images], schema=REFUSED)
