"""Alarms: what people should know of a run, in words. `automations.yaml` sends them on."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from artifacts import runs
from registry import data, models
from registry.data import Batch
from registry.models import Promotion
from tasks import history
from tasks.commands import data_command, dataset_option
from tasks.pace import SPENT

SLOW = 2.0  # times the median of earlier trainings
STALE = timedelta(weeks=4)  # of new data without a promotion


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """Something that a person should know.

    Fields:
        kind: of its event, such as `retrain.promoted`.
        what: happened, in a sentence.
        why: in sentences.
        next: the command to type next.
    """

    kind: str
    what: str
    why: str
    next: str


def of_retrain(found: Mapping[str, Any]) -> Iterator[Alarm]:
    """Yield what is to be said of a retraining that ended, given the figures of its report."""
    dataset, why = str(found["dataset"]), " ".join(found["why"])
    option = dataset_option(dataset)
    if found["outcome"] == "promoted":
        yield Alarm(
            kind="retrain.promoted",
            what=f"{dataset} has a new champion, {_short(found['champion'])}.",
            why=why,
            next=f"./run models show{option}",
        )
    elif found["outcome"] == "refused":
        model = _short(found["challenger"])
        yield Alarm(
            kind="retrain.refused",
            what=f"The gate refused {model}, a new model of {dataset}.",
            why=why,
            next=f"./run models show {model}{option}" if found["verdict"] else _retrain(found),
        )
    elif found["state"] == SPENT:
        yield Alarm(
            kind="retrain.budget-spent",
            what=f"The time that {dataset} may be trained is spent.",
            why=why,
            next=_retrain(found),
        )
    if alarm := _slow(found):
        yield alarm
    if found["outcome"] != "promoted" and (alarm := _stale(found)):
        yield alarm


def of_broken_data(dataset: str, batch: str, why: str) -> Alarm:
    """Return what is to be said where a batch stops a retraining."""
    return Alarm(
        kind="retrain.broken",
        what=f"Broken data: {dataset} is not trained before it is retracted or accepted.",
        why=why,
        next=data_command("show", batch, dataset).strip("`"),
    )


def of_checks(dataset: str, outcome: str, checks: Mapping[str, Mapping[str, Any]]) -> Alarm:
    """Return what is to be said of batches that drift, or are broken.

    Args:
        dataset: its name.
        outcome: of all of them, `drift` or `broken`.
        checks: what the look at each found, by the name of the batch.
    """
    names = ", ".join(checks)
    kind, finding = {
        "drift": ("data.drifted", "New data is not like the data before"),
        "broken": ("data.broken", "New data is broken"),
    }[outcome]
    return Alarm(
        kind=kind,
        what=f"{finding}: {names} of {dataset}.",
        why=" ".join(sentence for check in checks.values() for sentence in check["why"]),
        next=data_command("show", next(iter(checks)), dataset).strip("`"),
    )


def _slow(found: Mapping[str, Any]) -> Alarm | None:
    """Return what is to be said of a training that took twice as long as those before it."""
    if not found.get("train_seconds"):
        return None
    usual = history.usual_seconds(found)
    if usual is None or found["train_seconds"] < SLOW * usual:
        return None
    return Alarm(
        kind="retrain.slow",
        what=f"The training of {found['dataset']} took {found['train_seconds']:.3g} s.",
        why=f"At the median speed of those before it, with the same recipe on {found['device']}, "
        f"it takes {usual:.3g} s.",
        next="./run preflight",
    )


def _stale(found: Mapping[str, Any]) -> Alarm | None:
    """Return what is to be said of data that came in weeks ago, since when nothing was promoted.

    It is said once in four weeks: where the last run has not said it already.
    """
    dataset = str(found["dataset"])
    since = _waiting_since(dataset)
    if since is None:
        return None
    started = runs.started_at(found["run_id"])
    before = history.last_retrain(dataset, before=found["run_id"])
    then = runs.started_at(before["run_id"]) if before else 0.0
    weeks = (started - since) // STALE.total_seconds()
    if weeks < 1 or weeks <= (then - since) // STALE.total_seconds():
        return None
    return Alarm(
        kind="retrain.stale",
        what=f"{dataset} has new data, and no new champion for "
        f"{(started - since) / 86_400:.0f} days.",
        why=f"The last run: {' '.join(found['why'])}",
        next=f"./run models list{dataset_option(dataset)}",
    )


def _waiting_since(dataset: str) -> float | None:
    """Return when data first came in that the champion does not know; None where none did.

    That is what came in after its promotion, or during its training. After a rollback that is the
    promotion of the model that is back.
    """
    known = models.current(dataset)
    model = known.champion.model if known.champion else None
    promoted = next((one for one in known.history if one.model == model), None)
    live = data.current(dataset).live
    waiting = (_at(one) for one in live if promoted is None or not _knows(promoted, one))
    return next(waiting, None)


def _knows(promoted: Promotion, batch: Batch) -> bool:
    """Return whether a batch was there when the training of a promoted model began."""
    if batch.number > promoted.number:
        return False
    run = promoted.about.get("run")  # None where it was promoted by hand
    trained_on = {one["name"] for one in promoted.about["summary"].get("batches", ())}
    return run is None or batch.name in trained_on or _at(batch) < runs.started_at(run)


def _at(batch: Batch) -> float:
    return datetime.fromisoformat(batch.at).timestamp()


def _retrain(found: Mapping[str, Any]) -> str:
    """Return the command that trains the same without limits."""
    return f"./run retrain{dataset_option(str(found['dataset']))} --recipe {found['recipe']}"


def _short(model: str) -> str:
    """Return the name of a model with eight letters of its digest."""
    kind, _, digest = model.partition("/")
    return f"{kind}/{digest[:8]}"
