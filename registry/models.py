"""Which model of a dataset is in use, and what was decided about its models.

Events of the log: `look` (a verdict of the gate), `promote`, `rollback`, `block`, `freeze` and
`thaw`. Promotions and rollbacks form a chain: each names the one before it, and the pointer names
the last. Those outside the chain did not happen, nor did those that `undo` took back: where the
pointer still names one, it leads to the one before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from artifacts.artifact import Artifact
from artifacts.errors import ArgumentError, InputError
from registry import log, pointer
from registry.log import Event
from registry.pointer import Pointer

MODELS = "models"  # kind of their artifacts
CHAMPION, FORMER, REFUSED, BLOCKED = "champion", "former", "refused", "blocked"
KEPT = ("card", "export", "manifest")  # beside the model of a promotion
_SAID = ("model", "previous", "forced", "summary", "train_key", "why")
_CHAIN = ("promote", "rollback")
_JUDGED = ("challenger", "champion", "judged_against", "train_key", "asked", "test_sets", "changed")
#: What the events of each kind say; other kinds are read elsewhere.
_NEEDED = {
    "promote": (*KEPT, *_SAID),
    "rollback": (*KEPT, *_SAID, "left"),
    "look": (*_JUDGED, "verdict", "summary"),
    "block": ("model", "why"),
    "freeze": ("why",),
    "thaw": ("why",),
    "undo": ("promotion",),
}
_OBJECTS = ("summary", "verdict")


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """A model that came into use.

    Fields:
        number, at: of its event.
        model: name of its artifact.
        rolled_back: whether it came back by a rollback.
        about: what its event says besides: previous, why, card, export, manifest, summary.
    """

    number: int
    at: str
    model: str
    rolled_back: bool
    about: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Models:
    """What holds now.

    Fields:
        history: the completed promotions and rollbacks, the oldest first.
        looks: events of verdicts, the oldest first.
        blocked: why a model must not be promoted, by its name.
        frozen: why none is promoted at present; None when promotion is open.
    """

    history: tuple[Promotion, ...] = ()
    looks: tuple[Event, ...] = ()
    blocked: Mapping[str, str] = field(default_factory=dict)
    frozen: str | None = None

    @property
    def champion(self) -> Promotion | None:
        """The promotion that counts, if there was any."""
        return self.history[-1] if self.history else None

    @property
    def previous(self) -> Promotion | None:
        """The promotion to which a rollback goes: of the champion before, unless it is blocked."""
        stack: list[Promotion] = []
        for one in self.history:
            if one.rolled_back:  # what came after it is left
                while stack and stack[-1].model != one.model:
                    stack.pop()
                stack = stack[:-1]
            stack.append(one)
        return next((one for one in reversed(stack[:-1]) if one.model not in self.blocked), None)

    def live_at(self, moment: datetime) -> Promotion | None:
        """Return the promotion that counted at that time; None before the first.

        Args:
            moment: with a time zone.
        """
        found = None
        for one, at in zip(self.history, running_times(self.history), strict=True):
            if at <= moment:
                found = one
        return found

    def find(self, name: str) -> str:
        """Return the full name of a model from its name or the start of its digest.

        Raises:
            ArgumentError: no model, or several, are called that; the sentence lists those known.
        """
        known = dict.fromkeys([*(o.model for o in self.history), *map(model_of, self.looks)])
        start = name.removeprefix(f"{MODELS}/")
        found = [model for model in known if start and model.startswith(f"{MODELS}/{start}")]
        if len(found) == 1:
            return found[0]
        listed = ", ".join(str(artifact_of(model)) for model in known)
        raise ArgumentError(
            f"{'Several models begin' if found else 'No model begins'} with {name!r}: "
            + (f"choose one of {listed}." if known else "none was judged or promoted yet.")
        )

    def promotion_of(self, model: str) -> Promotion | None:
        """Return the last promotion of a model; None if it never was one."""
        return next((one for one in reversed(self.history) if one.model == model), None)

    def status(self, model: str) -> str:
        """Return what a model is now: champion, blocked, former or refused."""
        if self.champion and self.champion.model == model:
            return CHAMPION
        if model in self.blocked:
            return BLOCKED
        return FORMER if self.promotion_of(model) else REFUSED


def model_of(look: Event) -> str:
    """Return the name of the model that a verdict is about."""
    return str(look.about["challenger"])


def running_times(events: Sequence[Any]) -> list[datetime]:
    """Return the time of each event, none before the one in front, as where a clock went back."""
    times: list[datetime] = []
    for event in events:
        at = datetime.fromisoformat(event.at)
        times.append(max(at, times[-1]) if times else at)
    return times


def artifact_of(name: str) -> Artifact:
    """Return the artifact of that name, such as `models/<SHA-256>`."""
    kind, _, digest = name.partition("/")
    return Artifact(kind=kind, digest=digest, size=0)


def current(dataset: str) -> Models:
    """Return what holds now for the models of a dataset.

    Raises:
        InputError: pointer or log are damaged.
    """
    events = log.events(dataset)
    check_pointer(events, dataset, there=pointer.is_there(dataset))
    return fold(events, pointer.read(dataset), dataset)


def check_pointer(events: Sequence[Event], dataset: str, *, there: bool) -> None:
    """Check that the pointer of a dataset is there if models were promoted.

    Raises:
        InputError: it was lost.
    """
    if not there and any(event.kind in _CHAIN for event in events):
        raise InputError(
            f"{pointer.path_of(dataset)} is missing, and models were promoted: restore it from a "
            "backup."
        )


def fold(events: Sequence[Event], at: Pointer | None, dataset: str) -> Models:
    """Return what holds after these events, the oldest first.

    Raises:
        InputError: the pointer does not fit the events.
    """
    blocked: dict[str, str] = {}
    frozen: str | None = None
    history = _chain(events, at, dataset)
    completed = {one.number for one in history}
    for event in events:
        _check_event(event)
        match event.kind:
            case "block":
                blocked[event.about["model"]] = event.about["why"]
            case "promote" | "rollback" if event.number in completed:
                if event.about["forced"]:
                    blocked.pop(event.about["model"], None)
                if event.kind == "rollback":
                    blocked[event.about["left"]] = event.about["why"]
            case "freeze":
                frozen = event.about["why"]
            case "thaw":
                frozen = None
    looks = tuple(event for event in events if event.kind == "look")
    return Models(history=history, looks=looks, blocked=blocked, frozen=frozen)


def _chain(events: Sequence[Event], at: Pointer | None, dataset: str) -> tuple[Promotion, ...]:
    by_number = {event.number: event for event in events if event.kind in _CHAIN}
    undone = [event.about.get("promotion") for event in events if event.kind == "undo"]
    found: list[Promotion] = []
    number = at.event if at else None
    while number is not None:
        event = by_number.pop(number, None)  # of a damaged log, no event counts twice
        expected = at.model if at and number == at.event else None
        if event is None or expected not in {None, event.about.get("model")}:
            raise InputError(
                f"{pointer.path_of(dataset)} or the log is damaged: event {number} is no "
                f"promotion of {dataset}'s {expected or 'model'}. Restore both from one backup."
            )
        if number not in undone:
            found.append(
                Promotion(
                    number=number,
                    at=event.at,
                    model=event.about["model"],
                    rolled_back=event.kind == "rollback",
                    about=event.about,
                )
            )
        number = event.about["previous"]
    return tuple(reversed(found))


def _check_event(event: Event) -> None:
    missing = [name for name in _NEEDED.get(event.kind, ()) if name not in event.about]
    texts = [name for name in _OBJECTS if not isinstance(event.about.get(name, {}), Mapping)]
    try:
        has_zone = datetime.fromisoformat(event.at).tzinfo is not None
    except ValueError:
        has_zone = False
    if missing or texts or not has_zone:
        what = f"its time is {event.at!r}"
        if missing or texts:
            what = f"it has no {missing[0]}" if missing else f"its {texts[0]} is no object"
        raise InputError(
            f"Event {event.number} of the log is damaged ({what}): restore it from a backup."
        )


def refusal(known: Models, model: str) -> str | None:
    """Say why a model must not be promoted without force; None if nothing was decided."""
    if model in known.blocked:
        return f"{artifact_of(model)} is blocked: {known.blocked[model]}."
    if known.frozen is not None:
        return f"Promotion is frozen: {known.frozen}."
    return None
