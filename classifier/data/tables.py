"""Parquet tables of images and labels, in one schema that is asserted on write and on read.

The table of a dataset is a folder with train/part-00000.parquet and test/part-00000.parquet, the
official rows. New data adds parts of its own, and none is rewritten: `Table` in parts.py reads any
parts as one. Pages carry checksums. Nothing is pickled.
"""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

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

Bytes = NDArray[np.uint8]


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

    @property
    def row_group(self) -> int:
        """Rows of a row group."""
        return min(ROW_GROUP, ROW_GROUP_PIXELS // self.pixels)


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
    step = description.row_group
    with Writer(path, description) as part:
        for start in range(0, len(labels), step):
            chosen = slice(start, start + step)
            part.write(images[chosen], labels[chosen])


class Writer:
    """Writes one part piece by piece; how the rows are cut into pieces changes no byte.

    If the block fails, no file stays.
    """

    def __init__(self, path: Path, description: Description) -> None:
        self.path, self.description = path, description
        self.rows = 0
        self._waiting: list[tuple[Bytes, Bytes]] = []

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._schema = schema(self.description)
        self._file = pq.ParquetWriter(
            self.path, self._schema, compression="zstd", write_page_checksum=True
        )
        return self

    def write(self, images: Bytes, labels: Bytes) -> None:
        """Add uint8 images [N, *shape] and labels [N].

        Raises:
            InputError: arrays of other types or shapes, or a label without a class.
        """
        _check_rows(self.path, images, labels, self.description)
        step = self.description.row_group
        while len(labels):
            room = step - sum(len(there) for _, there in self._waiting)
            self._waiting.append((images[:room], labels[:room]))
            images, labels = images[room:], labels[room:]
            if sum(len(there) for _, there in self._waiting) == step:
                self._write_row_group()

    def _write_row_group(self) -> None:
        images, labels = (np.concatenate(column) for column in zip(*self._waiting, strict=True))
        self._waiting.clear()
        self._file.write_batch(_encode(images, labels, self._schema))
        self.rows += len(labels)

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        try:
            if self._waiting and failed is None:
                self._write_row_group()
            self._file.close()
        except BaseException:
            self.path.unlink(missing_ok=True)
            raise
        if failed is not None:
            self.path.unlink(missing_ok=True)  # the writer has closed it as if it were whole


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


_UNREADABLE = (OSError, pa.ArrowException, ValueError, TypeError, LookupError, AttributeError)


@contextmanager
def explain_unreadable(path: Path, remedy: str) -> Iterator[None]:
    """Turn whatever a damaged or foreign file makes the block raise into one sentence.

    Raises:
        InputError: the block failed.
    """
    try:
        yield
    except (*_UNREADABLE, InputError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is not a table that can be read ({reason}): {remedy}.") from error
