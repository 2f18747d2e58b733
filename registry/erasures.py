"""Erasures of other machines: which batches they replaced, and what is left to do on this one.

    <root>/store/erasures/000042.json    {"dataset", "why", "rows"}: the erasure that is event 42

An erasure reaches the log and the batches of all machines by itself. Cache, reports and incoming
files of each are its own: until the rows are erased there too, the machine says so with every run,
and writes nothing of before to the remote.
"""

import json
import logging
import shlex
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts import layout
from artifacts.artifact import Artifact, delete
from artifacts.errors import InputError
from artifacts.files import write_atomically
from artifacts.text import one_line

BATCHES = "batches"  # kind of artifacts, and the field of an erasure that names them
_log = logging.getLogger(__name__)
_told: set[Path] = set()  # notes of which this process has said what is left


@dataclass(frozen=True, kw_only=True)
class Erasure:
    """Rows that were erased elsewhere, and may still be in cache, reports and incoming files here.

    Fields:
        dataset: its name.
        why: they were erased.
        rows: their digests.
    """

    dataset: str
    why: str
    rows: tuple[str, ...]

    @property
    def what(self) -> str:
        """What is wrong, as a sentence."""
        return f"Rows of {one_line(self.dataset)} were erased on another machine, and not yet here."

    @property
    def command(self) -> str:
        """The command that erases them here."""
        words = ("--dataset", self.dataset, f"--why={self.why}", *self.rows)
        return f"./run data erase {shlex.join(map(one_line, words))}"


def parse(text: str) -> dict[str, Any] | None:
    """Return the event, if it is an erasure."""
    with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
        event: dict[str, Any] = json.loads(text)
        about = event["about"]
        digests = [*about[BATCHES].keys(), *about["rows"]]
        if event["kind"] == "erase" and all(map(layout.SHA_256.fullmatch, digests)):
            return event
    return None


def replaced(events: Iterable[str]) -> set[str]:
    """Return the names of the batches that erasures among these events replaced."""
    found = (parse(text) for text in events if BATCHES in text)
    return {f"{BATCHES}/{digest}" for event in found if event for digest in event["about"][BATCHES]}


def may_concern() -> bool:
    """Return whether anything here can show rows: not on a machine that has nothing yet."""
    incoming = (path for path in (layout.store() / "incoming").rglob("*") if path.is_file())
    return _has_results() or any(layout.log().glob("*.json")) or any(incoming)


def _has_results() -> bool:
    return bool(layout.kinds()) or any(layout.reports().glob("*/report.json"))


def follow(number: int, event: dict[str, Any], *, note: bool) -> None:
    """Remove the batches that an erasure on another machine replaced.

    Args:
        number: of the event.
        event: the erasure, as `parse` returned it.
        note: also that it is to be done here.
    """
    if note:
        _note(number, event)
    for digest in event["about"][BATCHES]:
        delete(Artifact(kind=BATCHES, digest=digest, size=0), permanent=True)
        (layout.store() / "names" / f"{digest}.jsonl").unlink(missing_ok=True)


def note_restored() -> None:
    """Note all erasures of a log that was restored here, where cache or reports are older."""
    if not _has_results():
        return
    for path in layout.log().glob("*.json"):
        if event := parse(path.read_text(encoding="utf-8", errors="replace")):
            _note(int(path.stem), event)


def _note(number: int, event: dict[str, Any]) -> None:
    about = event["about"]
    left = {"dataset": event["dataset"], "why": str(about.get("why")), "rows": about["rows"]}
    write_atomically(_folder() / f"{number:06d}.json", json.dumps(left))


def left() -> list[Erasure]:
    """Return the erasures of other machines that are still to be done here, the oldest first."""
    return [erasure for _, erasure in _notes()]


def warn_of_left() -> None:
    """Say in the log, once a process, what is still to be erased here."""
    for path, erasure in _notes():
        if path not in _told:
            _told.add(path)
            _log.warning(
                "%s Erase them here too, from cache, reports and incoming files: %s",
                erasure.what,
                erasure.command,
            )


def check_none_left() -> None:
    """Check that nothing is still to be erased here, before what lies here is written elsewhere.

    Raises:
        InputError: something is.
    """
    for erasure in left():
        raise InputError(
            f"{erasure.what} What lies here may show them, so nothing was written. First: "
            f"{erasure.command}"
        )


def done(dataset: str, rows: Collection[str]) -> None:
    """Note that these rows were erased here."""
    for path, erasure in _notes():
        if erasure.dataset == dataset:
            rest = [row for row in erasure.rows if row not in rows]
            if not rest:
                path.unlink(missing_ok=True)
            elif len(rest) < len(erasure.rows):
                write_atomically(path, json.dumps(vars(erasure) | {"rows": rest}))


def _notes() -> list[tuple[Path, Erasure]]:
    found = []
    for path in sorted(_folder().glob("*.json")):
        with suppress(OSError, ValueError, KeyError, TypeError):
            note = json.loads(path.read_text(encoding="utf-8"))
            rows = tuple(map(str, note["rows"]))
            if rows:
                found.append((path, Erasure(dataset=note["dataset"], why=note["why"], rows=rows)))
    return found


def _folder() -> Path:
    return layout.store() / "erasures"
