"""The store in the remote: one log, and one champion of a dataset, for all machines.

    <prefix>/store/log/000042.json                     an event, created once: who creates it has it
    <prefix>/store/registry/<dataset>/champion.json    the pointer, replaced with If-Match

Each machine has a copy of all of that in its `data/store`, which is brought up to date before the
log is read. The remote is written first: without it nothing is decided.
"""

import hashlib
import json
import logging
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from artifacts import layout, remote, shared
from artifacts.artifact import Artifact
from artifacts.errors import InputError
from artifacts.files import explain_write_errors, write_atomically
from artifacts.locks import Lock, lock
from artifacts.remote import Remote, RemoteAwayError, RemoteError
from artifacts.shared import RemoteDamageError
from artifacts.sharing import before_sharing
from registry import erasures, formats, staying

FRESH_SECONDS = 30.0  # for which what was brought counts as up to date; who decides asks again
_LOG, _POINTERS = "store/log", "store/registry"
#: Names of events and pointers; other objects there are none of ours.
_AN_EVENT = re.compile(rf"{_LOG}/(\d{{6}}|[1-9]\d{{6,}})\.json")
_A_POINTER = re.compile(rf"{_POINTERS}/({layout.GROUP.pattern})/champion\.json")
_FIELDS = {"kind": str, "dataset": str, "at": str, "about": dict}  # of an event, in any format
_DAMAGED = (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError)
_log = logging.getLogger(__name__)
_warned: set[str] = set()  # of what this process has said that it is damaged
_brought: dict[tuple[str, Path], float] = {}  # when, by remote and data root


@dataclass
class Known:
    """What is equal here and in the remote.

    Fields:
        event: the last event of which that is known.
        digest: of its content.
        pointers: ETag of each pointer, and digest of its content, by dataset.
    """

    event: int = 0
    digest: str = ""
    pointers: dict[str, tuple[str, str]] = field(default_factory=dict)


def _updating() -> Lock:
    """Return the lock under which this machine reads and writes the store in the remote."""
    return lock("remote-store")


def taking_numbers() -> AbstractContextManager[object]:
    """Return the lock for `take`: what was taken in the remote is here before it is released."""
    return nullcontext() if remote.current() is None else _updating()


def bring(*, now: bool = False) -> None:
    """Bring the store of this machine up to date; what is only here is written to the remote.

    Args:
        now: also if that was done some seconds ago, and not if the remote is away.

    Raises:
        RemoteAwayError: with `now`, the remote does not answer; else a warning says so.
        InputError: the log here and the one in the remote contradict each other.
    """
    with explain_write_errors(layout.root()):
        if there := remote.current():
            _bring_unless_fresh(there, now=now)
        erasures.warn_of_left()


def _bring_unless_fresh(there: Remote, *, now: bool) -> None:
    place = (there.address, layout.root())
    if not now and time.monotonic() - _brought.get(place, float("-inf")) < FRESH_SECONDS:
        return
    try:
        with _updating():
            _bring(there)
    except RemoteAwayError as error:
        if now:
            raise staying.nothing_decided(error) from None
        remote.warn(error, "What is here counts until it does.")
    _brought[place] = time.monotonic()


def expire() -> None:
    """Let the next read bring the store up to date, as after a wait for another machine."""
    _brought.clear()


def _watch(writes: bool) -> None:
    """Learn of erasures before anything is taken from the remote, or what is here written there.

    Raises:
        InputError: to be written, and rows that were erased elsewhere are not erased here yet.
    """
    if not writes:
        bring()
    elif there := remote.current():
        with explain_write_errors(layout.root()), _updating():
            _bring(there)
        erasures.check_none_left()


before_sharing(_watch)


