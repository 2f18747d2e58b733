"""Rows: where the training images come from, a chunk at a time.

What fits stays on the device as one chunk. A larger table streams: row groups in a random order, as
many at a time as a budget holds.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from classifier.data import tables
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

    def chunks(self, generator: torch.Generator | None) -> Iterator[Chunk]:  # noqa: ARG002
        """Yield the one chunk."""
        yield Chunk(self.images, self.labels, torch.arange(len(self)))


class StreamingRows:
    """The rows of a table's split, of which `budget` bytes of decoded images are held at a time.

    Raises:
        ArgumentError: the budget is less than one row group.
    """

    def __init__(self, folder: Path, split: str, *, budget: int, to_device: ToDevice) -> None:
        self.groups = tables.row_groups(folder, split)
        self.to_device = to_device
        shape = tables.describe(folder).shape
        rows = max(group.rows for group in self.groups)
        size = rows * int(np.prod(shape)) * np.dtype(np.float32).itemsize
        self.groups_at_a_time = budget // size
        if not self.groups_at_a_time:
            raise ArgumentError(
                f"--memory-budget is less than one row group of {folder}: give at least "
                f"{-(-size >> 20)} (MiB)."
            )
        self.images = np.empty((self.groups_at_a_time * rows, *shape), np.float32)
        self.labels = np.empty(self.groups_at_a_time * rows, np.uint8)
        self.starts = np.cumsum([0, *(group.rows for group in self.groups)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def chunks(self, generator: torch.Generator | None) -> Iterator[Chunk]:
        """Yield one or more row groups at a time, decoded into the same memory."""
        count = len(self.groups)
        order = torch.arange(count)
        if generator is not None:
            order = torch.randperm(count, generator=generator)
        for first in range(0, count, self.groups_at_a_time):
            chosen = order[first : first + self.groups_at_a_time].tolist()
            numbers = [torch.arange(self.starts[i], self.starts[i + 1]) for i in chosen]
            rows = sum(map(len, numbers))
            images, labels = self.images[:rows], self.labels[:rows]
            tables.decode([self.groups[index] for index in chosen], images, labels)
            yield Chunk(*self.to_device(images, labels), torch.cat(numbers))


def open_rows(folder: Path, split: str, *, budget: int, to_device: ToDevice) -> RowSource:
    """Open a split: in memory if it fits into `budget` bytes, or that is 0; else streaming."""
    needed = tables.rows(folder, split) * tables.describe(folder).pixels * 4
    if budget and needed > budget:
        return StreamingRows(folder, split, budget=budget, to_device=to_device)
    return InMemoryRows(*to_device(*tables.read(folder, split)))


def select_rows(rows: RowSource, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return images and labels of the rows that the mask, bool [rows], selects, in order."""
    images, labels = [], []
    for x, y, row_numbers in rows.chunks(None):
        order = torch.nonzero(mask[row_numbers]).squeeze(1).to(x.device)
        images.append(x.index_select(0, order))
        labels.append(y.index_select(0, order))
    return torch.cat(images), torch.cat(labels)
