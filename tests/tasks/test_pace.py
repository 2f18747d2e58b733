"""Pace: which training is due, as the log of earlier ones says."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from prefect.logging import disable_run_logger

from artifacts import layout
from artifacts.artifact import Artifact
from classifier.errors import BudgetSpentError
from registry import log
from tasks import pace
from tasks.judge import Training
from tasks.pace import Pace

BASE = {"split": "train", "kind": "tables", "digest": "a" * 64, "file": "t", "labels": {}}
BATCH = BASE | {"kind": "batches", "digest": "b" * 64}
NOW = datetime.now(UTC)


@pytest.fixture(autouse=True)
def _root(tmp_path, monkeypatch):
    monkeypatch.setenv("RETRAIN_DATA", str(tmp_path))


def manifest(*parts, classes=10):
    about = {"classes": classes, "shape": [28, 28], "parts": list(parts)}
    made = Artifact(
        kind="manifests", digest=f"{len(list(layout.cache().glob('*/*'))):064x}", size=0
    )
    folder = layout.cache() / made.name
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps(about))
    return made


def part(of, rows, skip=()):
    return of | {"rows": rows, "skip": list(skip)}


def training(**components):
    whole = {"step": "train", "recipe.epochs": 1, "input manifest": "m", **components}
    return Training(dataset="mnist", key="train/mnist/k", components=whole)


def trained(rows, *, seconds=60.0, ago=timedelta(0), finished=True, of=None):
    """Write a training into the log that ended so long ago."""
    pace._write(of or training(), rows, seconds, finished=finished)
    path = log.path_of(log.last())
    event = json.loads(path.read_text())
    event["at"] = f"{NOW - ago:%Y-%m-%dT%H:%M:%SZ}"
    path.write_text(json.dumps(event))


def state(limits, rows, of=None):
    found = pace.waiting(limits, of or training(), rows)
    return found and found.state


OLD, NEW = part(BASE, 100), part(BATCH, 7)


def test_rows_wait_until_they_are_enough():
    trained(manifest(OLD))
    rows = manifest(OLD, NEW)
    assert state(Pace(min_new_rows=8), rows) == "TooFewRows"
    assert state(Pace(min_new_rows=7), rows) is None


def test_a_row_that_a_newer_one_pushes_out_makes_no_other_data():
    trained(manifest(OLD))
    pushed = part(BASE, 99, skip=[[3, 4]])
    assert state(Pace(min_new_rows=8), manifest(pushed, NEW)) == "TooFewRows"


@pytest.mark.parametrize(
    "change",
    [
        {"of": training(**{"recipe.epochs": 2})},
        {"of": training(**{"code classifier/models.py": "x"})},
        {"rows": manifest.__name__},
    ],
    ids=["recipe", "code", "class"],
)
def test_more_than_rows_does_not_wait(change):
    trained(manifest(OLD))
    rows = manifest(OLD, classes=11) if "rows" in change else manifest(OLD)
    assert state(Pace(min_new_rows=1000), rows, change.get("of")) is None


def test_data_that_was_taken_away_corrected_or_erased_does_not_wait():
    trained(manifest(OLD, NEW))
    limits = Pace(min_new_rows=1000)
    assert state(limits, manifest(OLD, NEW)) == "TooFewRows"
    assert state(limits, manifest(OLD)) is None
    assert state(limits, manifest(OLD, NEW | {"labels": {"3": 1}})) is None
    log.append("erase", "mnist", rows=["c" * 64], batches={}, patches={}, why="x")
    assert state(limits, manifest(OLD, NEW)) is None


def test_starting_from_another_champion_is_no_other_training():
    trained(manifest(OLD), of=training(**{"input initial": "one"}))
    other = training(**{"input initial": "two"})
    assert state(Pace(min_new_rows=8), manifest(OLD, NEW), other) == "TooFewRows"


def test_a_training_that_was_stopped_goes_on_whatever_the_limits_of_rows_and_time():
    rows = manifest(OLD)
    trained(rows, finished=False)
    assert state(Pace(min_new_rows=1000, min_interval=1000), rows) is None


def test_the_interval_counts_from_the_last_that_ended():
    rows = manifest(OLD)
    trained(rows, ago=timedelta(hours=5))
    assert state(Pace(min_interval=6), rows) == "TooSoon"
    assert state(Pace(min_interval=4), rows) is None


def test_a_clock_that_went_back_stops_nothing():
    rows = manifest(OLD)
    trained(rows, ago=timedelta(days=-9999))
    assert state(Pace(min_interval=6), rows) is None
    assert state(Pace(max_train_minutes_a_week=0.5), rows) is None


def test_a_week_counts_all_trainings_of_its_seven_days():
    rows = manifest(OLD)
    trained(rows, seconds=120, ago=timedelta(days=8))
    trained(rows, seconds=60, ago=timedelta(days=6), finished=False)
    trained(rows, seconds=30)
    week = Pace(max_train_minutes_a_week=1.5)
    assert state(week, rows) == "BudgetSpent"
    more = Pace(max_train_minutes_a_week=2)
    assert state(more, rows) is None
    assert pace.max_seconds(more, "mnist") == pytest.approx(30)
    run = Pace(max_train_minutes=0.25, max_train_minutes_a_week=2)
    assert pace.max_seconds(run, "mnist") == pytest.approx(15)
    assert pace.max_seconds(Pace(), "mnist") is None


def test_a_training_that_is_stopped_counts_the_time_it_trained():
    rows = manifest(OLD)
    with (
        pytest.raises(BudgetSpentError),
        pace.counting(training(), rows, "run"),
    ):
        raise BudgetSpentError(1, 2, 33.0)
    assert pace.max_seconds(Pace(max_train_minutes_a_week=1), "mnist") == pytest.approx(27)


def test_a_training_that_fails_is_counted_and_one_that_ran_before_is_not():
    rows = manifest(OLD)
    with pytest.raises(ZeroDivisionError), pace.counting(training(), rows, "run"):
        _ = 1 / 0
    (failed,) = log.events("mnist")
    assert failed.about["finished"] is False
    about = {"step": "train", "task_run": "t", "flow_run": "earlier", "seconds": 9.0, "why": None}
    with pace.counting(training(), rows, "run") as made:
        made["train"] = Artifact(kind="models", digest="d" * 64, size=0, metadata=about)
    assert len(log.events("mnist")) == 1


def test_a_training_that_is_ended_ends_as_that_where_the_log_cannot_be_written():
    rows = manifest(OLD)
    layout.store().mkdir(parents=True)
    (layout.store() / "format.json").write_text("{}")
    with (
        pytest.raises(KeyboardInterrupt),
        disable_run_logger(),
        pace.counting(training(), rows, "run"),
    ):
        raise KeyboardInterrupt
