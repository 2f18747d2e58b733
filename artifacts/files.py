"""Files: atomic writes, digests, and one sentence for a disk that cannot be written."""

import errno
import hashlib
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from artifacts.errors import InputError


class FileStats(NamedTuple):
    """What a file looked like when it was last hashed.

    Fields:
        size: in bytes.
        modified: modification time in nanoseconds.
        inode: of the file system.
        sha256: digest of the bytes, in hexadecimal.
    """

    size: int
    modified: int
    inode: int
    sha256: str


def file_stats(folder: Path, known: Mapping[str, FileStats]) -> dict[str, FileStats]:
    """Return the stats of all files below the folder, by relative path.

    A file is hashed only where size, time or inode differ from the `known` ones.
    """
    found = {}
    for path in files(folder):
        now = stats_from(path.stat(), "")
        name = path.relative_to(folder).as_posix()
        before = known.get(name)
        found[name] = (
            before if before and before[:3] == now[:3] else now._replace(sha256=sha256(path))
        )
    return found


def stats_from(stat: os.stat_result, digest: str) -> FileStats:
    """Return the stats of a file with that SHA-256."""
    return FileStats(stat.st_size, stat.st_mtime_ns, stat.st_ino, digest)


def files(folder: Path) -> list[Path]:
    """Return all files below the folder, in a fixed order."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def folder_size(folder: Path) -> int:
    """Return the bytes of all files below the folder."""
    return sum(path.stat().st_size for path in files(folder))


def modified_at(path: Path) -> float | None:
    """Return when the file was last written; None if it is gone, as another run may remove it."""
    with suppress(FileNotFoundError):
        return path.stat().st_mtime
    return None


def sha256(path: Path) -> str:
    """Return the SHA-256 of the file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_digest(stats: Mapping[str, FileStats]) -> str:
    """Return the digest of an artifact: the SHA-256 of the sorted lines `path sha256 size`."""
    lines = (f"{name} {file.sha256} {file.size}\n" for name, file in sorted(stats.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Replace the file by the whole text, or leave what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = f"{os.getpid()}-{threading.get_ident()}"
    temporary = path.with_name(f".{path.name}.{writer}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        with suppress(OSError):  # on a disk that became read-only; the first error says why
            temporary.unlink(missing_ok=True)


@contextmanager
def explain_write_errors(
    place: Path, instead: str = "another folder with --data"
) -> Iterator[None]:
    """Turn the errors of a full, read-only or unfit disk into one sentence about `place`.

    Args:
        place: that is written to.
        instead: what to choose in its place.

    Raises:
        InputError: the block failed with one of them.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _WRITE_ERRORS or not _concerns(error, place):
            raise
        remedy = "Free some space there, or choose" if error.errno in _FULL else "Choose"
        raise InputError(
            f"Cannot write to {place}: {os.strerror(error.errno)}. {remedy} {instead}."
        ) from error


def _concerns(error: OSError, place: Path) -> bool:
    """Return whether the error is about a path above or below the place, or names none."""
    named = [name for name in (error.filename, error.filename2) if isinstance(name, str | Path)]
    paths = [Path(name).absolute() for name in named]
    return not paths or any(p.is_relative_to(place) or place.is_relative_to(p) for p in paths)


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_WRITE_ERRORS = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EEXIST,
    errno.EFBIG,
    errno.ENAMETOOLONG,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}
