"""Rows: the training images as passes of some thousand rows, in a new order each epoch.

What fits stays on the device as one block. A larger table streams: row groups in a random order, as
many at a time as a budget holds, and their rows shuffled among each other.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from classifier import tables
from classifier.errors import BadArgument

#: (float32 images [N, *shape], uint8 labels [N]) -> the same as tensors on the device.
Put = Callable[[np.ndarray, np.ndarray], tuple[Tensor, Tensor]]
#: Images, labels, and the number of each row in the whole.
Block = tuple[Tensor, Tensor, Tensor]


class Rows(Protocol):
    """Where rows come from."""

    def __len__(self) -> int:
        """How many there are."""

    def blocks(self, random: torch.Generator | None) -> Iterator[Block]:
        """All rows once, a block at a time: as they lie, or in a random order of blocks.

        A block is good until the next one is asked for.
        """


@dataclass(frozen=True)
class Held:
    """All rows on the device: one block."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def blocks(self, random: torch.Generator | None) -> Iterator[Block]:  # noqa: ARG002
        """The one block."""
        yield self.images, self.labels, torch.arange(len(self))


class Streamed:
    """The rows of a table's split, of which `budget` bytes of decoded images are held at a time.

    Raises:
        BadArgument: the budget is less than one row group.
    """

    def __init__(self, folder: Path, split: str, *, budget: int, put: Put) -> None:
        self.groups = tables.row_groups(folder, split)
        self.put = put
        shape = tables.describe(folder).shape
        rows = max(group.rows for group in self.groups)
        size = rows * int(np.prod(shape)) * np.dtype(np.float32).itemsize
        self.at_a_time = budget // size
        if not self.at_a_time:
            raise BadArgument(
                f"--memory-budget is less than one row group of {folder}: give at least "
                f"{-(-size >> 20)} (MiB)."
            )
        self.images = np.empty((self.at_a_time * rows, *shape), np.float32)
        self.labels = np.empty(self.at_a_time * rows, np.uint8)
        self.starts = np.cumsum([0, *(group.rows for group in self.groups)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def blocks(self, random: torch.Generator | None) -> Iterator[Block]:
        """One row group or more at a time, decoded into the same memory."""
        count = len(self.groups)
        order = torch.arange(count) if random is None else torch.randperm(count, generator=random)
        for first in range(0, count, self.at_a_time):
            chosen = order[first : first + self.at_a_time].tolist()
            numbers = [torch.arange(self.starts[i], self.starts[i + 1]) for i in chosen]
            count_here = sum(map(len, numbers))
            images, labels = self.images[:count_here], self.labels[:count_here]
            tables.decode([self.groups[index] for index in chosen], images, labels)
            yield *self.put(images, labels), torch.cat(numbers)


def rows_of(folder: Path, split: str, *, budget: int, put: Put) -> Rows:
    """The rows of a split: held if they fit into `budget` bytes, or it is 0; else streamed."""
    needed = tables.rows(folder, split) * tables.describe(folder).pixels * 4
    if budget and needed > budget:
        return Streamed(folder, split, budget=budget, put=put)
    return Held(*put(*tables.read(folder, split)))


@dataclass(frozen=True)
class Pass:
    """Rows that go through the network together.

    Fields:
        images, labels: on the device.
        of: rows of the step that they are part of; their gradients add up.
        last: whether the step ends with them.
    """

    images: Tensor
    labels: Tensor
    of: int
    last: bool


@dataclass(frozen=True, kw_only=True)
class Epochs:
    """The passes of each epoch, the same ones for the same seed.

    Fields:
        rows: where they come from.
        chosen: bool [rows], those to train on.
        batch: rows a step, drawn without replacement; as many as are chosen take them in order.
        size: the most rows of a pass.
    """

    rows: Rows
    chosen: Tensor
    batch: int
    size: int

    def passes(self, seed: int, skipped: int) -> Iterator[Pass]:
        """One epoch, less its first `skipped` steps."""
        total = int(self.chosen.sum())
        shuffled = self.batch < total
        random = torch.Generator().manual_seed(seed) if shuffled else None
        done, skip = 0, skipped * self.batch
        for images, labels, numbers in self.rows.blocks(random):
            order = torch.nonzero(self.chosen[numbers]).squeeze(1)
            whole = not shuffled and len(order) == len(labels)
            if random is not None:
                order = order[torch.randperm(len(order), generator=random)]
            order = order.to(images.device)
            start = min(max(skip - done, 0), len(order))
            done += start
            while start < len(order):
                step = min(self.batch, total - done // self.batch * self.batch)
                left = step - done % self.batch
                stop = start + min(left, self.size, len(order) - start)
                if whole:  # needs no copy
                    taken = images[start:stop], labels[start:stop]
                else:
                    part = order[start:stop]
                    taken = images.index_select(0, part), labels.index_select(0, part)
                done += stop - start
                yield Pass(*taken, of=step, last=left == stop - start)
                start = stop


def gather(rows: Rows, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """The chosen rows, bool [rows], in the order in which they lie."""
    images, labels = [], []
    for x, y, numbers in rows.blocks(None):
        order = torch.nonzero(chosen[numbers]).squeeze(1).to(x.device)
        images.append(x.index_select(0, order))
        labels.append(y.index_select(0, order))
    return torch.cat(images), torch.cat(labels)
