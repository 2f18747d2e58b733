"""Runs that died with their machine are marked as crashed, and no others. All wait at once."""

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import yaml

from flows.cli import automations
from tests.conftest import PROJECT, CommandLine
from tests.flows import prefect_server
from tests.flows.prefect_server import until
from tests.flows.webhook import webhook

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
UI = "https://prefect.example"
HEARTBEAT, WITHIN = 30, 50  # seconds; Prefect takes 30 at least
DEPLOYED = "folder post seed 0"  # name of the run of retrain/weekly

#: A flow of that name which sleeps, under that tag; it may send a heartbeat after its end.
SCRIPT = """
import sys, time
from prefect import flow, tags
from prefect.events import emit_event

name, tag, seconds, afterwards = sys.argv[1:]

@flow(flow_run_name=name)
def work():
    time.sleep(float(seconds))

with tags(tag):
    state = work(return_state=True)
if afterwards == "heartbeat":
    emit_event(
        "prefect.flow-run.heartbeat",
        resource={"prefect.resource.id": f"prefect.flow-run.{state.state_details.flow_run_id}"},
        related=[{"prefect.resource.id": f"prefect.tag.{tag}", "prefect.resource.role": "tag"}],
    )
    time.sleep(60)
"""


class Runs:
    """The processes of the runs, and what their server knows of them."""

    def __init__(self, address, folder):
        self.line = CommandLine(PROJECT, address)
        self.line.environment |= {
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT),
            "RETRAIN_DATA": str(folder / "data"),
        }
        self.script = folder / "work.py"
        self.script.write_text(SCRIPT)
        self.started = []

    def start(self, *arguments):
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=PROJECT,
            env=self.line.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def sleeps(self, name, seconds=600, tag=automations.TAG, afterwards="nothing"):
        return self.start(str(self.script), name, tag, str(seconds), afterwards)

    def states(self):
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            return {run.name: run.state.name for run in client.read_flow_runs()}

    def with_heartbeat(self):
        """The names of the runs that sent a heartbeat."""
        from prefect.client.orchestration import get_client

        wanted = {"filter": {"event": {"name": ["prefect.flow-run.heartbeat"]}}}
        with get_client(sync_client=True) as client:
            found = client.request("POST", "/events/filter", json=wanted).json()["events"]
        return {event["resource"].get("prefect.resource.name") for event in found}


