"""The pointer: which event put the model in use that is in use now.

    <root>/store/registry/<dataset>/champion.json    {"format": 1, "event": 42, "model": "models/…"}

It is replaced atomically, after everything that it leads to is in place. A promotion that was
killed before that is an event that no pointer reached: it did not happen. Before the first one, a
pointer to nothing is written: so a pointer that was lost is told from one that never was.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts import layout
from artifacts.errors import InputError
from artifacts.files import explain_write_errors, write_atomically
from registry import formats, sharing

FORMAT = 1
NOTHING: dict[str, Any] = {"format": FORMAT, "event": None, "model": None}


@dataclass(frozen=True, kw_only=True)
class Pointer:
    """The promotion that counts: its event, and the name of its model."""

    event: int
    model: str


def path_of(dataset: str) -> Path:
    """Return the file of the pointer."""
    return layout.store() / "registry" / dataset / "champion.json"


def read(dataset: str) -> Pointer | None:
    """Return the pointer; None before the first promotion.

    Raises:
        InputError: it cannot be read, so that the model in use is not known, or has another
            format.
    """
    path = path_of(dataset)
    try:
        return parse(path.read_bytes(), path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, str(error)) from error


def parse(content: bytes, path: Path) -> Pointer | None:
    """Return the pointer of which these are the bytes, and which lies there; as `read`."""
    try:
        found = json.loads(content)
        if found == NOTHING:
            return None
        if type(found["format"]) is int:
            formats.check_number(found["format"], FORMAT, path)
        known = found["format"] == FORMAT and type(found["event"]) is int
        if known and layout.ARTIFACT_NAME.fullmatch(found["model"]):
            return Pointer(event=found["event"], model=found["model"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _unreadable(path, str(error)) from error
    raise _unreadable(path, "it has another form")


def _unreadable(path: Path, why: str) -> InputError:
    return InputError(
        f"{path} does not say which model is in use ({why}): restore it from a backup. The last "
        "promotion in the log says what it was."
    )


def is_there(dataset: str) -> bool:
    """Return whether there is a pointer, be it to nothing."""
    return path_of(dataset).exists()


class PointerChangedError(InputError):
    """Another machine replaced the pointer first."""


def write(dataset: str, pointer: Pointer | None) -> None:
    """Replace the pointer; None points to nothing.

    Raises:
        PointerChangedError: another machine did, since the log was brought up to date.
        InputError: the data root cannot be written.
    """
    content = NOTHING
    if pointer is not None:
        content = {"format": FORMAT, "event": pointer.event, "model": pointer.model}
    text = json.dumps(content) + "\n"
    with explain_write_errors(layout.root()):
        if not sharing.replace_pointer(dataset, text):
            raise PointerChangedError(f"Another machine changed which model of {dataset} counts.")
        write_atomically(path_of(dataset), text)
