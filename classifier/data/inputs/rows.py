"""What passes between the readers of the forms and their caller."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from classifier.declaration import Prepare
from classifier.errors import InputError

Bytes = NDArray[np.uint8]
NO_LABEL = -1
MAX_PIXELS = 1 << 24  # uint8 values of one chunk, where one image has fewer


class NothingFoundError(InputError):
    """A folder that holds no labelled images in any form."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What the rows must be.

    Fields:
        dataset: its name, for messages.
        shape: of one image, (H, W) or (H, W, C).
        classes: names of the classes, by label.
        prepare: brings any picture to the shape.
    """

    dataset: str
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    prepare: Prepare

    @property
    def pixels(self) -> int:
        """Values of one image."""
        return math.prod(self.shape)

    def rows_within(self, most: int) -> int:
        """Return how many rows one job may have: at most `most`, fewer of large images."""
        return max(1, min(most, MAX_PIXELS // self.pixels))


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A row or file that is left out.

    Fields:
        what: the picture's path relative to the input, or file name and row, counted from 0.
        reason: in plain words; the same input gives the same words.
        image: uint8 [*shape], where there is one to show.
    """

    what: str
    reason: str
    image: Bytes | None = None


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """The rows of one job, in their order.

    Fields:
        images: uint8 [N, *shape].
        labels: uint8 [N].
        groups: N names of the writer, the camera, ...; None where not given.
        names: N, each as `Refused.what`.
        refused: the rows that are left out.
    """

    images: Bytes
    labels: Bytes
    groups: list[str | None]
    names: list[str]
    refused: list[Refused]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What a reader found, good or not; each field has an entry for each of N rows.

    Fields:
        images: uint8 [N, *shape]; without meaning where not `decoded`.
        decoded: bool [N]: there are pixels.
        labels: N labels; NO_LABEL only where there is a reason.
        groups, names: as in Chunk.
        reasons: why the row is refused, else None.
    """

    images: Bytes
    decoded: NDArray[np.bool_]
    labels: list[int]
    groups: list[str | None]
    names: list[str]
    reasons: list[str | None]


@dataclass(frozen=True, kw_only=True)
class Job(ABC):
    """A picklable piece of one input.

    Fields:
        rows: how many it has, files that are refused included.
        seconds: an estimate of what reading it takes.
    """

    rows: int
    seconds: float

    @property
    @abstractmethod
    def source(self) -> str:
        """The file or folder that it belongs to, absolute."""

    @abstractmethod
    def rows_of(self, subject: Subject, *, everything: bool = False) -> Rows:
        """Read all rows of the job; `everything`: also pixels of rows that are refused anyway."""


def checked(rows: Rows, subject: Subject) -> Chunk:
    """Part the good rows from those refused, blank images included."""
    flat = rows.images.reshape(len(rows.names), subject.pixels)
    blank = rows.decoded & (flat == flat[:, :1]).all(axis=1)
    reasons = list(rows.reasons)
    for row in np.flatnonzero(blank):
        reasons[row] = reasons[row] or f"a blank image: every value is {flat[row, 0]}"
    good = [row for row, reason in enumerate(reasons) if reason is None]
    whole = len(good) == len(reasons)
    refused = [
        Refused(
            what=rows.names[row],
            reason=reason,
            image=rows.images[row].copy() if rows.decoded[row] else None,
        )
        for row, reason in enumerate(reasons)
        if reason is not None
    ]
    return Chunk(
        images=rows.images if whole else rows.images[good],
        labels=np.array([rows.labels[row] for row in good], dtype=np.uint8),
        groups=rows.groups if whole else [rows.groups[row] for row in good],
        names=rows.names if whole else [rows.names[row] for row in good],
        refused=refused,
    )
