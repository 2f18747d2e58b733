"""What data a dataset has now: its batches, corrections and erasures, folded from the log."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from artifacts.artifact import Artifact, find_damage
from artifacts.errors import ArgumentError, InputError
from registry import log
from registry.log import Event

BATCHES, PATCHES = "batches", "patches"  # kinds of artifacts that stay
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Labelled images that came in together.

    Fields:
        name: what commands call it.
        digest: of its artifact.
        content: digest of its rows, whatever file they came in.
        number, at: of its event, which gives the order of the batches.
        about: what its event says besides: rows, refused, report.
        retracted: why it does not count; None while it counts.
        check: what the look at it found: outcome and reasons; None before.
        accepted: why it is trained on although it was found broken.
        former: digests that it had before rows of it were erased, or it was lost.
    """

    name: str
    digest: str
    content: str
    number: int
    at: str
    about: dict[str, Any]
    retracted: str | None = None
    check: dict[str, Any] | None = None
    accepted: str | None = None
    former: tuple[str, ...] = ()

    @property
    def artifact(self) -> Artifact:
        """Its artifact, as far as the log knows it."""
        size = int(self.about.get("size", 0))
        return Artifact(kind=BATCHES, digest=self.digest, size=size, metadata={"name": self.name})

    @property
    def broken(self) -> bool:
        """Whether it was found broken, and nobody accepted it."""
        found = (self.check or {}).get("outcome")
        return found == "broken" and self.accepted is None


@dataclass(frozen=True, kw_only=True)
class Data:
    """What holds now.

    Fields:
        batches: all that came in, the retracted ones included, in order.
        patches: digests of the corrections, in order.
        erased: digests of the rows that must never come back, in hexadecimal.
    """

    batches: tuple[Batch, ...] = ()
    patches: tuple[str, ...] = ()
    erased: frozenset[str] = field(default_factory=frozenset)

    @property
    def live(self) -> tuple[Batch, ...]:
        """The batches that count."""
        return tuple(batch for batch in self.batches if batch.retracted is None)

    def batch(self, name: str) -> Batch:
        """Return the batch of that name.

        Raises:
            ArgumentError: there is none; the sentence lists those that there are.
        """
        for batch in self.batches:
            if name in {batch.name, batch.digest}:
                return batch
        known = ", ".join(batch.name for batch in self.batches)
        raise ArgumentError(
            f"There is no batch {name!r}: "
            + (f"choose one of {known}." if known else "no data has come in yet.")
        )


class DataChangedError(InputError):
    """Another machine decided about the same data first."""

    def __init__(self, dataset: str) -> None:
        super().__init__(
            f"Another machine took in data of {dataset}, or erased rows of it, meanwhile: run the "
            "same command again."
        )


def check_name(name: str) -> None:
    """Check that a batch can have this name.

    Raises:
        ArgumentError: it cannot.
    """
    if not NAME.fullmatch(name):
        raise ArgumentError(
            f"--batch is {name!r}: use letters, digits, dots, dashes and underscores, 80 at most."
        )


def patch(digest: str) -> Artifact:
    """Return the artifact of corrections."""
    return Artifact(kind=PATCHES, digest=digest, size=0)


def corrections(patches: Iterable[Artifact]) -> dict[str, int]:
    """Return the label of each corrected row, by digest; -1 for one that does not count.

    Args:
        patches: in order: a later one counts.

    Raises:
        InputError: one is damaged.
    """
    labels: dict[str, int] = {}
    for each in patches:
        if damage := find_damage(each):
            raise InputError(f"The corrections {each} are damaged ({damage}): restore a backup.")
        labels |= each.read_json("patch.json")["labels"]
    return labels


def problems() -> list[dict[str, str]]:
    """Say what is damaged or missing of what the log names, as `cache verify` does."""
    try:
        names = log.datasets()
    except InputError as error:
        return [{"what": "store/log", "problem": str(error)}]
    found = []
    for now in map(current, names):
        there = (*(batch.artifact for batch in now.batches), *map(patch, now.patches))
        for artifact in there:
            problem = f"{artifact} is missing: ingest its files again, or restore a backup"
            try:
                is_there = artifact.path.is_dir()  # a damaged one is found with all that stays
            except InputError as error:
                is_there, problem = False, str(error)
            if not is_there:
                found.append({"what": f"store/artifacts/{artifact.name}", "problem": problem})
    return found


def current(dataset: str) -> Data:
    """Return the data of a dataset as of now."""
    return fold(log.events(dataset))


def fold(events: list[Event]) -> Data:
    """Return what holds after these events, the oldest first."""
    batches: dict[str, Batch] = {}  # by digest
    patches: dict[str, None] = {}
    erased: set[str] = set()
    for event in events:
        about = event.about
        digest = str(about.get("batch", ""))
        match event.kind:
            case "ingest":
                batches[digest] = Batch(
                    name=about["name"],
                    digest=digest,
                    content=about["content"],
                    number=event.number,
                    at=event.at,
                    about=about,
                )
            case "check" if digest in batches:
                batches[digest] = replace(batches[digest], check=about)
            case "retract" | "restore" | "accept" if found := _find(batches, digest):
                batches[found] = replace(batches[found], **_change(event))
            case "correct":
                patches.pop(about["patch"], None)  # one that is made again counts as the last
                patches[about["patch"]] = None
            case "erase" | "mend":
                erased |= set(about.get("rows", ()))
                for old, new in about["batches"].items():
                    batches = _renamed(batches, old, new)
    return Data(batches=tuple(batches.values()), patches=tuple(patches), erased=frozenset(erased))


def _find(batches: dict[str, Batch], digest: str) -> str | None:
    """Return the digest of the batch that is or was called so.

    Another machine may have erased rows of it after it was read, and before the decision.
    """
    if digest in batches:
        return digest
    return next((now for now, batch in batches.items() if digest in batch.former), None)


def _change(event: Event) -> dict[str, Any]:
    match event.kind:
        case "retract":
            return {"retracted": event.about["why"]}
        case "restore":
            return {"retracted": None}
        case _:
            return {"accepted": event.about["why"]}


def _renewed(batch: Batch, new: dict[str, Any]) -> Batch:
    """Return what an erasure left of a batch."""
    about = batch.about | new["about"]
    former = (*batch.former, batch.digest)
    return replace(batch, digest=new["batch"], content=new["content"], about=about, former=former)


def _renamed(batches: dict[str, Batch], old: str, new: dict[str, Any]) -> dict[str, Batch]:
    """Put what an erasure left of a batch in its place.

    Of two batches that it made equal, the first that counts stays.
    """
    renamed: dict[str, Batch] = {}
    for digest, before in batches.items():
        batch = _renewed(before, new) if digest == old else before
        there = renamed.get(batch.digest)
        if there is None or (there.retracted is not None and batch.retracted is None):
            renamed.pop(batch.digest, None)  # so that the order stays that of the numbers
            renamed[batch.digest] = batch
    return renamed
