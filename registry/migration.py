"""Migration: a store of an older format becomes one of the present format, file by file.

Each file is replaced atomically, and the number of the store last: a migration that was killed is
completed by the next. Nobody else changes an event, so runs may go on meanwhile.
"""

import json
from pathlib import Path

from artifacts import layout
from artifacts.errors import InputError
from artifacts.files import explain_write_errors, write_atomically
from artifacts.locks import shared_lock
from registry import formats, log


def migrate() -> int:
    """Bring the store of this root to the present format, and return how many files changed.

    Raises:
        InputError: there is no store, it is newer or damaged, or cannot be written.
    """
    if not layout.store().is_dir():
        raise InputError(f"There is no store in {layout.root()}: choose another root with --data.")
    with explain_write_errors(layout.root()), shared_lock("store"):
        return migrate_folder(layout.store())


def migrate_folder(store: Path) -> int:
    """Bring a store in any folder to the present format; as `migrate`."""
    formats.check_not_newer(before := formats.read(store), formats.FORMAT, store)
    events = log.files(store / "log")
    for left in (store / "log").glob(".*.json.*.tmp"):  # of a migration that was killed
        left.unlink(missing_ok=True)
    count = sum(_number_event(path) for path in events)
    if events and before < formats.FORMAT:
        formats.write(store)
        count += 1
    return count


def _number_event(path: Path) -> bool:
    """Give an event of format 1 its number; return whether it had none."""
    content = log.load(path)
    if content["format"] == log.FORMAT:
        return False
    write_atomically(path, json.dumps(content | {"format": log.FORMAT}, indent=1) + "\n")
    return True
