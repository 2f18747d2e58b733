"""Mini-batches and micro-batches: which rows are drawn, in which order, and where steps end.

1. An epoch goes through the chunks of the rows in a random order.
2. The training rows of a chunk are shuffled.
3. Their sequence is cut into steps, and steps into micro-batches.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from classifier.training.group import ALONE, Group, Share
from classifier.training.rows import RowSource

MAX_VALIDATION_SHARE = 5  # at most a fifth of the rows


class MicroBatch(NamedTuple):
    """Rows that go through the network together.

    Fields:
        images, labels: on the device; of a group, those that this process takes.
        step_rows: rows of the optimiser step to which they belong; their gradients add up.
        ends_step: whether the step ends with them.
        share: which rows of the micro-batch they are.
    """

    images: Tensor
    labels: Tensor
    step_rows: int
    ends_step: bool
    share: Share


class Span(NamedTuple):
    """Positions start to stop of an epoch, which belong to one step."""

    start: int
    stop: int
    step_rows: int
    ends_step: bool


def split_steps(
    start: int, stop: int, *, total: int, batch: int, micro_batch: int
) -> Iterator[Span]:
    """Cut positions start to stop of an epoch at the ends of steps, and every `micro_batch` rows.

    Args:
        start: first position in the epoch.
        stop: position behind the last.
        total: rows of the epoch.
        batch: rows of a step; the last step has what is left.
        micro_batch: the most rows of a span.
    """
    while start < stop:
        step_start = start - start % batch
        step_stop = min(step_start + batch, total)
        end = min(start + micro_batch, step_stop, stop)
        yield Span(start, end, step_rows=step_stop - step_start, ends_step=end == step_stop)
        start = end


@dataclass(frozen=True, kw_only=True)
class BatchSampler:
    """The micro-batches of each epoch, the same for the same seed.

    Fields:
        rows: where they come from.
        mask: bool [rows], those to train on.
        batch: rows of a step, drawn without replacement; a full batch takes them in order.
        micro_batch: the most rows that go through the network together.
        group: the processes among which each micro-batch is shared out.
    """

    rows: RowSource
    mask: Tensor
    batch: int
    micro_batch: int
    group: Group = ALONE

    def micro_batches(self, seed: int, skipped_steps: int) -> Iterator[MicroBatch]:
        """Yield one epoch, less its first steps."""
        total = int(self.mask.sum())
        shuffles = self.batch < total
        generator = torch.Generator().manual_seed(seed) if shuffles else None
        position, skipped = 0, skipped_steps * self.batch
        for images, labels, row_numbers in self.rows.chunks(generator):
            order = torch.nonzero(self.mask[row_numbers]).squeeze(1)
            in_place = not shuffles and len(order) == len(labels)  # needs no copy
            if generator is not None:
                order = order[torch.randperm(len(order), generator=generator)]
            order = order.to(images.device)
            end = position + len(order)
            spans = split_steps(
                min(max(skipped, position), end),
                end,
                total=total,
                batch=self.batch,
                micro_batch=self.micro_batch,
            )
            for span in spans:
                share = self.group.share(span.stop - span.start)
                first = span.start - position
                here = slice(first + share.start, first + share.stop)
                taken = (
                    (images[here], labels[here])
                    if in_place
                    else (images.index_select(0, order[here]), labels.index_select(0, order[here]))
                )
                yield MicroBatch(*taken, span.step_rows, span.ends_step, share)
            position = end


def train_mask(source: RowSource, validation_rows: int) -> Tensor:
    """Return bool [rows]: those to train on.

    Rows are held back by the digest of their pixels, so the same ones for every seed, and hardly
    others when data comes or goes.
    """
    mask = torch.ones(len(source), dtype=torch.bool)
    if _held_back(len(source), validation_rows):
        mask[torch.from_numpy(held_back(source.digests(), validation_rows))] = False
    return mask


def held_back(digests: NDArray[np.uint8], validation_rows: int) -> NDArray[np.int64]:
    """Return which rows are not trained on, given the digest of each: uint8 [rows, 32]."""
    leading = digests[:, :8].copy().view(">u8").ravel()
    return np.argsort(leading, kind="stable")[: _held_back(len(digests), validation_rows)]


def train_rows(rows: int, validation_rows: int) -> int:
    """Return how many of the rows `train_mask` leaves to train on."""
    return rows - _held_back(rows, validation_rows)


def _held_back(rows: int, validation_rows: int) -> int:
    return min(validation_rows, rows // MAX_VALIDATION_SHARE)


def epoch_seed(seed: int, epoch: int) -> int:
    """Return the seed of one epoch, unrelated to those of its neighbours."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1)
