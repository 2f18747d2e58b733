"""Records in the remote: what one machine computed counts on all.

    <prefix>/records/<step>/<group>/<hash>    {"format", "artifact", "components", "files"}

The files of an artifact are written first and its record last, and a record is never replaced while
its artifact is whole. What could not be written is noted below `cache/remote/` and written by the
next run.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

from artifacts import keys, layout, records, remote, shared
from artifacts.artifact import Artifact, delete, find_damage, stats_of, to_json
from artifacts.errors import InputError
from artifacts.files import modified_at, write_atomically
from artifacts.keys import KeyComponents
from artifacts.locks import lock
from artifacts.records import Record
from artifacts.remote import Remote, RemoteAwayError
from artifacts.shared import Index, RemoteDamageError

FORMAT = 1
SCRATCH_SECONDS = 10.0  # between two looks at the unfinished work of a step
_log = logging.getLogger(__name__)
_watch: list[Callable[[bool], None]] = []  # what else to do before something is taken or written


def before_sharing(watch: Callable[[bool], None]) -> None:
    """Let a function be called before this machine takes anything from the remote, or writes it.

    Args:
        watch: gets whether something is to be written; raises an InputError where it may not.
    """
    _watch.append(watch)


def _look_out(*, writes: bool) -> None:
    for watch in _watch:
        watch(writes)


def pull(key: str) -> Artifact | None:
    """Let a record of the remote serve under the key, whose lock is held; None if it has none.

    The files of its artifact stay there until a step opens them. A remote that does not answer has
    none.
    """
    if (found := look(key)) is None:
        return None
    with suppress(InputError):  # whoever writes is told
        _look_out(writes=False)
    artifact, components, files = found
    if artifact.folder.is_dir() and find_damage(artifact):
        with lock("publish"):
            delete(artifact)
    records.write_components(key, components)
    records.write(key, artifact)
    shared.note(artifact.name, files)
    return artifact


def look(key: str) -> tuple[Artifact, KeyComponents, Index] | None:
    """Return what the remote has under the key, without believing anything that does not fit."""
    there = remote.current()
    if there is None:
        return None
    try:
        found = read_remote(there, key)
        return None if found is None or shared.is_damaged(found[0].name) else found
    except RemoteDamageError as error:
        remote.warn(error, "It does not count.")
    except InputError as error:
        remote.warn(error, "This run goes on with what is here.")
    return None


def read_remote(there: Remote, key: str) -> tuple[Artifact, KeyComponents, Index] | None:
    """Return artifact, key components and files that a record of the remote names; None if none is.

    Raises:
        RemoteDamageError: the record is damaged.
        InputError: the remote does not answer, or refuses.
    """
    if (content := there.get(f"records/{key}")) is None:
        return None
    with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
        value = json.loads(content)
        components = value["components"]
        plain = {n: v for n, v in components.items() if n not in keys.ANNOTATIONS}
        fits = keys.key_of(plain, key.split("/")[1]) == key and value["format"] == FORMAT
        if fits and records.is_valid(value["artifact"]):
            artifact = Artifact(**value["artifact"])
            return artifact, components, shared.parse_index(artifact.name, value["files"])
    raise RemoteDamageError(f"The record {key[:-56]} in the remote is damaged.")


def push(key: str) -> None:
    """Write the record under the key, and the files of its artifact, to the remote.

    What cannot be written now is written by the next run, and a warning says so.
    """
    if (there := remote.current()) is None:
        return
    write_atomically(_waiting(there) / key, "")
    try:
        _push(there, key)
    except InputError as error:
        remote.warn(error, "What this machine computes is written there by a later run.")


def begin() -> None:
    """Check the remote before a run, and write what earlier runs could not.

    Raises:
        RemoteError: it refuses; one that does not answer gives a warning.
    """
    there = remote.current()
    if there is None:
        return
    try:
        there.check_answers()
    except RemoteAwayError as error:
        remote.warn(error, "This run goes on with what is here.")
        return
    for key in waiting():
        push(key)


def waiting() -> list[str]:
    """Return the keys of the records that are still to be written to the remote."""
    if (there := remote.current()) is None:
        return []
    paths = sorted(_waiting(there).glob("*/*/*"))
    return [
        path.relative_to(_waiting(there)).as_posix()
        for path in paths
        if layout.SHA_256.fullmatch(path.name)
    ]


def _push(there: Remote, key: str) -> None:
    record = records.read(key)
    if isinstance(record, Record) and record.artifact.folder.is_dir():
        push_record(there, record)
    (_waiting(there) / key).unlink(missing_ok=True)


def push_record(there: Remote, record: Record) -> None:
    """Write a record, after the files of its artifact, which are here.

    Raises:
        InputError: the remote does not answer, or refuses; the artifact is damaged here; or nothing
            may be written now.
    """
    artifact, name = record.artifact, f"records/{record.key}"
    files = push_artifact(artifact)
    content = json.dumps(
        {
            "format": FORMAT,
            "artifact": to_json(artifact),
            "components": record.components(),
            "files": files,
        }
    ).encode()
    if there.create(name, content):
        return
    if (found := look(record.key)) and found[0] == artifact:
        return
    if found and there.get(f"artifacts/{found[0].name}.json") is not None:
        _log.warning(
            "%s computed %s, and another machine %s under the same key: each keeps its own.",
            record.step,
            artifact,
            found[0],
        )
        return
    there.put(name, content)  # what is there leads to nothing


def push_artifact(artifact: Artifact) -> Index:
    """Write the files of an artifact, which are here, to the remote if it lacks them; return them.

    Raises:
        InputError: as `push_record`.
    """
    _look_out(writes=True)
    if damage := find_damage(artifact):
        raise InputError(f"{artifact} is not written to the remote ({damage}).")
    return _upload(artifact.name, artifact.folder)


def push_anew(name: str, folder: Path, *, permanent: bool) -> None:
    """Write the files of an artifact, which are here, over those that are damaged in the remote.

    Args:
        name: of the artifact.
        folder: that its files are in.
        permanent: where it stays.

    Raises:
        InputError: as `push_record`.
    """
    _look_out(writes=True)
    if folder.is_dir():  # else it was erased elsewhere, as is known now
        _upload(name, folder, permanent=permanent, anew=True)


def _upload(name: str, folder: Path, **how: bool) -> Index:
    files = shared.index_from(stats_of(folder))
    # Once more after the files: what is erased elsewhere while they travel does not come to count.
    shared.upload(name, folder, files, lambda: _look_out(writes=True), **how)
    return files


def _waiting(there: Remote) -> Path:
    return there.folder / "waiting"


@contextmanager
def scratch(key: str) -> Iterator[None]:
    """Share the unfinished work of the step under this key while the block runs.

    What another machine left is brought first. A thread writes what is new every few seconds, and a
    remote that does not answer holds nothing up.
    """
    there = remote.current()
    if there is None:
        yield
        return
    _bring_scratch(there, key)
    sent, ended = _changed(key), Event()

    def send() -> None:
        nonlocal sent
        last = False
        while not last:
            last = ended.wait(SCRATCH_SECONDS)
            changed = _changed(key)
            wanted = changed is not None and changed != sent and not (last and there.is_away)
            if wanted and _send_scratch(there, key):
                sent = changed

    sender = Thread(target=send, name=f"scratch of {key}", daemon=True)
    sender.start()
    try:
        yield
    finally:
        ended.set()
        sender.join(SCRATCH_SECONDS)


def _bring_scratch(there: Remote, key: str) -> None:
    """Take what another machine wrote after this one did."""
    file, name = layout.scratch(key), f"checkpoints/{key}"
    try:
        found = there.stat(name)
        if found is None or (file.exists() and found.tag == _tag(there, key)):
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
        if there.download(name, temporary):
            temporary.replace(file)
            write_atomically(_tag_path(there, key), found.tag)
    except InputError as error:
        remote.warn(error, "The step begins with what is here.")


def _send_scratch(there: Remote, key: str) -> bool:
    """Write the unfinished work to the remote; return False to try it again."""
    try:
        _look_out(writes=True)
        tag = there.upload(f"checkpoints/{key}", layout.scratch(key))
    except RemoteAwayError:
        return False
    except (InputError, FileNotFoundError):  # it refuses; or the step has just ended
        return True
    write_atomically(_tag_path(there, key), tag)
    return True


def drop_scratch(key: str) -> None:
    """Remove the unfinished work of a finished step from the remote, if this machine wrote any."""
    there = remote.current()
    if there is not None and _tag(there, key) is not None:
        _tag_path(there, key).unlink(missing_ok=True)
        with suppress(InputError):  # a later prune of the remote removes it
            there.delete([f"checkpoints/{key}"])


def _tag_path(there: Remote, key: str) -> Path:
    return there.folder / "checkpoints" / key


def _tag(there: Remote, key: str) -> str | None:
    try:
        return _tag_path(there, key).read_text(encoding="utf-8")
    except OSError:
        return None


def _changed(key: str) -> float | None:
    return modified_at(layout.scratch(key))
