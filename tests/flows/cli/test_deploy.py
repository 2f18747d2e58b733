"""./run deploy: what it leaves on a server, and what it leaves alone."""

import contextlib
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
import yaml

from artifacts import runs

AUTOMATION = {
    "name": "image-retraining: a test",
    "tags": ["image-retraining"],
    "trigger": {
        "type": "event",
        "posture": "Reactive",
        "expect": ["image-retraining.nothing"],
        "threshold": 1,
        "within": 0,
    },
    "actions": [{"type": "do-nothing"}],
}
NOTIFICATION = {
    "type": "send-notification",
    "block_document_id": "alarms",
    "subject": "what",
    "body": "why",
}


@pytest.fixture
def client(server):
    """A client of a server without automations, blocks and pools."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        for automation in client.read_automations():
            client.delete_automation(automation.id)
        for block in client.read_block_documents():
            client.delete_block_document(block.id)
        with contextlib.suppress(ObjectNotFound):
            client.delete_work_pool("local")
        yield client


@pytest.fixture
def applied(client, tmp_path):
    """Applies automations, and gives what the server has then, by name."""
    from flows.cli import automations

    def apply(*wanted):
        file = tmp_path / "automations.yaml"
        file.write_text(yaml.safe_dump({"automations": list(wanted)}))
        automations.apply(client, file)
        found = client.read_automations()
        assert len({each.name for each in found}) == len(found)
        return {each.name: each for each in found}

    return apply


@pytest.fixture
def block(server):
    """A notification block called alarms."""
    from prefect.blocks.notifications import CustomWebhookNotificationBlock

    return CustomWebhookNotificationBlock(name="alarms", url="http://127.0.0.1:9/").save("alarms")


def automations(client):
    """All automations, as the server has them."""
    return client.request("POST", "/automations/filter", json={"sort": "NAME_ASC"}).json()


def test_deploying_twice_leaves_each_once_and_touches_none(flows, client):
    assert flows("deploy").code == 0
    before = automations(client)
    done = flows("deploy", "--json")
    assert done.code == 0
    after = automations(client)
    assert sorted(one["name"] for one in after) == sorted(json.loads(done.out)["automations"])
    # Also when each was updated, and the id of its trigger: another one starts its clock anew.
    assert all(one["updated"] and one["trigger"]["id"] for one in after)
    assert after == before


def test_deployments_and_the_trigger_of_new_data_that_are_paused_stay_so(flows, client):
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags

    ours = DeploymentFilter(tags=DeploymentFilterTags(all_=["image-retraining"]))
    trigger = "image-retraining: retrain on new data"
    names = ("retrain/weekly", "retrain/on-new-data")
    assert flows("deploy").code == 0
    (before,) = client.read_automations_by_name(trigger)
    client.pause_automation(before.id)
    for name in names:
        client.pause_deployment(client.read_deployment_by_name(name).id)
    assert flows("deploy").code == 0
    (after,) = client.read_automations_by_name(trigger)
    assert (after.id, after.enabled) == (before.id, False)
    paused = {one.name: one.paused for one in client.read_deployments(deployment_filter=ours)}
    assert paused == {"on-demand": False, "incoming": False, "weekly": True, "on-new-data": True}
    for name in names:
        client.resume_deployment(client.read_deployment_by_name(name).id)


def test_an_automation_that_runs_a_deployment_that_is_not_there_is_one_sentence(applied):
    from artifacts.errors import InputError

    runs = {"type": "run-deployment", "deployment_id": "retrain/nightly"}
    with pytest.raises(InputError, match="retrain/nightly, which is not on this server"):
        applied(AUTOMATION | {"actions": [runs]})


def test_a_run_is_given_up_later_than_the_longest_outage_and_a_heartbeat_on_each_side():
    from flows.cli import automations
    from flows.cli.app import SETTINGS

    retries = int(SETTINGS["PREFECT_CLIENT_MAX_RETRIES"])
    outage = sum(2**n for n in range(1, retries + 1))  # seconds, as Prefect's client waits
    wanted = yaml.safe_load(automations.FILE.read_text())["automations"]
    (one,) = [one for one in wanted if "died with their machine" in one["name"]]
    assert one["trigger"]["within"] >= outage + 2 * 180


def test_it_says_what_it_did_and_how_alarms_are_switched_on(flows, client):
    deployed, alarms = flows("deploy").out.splitlines()
    assert deployed.split()[0] == "deployed"
    assert "retrain/weekly" in deployed
    assert alarms.startswith("alarms     off until there is a notification block named alarms")


def test_what_was_set_on_the_work_pool_stays(flows, client):
    from prefect.client.schemas.actions import WorkPoolUpdate

    flows("deploy")
    assert client.read_work_pool("local").type == "process"
    client.update_work_pool("local", WorkPoolUpdate(concurrency_limit=3))
    assert flows("deploy").code == 0
    assert client.read_work_pool("local").concurrency_limit == 3


def test_a_work_pool_of_another_type_is_one_sentence(flows, client):
    from prefect.client.schemas.actions import WorkPoolCreate

    client.create_work_pool(WorkPoolCreate(name="local", type="docker"))
    done = flows("deploy")
    assert done.code == 1
    assert "'docker'" in done.sentence


def test_without_a_server_it_says_how_to_start_one(flows, monkeypatch):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        done = flows("deploy")
    assert done.code == 1
    assert done.sentence.startswith("No Prefect server answers at http://127.0.0.1:9/api: start it")


def test_a_changed_automation_is_updated_in_place(applied):
    (old,) = applied(AUTOMATION).values()
    (new,) = applied(AUTOMATION | {"description": "changed"}).values()
    assert (new.id, new.description) == (old.id, "changed")


def test_one_that_is_in_the_file_no_longer_is_deleted_and_others_stay(applied, client):
    from prefect.events.schemas.automations import AutomationCore

    theirs = AUTOMATION | {"name": "of another project", "tags": []}
    client.create_automation(AutomationCore.model_validate(theirs))
    other = AUTOMATION | {"name": "image-retraining: another"}
    assert len(applied(AUTOMATION, other)) == 3
    assert applied(other).keys() == {other["name"], theirs["name"]}


def test_a_double_is_deleted(applied, client):
    from prefect.events.schemas.automations import AutomationCore

    for _ in range(2):
        client.create_automation(AutomationCore.model_validate(AUTOMATION))
    assert len(applied(AUTOMATION)) == 1


def test_a_paused_one_stays_paused(applied, client):
    (one,) = applied(AUTOMATION).values()
    client.pause_automation(one.id)
    (one,) = applied(AUTOMATION | {"description": "changed"}).values()
    assert not one.enabled


def test_without_a_block_nothing_that_notifies_is_there(applied, block, client):
    wanted = AUTOMATION | {"actions": [NOTIFICATION]}
    (one,) = applied(wanted).values()
    (action,) = one.actions
    assert action.block_document_id == block
    client.delete_block_document(block)
    assert applied(wanted) == {}


def test_a_block_of_that_name_that_cannot_notify_does_not_count(applied, client):
    from prefect.blocks.system import Secret

    Secret(value="x").save("alarms")
    assert applied(AUTOMATION | {"actions": [NOTIFICATION]}) == {}


def test_what_crashed_while_the_server_was_starting_starts_again_and_no_other(flows, client):
    from prefect.states import Completed, Crashed

    assert flows("deploy").code == 0
    deployment = client.read_deployment_by_name("train/on-demand").id

    def run(state, **options):
        number = client.create_flow_run_from_deployment(deployment, **options).id
        client.set_flow_run_state(number, state, force=True)
        return number

    crashed, done = run(Crashed()), run(Completed())
    assert json.loads(flows("deploy", "--json").out)["restarted"] == [
        client.read_flow_run(crashed).name
    ]
    assert client.read_flow_run(crashed).state_name == "AwaitingRetry"
    assert client.read_flow_run(done).state_name == "Completed"
    assert client.read_flow_run(crashed).state.message == "It crashed, and starts again."
    client.set_flow_run_state(crashed, Completed(), force=True)
    assert json.loads(flows("deploy", "--json").out)["restarted"] == []


@pytest.fixture
def dead_process():
    """Number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_runs_whose_process_here_ended_untold_start_again_and_no_others(
    flows, client, root, dead_process
):
    from prefect.states import Running

    from flows.cli.deploy import go_on, start_again

    assert flows("deploy").code == 0
    deployment = client.read_deployment_by_name("train/on-demand").id

    def run(process, *, began=True, earlier=False):
        new = client.create_flow_run_from_deployment(deployment)
        client.update_flow_run(new.id, infrastructure_pid=process and str(process))
        client.set_flow_run_state(new.id, Running(), force=True)
        at = datetime.now(UTC) - timedelta(minutes=10 * earlier)
        folder = root / "reports" / f"{at:%Y%m%d-%H%M%S}-{new.id.hex[:8]}"
        if began:
            folder.mkdir(parents=True)
        return new, folder.name

    over, _ = run(dead_process)
    elsewhere, _ = run(dead_process, began=False)  # or about to begin
    shared, name = run(dead_process)  # on another machine with this data root
    tried, _ = run(dead_process, earlier=True)  # here, and now on another machine
    others = [elsewhere, shared, tried]
    others += [run(process)[0] for process in (os.getpid(), "pod-of-a-cluster", None)]
    with runs.running(name):
        restarted = json.loads(flows("deploy", "--json").out)["restarted"]
        assert restarted == [over.name]
        assert client.read_flow_run(over.id).state_name == "AwaitingRetry"
        for each in others:
            assert client.read_flow_run(each.id).state_name == "Running"
        for turn in range(20):  # as by stops of `./run ui`: they are no fault of the run
            client.set_flow_run_state(over.id, Running(), force=True)
            folder = root / "reports" / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{over.id.hex[:8]}"
            folder.mkdir(parents=True, exist_ok=True)
            assert go_on(client) == ([over.name] if turn < 19 else []), turn
    assert start_again(client) == []
    assert client.read_flow_run(over.id).state_name == "Failed"
    for each in (over, *others):
        client.delete_flow_run(each.id)


