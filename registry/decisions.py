"""What changes the champion, or whether it may change; each is an event of the log."""

from contextlib import suppress
from typing import Any

from artifacts.errors import InputError
from artifacts.locks import Lock, shared_lock
from registry import log, models, pointer, sharing
from registry.log import Event
from registry.models import Models, Promotion
from registry.pointer import Pointer, PointerChangedError


class ChampionChangedError(InputError):
    """Another promotion came first."""


def changing(dataset: str) -> Lock:
    """Return the lock under which the champion changes."""
    return shared_lock(f"champion/{dataset}")


def promote(dataset: str, model: str, *, expected: int | None, **about: Any) -> Event:
    """Put a model in use whose artifacts are in place.

    Args:
        dataset: its name.
        model: name of its artifact.
        expected: number of the promotion that counted when the model was judged; None for none.
        about: what the event says besides.

    Raises:
        ChampionChangedError: another promotion came first.
        InputError: pointer or log are damaged, or the data root cannot be written.
    """
    return _change("promote", dataset, model, expected, about)


def rollback(dataset: str, model: str, *, expected: int, left: str, **about: Any) -> Event:
    """Put an earlier champion back in use, and block the one that it replaces; as `promote`."""
    return _change("rollback", dataset, model, expected, {"left": left, **about})


def _change(
    kind: str, dataset: str, model: str, expected: int | None, about: dict[str, Any]
) -> Event:
    def check(known: Models) -> None:
        if not about["forced"] and (closed := models.refusal(known, model)):
            raise InputError(f"{closed} The champion stays.")
        if _number(known.champion) != expected:
            raise _changed(dataset, known)

    def recheck(events: list[Event]) -> None:
        check(models.fold(events, pointer.read(dataset), dataset))

    with changing(dataset):
        sharing.bring(now=True)
        check(models.current(dataset))
        try:
            if not pointer.is_there(dataset):
                pointer.write(dataset, None)
            event = log.append(kind, dataset, recheck, model=model, previous=expected, **about)
            pointer.write(dataset, Pointer(event=event.number, model=model))
        except PointerChangedError:
            sharing.bring(now=True)
            raise _changed(dataset, models.current(dataset)) from None
    return event


def _number(promotion: Promotion | None) -> int | None:
    return promotion.number if promotion else None


def _changed(dataset: str, known: Models) -> ChampionChangedError:
    now = known.champion
    return ChampionChangedError(
        f"Another model of {dataset} was promoted meanwhile ({now and now.model}): the champion "
        "stays. Run the same command again."
    )


def undo(dataset: str, event: Event) -> None:
    """Take back a promotion whose run failed afterwards; nothing if another came since."""

    def recheck(events: list[Event]) -> None:
        known = models.fold(events, pointer.read(dataset), dataset)
        if _number(known.champion) != event.number:
            raise _changed(dataset, known)

    # Another promotion that came since, or that comes between event and pointer, stays.
    with changing(dataset), suppress(ChampionChangedError, PointerChangedError):
        sharing.bring(now=True)
        # First the event: with it, the pointer leads to the promotion before, wherever it is read.
        about = {"promotion": event.number, "model": event.about["model"]}
        log.append("undo", dataset, recheck, **about)
        before = models.current(dataset).champion
        to = Pointer(event=before.number, model=before.model) if before else None
        pointer.write(dataset, to)


def decide(kind: str, dataset: str, why: str, **about: Any) -> Event:
    """Write `block`, `freeze` or `thaw` into the log.

    Raises:
        ArgumentError: there is no reason.
        InputError: the data root cannot be written.
    """
    log.check_reason(why)
    return log.append(kind, dataset, why=why, **about)
