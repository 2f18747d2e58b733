"""Upkeep of the remote: write and bring everything, look for damage, and make room."""

import json
import os
from collections import defaultdict
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from artifacts import layout, records, remote, shared, sharing
from artifacts.artifact import Artifact, find_damage
from artifacts.errors import ArgumentError
from artifacts.files import explain_write_errors
from artifacts.locks import lock
from artifacts.records import Record
from artifacts.remote import Remote, Stat
from artifacts.shared import Index, RemoteDamageError

#: What is younger stays: its record, or what names it, may be on its way.
GRACE = timedelta(days=1)
OLDEST = timedelta(days=365_000)  # older is nothing; a date before it would be none


def named() -> Remote:
    """Return the remote.

    Raises:
        ArgumentError: there is none.
    """
    there = remote.current()
    if there is None:
        raise ArgumentError(f"There is no remote: set {remote.ADDRESS} to s3://bucket/prefix.")
    return there


def push() -> tuple[int, int]:
    """Write all records that the remote lacks, and what it lost of their artifacts.

    Returns:
        How many records were written, and how many artifacts.

    Raises:
        InputError: the remote does not answer, or refuses.
    """
    there = named()
    with explain_write_errors(layout.root()):
        present = {each.name for each in there.find("records")}
        indexes = shared.names(there)
        written, mended = 0, 0
        for record in records.everything():
            artifact = record.artifact
            if not artifact.folder.is_dir() or find_damage(artifact):
                continue
            if artifact.name not in indexes:
                shared.forget(artifact.name)
                sharing.push_artifact(artifact)
                indexes.add(artifact.name)
                mended += 1
            if f"records/{record.key}" not in present:
                sharing.push_record(there, record)
                written += 1
    return written, mended


def pull() -> int:
    """Bring all records that are not here, with the files of their artifacts.

    Returns:
        How many records were brought.

    Raises:
        InputError: the remote does not answer, or files are damaged there.
    """
    there, brought = named(), 0
    for each in there.find("records"):
        key = each.name.removeprefix("records/")
        if not _is_key(key):
            continue
        with explain_write_errors(layout.root()), lock(key):
            if isinstance(records.read(key), str):
                brought += sharing.pull(key) is not None
                there.check_answers()  # a pull only warns where it does not
        if isinstance(record := records.read(key), Record):
            _ = record.artifact.path
    return brought


def _is_key(key: str) -> bool:
    step, _, rest = key.partition("/")
    group, _, digest = rest.partition("/")
    names = layout.GROUP.fullmatch(step) and layout.GROUP.fullmatch(group)
    return bool(names and layout.SHA_256.fullmatch(digest))


def verify(*, repair: bool = False) -> list[dict[str, Any]]:
    """Bring everything that the remote holds once, and say what is damaged.

    Args:
        repair: write damaged artifacts anew from what is intact here; of others, no record counts
            any more.

    Returns:
        `what` and `problem` of each, and `left`: whether it stays damaged after a repair.

    Raises:
        InputError: the remote does not answer, or refuses.
    """
    there = named()
    damaged: dict[str, str] = {}
    with explain_write_errors(layout.root()):
        found = []
        for permanent in (False, True):
            for name in sorted(shared.names(there, permanent=permanent)):
                place = f"{shared.place_of(permanent=permanent)}/{name}"
                if problem := _find_damage(there, name, place):
                    damaged[name] = problem
                    mended = repair and _mend(there, name, permanent=permanent)
                    left = permanent and not mended  # the rest can be computed
                    found.append({"what": place, "problem": problem, "left": left})
        return found + list(_verify_records(there, damaged, repair=repair))


def _verify_records(
    there: Remote, damaged: Collection[str], *, repair: bool
) -> Iterator[dict[str, Any]]:
    """Yield the records that are damaged, or lead to nothing but what is known to be damaged."""
    whole = shared.names(there)
    for each in there.find("records"):
        key = each.name.removeprefix("records/")
        if not _is_key(key):
            continue
        try:
            read = sharing.read_remote(there, key)
        except RemoteDamageError as error:
            yield {"what": each.name, "problem": str(error), "left": False}
            if repair:
                there.delete([each.name])
            continue
        if read is None or read[0].name in whole:
            continue
        if read[0].name not in damaged:
            yield {"what": each.name, "problem": f"{read[0]} is not there", "left": False}
        if repair and not _mend(there, read[0].name):
            there.delete([each.name])


def _find_damage(there: Remote, name: str, place: str) -> str | None:
    if (content := there.get(f"{place}.json")) is None:
        return None  # it was removed since it was listed
    try:
        index = shared.parse_index(name, json.loads(content))
    except (ValueError, RemoteDamageError):
        return "its index is damaged"
    bad = [path for path, fits in _compared(there, place, index) if not fits]
    return f"{', '.join(bad)} {'is' if len(bad) == 1 else 'are'} damaged" if bad else None


