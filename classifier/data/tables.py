"""Parquet tables of images and labels, in one schema that is asserted on write and on read.

A table is a folder with train/part-00000.parquet and test/part-00000.parquet, the official rows;
new data adds parts. Pages carry checksums. Nothing is pickled.
"""

import json
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from classifier.data.idx import Stored
from classifier.errors import InputError

SPLITS = ("train", "test")
SCALE = "1/255"
ROW_GROUP = 10_000  # rows held at a time
ROW_GROUP_PIXELS = 1 << 23  # and fewer rows of larger images: 32 MiB is the most
DECODED_ROWS = 500  # these stay in the processor's cache, where a whole row group would not
REMEDY = "delete it; the next run computes it again"

Bytes = NDArray[np.uint8]
Pixels = NDArray[np.float32]
Rows = tuple[Pixels, Bytes]


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a table holds.

    Fields:
        dataset: name of the dataset.
        shape: of one image, (H, W) or (H, W, C).
        classes: names of the 2 to 256 classes, by label.
        source: SHA-256 of the raw files.
    """

    dataset: str
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    source: str

    def __post_init__(self) -> None:
        sizes = [n for n in self.shape if type(n) is int and n > 0]
        if len(sizes) != len(self.shape) or len(sizes) not in {2, 3}:
            raise InputError(f"{self.dataset}: an image is (H, W) or (H, W, C), not {self.shape}.")
        if self.pixels > ROW_GROUP_PIXELS:
            raise InputError(f"{self.dataset}: an image of {self.shape} is too large for a table.")
        if len(self.classes) not in range(2, 257):
            raise InputError(f"{self.dataset}: 2 to 256 classes, not {len(self.classes)}.")

    @property
    def pixels(self) -> int:
        """Values of one image."""
        return math.prod(self.shape)


def schema(description: Description) -> pa.Schema:
    """The columns `image` and `label`, neither of them nullable, and the description."""
    pixel = pa.field("element", pa.float32(), nullable=False)
    return pa.schema(
        [
            pa.field("image", pa.list_(pixel, description.pixels), nullable=False),
            pa.field("label", pa.uint8(), nullable=False),
        ],
        metadata={
            "dataset": description.dataset,
            "shape": json.dumps(description.shape),
            "classes": json.dumps(description.classes),
            "scale": SCALE,
            "source": description.source,
        },
    )


def write(path: Path, images: Bytes | Stored, labels: Bytes, description: Description) -> None:
    """Write one part: pixels x / 255 in float32, order kept; equal rows give equal bytes.

    Takes uint8 images [N, *shape], which may lie on disk, and uint8 labels [N]. Memory does not
    grow with N. Folders are made as needed.

    Raises:
        InputError: arrays of other types or shapes, or a label without a class.
    """
    _check_rows(path, images, labels, description)
    wanted = schema(description)
    step = min(ROW_GROUP, ROW_GROUP_PIXELS // description.pixels)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with pq.ParquetWriter(path, wanted, compression="zstd", write_page_checksum=True) as writer:
            for start in range(0, len(labels), step):
                chosen = slice(start, start + step)
                writer.write_batch(_encode(images[chosen], labels[chosen], wanted))
    except BaseException:
        path.unlink(missing_ok=True)  # the writer has closed it as if it were whole
        raise


def describe(folder: Path) -> Description:
    """What the table holds, with the source of its first part.

    Raises:
        InputError: no parts, or one that is damaged, of another schema, or of other classes.
    """
    return _parts(folder, *SPLITS)[0].description


def rows(folder: Path, split: str) -> int:
    """How many rows the split has; raises as `describe` does."""
    return sum(part.metadata.num_rows for part in _parts(folder, split))


def read(folder: Path, split: str, *, limit: int | None = None) -> Rows:
    """The rows of a split, or the first `limit` of them, its parts in the order of their names.

    Gives float32 images [N, *shape] in 0..1 and uint8 labels [N]. Row groups are decoded side by
    side, each straight into its place.

    Raises:
        InputError: as for `describe`, or pages that are damaged.
    """
    parts = _parts(folder, split)
    total = sum(part.metadata.num_rows for part in parts)
    count = total if limit is None else min(limit, total)
    images = np.empty((count, *parts[0].description.shape), np.float32)
    labels = np.empty(count, np.uint8)
    decode(_row_groups(parts), images, labels)
    return images, labels


def row_groups(folder: Path, split: str) -> list["RowGroup"]:
    """The row groups of a split in the order of `read`, to be decoded one by one; raises as it."""
    return _row_groups(_parts(folder, split))


def decode(groups: Sequence["RowGroup"], images: Pixels, labels: Bytes) -> None:
    """Fill images [N, *shape] and labels [N] with the first N rows of these groups, side by side.

    Raises:
        InputError: pages that are damaged.
    """
    ends = np.cumsum([group.rows for group in groups])
    views = zip(groups, np.split(images, ends), np.split(labels, ends), strict=False)
    with ThreadPoolExecutor(pa.cpu_count()) as pool:
        jobs = [pool.submit(group.decode, x, y) for group, x, y in views if len(y)]
    for job in jobs:
        job.result()


@dataclass(frozen=True, kw_only=True)
class RowGroup:
    """Some rows of a table that are decoded together."""

    part: "_Part"
    index: int
    rows: int

    def decode(self, images: Pixels, labels: Bytes) -> None:
        """Fill the arrays with the first rows of the group; raises as `decode`."""
        self.part.decode(self.index, images, labels)


@dataclass(frozen=True, kw_only=True)
class _Part:
    """One file, whose schema was asserted."""

    path: Path
    metadata: pq.FileMetaData
    description: Description

    @property
    def row_groups(self) -> list[int]:
        """Rows of each."""
        return [self.metadata.row_group(i).num_rows for i in range(self.metadata.num_row_groups)]

    def decode(self, index: int, images: Pixels, labels: Bytes) -> None:
        """Fill the arrays with the first rows of that row group."""
        done = 0
        checked = {"metadata": self.metadata, "page_checksum_verification": True}
        with _reading(self.path), pq.ParquetFile(self.path, **checked) as file:
            for batch in file.iter_batches(DECODED_ROWS, row_groups=[index], use_threads=False):
                wanted = batch.slice(0, len(labels) - done)
                place = slice(done, done + wanted.num_rows)
                pixels = wanted.column("image").flatten().to_numpy()
                images[place] = pixels.reshape(images[place].shape)
                labels[place] = wanted.column("label").to_numpy()
                done += wanted.num_rows
                if done == len(labels):
                    break
            if done < len(labels):
                raise ValueError("rows are missing")
            if done and labels.max() >= len(self.description.classes):
                raise ValueError(f"label {labels.max()} has no class")


def _row_groups(parts: Sequence[_Part]) -> list[RowGroup]:
    return [
        RowGroup(part=part, index=index, rows=count)
        for part in parts
        for index, count in enumerate(part.row_groups)
    ]


def _parts(folder: Path, *splits: str) -> list[_Part]:
    """The parts of these splits, each split in the order of its names; at least one."""
    paths = [path for split in splits for path in sorted((folder / split).glob("part-*.parquet"))]
    if not paths:
        raise InputError(f"{folder} has no {' or '.join(splits)} part: {REMEDY}.")
    first, *others = parts = [_open_part(path) for path in paths]
    for other in others:
        if replace(other.description, source=first.description.source) != first.description:
            raise InputError(f"{other.path} and {first.path} differ in dataset, shape or classes.")
    return parts


def _open_part(path: Path) -> _Part:
    with _reading(path), pq.ParquetFile(path) as file:
        description = _description(file.schema_arrow.metadata or {})
        if not file.schema_arrow.equals(schema(description), check_metadata=True):
            raise ValueError("it has another schema")
        part = _Part(path=path, metadata=file.metadata, description=description)
        if sum(part.row_groups) != part.metadata.num_rows:  # an allocation will trust them
            raise ValueError("its row groups do not add up")
    return part


def _description(metadata: dict[bytes, bytes]) -> Description:
    if not metadata.keys() >= {b"dataset", b"shape", b"classes", b"source"}:
        raise ValueError("it does not say what it holds")
    return Description(
        dataset=metadata[b"dataset"].decode(),
        shape=tuple(json.loads(metadata[b"shape"])),
        classes=tuple(map(str, json.loads(metadata[b"classes"]))),
        source=metadata[b"source"].decode(),
    )


def _check_rows(
    path: Path, images: Bytes | Stored, labels: Bytes, description: Description
) -> None:
    expected = (*labels.shape, *description.shape)
    if images.dtype != np.uint8 or labels.dtype != np.uint8:
        wrong = f"images are {images.dtype} and labels {labels.dtype}, and both must be uint8"
    elif labels.ndim != 1 or images.shape != expected:
        wrong = f"labels of {labels.shape} need images of {expected}, not {images.shape}"
    elif labels.size and labels.max() >= len(description.classes):
        wrong = f"label {labels.max()} has no class: there are {len(description.classes)}"
    else:
        return
    raise InputError(f"{path} cannot be written: {wrong}.")


def _encode(images: Bytes, labels: Bytes, wanted: pa.Schema) -> pa.RecordBatch:
    pixels = images.astype(np.float32).ravel()
    pixels /= 255
    column = pa.FixedSizeListArray.from_arrays(pa.array(pixels), type=wanted.field("image").type)
    return pa.record_batch([column, pa.array(labels)], schema=wanted)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Whatever a damaged or foreign file makes the block raise becomes one sentence."""
    try:
        yield
    except (OSError, pa.ArrowException, ValueError, TypeError, InputError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is not a table that can be read ({reason}): {REMEDY}.") from error