def _bring(there: Remote) -> None:
    known = _read_known(there)
    here = _numbers()
    if not _is_known(known):
        known = Known()  # another store was restored, or the notes are gone
    # Pointers first: an event that one of these leads to is then among those that are listed.
    pointers = {
        match[1]: each.tag
        for each in there.find(_POINTERS)
        if (match := _A_POINTER.fullmatch(each.name))
    }
    changed = {
        dataset: found
        for dataset, tag in pointers.items()
        if tag != known.pointers.get(dataset, ("", ""))[0]
        and (found := there.get_with_tag(f"{_POINTERS}/{dataset}/champion.json"))
    }
    after = f"{_LOG}/{known.event:06d}.json" if known.event else None
    theirs = _numbers_there(there, after)
    _check_common(there, theirs)
    if new := [number for number in theirs if number not in here]:
        _bring_events(there, new)
    elif staying.is_incomplete(there):
        _warn(staying.bring(there, erasures.replaced_here()))
    if ours := [number for number in here if number > max([known.event, *theirs])]:
        _push_events(there, ours)
    if new or ours or staying.may_be_clearing(there):
        _finish_erasures(there, ours)
    known.event = max([0, *_numbers()])
    known.digest = _digest_of_event(known.event)
    for dataset, (content, tag) in changed.items():
        if _is_pointer(content) and (dataset in known.pointers or _counts(dataset, content)):
            write_atomically(_pointer(dataset), content.decode())
        known.pointers[dataset] = (tag, _digest(content))
    for dataset, content in _pointers_here():
        if _digest(content) != known.pointers.get(dataset, ("", ""))[1]:
            _settle(there, known, dataset, content)
    _write_known(there, known)


def _settle(there: Remote, known: Known, dataset: str, content: bytes) -> None:
    """Let the pointer here count, or the one of the remote: that which leads further."""
    found = there.get_with_tag(f"{_POINTERS}/{dataset}/champion.json")
    if found is None or not _is_pointer(found[0]) or not _counts(dataset, found[0]):
        _replace(there, known, dataset, content)
    else:
        write_atomically(_pointer(dataset), found[0].decode())
        known.pointers[dataset] = (found[1], _digest(found[0]))


def _push_events(there: Remote, numbers: list[int]) -> None:
    """Write events of this machine, after what they lead to."""
    staying.push(there, list(_texts()), partial(_check_free, there, numbers[0]))
    for number in numbers:
        if not there.create(f"{_LOG}/{number:06d}.json", _event(number).read_bytes()):
            raise _contradiction(there, number)


def _is_known(known: Known) -> bool:
    """Return whether the last event that is equal in both is still what it was."""
    return bool(known.event) and known.digest == _digest_of_event(known.event)


def _check_common(there: Remote, theirs: list[int]) -> None:
    """Check that the last of the events that both have is the same."""
    both = [number for number in theirs if _event(number).exists()]
    if both and there.get(f"{_LOG}/{max(both):06d}.json") != _event(max(both)).read_bytes():
        raise _contradiction(there, max(both))


def _contradiction(there: Remote, number: int) -> InputError:
    return InputError(
        f"Event {number} of {layout.log()} is another one in {there.address}: something was "
        f"decided here without it. Unset {remote.ADDRESS}, or choose another folder with --data, "
        "and repeat there what was decided here."
    )


def _bring_events(there: Remote, numbers: list[int]) -> None:
    """Write events of other machines, after what they lead to."""
    if not (layout.store() / formats.FILE).exists():
        formats.write(layout.store())
    follow = range(max(_numbers(), default=0) + 1, max(numbers) + 1)
    missing = next((number for number in follow if number not in numbers), None)
    if missing is not None:
        raise InputError(
            f"Event {missing} is not in {there.address}, but later ones are: run `./run cache "
            "push` on a machine that has it."
        )
    events = {number: _get_event(there, number) for number in numbers}
    gone = erasures.replaced([*_texts(), *events.values()])
    problems = staying.bring(there, gone)
    if problems and (newer := _numbers_there(there, f"{_LOG}/{max(numbers):06d}.json")):
        _bring_events(there, numbers + newer)  # an erasure among these may have removed it
        return
    _warn(problems)
    concerned = erasures.may_concern()
    layout.log().mkdir(parents=True, exist_ok=True)
    for number, text in events.items():
        if event := erasures.parse(text):  # first: whoever is killed here follows it again
            shared.forget_all()  # what it removed from the remote
            for name in erasures.replaced([text]):
                shared.forget(name, permanent=True)
            erasures.follow(number, event, note=concerned)
        write_atomically(_event(number), text)


