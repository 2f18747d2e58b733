"""A run is superseded by one that did the same, and by no other."""

from datetime import timedelta

import pytest
from prefect.states import Completed, Failed, Running

from tasks.superseded import STATE, superseded

PARAMETERS = {"dataset": "toys", "recipe": "cnn"}


@pytest.fixture
def other(server, monkeypatch):
    """Has another run of the deployment begin after this one was due, and end."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        flow = client.create_flow_from_name("toy")
        deployment = client.create_deployment(flow, "toy")
        mine = client.create_flow_run_from_deployment(deployment, parameters=PARAMETERS)
        monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", str(deployment))
        monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__ID", str(mine.id))

        def end(state, *, parameters=PARAMETERS, late=timedelta(0)):
            due = mine.expected_start_time - timedelta(minutes=1) + late
            monkeypatch.setattr("prefect.runtime.flow_run.scheduled_start_time", due, raising=False)
            run = client.create_flow_run_from_deployment(deployment, parameters=parameters)
            for each in (Running(), state):
                client.set_flow_run_state(run.id, each, force=True)

        yield end
        client.delete_deployment(deployment)


def test_by_one_that_completed(other):
    other(Completed())
    assert "after this one was due, did the same" in superseded()


@pytest.mark.parametrize("state", [Failed(), Completed(name=STATE)], ids=["failed", STATE])
def test_by_none_that_did_nothing(other, state):
    other(state)
    assert superseded() is None


def test_by_none_that_was_asked_for_something_else(other):
    other(Completed(), parameters=PARAMETERS | {"recipe": "post"})
    assert superseded() is None


def test_by_none_that_began_before(other):
    other(Completed(), late=timedelta(hours=1))
    assert superseded() is None


def test_a_run_from_the_terminal_is_never(monkeypatch):
    monkeypatch.delenv("PREFECT__RUNTIME__DEPLOYMENT__ID", raising=False)
    assert superseded() is None
