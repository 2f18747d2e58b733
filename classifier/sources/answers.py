"""What a public source may answer, and how long and how much of it is taken.

An answer is a claim: at most MAX_BYTES of a file are taken or unpacked, and nothing waits for ever.
"""

import math
from collections.abc import Callable
from http.client import IncompleteRead
from pathlib import Path
from typing import Any

from classifier.data import idx
from classifier.sources import CREDENTIALS

#: Called with the bytes of this source so far and, where it is known, their total.
Progress = Callable[[int, int | None], None]

#: The usual name of each of FILES.
OFFICIAL_NAMES = {
    "train-images.idx": "train-images-idx3-ubyte",
    "train-labels.idx": "train-labels-idx1-ubyte",
    "test-images.idx": "t10k-images-idx3-ubyte",
    "test-labels.idx": "t10k-labels-idx1-ubyte",
}
CONNECT_SECONDS, READ_SECONDS = 10.0, 30.0  # of silence
FILE_SECONDS, NPM_SECONDS = 900.0, 300.0  # for one file, for all four
MAX_BYTES = 2 * 2**30  # of one file, packed or not
MAX_LETTERS = 300  # of an answer that is quoted
LATE = "no answer in time"

#: HTTP answers, and ways in which a connection ends, that may be different next time.
TRANSIENT_STATUS = {429, 500, 502, 503, 504}
CONNECTION_ERRORS = (
    ConnectionResetError,
    ConnectionAbortedError,
    BrokenPipeError,
    IncompleteRead,
    EOFError,
)


class SourceFailed(Exception):  # noqa: N818 - what one source answered
    """One source did not give the files; `transient`: it may do so next time."""

    def __init__(self, answer: str, *, transient: bool = False) -> None:
        super().__init__(answer)
        self.transient = transient


def unpack(packed: Path, target: Path) -> None:
    """Unpack an IDX file, unless its header promises more than a dataset has.

    Raises:
        SourceFailed: it promises too much.
        InputError: it is not a whole IDX file.
    """
    shape = idx.shape(packed)
    if math.prod(shape) > MAX_BYTES:
        raise SourceFailed(f"{packed.name} promises {shape}, more than is taken from a server")
    idx.unpack(packed, target)


def one_line(said: Any) -> str:
    """Return what was said as one short line of printable characters, without passwords of URLs."""
    line = CREDENTIALS.sub("", " ".join(str(said).split()))[:MAX_LETTERS]
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line
    )
