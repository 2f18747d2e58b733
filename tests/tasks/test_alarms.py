"""Alarms: what is said of a retraining, given its figures, earlier reports and the log."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from artifacts import layout
from registry import log
from tasks import alarms
from tests.registry import stores

NOW = datetime.now(UTC).replace(microsecond=0)
FIELDS = {"epochs": 1, "sizes": [3, 4]}


@pytest.fixture(autouse=True)
def _root(tmp_path, monkeypatch):
    monkeypatch.setenv("RETRAIN_DATA", str(tmp_path))


def run_id(ago=timedelta(0), number=0):
    return f"{NOW - ago:%Y%m%d-%H%M%S}-{number:08x}"


def ended(**figures):
    """The figures of a retraining that is ending."""
    return {
        "dataset": "toys",
        "recipe": "cnn",
        "recipe_fields": FIELDS,
        "device": "cpu",
        "run_id": run_id(),
        "outcome": "unchanged",
        "state": "Unchanged",
        "why": ["This training gave the champion."],
        "train_seconds": None,
        "train_rows": 100,
        **figures,
    }


def reported(ago, number=0, **figures):
    """Write the report of a retraining that started so long ago."""
    name = run_id(ago, number)
    folder = layout.reports() / name
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(ended(**figures) | {"run_id": name}))


def came_in(ago, name="batch"):
    """Write a batch into the log that came in so long ago."""
    about = {"batch": name, "name": name, "content": name}
    log.append("ingest", "toys", **about, train=5, recent=0, refused=0)
    path = log.path_of(log.last())
    event = json.loads(path.read_text())
    event["at"] = f"{NOW - ago:%Y-%m-%dT%H:%M:%SZ}"
    path.write_text(json.dumps(event))


def said(**figures):
    return {alarm.kind: alarm for alarm in alarms.of_retrain(ended(**figures))}


def trained(*seconds, **figures):
    for number, each in enumerate(seconds):
        reported(timedelta(days=1), number, train_seconds=each, **figures)


def test_nothing_is_said_of_a_run_that_found_nothing_new():
    assert said() == {}


def test_a_promotion_a_refusal_and_a_spent_budget_say_what_why_and_what_to_type():
    model = f"models/{'ab' * 32}"
    promoted = said(outcome="promoted", state="Promoted", champion=model, why=["It", "won."])
    assert promoted["retrain.promoted"] == alarms.Alarm(
        kind="retrain.promoted",
        what="toys has a new champion, models/abababab.",
        why="It won.",
        next="./run models show --dataset toys",
    )
    refused = said(outcome="refused", state="Refused", challenger=model, verdict={"rule": "better"})
    assert refused["retrain.refused"].next == "./run models show models/abababab --dataset toys"
    spent = said(state="BudgetSpent", why=["10 minutes is the limit."])
    assert spent["retrain.budget-spent"].why == "10 minutes is the limit."
    assert spent["retrain.budget-spent"].next == "./run retrain --dataset toys --recipe cnn"


def test_a_training_twice_as_slow_as_the_median_is_slow():
    trained(10.0, 12.0, 30.0)
    assert said(train_seconds=23.9) == {}
    alarm = said(train_seconds=24.0)["retrain.slow"]
    assert alarm.what == "The training of toys took 24 s."
    assert "it takes 12 s." in alarm.why
    assert alarm.next == "./run preflight"


def test_twice_the_rows_may_take_twice_the_time():
    trained(10.0, 10.0, 10.0)
    assert said(train_seconds=39.0, train_rows=200) == {}
    assert "it takes 20 s." in said(train_seconds=40.0, train_rows=200)["retrain.slow"].why


def test_a_training_is_compared_with_no_less_than_three():
    trained(1.0, 1.0)
    assert said(train_seconds=100.0) == {}


@pytest.mark.parametrize(
    "other", [{"device": "cuda"}, {"recipe_fields": FIELDS | {"epochs": 2}}, {"dataset": "games"}]
)
def test_a_training_of_another_kind_is_not_compared(other):
    trained(1.0, 1.0, 1.0, **other)
    assert said(train_seconds=100.0) == {}


def test_runs_that_took_their_model_from_the_cache_do_not_count():
    trained(None, None, 1.0, 1.0)
    assert said(train_seconds=100.0) == {}
    trained_again = timedelta(days=2)
    reported(trained_again, train_seconds=1.0)
    assert said(train_seconds=None) == {}
    assert "retrain.slow" in said(train_seconds=100.0)


def test_a_training_that_was_resumed_makes_no_other_one_slow():
    trained(1.0, 1.0, 1.0, resumed=True)
    assert said(train_seconds=100.0) == {}
    for number, seconds in enumerate((10.0, 10.0, 10.0)):
        reported(timedelta(days=2), number, train_seconds=seconds)
    assert said(train_seconds=19.0) == {}
    assert "it takes 10 s." in said(train_seconds=20.0)["retrain.slow"].why


def test_a_damaged_report_stops_nothing():
    trained(1.0, 1.0, 1.0)
    folder = layout.reports() / run_id(timedelta(hours=1))
    folder.mkdir()
    (folder / "report.json").write_text("{")
    assert "retrain.slow" in said(train_seconds=100.0)
    reported(timedelta(hours=2), train_seconds="18 s", train_rows="many")
    assert "retrain.slow" in said(train_seconds=100.0)


def test_data_of_four_weeks_without_a_promotion_is_stale():
    came_in(timedelta(days=30))
    came_in(timedelta(days=1), "later")
    alarm = said(why=["Its model was refused."])["retrain.stale"]
    assert alarm.what == "toys has new data, and no new champion for 30 days."
    assert "Its model was refused." in alarm.why
    assert alarm.next == "./run models list --dataset toys"


def test_data_that_is_younger_or_was_followed_by_a_promotion_is_not():
    came_in(timedelta(days=27))
    assert said() == {}


def test_data_that_a_promotion_followed_is_not_stale():
    came_in(timedelta(days=30))
    stores.promote("a model")
    assert said() == {}
    came_in(timedelta(days=29), "after it")  # its number is later, whatever its time
    assert "retrain.stale" in said()


def test_data_that_came_in_while_the_champion_was_trained_is_waiting():
    came_in(timedelta(days=31), "known")
    came_in(timedelta(days=29), "meanwhile")
    run = run_id(timedelta(days=30))
    stores.promote("a model", summary={"batches": [{"name": "known"}]}, run=run)
    assert "for 29 days" in said()["retrain.stale"].what


def test_data_that_came_in_while_the_champion_was_trained_and_is_in_it_is_not():
    came_in(timedelta(days=31), "left out as a whole")
    came_in(timedelta(days=29), "of its own run")
    run = run_id(timedelta(days=30))
    stores.promote("a model", summary={"batches": [{"name": "of its own run"}]}, run=run)
    assert said() == {}


def test_a_rollback_is_no_promotion():
    first = stores.promote("a model")
    came_in(timedelta(days=30))
    second = stores.promote("another", expected=first.number)
    assert said() == {}
    stores.roll_back("a model", left=second)
    assert "retrain.stale" in said()


def test_staleness_is_said_once_in_four_weeks():
    came_in(timedelta(days=58))
    reported(timedelta(days=3))
    assert "retrain.stale" in said()  # 56 days passed since the last run
    reported(timedelta(days=1))
    assert said() == {}


@pytest.mark.parametrize("state", ["Broken", "Superseded"])
def test_a_run_that_says_nothing_of_it_does_not_count_as_having_said_it(state):
    came_in(timedelta(days=30))
    reported(timedelta(days=1), state=state)
    assert "retrain.stale" in said()


def test_a_promotion_ends_staleness():
    came_in(timedelta(days=30))
    assert "retrain.stale" not in said(outcome="promoted", state="Promoted", champion="models/a")
