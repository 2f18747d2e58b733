"""Files of artifacts in the remote, and what this machine knows of them.

    <prefix>/artifacts/<kind>/<SHA-256>/<path>    the files
    <prefix>/artifacts/<kind>/<SHA-256>.json      their index, written last: {path: [SHA-256, size]}

The digest of an artifact is the one of its index, so an index proves itself, and a file is compared
with it as it arrives. A copy of the index below `cache/remote/` says that the remote has the
artifact.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from artifacts import layout, remote
from artifacts.errors import InputError
from artifacts.files import FileStats, content_digest, stats_from, write_atomically
from artifacts.remote import Remote, RemoteAwayError

AT_ONCE = 8  # requests for files
LONGEST = 1024  # bytes of a name in a bucket

#: SHA-256 and size of each file, by its path in the artifact.
Index = dict[str, tuple[str, int]]


class RemoteDamageError(InputError):
    """What lies in the remote is not what was written there."""


def index_from(stats: Mapping[str, FileStats]) -> Index:
    """Return the index of files with these stats."""
    return {path: (file.sha256, file.size) for path, file in stats.items()}


def parse_index(name: str, value: Any) -> Index:
    """Return the index of the artifact, if the value is it.

    Args:
        name: of the artifact: `<kind>/<SHA-256>`.
        value: read from JSON.

    Raises:
        RemoteDamageError: it is not.
    """
    if isinstance(value, dict) and all(map(_is_entry, value.items())):
        index: Index = {path: (str(digest), int(size)) for path, (digest, size) in value.items()}
        stats = {p: FileStats(size, 0, 0, digest) for p, (digest, size) in index.items()}
        if content_digest(stats) == name.partition("/")[2]:
            return index
    raise RemoteDamageError(f"The index of {name} in the remote is damaged.")


def _is_entry(entry: tuple[Any, Any]) -> bool:
    path, about = entry
    parts = PurePosixPath(path).parts
    inside = bool(parts) and not path.startswith("/") and ".." not in parts and "\\" not in path
    known = isinstance(about, list | tuple) and [type(each) for each in about] == [str, int]
    return inside and path.isprintable() and len(path) < LONGEST and known


def can_come(name: str) -> bool:
    """Return whether the artifact is known to lie in a remote that may answer."""
    there = remote.current()
    return there is not None and not there.is_away and _note(there, name).exists()


def index_of(name: str) -> Index | None:
    """Return which files the artifact has in the remote; None if it is not there.

    Raises:
        InputError: the remote does not answer, or its index is damaged.
    """
    there = remote.current()
    if there is None:
        return None
    with suppress(OSError, ValueError, RemoteDamageError):
        return parse_index(name, json.loads(_note(there, name).read_text(encoding="utf-8")))
    content = there.get(f"artifacts/{name}.json")
    if content is None:
        return None
    index = parse_index(name, _json(content))
    note(name, index)
    return index


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def note(name: str, index: Index) -> None:
    """Note that the remote has the artifact."""
    if there := remote.current():
        write_atomically(_note(there, name), json.dumps(index))


def forget(name: str) -> None:
    """Note that nothing is known of the artifact in the remote."""
    if there := remote.current():
        _note(there, name).unlink(missing_ok=True)


def forget_all() -> None:
    """Note that nothing is known of any artifact in the remote."""
    if there := remote.current():
        shutil.rmtree(there.folder / "artifacts", ignore_errors=True)


def is_damaged(name: str) -> bool:
    """Return whether the artifact was found damaged in the remote, and not written anew since.

    Raises:
        InputError: the remote does not answer, or refuses.
    """
    there = remote.current()
    if there is None or not _damaged(there, name).exists():
        return False
    if there.get(f"artifacts/{name}.json") is None:
        return True
    _damaged(there, name).unlink(missing_ok=True)
    return False


def _note(there: Remote, name: str) -> Path:
    return there.folder / "artifacts" / f"{name}.json"


def _damaged(there: Remote, name: str) -> Path:
    return there.folder / "damaged" / name


def download(name: str, index: Index, folder: Path) -> dict[str, FileStats]:
    """Write the files of an artifact into the folder, each compared with the index as it arrives.

    Returns:
        The stats of the files.

    Raises:
        RemoteAwayError: the remote does not answer.
        RemoteDamageError: files are missing or damaged there. They are not asked for again until
            somebody writes them anew, so that the next run computes the artifact.
    """
    there = remote.current()
    assert there is not None  # noqa: S101 - whoever has an index has a remote
    try:
        bad = sorted(
            path for path, fits in _in_parallel(_download, there, name, index, folder) if not fits
        )
    except RemoteAwayError as error:
        raise RemoteAwayError(
            f"{error} {name[:-56]} lies only there: run the same command again when it answers, or "
            "with --refresh to compute it here."
        ) from None
    if bad:
        raise _refuse(there, name, bad)
    return {path: stats_from((folder / path).stat(), digest) for path, (digest, _) in index.items()}


def _refuse(there: Remote, name: str, bad: list[str]) -> RemoteDamageError:
    write_atomically(_damaged(there, name), "")
    forget(name)
    if there.get(f"artifacts/{name}.json") is None:
        _forget_what_is_gone(there)
        return RemoteDamageError(
            f"{name[:-56]} is no longer in {there.address}: run the same command again to compute "
            "it."
        )
    there.delete([f"artifacts/{name}.json"])
    return RemoteDamageError(
        f"{', '.join(bad)} of {name[:-56]} {'is' if len(bad) == 1 else 'are'} damaged in "
        f"{there.address}: it no longer counts. Run the same command again to compute it, or "
        "`./run cache push` on a machine that has it."
    )


def _forget_what_is_gone(there: Remote) -> None:
    """Forget all that the remote no longer has, so that one run computes all of it."""
    left = names(there)
    for known in (there.folder / "artifacts").glob("*/*.json"):
        if f"{known.parent.name}/{known.stem}" not in left:
            known.unlink(missing_ok=True)


def names(there: Remote) -> set[str]:
    """Return the names of the artifacts that the remote has whole."""
    found = (layout.ARTIFACT_NAME.fullmatch(each.name[10:-5]) for each in there.find("artifacts"))
    return {match[0] for match in found if match}


def read(name: str, path: str) -> bytes | None:
    """Return the content of one file of an artifact in the remote; None if it is not there.

    Raises:
        RemoteAwayError: the remote does not answer.
        RemoteDamageError: as `download`.
    """
    there = remote.current()
    if there is None or not (index := index_of(name)) or path not in index:
        return None
    return _read(there, name, path, index[path][0])


@lru_cache(maxsize=32)
def _read(there: Remote, name: str, path: str, digest: str) -> bytes:
    content = there.get(f"artifacts/{name}/{path}")
    if content is None or hashlib.sha256(content).hexdigest() != digest:
        raise _refuse(there, name, [path])
    return content


def _download(there: Remote, name: str, path: str, about: tuple[str, int], folder: Path) -> bool:
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    return there.download(f"artifacts/{name}/{path}", file) == about[0]


def upload(
    name: str, folder: Path, index: Index, look_out: Callable[[], None] = lambda: None
) -> None:
    """Write the files of an artifact to the remote, and then its index; nothing if it has that.

    Args:
        name: of the artifact.
        folder: that its files are in.
        index: what they are.
        look_out: is called before the index is written; where it raises, the files are removed.

    Raises:
        InputError: the remote does not answer, or refuses; or what `look_out` raises.
    """
    there = remote.current()
    if there is None:
        return
    # Whatever is noted here: another machine may have removed it since.
    if there.get(f"artifacts/{name}.json") is None:
        for _ in _in_parallel(_upload, there, name, index, folder):
            pass
        try:
            look_out()
        except InputError:
            if there.get(f"artifacts/{name}.json") is None:  # else another machine wrote it too
                there.delete([f"artifacts/{name}/{path}" for path in index])
            raise
        there.put(f"artifacts/{name}.json", json.dumps(index).encode())
    note(name, index)
    _damaged(there, name).unlink(missing_ok=True)


def _upload(there: Remote, name: str, path: str, _: tuple[str, int], folder: Path) -> bool:
    there.upload(f"artifacts/{name}/{path}", folder / path)
    return True


def _in_parallel(
    move: Any, there: Remote, name: str, index: Index, folder: Path
) -> Iterable[tuple[str, bool]]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        jobs = {
            path: pool.submit(move, there, name, path, about, folder)
            for path, about in index.items()
        }
        return [(path, job.result()) for path, job in jobs.items()]
