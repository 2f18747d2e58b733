"""The log: one event a file, created whole and never changed.

    <root>/store/log/000042.json

Numbers follow each other, and of two processes that want the same number one gets the next. What
holds now follows from the events in their order, so it is never stored beside them.
"""

import json
import os
import re
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from artifacts import layout
from artifacts.errors import ArgumentError, InputError
from artifacts.files import explain_write_errors

NAME = re.compile(r"\d{6,}\.json")


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened.

    Fields:
        number: its place in the order, from 1.
        kind: such as `ingest`.
        dataset: that it is about.
        at: UTC time.
        about: what the kind has to say, JSON-ready.
    """

    number: int
    kind: str
    dataset: str
    at: str
    about: dict[str, Any]


def check_reason(why: str) -> None:
    """Check that a decision has a reason, which is given by `--why`.

    Raises:
        ArgumentError: it has none.
    """
    if not why.strip():
        raise ArgumentError("--why is empty: say why, for those who read the log later.")


def append(kind: str, dataset: str, **about: Any) -> Event:
    """Write an event under the next number.

    Raises:
        InputError: the data root cannot be written.
    """
    at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    text = json.dumps({"kind": kind, "dataset": dataset, "at": at, "about": about}, indent=1)
    folder = layout.log()
    with explain_write_errors(layout.root()):
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{os.getpid()}-{threading.get_ident()}.tmp"
        temporary.write_text(text + "\n", encoding="utf-8")
        try:
            number = max(_numbers(), default=0) + 1
            while True:
                try:
                    os.link(temporary, _path(number))  # fails where the number is taken
                except FileExistsError:
                    number += 1
                else:
                    break
        finally:
            temporary.unlink(missing_ok=True)
    return Event(number=number, kind=kind, dataset=dataset, at=at, about=about)


def events(dataset: str) -> list[Event]:
    """Return all events about the dataset, the oldest first.

    Raises:
        InputError: an event is missing or cannot be read, so that what holds now is not known.
    """
    return [event for event in _everything() if event.dataset == dataset]


def datasets() -> list[str]:
    """Return the datasets that the log is about; raises as `events`."""
    return sorted({event.dataset for event in _everything()})


def _everything() -> list[Event]:
    # Not the listed ones: a listing may miss a file that was made while it was read.
    with explain_write_errors(layout.root()):  # such as a name that is too long
        return [read(number) for number in range(1, max(_numbers(), default=0) + 1)]


def _numbers() -> list[int]:
    if not layout.log().is_dir():
        return []
    return [int(path.stem) for path in layout.log().iterdir() if NAME.fullmatch(path.name)]


def _path(number: int) -> Any:
    return layout.log() / f"{number:06d}.json"


def read(number: int) -> Event:
    """Return the event of that number; raises as `events`."""
    path = _path(number)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Event(
            number=number,
            kind=str(content["kind"]),
            dataset=str(content["dataset"]),
            at=str(content["at"]),
            about=dict(content["about"]),
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path} is not a readable event ({error}): restore it from a backup. Without it, "
            "nobody knows what holds now."
        ) from error