def children(pid):
    """The processes below one, itself included."""
    found = [pid]
    for path in os.scandir("/proc"):
        if path.name.isdigit():
            try:
                with open(f"{path.path}/stat") as file:  # noqa: PTH123
                    parent = int(file.read().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == pid:
                found += children(int(path.name))
    return found


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """What became of runs that died, live on, ended, or have not begun."""
    from prefect.client.orchestration import get_client

    folder = tmp_path_factory.mktemp("crash")
    with (
        prefect_server.with_automations(folder / "home", PREFECT_UI_URL=UI) as address,
        get_client(sync_client=True) as client,
        webhook() as hook,
    ):
        hook.as_block()
        runs = Runs(address, folder)
        assert runs.line("deploy").returncode == 0
        apply(client, folder / "automations.yaml")
        try:
            told = tell(runs, client)
            told.messages = hook.messages
            server_log = (folder / "home" / "server.log").read_text()
            told.was_locked = "Failed in consume_loop" in server_log
            yield told
        finally:
            for process in runs.started:
                if process.poll() is None:
                    process.kill()
                process.wait()


def apply(client, file):
    """Apply those that mark and tell, with a short time, and none that starts runs or ends them."""
    wanted = yaml.safe_load(automations.FILE.read_text())
    kept = {each["name"].removeprefix("image-retraining: "): each for each in wanted["automations"]}
    kept.pop("retrain on new data")
    kept.pop("start crashed runs again")
    kept.pop("give up runs that crash before they begin")
    kept["mark runs as crashed that died with their machine"]["trigger"]["within"] = WITHIN
    wanted["automations"] = list(kept.values())
    file.write_text(yaml.safe_dump(wanted))
    automations.apply(client, file)


def tell(runs, client):
    from prefect.states import Pending

    told = SimpleNamespace(runs=runs)
    weekly, on_demand = (
        client.read_deployment_by_name(name).id for name in ("retrain/weekly", "train/on-demand")
    )
    asked = {"dataset": "folder", "recipe": "post", "overrides": {"epochs": 100_000}}
    client.create_flow_run_from_deployment(weekly, parameters=asked)
    worker = runs.start("-m", "prefect", "worker", "start", "--pool", "local")
    killed, theirs = runs.sleeps("killed"), runs.sleeps("theirs", tag="another project")
    stalled = runs.sleeps("stalled", seconds=WITHIN)
    runs.sleeps("ended", seconds=1, afterwards="heartbeat")
    long = runs.sleeps("long", seconds=3 * WITHIN)
    names = ("killed", "theirs", "stalled", "ended", "long", DEPLOYED)
    until(lambda: runs.with_heartbeat() >= set(names), 120)
    stalled.send_signal(signal.SIGSTOP)
    for pid in [*children(worker.pid), killed.pid, theirs.pid]:  # all at once, as a machine does
        os.kill(pid, signal.SIGKILL)
    for name in ("pending", "scheduled"):
        run = client.create_flow_run_from_deployment(on_demand, name=name)
        if name == "pending":
            client.set_flow_run_state(run.id, Pending())
    died = time.monotonic()
    until(lambda: {runs.states()[name] for name in ("killed", DEPLOYED)} == {"Crashed"}, 180)
    told.seconds = time.monotonic() - died
    told.stalled = until(lambda: runs.states()["stalled"] == "Crashed", 60)
    stalled.send_signal(signal.SIGCONT)
    for process in (long, stalled):
        process.wait(3 * WITHIN)
    time.sleep(2 * WITHIN)  # for the last heartbeat of each
    told.states = runs.states()
    return told


def test_runs_that_died_with_their_machine_are_crashed(story):
    assert story.states[DEPLOYED] == "Crashed"
    assert story.states["killed"] == "Crashed"
    assert story.seconds > WITHIN - HEARTBEAT


def test_a_run_that_lives_on_is_not(story):
    assert story.states["long"] == "Completed"


def test_a_run_that_has_ended_is_not_though_a_heartbeat_comes_after_its_end(story):
    assert story.states["ended"] == "Completed"


def test_a_run_that_waits_for_a_worker_is_not(story):
    assert story.states["scheduled"] in {"Scheduled", "Late"}


def test_a_run_that_a_dead_worker_was_about_to_start_is_crashed(story):
    assert story.states["pending"] == "Crashed"


def test_a_run_of_another_project_is_left_alone(story):
    assert story.states["theirs"] == "Running"


def test_a_run_that_was_only_asleep_ends_as_what_it_is(story):
    assert story.stalled
    assert story.states["stalled"] == "Completed"


def test_each_crash_is_one_message(story):
    subjects = [message.subject for message in story.messages]
    flows = {"killed": "work", "stalled": "work", DEPLOYED: "retrain", "pending": "train"}
    expected = [f"{flow} Crashed: {name}." for name, flow in flows.items()]
    if story.was_locked:  # docs/operation.md, "PostgreSQL"
        pytest.skip(f"the server's database was locked for an event: {subjects}")
    assert sorted(subjects) == sorted(expected)


def test_the_message_of_a_crash_says_why_and_what_comes_next(story):
    body = next((each.body for each in story.messages if DEPLOYED in each.subject), None)
    if body is None and story.was_locked:
        pytest.skip("the server's database was locked for an event")
    assert body.startswith("Its heartbeat stopped, so its process or its machine died.\n")
    assert "it starts again by itself; if it does not, ./run retrain --dataset folder" in body
    assert f"Log: {UI}/runs/flow-run/" in body
