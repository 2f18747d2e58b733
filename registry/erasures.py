"""Erasures of other machines: which batches they replaced, and what is left to do on this one.

    <root>/store/erasures/000042.json      {"dataset", "why", "rows"}: the erasure that is event 42
    <root>/store/erasures/<SHA-256>.json    one that was begun here, until it is done

An erasure reaches the log and the batches of all machines by itself. Cache, reports and incoming
files of each are its own: until the rows are erased there too, the machine says so with every run,
and writes nothing of before to the remote.
"""

import hashlib
import json
import logging
import shlex
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from artifacts import layout
from artifacts.artifact import Artifact, delete
from artifacts.errors import InputError
from artifacts.files import write_atomically
from artifacts.text import one_line

BATCHES = "batches"  # kind of artifacts, and the field of an erasure that names them
FOLDER = "erasures"  # of the notes, in the store
_log = logging.getLogger(__name__)
_told: set[Path] = set()  # notes of which this process has said what is left


@dataclass(frozen=True, kw_only=True)
class Erasure:
    """Rows that were erased, and may still be in cache, reports and incoming files here.

    Fields:
        dataset: its name.
        why: they were erased.
        rows: their digests.
        begun: here, by a command that did not end; else on another machine.
    """

    dataset: str
    why: str
    rows: tuple[str, ...]
    begun: bool = False

    @property
    def what(self) -> str:
        """What is wrong, as a sentence."""
        dataset = one_line(self.dataset)
        if self.begun:
            return f"An erasure of rows of {dataset} was begun here and has not ended."
        return f"Rows of {dataset} were erased on another machine, and not yet here."

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
        digests = [*about[BATCHES].keys(), *about["rows"], *about.get("gone", ())]
        if event["kind"] == "erase" and all(map(layout.SHA_256.fullmatch, digests)):
            return event
    return None


def replaced(events: Iterable[str]) -> set[str]:
    """Return the names of the batches that erasures among these events replaced."""
    found = (parse(text) for text in events if BATCHES in text)
    return {f"{BATCHES}/{digest}" for event in found if event for digest in _gone(event)}


def replaced_here() -> set[str]:
    """Return the names of the batches that the erasures in the log of this machine replaced."""
    paths = layout.log().glob("*.json")
    return replaced(path.read_text(encoding="utf-8", errors="replace") for path in paths)


def _gone(event: dict[str, Any]) -> list[str]:
    """Return the digests of the batches that an erasure replaced, or removed as nothing counts."""
    return [*event["about"][BATCHES], *event["about"].get("gone", ())]


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
        _write(_folder() / f"{number:06d}.json", event["dataset"], event["about"])
    for digest in _gone(event):
        delete(Artifact(kind=BATCHES, digest=digest, size=0), permanent=True)
        (layout.store() / "names" / f"{digest}.jsonl").unlink(missing_ok=True)


def note_restored(store: Path) -> None:
    """Note all erasures of a log that is restored here, where cache or reports are older.

    Args:
        store: the folder that will be that of this machine.
    """
    if not _has_results():
        return
    for path in (store / layout.log().name).glob("*.json"):
        if event := parse(path.read_text(encoding="utf-8", errors="replace")):
            _write(store / FOLDER / path.name, event["dataset"], event["about"])


def begin(dataset: str, rows: Collection[str], why: str) -> None:
    """Note that rows are being erased here, so that an erasure that is killed is told of.

    `done` removes the note.
    """
    if any(one.dataset == dataset and set(one.rows) >= set(rows) for one in left()):
        return
    digest = hashlib.sha256(" ".join((dataset, *sorted(rows))).encode()).hexdigest()
    path = _folder() / f"{digest}.json"
    _told.add(path)  # what this process itself does
    _write(path, dataset, {"rows": sorted(rows), "why": why, "begun": True})


def _write(path: Path, dataset: str, about: dict[str, Any]) -> None:
    note = {"dataset": dataset, "why": str(about.get("why")), "rows": about["rows"]}
    write_atomically(path, json.dumps(note | {"begun": about.get("begun", False)}))


def left() -> list[Erasure]:
    """Return the erasures that are still to be done here: of other machines, and interrupted.

    Those of a dataset are one, so that one command does them.
    """
    merged: dict[tuple[str, bool], Erasure] = {}
    for _, one in _notes():
        before = merged.get((one.dataset, one.begun), one)
        rows = dict.fromkeys((*before.rows, *one.rows))
        whys = dict.fromkeys((*before.why.split("; "), *one.why.split("; ")))
        merged[one.dataset, one.begun] = replace(one, rows=tuple(rows), why="; ".join(whys))
    return list(merged.values())


def warn_of_left() -> None:
    """Say in the log, once a process, what is still to be erased here."""
    new = {path: erasure.dataset for path, erasure in _notes() if path not in _told}
    _told.update(new)
    for erasure in left():
        if erasure.dataset in new.values():
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
                begun = bool(note.get("begun"))
                erasure = Erasure(dataset=note["dataset"], why=note["why"], rows=rows, begun=begun)
                found.append((path, erasure))
    return found


def _folder() -> Path:
    return layout.store() / FOLDER
