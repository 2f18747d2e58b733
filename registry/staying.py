"""What stays in the remote: the artifacts that `data/store` rests on, and the names of batches.

    <prefix>/store/artifacts/<kind>/<SHA-256>    says that the artifact stays
    <prefix>/store/coming/<kind>/<SHA-256>       says that it will, while it is written
    <prefix>/store/names/<SHA-256>.jsonl         names of the files of a batch
    <prefix>/store/clearing                      is there while an erasure clears the remote

Only an erasure removes any of them.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from artifacts import layout, remote, shared, upkeep
from artifacts.artifact import Artifact, fetch, find_damage, stats_of
from artifacts.errors import InputError
from artifacts.files import write_atomically
from artifacts.remote import Remote, RemoteAwayError, RemoteError
from registry import erasures

_MARKS, _COMING, _NAMES = "store/artifacts", "store/coming", "store/names"
_CLEARING = "store/clearing"
_SOME_NAMES = re.compile(
    rf"{_NAMES}/([0-9a-f]{{64}})\.jsonl"
)  # other objects there are none of ours


def push(there: Remote, events: Collection[str]) -> None:
    """Write the artifacts that stay, and the names of batches, as far as the remote lacks them.

    Args:
        there: the remote.
        events: of this machine, with the one that is written next. While rows are still to be
            erased here, a batch that none of them names stays here.
    """
    waiting = [each for each in here() if not _note(there, each.name).exists()]
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
        there.put(f"{_COMING}/{artifact.name}", b"")  # first: another machine may be clearing
        shared.upload(artifact.name, folder, shared.index_from(stats_of(folder)))
        names = _names_here(artifact.digest)
        if names.exists():
            there.put(f"{_NAMES}/{names.name}", names.read_bytes())
        there.put(f"{_MARKS}/{artifact.name}", b"")
        if artifact.kind == erasures.BATCHES:  # which no mark kept until then
            shared.upload(artifact.name, folder, shared.index_from(stats_of(folder)))
        _write_note(there, artifact.name)
        with suppress(RemoteError):  # of a user who may remove nothing
            there.delete([f"{_COMING}/{artifact.name}"])


def _is_named(artifact: Artifact, events: Iterable[str]) -> bool:
    return any(artifact.digest in text for text in events)


def push_again(there: Remote) -> None:
    """Let the next `push` write what the remote lost."""
    whole = shared.names(there) & names(there)
    for artifact in here():
        if artifact.name not in whole:
            _note(there, artifact.name).unlink(missing_ok=True)


def bring(there: Remote, gone: Collection[str]) -> None:
    """Bring the artifacts that stay, and the names of batches, as far as they are not here.

    Args:
        there: the remote.
        gone: names of the artifacts that erasures replaced.
    """
    for name in sorted(names(there) - set(gone)):
        kind, _, digest = name.partition("/")
        if not (layout.permanent() / name).is_dir():
            fetch(Artifact(kind=kind, digest=digest, size=0), permanent=True)
        if not (layout.permanent() / name).is_dir():
            raise InputError(
                f"{name[:-56]} is not whole in {there.address}, and the log rests on it: run "
                "`./run cache push` on a machine that has it."
            )
        _write_note(there, name)
    for found in filter(None, (_SOME_NAMES.fullmatch(each.name) for each in there.find(_NAMES))):
        file = _names_here(found[1])
        if not file.exists() and f"{erasures.BATCHES}/{found[1]}" not in gone:
            write_atomically(file, _text(there, found[0]))


def read(there: Remote, name: str) -> bytes:
    """Return the content of an object that was listed.

    Raises:
        InputError: it is no longer there.
    """
    content = there.get(name)
    if content is None:
        raise InputError(f"{name} in {there.address} has been removed.")
    return content


def _text(there: Remote, name: str) -> str:
    try:
        return read(there, name).decode()
    except UnicodeDecodeError:
        raise InputError(f"{name} in {there.address} is damaged: it is no text.") from None


def everywhere(there: Remote) -> set[str]:
    """Return the names of the artifacts that stay, also those that no event names yet."""
    coming = {
        name
        for name in _marked(there, _COMING)  # first: what ceases to be is then among the others
        if not name.startswith(f"{erasures.BATCHES}/")  # of a machine that is lost, it may be rows
    }
    found = {artifact.name for artifact in here()} | names(there) | coming
    return found - erasures.replaced_here()


def names(there: Remote) -> set[str]:
    """Return the names of the artifacts of which the remote says that they stay."""
    return _marked(there, _MARKS)


def _marked(there: Remote, place: str) -> set[str]:
    found = (each.name.removeprefix(f"{place}/") for each in there.find(place))
    return {name for name in found if layout.ARTIFACT_NAME.fullmatch(name)}


def here() -> Iterator[Artifact]:
    """Yield the artifacts that stay on this machine."""
    for kind in layout.kinds(layout.permanent()):
        for folder in sorted((layout.permanent() / kind).iterdir()):
            if layout.SHA_256.fullmatch(folder.name):
                yield Artifact(kind=kind, digest=folder.name, size=0)


def remove(artifacts: Iterable[Artifact]) -> None:
    """Remove artifacts that stayed from the remote, as an erasure wants it."""
    if (there := remote.current()) is None:
        return
    for artifact in artifacts:
        files = [each.name for each in there.find(f"artifacts/{artifact.name}")]
        about = [
            f"{_MARKS}/{artifact.name}",
            f"{_COMING}/{artifact.name}",
            f"artifacts/{artifact.name}.json",
            f"{_NAMES}/{artifact.digest}.jsonl",
        ]
        there.delete([*about, *files])
        shared.forget(artifact.name)
        _note(there, artifact.name).unlink(missing_ok=True)


def begin_clearing() -> None:
    """Note that an erasure is about to clear the remote: whoever finds the note finishes it.

    Raises:
        RemoteAwayError: the remote does not answer.
    """
    if there := remote.current():
        try:
            there.put(_CLEARING, b"")
        except RemoteAwayError as error:
            raise nothing_decided(error) from None
        write_atomically(_unfinished(there), "")


def nothing_decided(error: RemoteAwayError) -> RemoteAwayError:
    """Return the error of a decision that needs the remote."""
    return RemoteAwayError(
        f"{error} Machines share data/store there, so nothing was decided: run the same command "
        "again when it answers."
    )


def is_clearing(there: Remote) -> bool:
    """Return whether an erasure, of any machine, has not finished clearing the remote."""
    return there.get(_CLEARING) is not None


def may_be_clearing(there: Remote) -> bool:
    """Return whether an erasure of this machine has not, or another machine did it; asks nobody."""
    return _unfinished(there).exists()


def clear() -> None:
    """Remove from the remote all that can be computed again, and the note of `begin_clearing`."""
    if there := remote.current():
        upkeep.clear(lambda: everywhere(there))
        there.delete([_CLEARING])
        forget_clearing(there)


def forget_clearing(there: Remote) -> None:
    """Note that no erasure of this machine is to be finished."""
    _unfinished(there).unlink(missing_ok=True)


def _unfinished(there: Remote) -> Path:
    return there.folder / "clearing"


def _names_here(digest: str) -> Path:
    return layout.store() / "names" / f"{digest}.jsonl"


def _write_note(there: Remote, name: str) -> None:
    """Note that the remote has the artifact, and that it stays."""
    write_atomically(_note(there, name), "")


def _note(there: Remote, name: str) -> Path:
    return there.folder / "kept" / name
