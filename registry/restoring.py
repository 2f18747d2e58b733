"""Restoring: a backup becomes the store of a root that has none. Nothing in the file is believed.

It is read into a folder of its own, checked there, migrated if it is of an older version, and
renamed last: whatever is killed, the root has no store or a whole one.
"""

import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from artifacts import inventory, layout
from artifacts.artifact import find_damage
from artifacts.errors import InputError
from artifacts.files import explain_write_errors
from artifacts.locks import shared_lock
from registry import backup, erasures, formats, log, migration, pointer

_MALFORMED = (
    tarfile.TarError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)
_ARTIFACT_DEPTH = 5  # store/artifacts/<kind>/<digest>/<file>


@dataclass(frozen=True, kw_only=True)
class Restored:
    """What came back.

    Fields:
        files: how many.
        migrated: how many of them were of an older format.
        champions: the name of the model in use, by dataset.
    """

    files: int
    migrated: int
    champions: dict[str, str]


def restore(file: Path) -> Restored:
    """Make the store of a root from a backup: whole, or not at all.

    Args:
        file: that `backup.back_up` wrote.

    Raises:
        InputError: the root has a store, the file cannot be read, is no whole backup or of a newer
            version, or the data root cannot be written.
    """
    with explain_write_errors(layout.root()), shared_lock("store"):
        _check_no_store()
        place = layout.restoring()
        shutil.rmtree(place, ignore_errors=True)  # of a restore that was killed
        try:
            with _opened(file) as tar:
                count = _extract(tar, file, place)
            store = place / layout.store().name
            try:
                migrated = migration.migrate_folder(store)
                champions = _check(store)
            except (InputError, *_MALFORMED) as error:
                said = str(error).replace(f"{place}/", "").replace("a backup", "another backup")
                raise InputError(f"{file} cannot be restored. {said}") from error
            erasures.note_restored(store)
            store.rename(layout.store())
        finally:
            shutil.rmtree(place, ignore_errors=True)
    return Restored(files=count, migrated=migrated, champions=champions)


def _check_no_store() -> None:
    store = layout.store()
    if store.is_symlink() or (store.exists() and not store.is_dir()):
        raise InputError(f"{store} is no folder: move it away, or choose another root with --data.")
    if store.exists() and any(store.iterdir()):
        raise InputError(
            f"{store} is not empty, and a backup is not mixed with what is there: move it away, "
            "or choose another root with --data."
        )


@contextmanager
def _opened(file: Path) -> Iterator[tarfile.TarFile]:
    """Open a tar file; whatever is wrong with it is one sentence.

    Raises:
        InputError: it cannot be read, or is malformed.
    """
    try:
        stream = file.open("rb")
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}.") from error
    with stream:
        try:
            with tarfile.open(fileobj=stream, mode="r:") as tar:
                yield tar
        except _MALFORMED as error:
            raise InputError(
                f"{file} is no whole backup of a store ({error}): nothing was restored."
            ) from error


def _extract(tar: tarfile.TarFile, file: Path, place: Path) -> int:
    """Write the files of a backup below a folder, and return how many they are."""
    members = tar.getmembers()
    expected = _contents(tar, members, file)
    for member in members[:-1]:
        target = place / member.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if _copy(tar, member, target) != expected[member.name]:
            raise ValueError(f"{member.name} has changed")
        modified = _modified(member)
        os.utime(target, ns=(modified, modified))
    return len(expected)


def _contents(tar: tarfile.TarFile, members: list[tarfile.TarInfo], file: Path) -> dict[str, str]:
    """Return the digest of each file of a backup, by its name, all of which are harmless."""
    if not members or members[-1].name != backup.CONTENTS or not members[-1].isreg():
        raise ValueError(f"its last file is not {backup.CONTENTS}")
    opened = tar.extractfile(members[-1])
    contents: Any = json.loads(opened.read()) if opened else None
    formats.check_not_newer(int(contents["format"]), backup.FORMAT, file)
    expected: dict[str, str] = dict(contents["files"])
    for member in members[:-1]:
        if not member.isreg() or member.issparse():
            raise ValueError(f"{member.name} is no plain file")
        _check_name(member.name)
    if [member.name for member in members[:-1]] != list(expected):
        raise ValueError("it does not hold the files that it lists")
    folders = {str(folder) for name in expected for folder in PurePosixPath(name).parents}
    if both := folders & expected.keys():
        raise ValueError(f"{min(both)} is a file and a folder")
    return expected


def _check_name(name: str) -> None:
    """Check that a file lies in the store, and an artifact where artifacts lie."""
    parts = name.split("/")
    fits = len(parts) > 1 and parts[0] == layout.store().name and "\0" not in name
    if fits and parts[1] == layout.permanent().name:
        fits = len(parts) >= _ARTIFACT_DEPTH and layout.SHA_256.fullmatch(parts[3]) is not None
        fits = fits and layout.KIND.fullmatch(parts[2]) is not None
    if not fits or not {"", ".", ".."}.isdisjoint(parts):
        raise ValueError(f"{name!r} is no path of a store")


def _copy(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> str:
    """Write a file of a backup, and return its SHA-256."""
    digest = hashlib.sha256()
    source = tar.extractfile(member)
    with target.open("xb") as copied:
        while source and (chunk := source.read(backup.CHUNK)):
            digest.update(chunk)
            copied.write(chunk)
    return digest.hexdigest()


def _modified(member: tarfile.TarInfo) -> int:
    """Return the modification time in nanoseconds: by it, `ingest` knows what it has seen."""
    seconds, _, fraction = member.pax_headers.get("mtime", str(int(member.mtime))).partition(".")
    return int(seconds) * 10**9 + int(fraction.ljust(9, "0")[:9])


def _check(store: Path) -> dict[str, str]:
    """Return the champions of a restored store, if all in it is whole."""
    place = store / layout.permanent().name
    kept = set()
    for artifact in inventory.permanent(place):
        if damage := find_damage(artifact, folder=place / artifact.name, thorough=True):
            raise InputError(f"Its {artifact} is damaged ({damage}): choose another backup.")
        kept.add(artifact.name)
    count = len(log.files(store / layout.log().name))
    if count == 0:
        raise InputError("It holds no event: choose another backup.")
    events = [log.read(number, store / layout.log().name) for number in range(1, count + 1)]
    pointers = {
        path.parent.name: pointer.parse(path.read_bytes(), path)
        for path in store.glob("registry/*/champion.json")
    }
    return backup.check(events, pointers, kept)
