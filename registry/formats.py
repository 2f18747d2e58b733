"""The format of the store: a number for the form of all files in it.

    <root>/store/format.json    {"format": 2}

An event and a pointer carry a number of their own besides: a run of an older version that was
under way during a migration may still have written one. Formats of the store so far:

    1    no number; none in the events
    2    a number here, and one in each event
"""

import json
from pathlib import Path

from artifacts import layout
from artifacts.errors import InputError
from artifacts.files import explain_write_errors, write_atomically

FORMAT = 2
FILE = "format.json"


def read(store: Path) -> int:
    """Return the format of a store.

    Raises:
        InputError: its number cannot be read.
    """
    path = store / FILE
    try:
        number = json.loads(path.read_text(encoding="utf-8"))["format"]
    except FileNotFoundError:
        return 1
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        why = str(error)
    else:
        if type(number) is int and number > 0:
            return number
        why = f"its number is {number!r}"
    raise InputError(
        f"{path} does not say which format the store has ({why}): restore it from a backup."
    )


def write(store: Path) -> None:
    """Give a store the present number.

    Raises:
        InputError: it cannot be written.
    """
    with explain_write_errors(layout.root()):
        write_atomically(store / FILE, json.dumps({"format": FORMAT}) + "\n")


def check() -> None:
    """Check that the store of this root has the present format.

    Raises:
        InputError: it is older or newer, or its number cannot be read.
    """
    check_number(read(layout.store()), FORMAT, layout.store())


def check_number(found: int, known: int, what: Path) -> None:
    """Check that a file, or the store, has the format that this version writes.

    Args:
        found: its number.
        known: the number that this version writes.
        what: the file or folder, for the sentence.

    Raises:
        InputError: it is older or newer.
    """
    check_not_newer(found, known, what)
    if found < known:
        raise InputError(
            f"{what} has format {found}, and this version reads {known}: run `./run store migrate`."
        )


def check_not_newer(found: int, known: int, what: Path) -> None:
    """Check that a file, or the store, can be read or migrated; as `check_number`."""
    if found > known:
        raise InputError(
            f"{what} was written by a newer version (format {found}, and this one reads {known}): "
            "update the project."
        )
