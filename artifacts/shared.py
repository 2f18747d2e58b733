"""Files of artifacts in the remote, and what this machine knows of them.

    <prefix>/artifacts/<kind>/<SHA-256>/<path>    the files
    <prefix>/artifacts/<kind>/<SHA-256>.json      their index, written last: {path: [SHA-256, size]}

The digest of an artifact is the one of its index, so an index proves itself, and a file is compared
with it as it arrives. A copy of the index below `cache/remote/` says that the remote has the
artifact. One that stays lies below `store/artifacts/`, even if the cache has it too: nothing that
makes room looks there.
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
    raise _index_is_damaged(name)


def _index_is_damaged(name: str) -> RemoteDamageError:
    return RemoteDamageError(f"The index of {name[:-56]} in the remote is damaged.")


def _is_entry(entry: tuple[Any, Any]) -> bool:
    path, about = entry
    parts = PurePosixPath(path).parts
    inside = bool(parts) and not path.startswith("/") and ".." not in parts and "\\" not in path
    known = isinstance(about, list | tuple) and [type(each) for each in about] == [str, int]
    return inside and path.isprintable() and len(path) < LONGEST and known


def place_of(*, permanent: bool) -> str:
    """Return below which name the remote has artifacts: those that stay, or the others."""
    return "store/artifacts" if permanent else "artifacts"


def can_come(name: str) -> bool:
    """Return whether the artifact is known to lie in a remote that may answer."""
    there = remote.current()
    if there is None or there.is_away:
        return False
    return any(_note(there, name, permanent=stays).exists() for stays in (False, True))


def index_of(name: str, *, permanent: bool = False) -> Index | None:
    """Return which files the artifact has in the remote; None if it is not there.

    Args:
        name: of the artifact.
        permanent: look where it stays.

    Raises:
        InputError: the remote does not answer, or its index is damaged.
    """
    there = remote.current()
    if there is None:
        return None
    with suppress(OSError, ValueError, RemoteDamageError):
        known = _note(there, name, permanent=permanent).read_text(encoding="utf-8")
        return parse_index(name, json.loads(known))
    content = there.get(f"{place_of(permanent=permanent)}/{name}.json")
    if content is None:
        return None
    try:
        index = parse_index(name, _json(content))
    except RemoteDamageError:
        raise _lost(there, name, ["its index"]) if permanent else _index_is_damaged(name) from None
    note(name, index, permanent=permanent)
    return index


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def note(name: str, index: Index, *, permanent: bool = False) -> None:
    """Note that the remote has the artifact."""
    if there := remote.current():
        write_atomically(_note(there, name, permanent=permanent), json.dumps(index))


def is_kept(name: str) -> bool:
    """Return whether it is noted that the artifact stays in the remote."""
    there = remote.current()
    return there is not None and _note(there, name, permanent=True).exists()


def forget(name: str, *, permanent: bool = False) -> None:
    """Note that nothing is known of the artifact in the remote."""
    if there := remote.current():
        _note(there, name, permanent=permanent).unlink(missing_ok=True)


def forget_all() -> None:
    """Note that nothing is known of any artifact in the remote, but of those that stay."""
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


def _note(there: Remote, name: str, *, permanent: bool = False) -> Path:
    return there.folder / place_of(permanent=permanent) / f"{name}.json"


def _damaged(there: Remote, name: str) -> Path:
    return there.folder / "damaged" / name


def download(
    name: str, index: Index, folder: Path, *, permanent: bool = False
) -> dict[str, FileStats]:
    """Write the files of an artifact into the folder, each compared with the index as it arrives.

    Args:
        name: of the artifact.
        index: what its files are.
        folder: to write into.
        permanent: take them from where it stays.

    Returns:
        The stats of the files.

    Raises:
        RemoteAwayError: the remote does not answer.
        RemoteDamageError: files are missing or damaged there. Those of an artifact that can be
            computed are not asked for again until somebody writes them anew, so that the next run
            computes it.
    """
    there = remote.current()
    assert there is not None  # noqa: S101 - whoever has an index has a remote
    place = f"{place_of(permanent=permanent)}/{name}"
    try:
        compared = _in_parallel(_download, there, place, index, folder)
        bad = sorted(path for path, fits in compared if not fits)
    except RemoteAwayError as error:
        remedy = "run the same command again when it answers"
        if not permanent:
            remedy += ", or with --refresh to compute it here"
        raise RemoteAwayError(f"{error} {name[:-56]} lies only there: {remedy}.") from None
    if bad:
        raise _lost(there, name, bad) if permanent else _refuse(there, name, bad)
    return {path: stats_from((folder / path).stat(), digest) for path, (digest, _) in index.items()}


def _lost(there: Remote, name: str, bad: list[str]) -> RemoteDamageError:
    """Return the error of files that nobody can compute, and of which others may rely on the rest.

    Their index stays: by it, the machines know what must be there.
    """
    forget(name, permanent=True)
    return RemoteDamageError(
        f"{_which(name, bad)} missing or damaged in {there.address}, where it stays: run "
        "`./run cache verify --remote --repair` on a machine that has it."
    )


def _which(name: str, paths: list[str]) -> str:
    return f"{', '.join(paths)} of {name[:-56]} {'is' if len(paths) == 1 else 'are'}"


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
        f"{_which(name, bad)} damaged in {there.address}: it no longer counts. Run the same "
        "command again to compute it, or `./run cache push` on a machine that has it."
    )


def _forget_what_is_gone(there: Remote) -> None:
    """Forget all that the remote no longer has, so that one run computes all of it."""
    left = names(there)
    for known in (there.folder / "artifacts").glob("*/*.json"):
        if f"{known.parent.name}/{known.stem}" not in left:
            known.unlink(missing_ok=True)


def names(there: Remote, *, permanent: bool = False) -> set[str]:
    """Return the names of the artifacts that the remote has whole."""
    place = place_of(permanent=permanent)
    return {name for each in there.find(place) if (name := name_of(each.name, place))}


def name_of(index: str, place: str) -> str | None:
    """Return the name of the artifact of which an object is the index; None if it is none."""
    name = index.removeprefix(f"{place}/").removesuffix(".json")
    fits = index == f"{place}/{name}.json" and layout.ARTIFACT_NAME.fullmatch(name)
    return name if fits else None


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


def _download(there: Remote, place: str, path: str, about: tuple[str, int], folder: Path) -> bool:
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    return there.download(f"{place}/{path}", file) == about[0]


def upload(
    name: str,
    folder: Path,
    index: Index,
    before_index: Callable[[], None] = lambda: None,
    *,
    permanent: bool = False,
    anew: bool = False,
) -> None:
    """Write the files of an artifact to the remote, and then its index; nothing if it has that.

    Args:
        name: of the artifact.
        folder: that its files are in.
        index: what they are.
        before_index: is called when the files are there; where it raises, they are removed.
        permanent: write them where it stays.
        anew: write them over those that are there.

    Raises:
        InputError: the remote does not answer, or refuses; or what `before_index` raises.
    """
    there = remote.current()
    if there is None:
        return
    place = f"{place_of(permanent=permanent)}/{name}"
    # Whatever is noted here: another machine may have removed it since.
    if anew or there.get(f"{place}.json") is None:
        for _ in _in_parallel(_upload, there, place, index, folder):
            pass
        try:
            before_index()
        except InputError:
            if there.get(f"{place}.json") is None:  # else another machine wrote it too
                there.delete([f"{place}/{path}" for path in index])
            raise
        there.put(f"{place}.json", json.dumps(index).encode())
    note(name, index, permanent=permanent)
    if not permanent:
        _damaged(there, name).unlink(missing_ok=True)


def _upload(there: Remote, place: str, path: str, _: tuple[str, int], folder: Path) -> bool:
    there.upload(f"{place}/{path}", folder / path)
    return True


def _in_parallel(
    move: Any, there: Remote, place: str, index: Index, folder: Path
) -> Iterable[tuple[str, bool]]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        jobs = {
            path: pool.submit(move, there, place, path, about, folder)
            for path, about in index.items()
        }
        return [(path, job.result()) for path, job in jobs.items()]
