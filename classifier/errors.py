"""Errors that the user can put right: one or two sentences that name the file and the remedy."""

from typing import Any


class InputError(Exception):
    """A file, folder or device that cannot be used.

    `found` is what was seen of it, where there is something to show.
    """

    found: dict[str, Any] | None = None


class BudgetSpentError(InputError):
    """A training was stopped because it took too long; `seconds`: how long.

    `epochs` of the `planned` ones are done.
    """

    def __init__(self, epochs: float, planned: int, seconds: float) -> None:
        super().__init__(
            f"The training time is spent after {epochs:.1f} of {planned} epochs: the next run with "
            "the same data and recipe goes on from there."
        )
        self.epochs, self.planned, self.seconds = epochs, planned, seconds


class RankError(Exception):
    """One of the processes that train together ended early, which may pass.

    `rank` is its number, where that is known, of `size` processes.
    """

    def __init__(self, rank: int | None, size: int, how: str) -> None:
        who = "One" if rank is None else f"Rank {rank}"
        super().__init__(
            f"{who} of the {size} processes that train {how}. A training goes on from its last "
            "checkpoint, if there is one."
        )


class ArgumentError(InputError):
    """An invalid name or value."""