def _compared(there: Remote, place: str, index: Index) -> Iterator[tuple[str, bool]]:
    for path, (digest, _) in index.items():
        yield path, there.download(f"{place}/{path}", Path(os.devnull)) == digest


def _mend(there: Remote, name: str, *, permanent: bool = False) -> bool:
    """Write an artifact anew; return whether it is intact here.

    The index of one that stays is left where nobody here can do that: by it, others know of it.
    """
    kind, _, digest = name.partition("/")
    artifact = Artifact(kind=kind, digest=digest, size=0)
    folder = layout.permanent() / name if permanent else artifact.folder
    intact = folder.is_dir() and not find_damage(artifact, folder=folder)
    if intact:  # over what is there: meanwhile, nothing that others rely on is missing
        sharing.push_anew(name, folder, permanent=permanent)
    elif not permanent:
        there.delete([f"artifacts/{name}.json"])
        shared.forget(name)
    return intact


def prune(*, older_than: timedelta, dry_run: bool = False) -> tuple[int, int, int]:
    """Remove what was written to the remote before that time, and what no record names.

    Artifacts that stay, and what is younger than a day, are left alone. Machines that still have
    what was removed go on with their own copy.

    Args:
        older_than: age of a record by the clock of the remote, a day or more.
        dry_run: only say.

    Returns:
        Number of records, of files, and their bytes.

    Raises:
        ArgumentError: the time is shorter than a day.
        InputError: the remote does not answer, or refuses.
    """
    if older_than < GRACE:
        raise ArgumentError("--older-than must be a day or more: others may be writing now.")
    there = named()
    now = _clock(there)
    written_before = now - min(older_than, OLDEST)
    going: list[Stat] = []
    staying: list[Stat] = []
    for each in there.find("records"):
        (going if each.modified < written_before else staying).append(each)
    with ThreadPoolExecutor(shared.AT_ONCE) as pool:
        needed = set[str]().union(*pool.map(lambda each: _named_by(there, each), staying))
    by_artifact: dict[str, list[Stat]] = defaultdict(list)
    for each in there.find("artifacts"):
        by_artifact["/".join(each.name.removesuffix(".json").split("/")[1:3])].append(each)
    gone = [
        name
        for name, there_are in by_artifact.items()
        if name not in needed and max(one.modified for one in there_are) < now - GRACE
    ]
    files = [each for name in gone for each in by_artifact[name]]
    files += [each for each in there.find("checkpoints") if each.modified < written_before]
    files += [each for each in _unfinished(there) if each.modified < now - GRACE]
    if not dry_run:
        there.delete(each.name for each in going)  # records first: none leads to nothing
        there.delete(
            each.name for each in sorted(files, key=lambda each: each.name[-5:] != ".json")
        )
        for name in gone:
            shared.forget(name)
    return len(going), len(files), sum(each.size for each in files)


def _named_by(there: Remote, record: Stat) -> set[str]:
    """Return the name of the artifact that the record names; nothing where it is damaged."""
    try:
        found = sharing.read_remote(there, record.name.removeprefix("records/"))
    except RemoteDamageError:
        return set()
    return {found[0].name} if found else set()


def _clock(there: Remote) -> datetime:
    """Return the time by the clock of the remote."""
    there.put("clock", b"")
    return max(each.modified for each in there.find("") if each.name == "clock")


def _unfinished(there: Remote) -> Iterator[Stat]:
    """Yield files of artifacts that are to stay, and whose index was not written yet, or never."""
    place = shared.place_of(permanent=True)
    found = list(there.find(place))
    whole = {name for each in found if (name := shared.name_of(each.name, place))}
    for each in found:
        name = "/".join(each.name.removesuffix(".json").split("/")[2:4])
        if layout.ARTIFACT_NAME.fullmatch(name) and name not in whole:  # else it is none of ours
            yield each


def clear() -> bool:
    """Remove everything that can be computed again, as an erasure wants it.

    Of what stays, only files without an index go, a day old: whoever wrote them is lost.

    Returns:
        Whether there are such files that are younger.

    Raises:
        InputError: the remote does not answer, or refuses.
    """
    if (there := remote.current()) is None:
        return False
    places = ("records", "checkpoints", "artifacts")
    going = [each.name for place in places for each in there.find(place)]
    unfinished = list(_unfinished(there))
    old = _clock(there) - GRACE if unfinished else None
    left = [each.name for each in unfinished if old and each.modified < old]
    there.delete([*going, *left])
    shared.forget_all()
    return len(left) < len(unfinished)
