"""What lies in store/incoming/<dataset>/, and which of it was looked at. It imports no Prefect."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from artifacts import layout
from artifacts.files import write_atomically

#: Size and modification time in nanoseconds of each file, by its path below the folder.
Stamps = dict[str, tuple[int, int]]


def folder_of(dataset: str) -> Path:
    """Return the folder in which new data of the dataset is put."""
    return layout.store() / "incoming" / dataset


def remember(dataset: str, stamps: Stamps) -> None:
    """Note that files were looked at: they are read again when they change."""
    write_atomically(_path(dataset), json.dumps(read_seen(dataset) | stamps))


def stamps_of(path: Path, top: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield the stamps of a file, of a folder's files, or of a link itself that leads out."""
    if leads_out(path, top):
        stat = path.lstat()
        yield path.name, (stat.st_size, stat.st_mtime_ns)
        return
    files = [path] if path.is_file() else (p for p in path.rglob("*") if p.is_file())
    for file in files:
        if leads_out(file, top):
            continue
        with suppress(FileNotFoundError):  # it is being moved
            stat = file.stat()
            yield file.relative_to(top).as_posix(), (stat.st_size, stat.st_mtime_ns)


def leads_out(path: Path, top: Path) -> bool:
    """Return whether it is a link to what lies outside: nothing of that is looked at."""
    return path.is_symlink() and not path.resolve().is_relative_to(top.resolve())


def read_seen(dataset: str) -> Stamps:
    """Return what was looked at; nothing where that is lost, which costs a reading."""
    try:
        content = json.loads(_path(dataset).read_text(encoding="utf-8"))
        return {key: (int(size), int(modified)) for key, (size, modified) in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def waiting_since(dataset: str) -> float | None:
    """Return when the first file came in that was not looked at; None where all were.

    That is the time of its last change on this disk: a copy may keep the date of the original.
    """
    top, seen = folder_of(dataset), read_seen(dataset)
    came = []
    for name, stamp in stamps_of(top, top) if top.is_dir() else ():
        hidden = any(part.startswith(".") for part in Path(name).parts)
        if not hidden and seen.get(name) != stamp:
            with suppress(FileNotFoundError):
                came.append((top / name).stat().st_ctime)
    return min(came, default=None)


def _path(dataset: str) -> Path:
    return layout.store() / "seen" / f"{dataset}.json"
