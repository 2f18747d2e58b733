"""Backup: the store in one tar file, while others go on writing into it.

    store/…        every file of the store, under its path in the data root
    backup.json    last, so that a cut file is told from a whole one:
                   {"format": 1, "files": {"store/log/000001.json": "<SHA-256>", …}}

Writers write artifacts first, then the event that names them, then the pointer to the event. So
pointers are read first, then the events up to the last one of that moment, then the artifacts: what
is copied leads to nothing that is not.
"""

import hashlib
import io
import json
import os
import re
import tarfile
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from artifacts import inventory, layout
from artifacts.artifact import find_damage
from artifacts.errors import ArgumentError, InputError
from artifacts.files import FileStats, content_digest, explain_write_errors, files
from artifacts.locks import shared_lock
from registry import decisions, log, models, pointer
from registry.log import Event
from registry.pointer import Pointer

FORMAT = 1
CONTENTS = "backup.json"
#: What rests on the log: copied as it is when the last event is read.
FIRST = ("registry", "seen")
UNFINISHED = re.compile(r"\..*\.tmp", re.DOTALL)
CHUNK = 2**20  # bytes that are read at once


@dataclass(frozen=True, kw_only=True)
class Backup:
    """What a backup holds.

    Fields:
        files: how many.
        size: of the tar file, in bytes.
        left_out: files of `incoming/` that changed while they were read.
    """

    files: int
    size: int
    left_out: tuple[str, ...]


def back_up(file: Path) -> Backup:
    """Write the store into a tar file: whole, or not at all.

    An erasure waits until it is done, and it for an erasure; nobody else waits for longer than it
    takes to read the pointers.

    Args:
        file: that is not there yet, outside the data root.

    Raises:
        ArgumentError: the file is there, its folder is not, or it lies in the data root.
        InputError: there is no event yet, something in the store is damaged, or the file cannot be
            written.
    """
    file = file.absolute()
    temporary = file.with_name(f".{file.name}.tmp")
    with explain_write_errors(file.parent, "another folder"):
        _check_place(file)
        if log.last() == 0:
            raise InputError(f"There is nothing to back up: {layout.log()} has no event.")
        with shared_lock("store"):
            try:
                with open(temporary, "wb", opener=_private) as opened:
                    made = _write(_Tar(opened))
                    os.fsync(opened.fileno())
                temporary.replace(file)
            finally:
                temporary.unlink(missing_ok=True)
    return made


def _check_place(file: Path) -> None:
    inside = (layout.root(), layout.store().resolve())
    if any(file.resolve().is_relative_to(folder) for folder in inside):
        raise ArgumentError(
            f"{file} lies in the data folder, and would be lost with it: choose a file elsewhere."
        )
    if not file.parent.is_dir():
        raise ArgumentError(f"{file}: there is no folder {file.parent}. Create it first.")
    if os.path.lexists(file):
        raise ArgumentError(f"{file} is there already: choose another name, or remove it.")


def _private(path: str, flags: int) -> int:
    """Open a file that its owner alone may read: a backup holds every picture of the store."""
    return os.open(path, flags, 0o600)


