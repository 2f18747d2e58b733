"""The words of the alarms of automations.yaml, without a server."""

from types import SimpleNamespace

import pytest
import yaml
from jinja2 import Environment

from flows.cli import automations


def body(flow, state, **parameters):
    """The message of a run of a deployment that ended so."""
    wanted = yaml.safe_load(automations.FILE.read_text())["automations"]
    (one,) = [one for one in wanted if one["name"].endswith("failed, timed out or crashed")]
    environment = Environment(autoescape=False)  # noqa: S701 - plain text
    environment.filters["ui_url"] = lambda _: "http://server/run"
    return environment.from_string(one["actions"][0]["body"]).render(
        flow=SimpleNamespace(name=flow),
        flow_run=SimpleNamespace(id="1", deployment_id="2", parameters=parameters),
        event={"resource": {"prefect.state-name": state, "prefect.state-message": "It did."}},
    )


@pytest.mark.parametrize(
    ("flow", "state", "then"),
    [
        ("retrain", "Failed", "./run retrain --dataset folder"),
        ("ingest", "Failed", "repeat this run in the UI, or ./run ingest with the same paths"),
        ("ingest", "Crashed", "wait a minute, it starts again by itself; if it does not, repeat"),
    ],
)
def test_the_next_step_after_a_failure_loses_no_path(flow, state, then):
    why, following, log = body(flow, state, dataset="folder", paths=["/new"]).splitlines()
    assert why == "It did."
    assert following.startswith(f"Next: {then}")
    assert log.startswith("Log: http://server/run, and log.txt in its folder of data/reports once")
