"""Pace: whether a training is due, and what it may cost. Each training of retrain is in the log."""

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from prefect.logging import get_run_logger

from artifacts import keys
from artifacts.artifact import Artifact
from artifacts.errors import InputError
from artifacts.locks import shared_lock
from artifacts.outcomes import outcomes
from classifier.errors import BudgetSpentError
from classifier.training.recipe import check_fields
from registry import data, log, sharing
from registry.log import Event
from tasks import champion
from tasks.judge import Training
from tasks.settings import setting

TRAIN = "train"  # kind of the events
SPENT = "BudgetSpent"  # name of the state of a run
WEEK = timedelta(days=7)
MOST = 1_000_000  # of any limit


@dataclass(frozen=True, kw_only=True)
class Pace:
    """When a training is due, and what it may cost; 0 sets no limit."""

    min_new_rows: int = setting(
        0, "Least new rows since the last training, if nothing else changed", ge=0, le=MOST
    )
    min_interval: float = setting(0.0, "Least hours between two trainings", ge=0, le=MOST)
    max_train_minutes: float = setting(
        0.0,
        "Minutes after which a training stops, to go on in the next run; 0 is no limit",
        ge=0,
        le=MOST,
    )
    max_train_minutes_a_week: float = setting(
        0.0,
        "Minutes that the trainings of seven days may take together; 0 is no limit",
        ge=0,
        le=MOST,
    )

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """Why no training is due: the name of the run's state, and a sentence."""

    state: str
    why: str


def waiting(pace: Pace, training: Training, manifest: Artifact) -> Waiting | None:
    """Return why a training is not due; None if it is.

    Data that was taken away or corrected, another class, recipe, code or package: none of them
    waits for new rows. A training that was stopped or failed is none that others wait for.
    """
    events = _trainings(training.dataset)
    finished = [event for event in events if event.about["finished"]]
    now = datetime.now(UTC)
    if finished and (found := _too_early(pace, finished[-1], training, manifest, now)):
        return found
    if pace.max_train_minutes_a_week and not _left(pace, events, now):
        return Waiting(
            state=SPENT,
            why=f"The trainings of seven days took {_spent(events, now) / 60:.1f} minutes, and "
            f"{pace.max_train_minutes_a_week:g} is the limit.",
        )
    return None


def _too_early(
    pace: Pace, last: Event, training: Training, manifest: Artifact, now: datetime
) -> Waiting | None:
    ago = now - datetime.fromisoformat(last.at)
    if timedelta(0) <= ago < timedelta(hours=pace.min_interval):
        return Waiting(
            state="TooSoon",
            why=f"The last training was {ago.total_seconds() / 3600:.1f} hours ago, and "
            f"{pace.min_interval:g} must lie between two.",
        )
    rows = _only_new_rows(last, training, manifest)
    if rows is not None and rows < pace.min_new_rows:
        return Waiting(
            state="TooFewRows",
            why=f"{rows:,} rows are new since the last training, and {pace.min_new_rows:,} are "
            "needed.",
        )
    return None


def max_seconds(pace: Pace, dataset: str) -> float | None:
    """Return how long a training may take now; None for any time."""
    limits = [60 * pace.max_train_minutes] if pace.max_train_minutes else []
    if pace.max_train_minutes_a_week:
        limits.append(_left(pace, _trainings(dataset), datetime.now(UTC)))
    return min(limits, default=None)


@contextmanager
def alone(dataset: str) -> Iterator[None]:
    """Let one retraining of a dataset run at a time: what it found holds until it ends."""
    held, said = shared_lock(f"retrain/{dataset}"), get_run_logger()
    held.acquire(f"retrain of {dataset}", lambda who: said.info("retrain: waiting for %s", who))
    sharing.expire()
    try:
        yield
    finally:
        held.release()


@contextmanager
def counting(
    training: Training, manifest: Artifact, flow_run: str
) -> Iterator[dict[str, Artifact]]:
    """Write the training of the block into the log: what it is made of, and how long it took.

    The block puts the model in as `train`. Without it, it failed, and all its time counts. A model
    that was cached costs nothing, and is no training.
    """
    made: dict[str, Artifact] = {}
    started = time.monotonic()
    try:
        yield made
    except BudgetSpentError as error:
        _write(training, manifest, error.seconds, finished=False)
        raise
    except BaseException:
        if "train" not in made:
            try:
                _write(training, manifest, time.monotonic() - started, finished=False)
            except InputError as error:  # the end of the run is what counts
                get_run_logger().warning("The time of this training does not count: %s", error)
        raise
    finally:
        for outcome in outcomes(made, flow_run):
            if outcome.outcome == "ran":
                _write(training, manifest, outcome.seconds, finished=True)


def _write(training: Training, manifest: Artifact, seconds: float, *, finished: bool) -> None:
    log.append(
        TRAIN,
        training.dataset,
        train_key=training.key,
        but_for_data=_but_for_data(training, manifest),
        parts=_parts(manifest),
        seconds=round(seconds, 3),
        finished=finished,
    )


def _trainings(dataset: str) -> list[Event]:
    return [event for event in log.events(dataset) if event.kind == TRAIN]


def _spent(events: list[Event], now: datetime) -> float:
    """Return the seconds of the last seven days; a time that is still to come is none of them."""
    ago = ((event, now - datetime.fromisoformat(event.at)) for event in events)
    return sum(float(one.about["seconds"]) for one, past in ago if timedelta(0) <= past < WEEK)


def _left(pace: Pace, events: list[Event], now: datetime) -> float:
    return max(0.0, 60 * pace.max_train_minutes_a_week - _spent(events, now))


def _only_new_rows(last: Event, training: Training, manifest: Artifact) -> int | None:
    """Return the rows that are new since a training; None where more than that changed."""
    before, now = last.about["parts"], _parts(manifest)
    same = last.about["but_for_data"] == _but_for_data(training, manifest)
    if not same or not before.keys() <= now.keys():
        return None
    return sum(rows for part, rows in now.items() if part not in before)


def _but_for_data(training: Training, manifest: Artifact) -> str:
    """Return a digest of everything but the rows that came in: code, recipe, classes, decisions."""
    apart = ("input manifest", "input parts", *champion.INITIAL)  # arguments of `train`
    rest = {n: v for n, v in training.components.items() if not n.startswith(apart)}
    about, decided = manifest.read_json("manifest.json"), data.current(training.dataset)
    rest["classes"], rest["shape"] = about["classes"], about["shape"]
    rest["decided"] = [list(decided.patches), sorted(decided.erased)]
    return keys.key_of(rest, training.dataset)


def _parts(manifest: Artifact) -> dict[str, int]:
    """Return how many rows count in each part of a manifest, by what it holds.

    A row that is left out because a newer one is near it makes no other part of it.
    """
    found = {}
    for part in manifest.read_json("manifest.json")["parts"]:
        text = json.dumps({n: v for n, v in part.items() if n not in {"rows", "skip"}})
        found[hashlib.sha256(text.encode()).hexdigest()] = part["rows"]
    return found
