"""What stays in the remote: the artifacts that `data/store` rests on, and the names of batches.

    <prefix>/store/artifacts/<kind>/<SHA-256>/…      files of an artifact that stays
    <prefix>/store/artifacts/<kind>/<SHA-256>.json   what these are, written after them
    <prefix>/store/names/<SHA-256>.jsonl             names of the files of a batch
    <prefix>/store/clearing/000042                   event 42, an erasure, has yet to clear the rest

Only an erasure removes any of them.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from pathlib import Path

from artifacts import layout, remote, shared, upkeep
from artifacts.artifact import Artifact, fetch, find_damage, stats_of
from artifacts.errors import InputError
from artifacts.files import write_atomically
from artifacts.remote import Remote, RemoteAwayError
from artifacts.shared import RemoteDamageError
from registry import erasures

_NAMES, _CLEARING = "store/names", "store/clearing"
_SOME_NAMES = re.compile(
    rf"{_NAMES}/([0-9a-f]{{64}})\.jsonl"
)  # other objects there are none of ours


def push(there: Remote, events: Collection[str], look_out: Callable[[], None]) -> None:
    """Write the artifacts that stay, and the names of batches, as far as the remote lacks them.

    Args:
        there: the remote.
        events: of this machine, with the one that is written next. While rows are still to be
            erased here, a batch that none of them names stays here.
        look_out: is called when the files of one are there, and before it counts: raises an
            InputError where it must not.
    """
    waiting = [each for each in here() if not shared.is_kept(each.name)]
    if not waiting:
        return
    gone, held_back = erasures.replaced(events), bool(erasures.left())
    for artifact in waiting:
        if artifact.name in gone:
            continue
        if held_back and artifact.kind == erasures.BATCHES and not _is_named(artifact, events):
            continue
        folder = layout.permanent() / artifact.name
        if damage := find_damage(artifact, folder=folder):
            raise InputError(f"{folder} cannot be shared ({damage}): restore it from a backup.")
        files = shared.index_from(stats_of(folder))
        last = partial(_push_names, there, artifact.digest, look_out)
        shared.upload(artifact.name, folder, files, last, permanent=True)


def _push_names(there: Remote, digest: str, look_out: Callable[[], None]) -> None:
    look_out()
    names = _names_here(digest)
    if names.exists():
        there.put(f"{_NAMES}/{names.name}", names.read_bytes())


def _is_named(artifact: Artifact, events: Iterable[str]) -> bool:
    return any(artifact.digest in text for text in events)


def push_again(there: Remote) -> None:
    """Let the next `push` write what the remote lost."""
    whole = names(there)
    for artifact in here():
        if artifact.name not in whole:
            shared.forget(artifact.name, permanent=True)


def bring(there: Remote, gone: Collection[str]) -> list[RemoteDamageError]:
    """Bring the artifacts that stay, and the names of batches, as far as they are not here.

    Args:
        there: the remote.
        gone: names of the artifacts that erasures replaced.

    Returns:
        Errors about what is damaged there, or was removed meanwhile. It is missing here, and asked
        for again until it comes: who needs it says so, and the rest goes on without.

    Raises:
        InputError: the remote does not answer, or refuses; or an object is no text.
    """
    problems = []
    for name in sorted(names(there) - set(gone)):
        kind, _, digest = name.partition("/")
        if not (layout.permanent() / name).is_dir():
            try:
                fetch(Artifact(kind=kind, digest=digest, size=0), permanent=True)
            except RemoteDamageError as error:
                problems.append(error)
                continue
            if not (layout.permanent() / name).is_dir():
                problems.append(_removed(there, name[:-56]))
        elif not shared.is_kept(name):
            shared.note(name, {}, permanent=True)
    for found in filter(None, (_SOME_NAMES.fullmatch(each.name) for each in there.find(_NAMES))):
        file = _names_here(found[1])
        if not file.exists() and f"{erasures.BATCHES}/{found[1]}" not in gone:
            write_atomically(file, _text(there, found[0]))
    if problems:
        write_atomically(_incomplete(there), "")
    else:
        _incomplete(there).unlink(missing_ok=True)
    return problems


def is_incomplete(there: Remote) -> bool:
    """Return whether something that stays could not be brought."""
    return _incomplete(there).exists()


def _incomplete(there: Remote) -> Path:
    return there.folder / "incomplete"


def read(there: Remote, name: str) -> bytes:
    """Return the content of an object that was listed.

    Raises:
        RemoteDamageError: it is no longer there.
    """
    content = there.get(name)
    if content is None:
        raise _removed(there, name)
    return content


def _removed(there: Remote, name: str) -> RemoteDamageError:
    return RemoteDamageError(
        f"{name} was removed from {there.address} meanwhile: run the same command again."
    )


def _text(there: Remote, name: str) -> str:
    try:
        return read(there, name).decode()
    except UnicodeDecodeError:
        raise InputError(f"{name} in {there.address} is damaged: it is no text.") from None


def names(there: Remote) -> set[str]:
    """Return the names of the artifacts that stay and are whole in the remote."""
    return shared.names(there, permanent=True)


def names_there() -> set[str]:
    """Return `names` of the current remote; nothing where there is none."""
    there = remote.current()
    return set() if there is None else names(there)


def here() -> Iterator[Artifact]:
    """Yield the artifacts that stay on this machine."""
    for kind in layout.kinds(layout.permanent()):
        for folder in sorted((layout.permanent() / kind).iterdir()):
            if layout.SHA_256.fullmatch(folder.name):
                yield Artifact(kind=kind, digest=folder.name, size=0)


def remove(artifacts: Iterable[Artifact], *, named: bool = True) -> None:
    """Remove artifacts that stayed from the remote, as an erasure wants it.

    Args:
        artifacts: to be removed.
        named: an event says that they are gone, so that whoever finds the index after an
            interruption removes it. Else the index goes first: without it, nobody brings the rest.
    """
    if (there := remote.current()) is None:
        return
    place = shared.place_of(permanent=True)
    for artifact in artifacts:
        files = [each.name for each in there.find(f"{place}/{artifact.name}")]
        index = [f"{_NAMES}/{artifact.digest}.jsonl", f"{place}/{artifact.name}.json"]
        for names in (files, index) if named else (index, files):
            there.delete(names)
        shared.forget(artifact.name, permanent=True)


def begin_clearing(there: Remote, number: int) -> None:
    """Note that the erasure that will be this event is to clear the remote.

    Whoever finds the note after the event finishes it.
    """
    there.put(f"{_CLEARING}/{number:06d}", b"")
    write_atomically(_unfinished(there), "")


def nothing_decided(error: RemoteAwayError) -> RemoteAwayError:
    """Return the error of a decision that needs the remote."""
    return RemoteAwayError(
        f"{error} Machines share data/store there, so nothing was decided: run the same command "
        "again when it answers."
    )


def is_clearing(there: Remote) -> bool:
    """Return whether an erasure in the log here, of any machine, has yet to clear the remote."""
    return bool(_to_be_cleared(there))


def _to_be_cleared(there: Remote) -> list[str]:
    """Return the notes of `begin_clearing` whose events are here."""
    return [
        each.name
        for each in there.find(_CLEARING)
        if (layout.log() / f"{each.name.rpartition('/')[2]}.json").exists()
    ]


def may_be_clearing(there: Remote) -> bool:
    """Return whether an erasure of this machine has not, or another machine did it; asks nobody."""
    return _unfinished(there).exists()


def clear() -> bool:
    """Remove from the remote all that can be computed again, and the notes of `begin_clearing`.

    Returns:
        Whether another machine is writing a batch, or the like, or was when it was lost.
    """
    if (there := remote.current()) is None:
        return False
    notes = _to_be_cleared(there)  # first: one that comes meanwhile may want to clear more
    coming = upkeep.clear()
    there.delete(notes)
    forget_clearing(there)
    return coming


def forget_clearing(there: Remote) -> None:
    """Note that no erasure of this machine is to be finished."""
    _unfinished(there).unlink(missing_ok=True)


def _unfinished(there: Remote) -> Path:
    return there.folder / "clearing"


def _names_here(digest: str) -> Path:
    return layout.store() / "names" / f"{digest}.jsonl"
