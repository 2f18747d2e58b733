"""Rows: where the training images come from, a chunk at a time.

What fits stays on the device as one chunk. A larger table streams: chunks in a random order, as
many at a time as a budget holds.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from classifier.data.digests import row_digests, to_uint8
from classifier.data.parts import Table
from classifier.data.tables import ROW_GROUP
from classifier.errors import ArgumentError

#: (float32 images [N, *shape], uint8 labels [N]) -> the same as tensors on the device.
ToDevice = Callable[[np.ndarray, np.ndarray], tuple[Tensor, Tensor]]


class Chunk(NamedTuple):
    """Rows that are in memory together: images, labels, and the number of each row in the whole."""

    images: Tensor
    labels: Tensor
    row_numbers: Tensor


class RowSource(Protocol):
    """Where rows come from."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def digests(self) -> NDArray[np.uint8]:
        """Return the digest of each row, uint8 [rows, 32]."""

    def chunks(self, generator: torch.Generator | None) -> Iterator[Chunk]:
        """Yield all rows once, in order, or with a generator in a random order of chunks.

        A chunk is valid until the next one is asked for.
        """


@dataclass(frozen=True)
class InMemoryRows:
    """All rows on the device: one chunk."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def digests(self) -> NDArray[np.uint8]:
        """Return the digest of each row, uint8 [rows, 32]."""
        parts = (part.float().cpu().numpy() for part in self.images.split(ROW_GROUP))
        whole = self.images.dtype == torch.bfloat16  # these are in 0..255
        return np.concatenate(
            [row_digests(part.astype(np.uint8) if whole else to_uint8(part)) for part in parts]
        )

    def chunks(self, generator: torch.Generator | None) -> Iterator[Chunk]:  # noqa: ARG002
        """Yield the one chunk."""
        yield Chunk(self.images, self.labels, torch.arange(len(self)))


class StreamingRows:
    """The rows of a table, of which `budget` bytes of decoded images are held at a time.

    Chunks are cut by the number of a row and not by file, so that equal rows give equal chunks
    however they are spread over files.

    Raises:
        ArgumentError: the budget is less than one chunk.
    """

    def __init__(self, table: Table, *, budget: int, to_device: ToDevice) -> None:
        self.table, self.to_device = table, to_device
        shape = table.description.shape
        rows = min(table.description.row_group, len(table))
        size = rows * int(np.prod(shape)) * np.dtype(np.float32).itemsize
        self.chunks_at_a_time = budget // size
        if not self.chunks_at_a_time:
            raise ArgumentError(
                f"--memory-budget is less than {rows:,} images: give at least {-(-size >> 20)} "
                "(MiB)."
            )
        self.images = np.empty((self.chunks_at_a_time * rows, *shape), np.float32)
        self.labels = np.empty(self.chunks_at_a_time * rows, np.uint8)
        self.ranges = [(i, min(i + rows, len(table))) for i in range(0, len(table), rows)]

    def __len__(self) -> int:
        return len(self.table)

    def digests(self) -> NDArray[np.uint8]:
        """Return the digest of each row, uint8 [rows, 32]."""
        return np.concatenate([row_digests(images) for images, _ in self.table.chunks()])

    def chunks(self, generator: torch.Generator | None) -> Iterator[Chunk]:
        """Yield one or more chunks of the table at a time, decoded into the same memory."""
        count = len(self.ranges)
        order = torch.arange(count)
        if generator is not None:
            order = torch.randperm(count, generator=generator)
        for first in range(0, count, self.chunks_at_a_time):
            chosen = [self.ranges[i] for i in order[first : first + self.chunks_at_a_time].tolist()]
            numbers = torch.cat([torch.arange(*each) for each in chosen])
            images, labels = self.images[: len(numbers)], self.labels[: len(numbers)]
            self.table.decode(chosen, images, labels)
            yield Chunk(*self.to_device(images, labels), numbers)


def open_rows(table: Table, *, budget: int, to_device: ToDevice) -> RowSource:
    """Open a table: in memory if it fits into `budget` bytes, or that is 0; else streaming."""
    needed = len(table) * table.description.pixels * 4
    if budget and needed > budget:
        return StreamingRows(table, budget=budget, to_device=to_device)
    return InMemoryRows(*to_device(*table.read()))


def select_rows(rows: RowSource, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return images and labels of the rows that the mask, bool [rows], selects, in order."""
    images, labels = [], []
    for x, y, row_numbers in rows.chunks(None):
        order = torch.nonzero(mask[row_numbers]).squeeze(1).to(x.device)
        images.append(x.index_select(0, order))
        labels.append(y.index_select(0, order))
    return torch.cat(images), torch.cat(labels)
