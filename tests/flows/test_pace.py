"""When retrain trains: limits of rows, time and cost, each with a state of its own."""

import json
import time

import pytest

from classifier.errors import ArgumentError
from tasks.pace import Pace
from tests.flows import pictures
from tests.flows.digits import QUICK, Root, new

pytestmark = pytest.mark.slow


@pytest.fixture
def root(tmp_path, source, server):
    with pictures.data_root(tmp_path / "data", source) as there:
        yield Root(there.folder)


def trainings(root):
    return [event["about"] for event in root.events() if event["kind"] == "train"]


def age(root, hours):
    """Set every training of the log back by hours."""
    for path in (root.folder / "store" / "log").glob("*.json"):
        event = json.loads(path.read_text())
        if event["kind"] == "train":
            at = time.time() - 3600 * hours
            event["at"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
            path.write_text(json.dumps(event))


def test_batches_of_a_row_wait_until_they_are_enough_and_are_one_training(root):
    assert root.retrain("--min-new-rows", "5")["state"] == "Promoted"  # the first one waits not
    images, labels = new(0, 5)
    for row in range(4):
        root.add(f"one-{row}", images[row : row + 1], labels[row : row + 1])
    waits = root.retrain("--min-new-rows", "5")
    assert (waits["outcome"], waits["state"]) == ("unchanged", "TooFewRows")
    assert waits["why"] == ["4 rows are new since the last training, and 5 are needed."]
    assert len(trainings(root)) == 1
    root.add("one-4", images[4:], labels[4:])
    done = root.retrain("--min-new-rows", "5")
    assert len(done["batches"]) == 5
    assert len(trainings(root)) == 2
    assert root.retrain("--min-new-rows", "5")["state"] == "Unchanged"


def test_new_rows_wait_but_another_recipe_and_a_retraction_do_not(root, good):
    told = root("retrain", "--dataset", "folder", *QUICK, "--min-new-rows", "1000")
    assert "outcome    unchanged\n           20 rows are new since the last" in told.out
    waits = root.retrain("--min-new-rows", "1000")
    assert (waits["outcome"], waits["state"]) == ("unchanged", "TooFewRows")
    assert "are new since the last training" in waits["why"][0]
    assert "train" not in waits["steps"]
    other = root.retrain("--min-new-rows", "1000", "--seed", "1")
    assert other["steps"]["train"] == "ran"
    root.data("retract", "good", "--why", "a demonstration")
    without = root.retrain("--min-new-rows", "1000", "--seed", "1")
    assert without["steps"]["train"] == "ran"


def test_a_training_waits_until_the_interval_is_over(root, good):
    early = root.retrain("--min-interval", "2")
    assert (early["outcome"], early["state"]) == ("unchanged", "TooSoon")
    age(root, 3)
    assert root.retrain("--min-interval", "2")["state"] != "TooSoon"


def test_a_training_stops_when_its_time_is_spent_and_goes_on_in_the_next_run(root):
    def retrain(*options):
        slow = ("--learning-rate", "0.3", "--epochs", "500", "--device", "cpu")
        return root.json("retrain", "--recipe", "post", *slow, *options)

    stopped = retrain("--max-train-minutes", "0.001")
    assert (stopped["outcome"], stopped["state"]) == ("unchanged", "BudgetSpent")
    assert stopped["champion"] is None
    assert "goes on from there" in stopped["why"][0]
    there = (root.folder / "cache" / "checkpoints").rglob("*")
    (checkpoint,) = (path for path in there if path.is_file())
    first = checkpoint.stat().st_mtime_ns
    retrain("--max-train-minutes", "0.001", "--min-new-rows", "1000", "--min-interval", "1000")
    assert checkpoint.stat().st_mtime_ns > first
    assert [about["seconds"] > 0 for about in trainings(root)] == [True, True]
    done = retrain()
    assert (done["state"], done["resumed"]) == ("Promoted", True)


def test_a_week_has_a_budget(root, good):
    (first,) = trainings(root)
    limit = str(first["seconds"] / 60 / 2)
    spent = root.retrain("--max-train-minutes-a-week", limit)
    assert (spent["outcome"], spent["state"]) == ("unchanged", "BudgetSpent")
    assert "seven days" in spent["why"][0]
    age(root, 24 * 7 + 1)
    assert root.retrain("--max-train-minutes-a-week", "60")["state"] in {"Promoted", "Refused"}


def test_what_is_trained_already_costs_nothing_and_waits_for_nothing(root, good):
    root.models("freeze", "--why", "holidays")
    assert root.retrain()["outcome"] == "refused"
    root.models("thaw", "--why", "back")
    late = (
        "--min-new-rows",
        "1000",
        "--min-interval",
        "1000",
        "--max-train-minutes-a-week",
        "1e-9",
    )
    done = root.retrain(*late)
    assert done["steps"]["train"] == "cached"
    assert done["outcome"] == "promoted"
    assert len(trainings(root)) == 2


@pytest.mark.parametrize("wrong", [{"min_new_rows": -1}, {"max_train_minutes": float("nan")}])
def test_a_limit_that_is_none_is_refused(wrong):
    with pytest.raises(ArgumentError, match=next(iter(wrong)).replace("_", "-")):
        Pace(**wrong)


def test_the_options_are_shown_and_checked_before_anything_runs(root):
    done = root("retrain", "--dataset", "folder", "--min-interval", "-1")
    assert done.code == 2
    assert "--min-interval" in done.err