class _Tar:
    """A tar file that is written front to back, with the SHA-256 of each file in it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.digests: dict[str, str] = {}

    def add(self, path: Path) -> FileStats | None:
        """Add a file of the store; None, and it is left out, if it changed meanwhile."""
        start = self.file.tell()
        name = layout.relative(path)
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            copied = self._copy(name, file, before.st_size, before.st_mtime_ns)
            after = os.fstat(file.fileno())
        if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            self.file.seek(start)
            self.file.truncate()
            del self.digests[name]
            return None
        return FileStats(before.st_size, 0, 0, copied)

    def add_bytes(self, name: str, content: bytes) -> None:
        """Add a file with this content."""
        self._copy(name, io.BytesIO(content), len(content), time.time_ns())

    def end(self) -> None:
        """Write what ends a tar file."""
        self.file.write(b"\0" * 2 * tarfile.BLOCKSIZE)
        self.file.write(b"\0" * (-self.file.tell() % tarfile.RECORDSIZE))

    def _copy(self, name: str, source: BinaryIO, size: int, modified: int) -> str:
        info = tarfile.TarInfo(name)
        info.size, info.mtime = size, modified // 10**9
        info.pax_headers = {"mtime": f"{modified // 10**9}.{modified % 10**9:09d}"}
        self.file.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        digest = hashlib.sha256()
        left = size
        while left and (chunk := source.read(min(left, CHUNK))):
            digest.update(chunk)
            self.file.write(chunk)
            left -= len(chunk)
        self.file.write(b"\0" * (-size % tarfile.BLOCKSIZE))
        self.digests[name] = digest.hexdigest()
        return digest.hexdigest()


def _write(tar: _Tar) -> Backup:
    first, last = _moment()
    events = [log.read(number) for number in range(1, last + 1)]
    for dataset in {event.dataset for event in events}:
        path = pointer.path_of(dataset)
        if path not in first and path.exists():  # its first promotion came since that moment
            first[path] = (json.dumps(pointer.NOTHING) + "\n").encode()
    for path, content in first.items():
        tar.add_bytes(layout.relative(path), content)
    for event in events:
        tar.add(log.path_of(event.number))
    kept = _add_artifacts(tar)
    pointers = {
        path.parent.name: pointer.parse(content, path)
        for path, content in first.items()
        if path == pointer.path_of(path.parent.name)
    }
    check(events, pointers, kept)
    left_out = _add_others(tar)
    contents = json.dumps({"format": FORMAT, "files": tar.digests}).encode()
    count = len(tar.digests)
    tar.add_bytes(CONTENTS, contents)
    tar.end()
    return Backup(files=count, size=tar.file.tell(), left_out=tuple(left_out))


def _moment() -> tuple[dict[Path, bytes], int]:
    """Return pointers and what else rests on the log, and the last event, as of one moment.

    A promotion that is under way is completed first.
    """
    with ExitStack() as held:
        for dataset in log.datasets():
            held.enter_context(decisions.changing(dataset))
        folders = [layout.store() / name for name in FIRST]
        first = {path: path.read_bytes() for folder in folders for path in _files(folder)}
        return first, log.last()


def _files(folder: Path) -> list[Path]:
    """Return the files below a folder, without those that are being written."""
    return [path for path in files(folder) if not UNFINISHED.fullmatch(path.name)]


def _add_artifacts(tar: _Tar) -> set[str]:
    """Add the artifacts that stay, and return their names."""
    kept = set()
    for artifact in inventory.permanent():
        folder = layout.permanent() / artifact.name
        try:
            folder.stat()
            added = {path.relative_to(folder).as_posix(): tar.add(path) for path in files(folder)}
        except FileNotFoundError:
            raise InputError(
                f"{folder} was removed meanwhile, as by an erasure on another machine: run the "
                "same command again."
            ) from None
        whole = {name: stats for name, stats in added.items() if stats is not None}
        if content_digest(whole) != artifact.digest:
            damage = find_damage(artifact, folder=folder, thorough=True) or "it has changed"
            raise InputError(
                f"{folder} is damaged ({damage}), so nothing was backed up: restore it from an "
                "earlier backup, or remove the folder."
            )
        kept.add(artifact.name)
    return kept


def _add_others(tar: _Tar) -> list[str]:
    """Add all other files, and return those that changed while they were read."""
    left_out = []
    apart = {*FIRST, layout.log().name, layout.permanent().name}
    for path in _files(layout.store()):
        if path.relative_to(layout.store()).parts[0] in apart:
            continue
        try:
            added = tar.add(path)
        except FileNotFoundError:  # it was moved out of `incoming/` since
            continue
        if added is None:
            left_out.append(layout.relative(path))
    return left_out


def check(
    events: Sequence[Event], pointers: Mapping[str, Pointer | None], kept: Collection[str]
) -> dict[str, str]:
    """Return the champion of each dataset, if the store holds all that it is made of.

    Args:
        events: of the store, the oldest first.
        pointers: by dataset.
        kept: names of the artifacts.

    Raises:
        InputError: a pointer is missing or fits no event, or a champion is not whole.
    """
    champions = {}
    known = sorted({event.dataset for event in events})
    for dataset, at in pointers.items():
        if at is not None and dataset not in known:
            raise InputError(f"There is a champion of {dataset}, and no event about it.")
    for dataset in known:
        about = [event for event in events if event.dataset == dataset]
        models.check_pointer(about, dataset, there=dataset in pointers)
        champion = models.fold(about, pointers.get(dataset), dataset).champion
        if champion is None:
            continue
        parts = (champion.model, *(str(champion.about[part]) for part in models.KEPT))
        for name in parts:
            if name not in kept:
                raise InputError(
                    f"The champion of {dataset} is not whole, {name} is missing: restore it from "
                    "an earlier backup."
                )
        champions[dataset] = champion.model
    return champions
