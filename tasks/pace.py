"""Pace: whether a training is due, and what it may cost. Each training of retrain is in the log."""

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from artifacts import keys
from artifacts.artifact import Artifact
from artifacts.outcomes import outcomes
from classifier.training.recipe import check_fields
from registry import log
from registry.log import Event
from tasks.judge import Training
from tasks.settings import setting

TRAIN = "train"  # kind of the events
SPENT = "BudgetSpent"  # name of the state of a run
WEEK = timedelta(days=7)


@dataclass(frozen=True, kw_only=True)
class Pace:
    """When a training is due, and what it may cost; 0 sets no limit."""

    min_new_rows: int = setting(
        0, "Least new rows since the last training, if no more changed", ge=0
    )
    min_interval: float = setting(0.0, "Least hours between two trainings", ge=0)
    max_train_minutes: float = setting(
        0.0, "Minutes after which a training stops, to go on in the next run", ge=0
    )
    max_train_minutes_a_week: float = setting(
        0.0, "Minutes that the trainings of seven days may take together", ge=0
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

    Data that was taken away or corrected, another recipe, code or package: none of them waits for
    new rows.
    """
    events = _trainings(training.dataset)
    if not events:
        return None
    last, now = events[-1], datetime.now(UTC)
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
    if pace.max_train_minutes_a_week and not _left(pace, events, now):
        return Waiting(
            state=SPENT,
            why=f"The trainings of seven days took {_spent(events, now) / 60:.1f} minutes, and "
            f"{pace.max_train_minutes_a_week:g} is the limit.",
        )
    return None


def max_seconds(pace: Pace, dataset: str) -> float | None:
    """Return how long a training may take now; None for any time."""
    limits = [60 * pace.max_train_minutes] if pace.max_train_minutes else []
    if pace.max_train_minutes_a_week:
        limits.append(_left(pace, _trainings(dataset), datetime.now(UTC)))
    return min(limits, default=None)


@contextmanager
def counting(
    training: Training, manifest: Artifact, flow_run: str
) -> Iterator[dict[str, Artifact]]:
    """Write the training of the block into the log: what it is made of, and how long it took.

    The block puts the model in as `train`. Without it, it failed, and all its time counts; a model
    that was cached costs nothing.
    """
    made: dict[str, Artifact] = {}
    started = time.monotonic()
    try:
        yield made
    finally:
        seconds = time.monotonic() - started
        for outcome in outcomes(made, flow_run):
            seconds = outcome.seconds if outcome.outcome == "ran" else 0.0
        _write(training, manifest, seconds)


def _write(training: Training, manifest: Artifact, seconds: float) -> None:
    log.append(
        TRAIN,
        training.dataset,
        train_key=training.key,
        but_for_data=_but_for_data(training),
        parts=_parts(manifest),
        seconds=round(seconds, 3),
    )


def _trainings(dataset: str) -> list[Event]:
    return [event for event in log.events(dataset) if event.kind == TRAIN]


def _spent(events: list[Event], now: datetime) -> float:
    recent = (one for one in events if now - datetime.fromisoformat(one.at) < WEEK)
    return sum(float(one.about["seconds"]) for one in recent)


def _left(pace: Pace, events: list[Event], now: datetime) -> float:
    return max(0.0, 60 * pace.max_train_minutes_a_week - _spent(events, now))


def _only_new_rows(last: Event, training: Training, manifest: Artifact) -> int | None:
    """Return the rows that are new since a training; None where more than that changed."""
    before, now = set(last.about["parts"]), _parts(manifest)
    if last.about["but_for_data"] != _but_for_data(training) or not before <= set(now):
        return None
    return sum(rows for part, rows in now.items() if part not in before)


def _but_for_data(training: Training) -> str:
    """Return a digest of everything but the rows that a training is made of."""
    data_in = ("input manifest", "input parts")  # the arguments of `train`
    rest = {n: v for n, v in training.components.items() if not n.startswith(data_in)}
    return keys.key_of(rest, training.dataset)


def _parts(manifest: Artifact) -> dict[str, int]:
    """Return how many rows count in each part of a manifest, by a digest of what it says of it."""
    parts = manifest.read_json("manifest.json")["parts"]
    texts = (json.dumps(part, sort_keys=True) for part in parts)
    digests = (hashlib.sha256(text.encode()).hexdigest() for text in texts)
    return {digest: part["rows"] for digest, part in zip(digests, parts, strict=True)}
