"""How often a run that crashes before it begins starts again: a real server's automations."""

import time

import pytest
import yaml

from flows.cli import automations
from tests.conftest import PROJECT, CommandLine
from tests.flows import prefect_server
from tests.flows.prefect_server import until

WITHIN = 10  # seconds until it starts again


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_that_crashes_before_it_begins_starts_again_twice_and_then_fails(tmp_path):
    from prefect.client.orchestration import get_client
    from prefect.states import Crashed, Pending

    with (
        prefect_server.with_automations(tmp_path / "home") as address,
        get_client(sync_client=True) as client,
    ):
        assert CommandLine(PROJECT, address)("deploy").returncode == 0
        wanted = yaml.safe_load(automations.FILE.read_text())
        for one in wanted["automations"]:
            if one["name"] == automations.RESTART:
                one["trigger"]["within"] = WITHIN
        (tmp_path / "automations.yaml").write_text(yaml.safe_dump(wanted))
        automations.apply(client, tmp_path / "automations.yaml")
        deployment = client.read_deployment_by_name("train/on-demand").id
        run = client.create_flow_run_from_deployment(deployment).id

        def state():
            return client.read_flow_run(run).state_name

        for _ in range(2):
            client.set_flow_run_state(run, Pending())
            client.set_flow_run_state(run, Crashed(message="There is no parameter foo."))
            until(lambda: state() in {"AwaitingRetry", "Late"}, 60)
        client.set_flow_run_state(run, Pending())
        client.set_flow_run_state(run, Crashed(message="There is no parameter foo."))
        until(lambda: state() == "Failed", 60)
        time.sleep(2 * WITHIN)
        assert state() == "Failed"
        assert client.read_flow_run(run).run_count == 0
