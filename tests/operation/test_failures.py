"""Things go wrong while a server and a worker run the deployments, and it copes.

One server serves all, so a fault that one test leaves behind shows in the next.
"""

import os
import time
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from tests.operation.running import ENDED, LONG, Operation, wait

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def operation(tmp_path_factory):
    """A server and a worker, with everything deployed."""
    operation = Operation(tmp_path_factory.mktemp("operation"))
    try:
        operation.start_server()
        operation.deploy()
        operation.start_worker()
        yield operation
    finally:
        operation.end()


@pytest.fixture(scope="module")
def undisturbed(operation):
    """The report of the long training in which nothing goes wrong."""
    number = operation.asked("train/on-demand", **LONG)
    assert operation.wait_for(number, "Completed", "Failed", "Crashed") == "Completed"
    return operation.report(number)


def forget(operation):
    """Have the next run train again."""
    for path in operation.root.glob("cache/records/train/*/*"):
        path.unlink()


def test_a_server_that_is_away_for_twenty_seconds_ends_no_run(operation, undisturbed):
    forget(operation)
    number = operation.asked("train/on-demand", **LONG)
    operation.wait_for_training()
    operation.kill_server()
    time.sleep(20)
    operation.start_server()
    assert operation.wait_for(number, "Completed", "Failed", "Crashed") == "Completed"
    assert operation.history(number).count("Running") == 1
    assert operation.report(number)["model"] == undisturbed["model"]


def test_a_cancelled_run_ends_within_ten_seconds_and_the_next_one_works(operation, undisturbed):
    forget(operation)
    number = operation.asked("train/on-demand", **LONG)
    operation.wait_for_training()
    cancelling = {"type": "CANCELLING", "name": "Cancelling"}
    operation.ask("POST", f"flow_runs/{number}/set_state", state=cancelling, force=False)
    cancelled = time.monotonic()
    wait(lambda: not operation.run_processes(), 30, "the training goes on")
    assert time.monotonic() - cancelled < 10
    operation.wait_for(number, "Cancelled", seconds=30)
    assert not list(operation.root.glob("cache/records/train/*/*"))
    again = operation.asked("train/on-demand", **LONG)
    assert operation.wait_for(again, "Completed", "Failed") == "Completed"
    assert operation.report(again)["model"] == undisturbed["model"]


def test_a_run_that_dies_while_it_is_being_cancelled_is_cancelled_for_good(operation, undisturbed):
    """After an outage, which may have made it and its worker deaf to the cancellation."""
    forget(operation)
    endless = LONG | {"seed": 3, "overrides": {"epochs": 100_000}}
    number = operation.asked("train/on-demand", **endless)
    operation.wait_for_training()
    operation.kill_server()
    time.sleep(20)
    operation.start_server()
    cancelling = {"type": "CANCELLING", "name": "Cancelling"}
    operation.ask("POST", f"flow_runs/{number}/set_state", state=cancelling, force=False)
    operation.kill_runs()
    operation.wait_for(number, "Cancelled", seconds=90)
    time.sleep(20)  # in which it would start again
    assert operation.history(number)[-1] == "Cancelled"
    assert "AwaitingRetry" not in operation.history(number)


def test_two_runs_that_meet_run_one_at_a_time(operation, undisturbed):
    forget(operation)
    first = operation.asked("train/on-demand", **LONG)
    operation.wait_for_training()
    second = operation.asked("retrain/on-new-data", **(LONG | {"seed": 1}))
    while operation.state(first) != "Completed":
        assert operation.state(second) in {"Scheduled", "Late"}
        time.sleep(0.5)
    assert operation.wait_for(second, "Promoted", "Refused", "Failed") == "Promoted"


def test_after_three_weeks_without_a_worker_one_retrain_runs(operation, undisturbed):
    operation.kill_worker()
    weekly = operation.ask("GET", "deployments/name/retrain/weekly")
    missed = []
    for weeks in (3, 2, 1):
        due = (datetime.now(UTC) - timedelta(weeks=weeks)).isoformat()
        state = {"type": "SCHEDULED", "state_details": {"scheduled_time": due}}
        path = f"deployments/{weekly['id']}/create_flow_run"
        parameters = LONG | {"seed": 2}
        missed.append(operation.ask("POST", path, parameters=parameters, state=state)["id"])
    wait(lambda: {operation.state(run) for run in missed} == {"Late"}, 60, "they are not late")
    operation.start_worker()
    wait(lambda: {operation.run(run)["state_type"] for run in missed} <= ENDED, 300, "they go on")
    states = sorted(operation.state(run) for run in missed)
    assert states[1:] == ["Superseded", "Superseded"]
    assert states[0] in {"Promoted", "Refused"}
    for run in missed:
        assert operation.report(run)["champion"]


DISASTERS = ("the run dies", "the machine dies", "the worker dies", "the server dies")


def strike(operation, disaster):
    """Let it happen, and do what a supervisor does: start again what must run."""
    if disaster == "the server dies":
        operation.kill_server()
        operation.start_server()
        operation.deploy()
    if disaster in {"the machine dies", "the worker dies"}:
        operation.kill_worker()
    if disaster in {"the machine dies", "the run dies"}:
        operation.kill_runs()
    if disaster in {"the machine dies", "the worker dies"}:
        operation.start_worker()


def struck(operation, disaster, after):
    """Strike a run of its own after so many seconds; return its number, and the seconds.

    A run may take less time than the undisturbed one, and end before: then the next is struck in
    half the time.
    """
    forget(operation)
    number = operation.asked("train/on-demand", **LONG)
    wait(operation.run_processes, 120, "no worker starts the run")
    time.sleep(after)
    if operation.run(number)["state_type"] in ENDED:
        return struck(operation, disaster, after / 2)
    strike(operation, disaster)
    return number, after


def test_rehearsal(operation, undisturbed):
    """Each disaster at a drawn moment of a run; none costs more than time."""
    seed = int(os.environ.get("REHEARSAL_SEED", "0"))
    random, table = Random(seed), [f"seed {seed}"]  # noqa: S311
    for disaster in DISASTERS:
        number, after = struck(operation, disaster, random.uniform(0, undisturbed["train_seconds"]))
        state = operation.wait_for(number, "Completed", "Failed", "Cancelled")
        history = operation.history(number)
        model = operation.report(number)["model"] if state == "Completed" else None
        told = "\n".join([*table, f"{disaster} after {after:.1f} s: {', '.join(history)}"])
        table = told.splitlines()
        assert model == undisturbed["model"], told
        # A run whose worker died ends itself, and the next worker starts it again. One that was
        # just about to begin when the server died cannot begin; one that had begun goes on.
        spared = disaster == "the server dies"
        assert ("Crashed" in history[history.index("Running") if spared else 0 :]) != spared, told
    wait(lambda: not operation.running(), 90, lambda: "\n".join([*table, *operation.running()]))
    wait(lambda: operation.slots() == 0, 30, "a slot is lost")
