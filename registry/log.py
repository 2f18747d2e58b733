"""The log: one event a file, created whole and never changed.

    <root>/store/log/000042.json    {"format": 2, "kind": "ingest", "dataset": "mnist", …}

Numbers follow each other, and of two processes that want the same number one gets the next. What
holds now follows from the events in their order, so it is never stored beside them.
"""

import json
import os
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from artifacts import layout
from artifacts.errors import ArgumentError, InputError
from artifacts.files import explain_write_errors
from registry import formats, sharing

FORMAT = 2  # of an event; those of format 1 carry no number
NAME = re.compile(r"\d{6,}\.json")
_FIELDS = {"format": int, "kind": str, "dataset": str, "at": str, "about": dict}


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


def append(
    kind: str,
    dataset: str,
    recheck: Callable[[list[Event]], None] | None = None,
    **about: Any,
) -> Event:
    """Write an event under the next number.

    Args:
        kind: of the event.
        dataset: that it is about.
        recheck: is called right before, with all events so far about the dataset, also those that
            other machines have just written; where it raises, no event is written.
        about: what it has to say, JSON-ready.

    Raises:
        InputError: the data root cannot be written, or the store has another format; or what
            `recheck` raises.
    """
    at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    content = {"format": FORMAT, "kind": kind, "dataset": dataset, "at": at, "about": about}
    text = json.dumps(content, indent=1)
    folder = layout.log()
    with explain_write_errors(layout.root()):
        if not (layout.store() / formats.FILE).exists() and last() == 0:
            formats.write(layout.store())
        formats.check()
        folder.mkdir(parents=True, exist_ok=True)
        # A name of its own: that of a killed process may be a link to its event.
        temporary = folder / f".{os.getpid()}-{secrets.token_hex(8)}.tmp"
        temporary.write_text(text + "\n", encoding="utf-8")
        try:
            with sharing.taking_numbers():
                number = _take_number(temporary, dataset, recheck)
        finally:
            temporary.unlink(missing_ok=True)
    return Event(number=number, kind=kind, dataset=dataset, at=at, about=about)


def _take_number(file: Path, dataset: str, recheck: Callable[[list[Event]], None] | None) -> int:
    """Make the file the next event, also for other machines; return its number."""
    number = last() + 1
    while True:
        if recheck is not None:
            recheck([event for event in _up_to(number - 1) if event.dataset == dataset])
        if not sharing.take(number, file.read_bytes()):
            number = last() + 1
            continue
        try:
            os.link(file, path_of(number))  # fails where the number is taken
        except FileExistsError:
            number = max(number, last()) + 1
        else:
            return number


def events(dataset: str) -> list[Event]:
    """Return all events about the dataset, the oldest first.

    Raises:
        InputError: an event is missing or cannot be read, so that what holds now is not known, or
            the store has another format.
    """
    return [event for event in everything() if event.dataset == dataset]


def datasets() -> list[str]:
    """Return the datasets that the log is about; raises as `events`."""
    return sorted({event.dataset for event in everything()})


def everything() -> list[Event]:
    """Return all events, the oldest first; raises as `events`."""
    sharing.bring()
    # Not the listed ones: a listing may miss a file that was made while it was read.
    with explain_write_errors(layout.root()):  # such as a name that is too long
        if count := last():
            formats.check()
        return _up_to(count)


def _up_to(count: int) -> list[Event]:
    return [read(number) for number in range(1, count + 1)]


def last() -> int:
    """Return the number of the last event; 0 before the first."""
    return max((int(path.stem) for path in files(layout.log())), default=0)


def files(folder: Path) -> list[Path]:
    """Return the files of the events in a folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if NAME.fullmatch(path.name))


def path_of(number: int, folder: Path | None = None) -> Path:
    """Return the file of an event: in the log, or in another folder."""
    return (folder or layout.log()) / f"{number:06d}.json"


def read(number: int, folder: Path | None = None) -> Event:
    """Return the event of that number: of the log, or in another folder; raises as `events`."""
    path = path_of(number, folder)
    content = load(path)
    formats.check_number(content.pop("format"), FORMAT, path)
    return Event(number=number, **content)


def load(path: Path) -> dict[str, Any]:
    """Return the fields of an event of this format or an older one; raises as `events`."""
    try:
        content = {"format": 1, **json.loads(path.read_text(encoding="utf-8"))}
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise _unreadable(path, str(error)) from error
    if type(content["format"]) is int:
        formats.check_not_newer(content["format"], FORMAT, path)
    for name, kind in _FIELDS.items():
        if type(content.get(name)) is not kind:
            raise _unreadable(path, f"its {name} is missing or of another type")
    return {name: content[name] for name in _FIELDS}


def _unreadable(path: Path, why: str) -> InputError:
    return InputError(
        f"{path} is not a readable event ({why}): restore it from a backup. Without it, nobody "
        "knows what holds now."
    )