def _warn(problems: Iterable[RemoteDamageError]) -> None:
    for problem in problems:
        if str(problem) not in _warned:
            _warned.add(str(problem))
            _log.warning("%s", problem)


def _get_event(there: Remote, number: int) -> str:
    """Return an event of the remote; one that is none is not written here, where it would stay.

    Raises:
        InputError: it is none.
    """
    content = staying.read(there, f"{_LOG}/{number:06d}.json")
    with suppress(ValueError, TypeError, AttributeError, RecursionError):
        text = content.decode()
        event = json.loads(text, parse_constant=int)  # which refuses Infinity and NaN
        whole = all(type(event.get(name)) is kind for name, kind in _FIELDS.items())
        if whole and (event["kind"] != "erase" or erasures.parse(text)):
            return text
    raise InputError(
        f"Event {number} of {there.address} is damaged: put back the file of another machine that "
        f"has it, data/store/log/{number:06d}.json."
    )


def _finish_erasures(there: Remote, ours: Iterable[int]) -> None:
    """Remove from the remote what an erasure left there that was interrupted, or knew no remote.

    Args:
        there: the remote.
        ours: numbers of the events that were written there just now.
    """
    left = sorted(staying.names(there) & erasures.replaced_here())
    mine = (erasures.parse(_event(number).read_text(encoding="utf-8")) for number in ours)
    if not left and not any(mine) and not staying.is_clearing(there):
        staying.forget_clearing(there)  # another machine finished it
        return
    with suppress(RemoteError):  # who may only read leaves it to others
        digests = (name.partition("/")[2] for name in left)
        gone = (Artifact(kind=erasures.BATCHES, digest=digest, size=0) for digest in digests)
        staying.remove(gone)
        staying.clear()


def take(number: int, content: bytes) -> bool:
    """Take the number for an event with that content, under the lock `taking_numbers`.

    Returns:
        Whether it was free: if not, the events of other machines are here now.

    Raises:
        RemoteAwayError: the remote does not answer.
        InputError: it refuses, or an artifact is damaged.
    """
    if (there := remote.current()) is None:
        return True
    try:
        known = _read_known(there)
        if number == 1 or (_is_known(known) and known.event == number - 1):
            with suppress(_TakenError):
                free = partial(_check_free, there, number)
                staying.push(there, [*_texts(), content.decode()], free)
                if erasures.parse(content.decode()):
                    staying.begin_clearing(there, number)
                if there.create(f"{_LOG}/{number:06d}.json", content):
                    _write_known(there, replace(known, event=number, digest=_digest(content)))
                    return True
        _bring(there)
    except RemoteAwayError as error:
        raise staying.nothing_decided(error) from None
    return False


class _TakenError(InputError):
    """Another machine has taken the number."""


def _check_free(there: Remote, number: int) -> None:
    """Check that no event of that number came while files were written, such as an erasure."""
    if there.get(f"{_LOG}/{number:06d}.json") is not None:
        raise _TakenError(
            f"Another machine decided something meanwhile in {there.address}: run the same command "
            "again."
        )


def push() -> None:
    """Write what the remote lost of the store: events, artifacts that stay, and pointers.

    Raises:
        InputError: the remote does not answer, or refuses; or an artifact is damaged here.
    """
    if (there := remote.current()) is None:
        return
    with explain_write_errors(layout.root()), _updating():
        staying.push_again(there)
        theirs = set(_numbers_there(there, None))
        if not theirs <= set(_numbers()):  # such as an erasure that has just come
            _bring(there)
            erasures.check_none_left()
        lost = [number for number in _numbers() if number not in theirs]
        if lost:
            _push_events(there, lost)
        else:
            after = max([0, *theirs]) + 1
            staying.push(there, list(_texts()), partial(_check_free, there, after))
        for dataset, content in _pointers_here():
            there.create(f"{_POINTERS}/{dataset}/champion.json", content)


