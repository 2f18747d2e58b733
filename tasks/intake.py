"""Intake: what became of the rows of one ingest."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from classifier.errors import InputError
from registry.data import Batch

if TYPE_CHECKING:
    from classifier.data.inputs import Chunk, Refused

LISTED = 10_000  # refused rows that a report lists by name
PICTURED = 20  # refused rows whose pixels it shows


@dataclass
class Intake:
    """What became of the rows of one ingest.

    Fields:
        delivery: what was read: a name for people.
        batch: into which the good ones went; None if there is none.
        is_new: whether it was not there before.
        is_mended: whether it was lost or damaged, and is whole again.
        good: number of good rows.
        refused: the first LISTED of the others: what, and why.
        refused_rows: how many they are.
        pictures: pixels and reason of the first of them that have any.
    """

    delivery: str
    batch: Batch | None = None
    is_new: bool = False
    is_mended: bool = False
    good: int = 0
    refused: list[dict[str, str]] = field(default_factory=list)
    refused_rows: int = 0
    pictures: list[tuple[Any, str]] = field(default_factory=list)

    def count(self, chunk: "Chunk") -> None:
        """Add what a chunk holds."""
        self.good += len(chunk.labels)
        for row in chunk.refused:
            self.refuse(row)

    def refuse(self, row: "Refused") -> None:
        """Add a refused row."""
        from classifier.data.inputs.wording import shown

        self.refused_rows += 1
        if len(self.refused) < LISTED:
            self.refused.append({"what": shown(row.what), "reason": row.reason})
        if row.image is not None and len(self.pictures) < PICTURED:
            self.pictures.append((row.image, row.reason))


class NothingGoodError(InputError):
    """No row could be used; `found` is the report."""

    def __init__(self, taken: Intake, found: dict[str, Any]) -> None:
        if not taken.refused:
            super().__init__("The files hold no rows: nothing was taken in.")
            self.found = found
            return
        first = taken.refused[0]
        super().__init__(
            f"None of the {taken.refused_rows:,} rows can be used. The first is {first['what']}: "
            f"{first['reason']}."
        )
        self.found = found
