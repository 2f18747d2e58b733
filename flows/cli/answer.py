"""What a command that runs no flow found, and how words and sizes are written."""

from dataclasses import dataclass
from typing import Any

from artifacts.layout import SHA_256


@dataclass(frozen=True)
class Answer:
    """What a command found: JSON-ready, and in words; the exit code is 1 where a check fails.

    Warnings go to standard error.
    """

    found: Any
    text: str
    code: int = 0
    warnings: tuple[str, ...] = ()


def short(name: str) -> str:
    """Shorten a digest at the end of a name to eight letters."""
    start, slash, end = name.rpartition("/")
    return start + slash + (end[:8] if SHA_256.fullmatch(end) else end)


def size(count: float) -> str:
    """Write bytes in decimal units."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:  # noqa: PLR2004 - decimal units
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