def replace_pointer(dataset: str, text: str) -> bool:
    """Replace a pointer in the remote; return whether nobody else did since it was brought.

    Raises:
        RemoteAwayError: the remote does not answer.
    """
    if (there := remote.current()) is None:
        return True
    try:
        with _updating():
            known = _read_known(there)
            replaced = _replace(there, known, dataset, text.encode())
            _write_known(there, known)
            return replaced
    except RemoteAwayError as error:
        raise staying.nothing_decided(error) from None


def _replace(there: Remote, known: Known, dataset: str, content: bytes) -> bool:
    tag, _ = known.pointers.get(dataset, (None, ""))
    new = there.replace(f"{_POINTERS}/{dataset}/champion.json", content, tag)
    if new is not None:
        known.pointers[dataset] = (new, _digest(content))
    return new is not None


def _pointers_here() -> Iterator[tuple[str, bytes]]:
    for path in sorted((layout.store() / "registry").glob("*/champion.json")):
        yield path.parent.name, path.read_bytes()


def _pointer(dataset: str) -> Path:
    return layout.store() / "registry" / dataset / "champion.json"


def _event(number: int) -> Path:
    return layout.log() / f"{number:06d}.json"


def _numbers() -> list[int]:
    """Return the numbers of the events that are here, in order."""
    paths = layout.log().glob("*.json")
    return sorted(int(path.stem) for path in paths if path.stem.isdigit())


def _texts() -> Iterator[str]:
    """Return the events that are here, as they were written."""
    return (_event(number).read_text(encoding="utf-8", errors="replace") for number in _numbers())


def _numbers_there(there: Remote, after: str | None) -> list[int]:
    """Return the numbers of the events that the remote has after the one of that name, in order."""
    listed = (_AN_EVENT.fullmatch(each.name) for each in there.find(_LOG, after=after))
    return [int(match[1]) for match in listed if match]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _digest_of_event(number: int) -> str:
    try:
        return _digest(_event(number).read_bytes())
    except FileNotFoundError:
        return ""


def _is_pointer(content: bytes) -> bool:
    """Return whether the content is that of a pointer, be it to nothing."""
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        found = json.loads(content)
        event, model = found["event"], found["model"]
        leads = type(event) is int and layout.ARTIFACT_NAME.fullmatch(model)
        return bool(leads) or event is model is None
    return False


def _event_of(content: bytes) -> int:
    """Return the number of the event that a pointer with this content leads to; 0 for none."""
    with suppress(*_DAMAGED):
        return int(json.loads(content)["event"] or 0)
    return 0


def _counts(dataset: str, content: bytes) -> bool:
    """Return whether the pointer with this content counts, and not the one that is here.

    The one that leads further does; promotions that were taken back lead to the one before.
    """
    try:
        here = _pointer(dataset).read_bytes()
    except FileNotFoundError:
        return True
    undone = set(_undone())
    return _last_done(_event_of(content), undone) >= _last_done(_event_of(here), undone)


def _undone() -> Iterator[int]:
    """Yield the numbers of the promotions that were taken back."""
    for text in _texts():
        with suppress(*_DAMAGED):  # the log says what is damaged
            if "undo" in text and (event := json.loads(text))["kind"] == "undo":
                yield int(event["about"]["promotion"])


def _last_done(number: int, undone: set[int]) -> int:
    """Return the number of the promotion, or of the last one before it that was not taken back."""
    while number in undone:
        undone = undone - {number}  # of a damaged log, no event counts twice
        try:
            number = int(json.loads(_event(number).read_bytes())["about"]["previous"] or 0)
        except _DAMAGED:
            return 0
    return number


def _read_known(there: Remote) -> Known:
    with suppress(OSError, ValueError, TypeError, AttributeError):
        found: Any = json.loads((there.folder / "store.json").read_text(encoding="utf-8"))
        pointers = {
            name: (str(tag), str(digest)) for name, (tag, digest) in found["pointers"].items()
        }
        return Known(int(found["event"]), str(found["digest"]), pointers)
    return Known()


def _write_known(there: Remote, known: Known) -> None:
    write_atomically(there.folder / "store.json", json.dumps(asdict(known)))