@pytest.mark.parametrize(("restarts", "again"), [(0, True), (1, True), (2, False)])
def test_what_crashes_before_it_begins_starts_again_twice(restarts, again):
    from uuid import uuid4

    from prefect.client.schemas.objects import FlowRun, State, StateType

    from flows.cli.deploy import start_again

    run = FlowRun(id=uuid4(), flow_id=uuid4(), deployment_id=uuid4(), name="brave")
    waits = State(type=StateType.SCHEDULED, name="AwaitingRetry")
    states = [State(type=StateType.CRASHED), *[waits] * restarts]
    started = []

    class Client:
        """Of a server with that run, which never began: its run_count is 0."""

        def read_flow_runs(self, **_):
            return [run]

        def read_flow_run_states(self, number):
            return states if number == run.id else []

        def read_flow_run(self, _):
            return run

        def set_flow_run_state(self, number, state):
            started.append((number, state.name))

    assert start_again(Client()) == (["brave"] if again else [])
    assert started == ([(run.id, "AwaitingRetry")] if again else [])


def test_a_pool_that_another_deploy_makes_meanwhile_is_used():
    from types import SimpleNamespace

    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

    from flows.cli.deploy import _kind_of_pool

    asked = []

    class Client:
        """Of a server whose pool another client makes between the question and the order."""

        def read_work_pool(self, name):
            asked.append(name)
            if len(asked) == 1:
                raise ObjectNotFound(Exception())
            return SimpleNamespace(type="process")

        def create_work_pool(self, _):
            raise ObjectAlreadyExists(Exception())

    assert _kind_of_pool(Client(), "local") == "process"
