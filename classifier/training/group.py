"""A group: processes that train one model together, each on a device of its own.

Each takes its share of the rows of every micro-batch. What they count and their gradients are added
up, so that all of them hold the same weights after every step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, distributed, nn


class LostRankError(Exception):
    """Another process of the group does not answer: most likely it has ended."""


class Share(NamedTuple):
    """The rows of a micro-batch that one process takes.

    Fields:
        rows: of the whole micro-batch.
        start, stop: of those that are taken.
        copies: how many processes take these same rows.
    """

    rows: int
    start: int
    stop: int
    copies: int = 1


@dataclass(frozen=True)
class Group:
    """This process among those that train together; by default it is alone.

    Fields:
        rank: its number, from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    def share(self, rows: int) -> Share:
        """Return which of the rows of a micro-batch this process takes.

        No process is without a row, which layers may not bear: where there are fewer rows than
        processes, each takes all of them, and a part of their weight.
        """
        if rows < self.size:
            return Share(rows, 0, rows, copies=self.size)
        return Share(rows, rows * self.rank // self.size, rows * (self.rank + 1) // self.size)

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Put the sum over the group into each tensor, with one message.

        Raises:
            LostRankError: another process does not answer.
        """
        if self.size == 1:
            return
        message = torch.cat([tensor.reshape(-1) for tensor in tensors])
        try:
            distributed.all_reduce(message)
        except RuntimeError as error:
            raise LostRankError(str(error)) from error
        pieces = message.split([tensor.numel() for tensor in tensors])
        for tensor, piece in zip(tensors, pieces, strict=True):
            tensor.copy_(piece.view_as(tensor))

    def gather(self, tensor: Tensor) -> Tensor:
        """Return the tensors of all processes, [size, *shape], in the order of their ranks.

        Raises:
            LostRankError: another process does not answer.
        """
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        try:
            distributed.all_gather(found, tensor)
        except RuntimeError as error:
            raise LostRankError(str(error)) from error
        return torch.stack(found)


ALONE = Group()


def add_gradients(
    group: Group, parameters: Sequence[nn.Parameter], counts: Sequence[Tensor]
) -> None:
    """Add up the gradients over the group, and what was counted.

    A parameter that no process used stays without a gradient, as in one process.

    Raises:
        LostRankError: another process does not answer.
    """
    used = torch.ones(len(parameters), device=counts[0].device)
    unused = [number for number, each in enumerate(parameters) if each.grad is None]
    for number in unused:
        parameters[number].grad = torch.zeros_like(parameters[number])
        used[number] = 0
    gradients = [each.grad for each in parameters if each.grad is not None]
    group.add_up([*gradients, used, *counts])
    if unused:
        users = used.tolist()
        for number in unused:
            if not users[number]:
                parameters[number].grad = None
