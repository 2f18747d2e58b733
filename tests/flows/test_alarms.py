"""Alarms: each matter is one message at a real webhook, through a real server's automations."""

import json
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.states import Crashed, Running

from flows.cli import automations
from tests.conftest import PROJECT, CommandLine
from tests.flows import pictures, prefect_server
from tests.flows.digits import QUICK, new
from tests.flows.prefect_server import until
from tests.flows.webhook import webhook

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LONG = ("--recipe", "post", "--learning-rate", "0.3", "--epochs", "100000")
LESS = ("--max-train-minutes-a-week", "0.001")
#: The command line for many commands, which imports everything once.
MANY = """
import contextlib, io, json, sys
from flows.cli.app import main

for line in sys.stdin:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(json.loads(line))
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""
#: The command line with a flow that may take a second.
TIMED = """
import sys
from flows.cli.app import main
from flows.retrain import retrain
retrain.timeout_seconds = 1
sys.exit(main(sys.argv[1:]))
"""
#: A flow of another project that fails.
THEIRS = """
from prefect import flow

@flow
def retrain():
    raise ValueError("not ours")

retrain(return_state=True)
"""
#: One alarm in two events, as where a server takes up an event again.
TWICE = """
from pathlib import Path
from tasks.alarms import Alarm
from tasks.announce import _send

alarm = Alarm(kind="retrain.slow", what="Slow.", why="It is.", next="./run preflight")
for _ in range(2):
    _send(alarm, "folder", Path("/reports/20260101-000000-00000000"))
"""


class Told:
    """A data root, the command line, and the messages that each command led to."""

    def __init__(self, folder, address, source, hook):
        self.folder, self.hook = folder, hook
        self.line = CommandLine(PROJECT, address)
        self.line.environment |= {
            "RETRAIN_DATA": str(folder / "data"),
            "RETRAIN_SOURCE": str(source),
        }
        self.many = subprocess.Popen(
            [sys.executable, "-c", MANY],
            cwd=PROJECT,
            env=self.line.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run(self, *arguments, code=0, script=None, count=1, **environment):
        """Run a command; returns its messages, after a moment in which more of them could come.

        One with a script or an environment of its own is a process of its own.
        """
        before = len(self.hook.messages)
        command = [*map(str, arguments), "--dataset", "folder", "--json"]
        if script or environment:
            start = ("-c", script) if script else ("-m", "flows")
            done = self.line.python(*start, *command, **environment)
            given, said = done.returncode, done.stdout + done.stderr
        else:
            self.many.stdin.write(json.dumps(command) + "\n")
            self.many.stdin.flush()
            given, *said = json.loads(self.many.stdout.readline())
        assert given == code, said
        until(lambda: len(self.hook.messages) >= before + count, 30)
        time.sleep(2)
        return self.hook.messages[before:]

    def retrain(self, *options, recipe=QUICK, **more):
        return self.run("retrain", *recipe, "--device", "cpu", *options, **more)

    def ingest(self, name, images, labels, **more):
        path = pictures.as_table(self.folder / f"{name}.parquet", images, labels)
        return self.run("ingest", path, **more)

    def data(self, *arguments):
        return self.run("data", *arguments, count=0)

    def were_fast(self):
        """Write three reports as that of the first run, of trainings that took no time."""
        first, *_ = sorted((self.folder / "data" / "reports").glob("*/report.json"))
        report = json.loads(first.read_text())
        for number in range(3):
            folder = first.parent.with_name(f"20260101-000000-{number:08x}")
            folder.mkdir()
            (folder / "report.json").write_text(json.dumps(report | {"train_seconds": 0.01}))

    def came_in_four_weeks_ago(self):
        """Set the time back at which each batch came in."""
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 28 * 86_400))
        for path in (self.folder / "data" / "store" / "log").glob("*.json"):
            event = json.loads(path.read_text())
            if event["kind"] == "ingest":
                path.write_text(json.dumps(event | {"at": at}))

    def crash(self):
        """Crash a run of a deployment; returns the messages."""
        before = len(self.hook.messages)
        with get_client(sync_client=True) as client:
            deployment = client.read_deployment_by_name("train/on-demand").id
            asked = {"dataset": "folder", "recipe": "post"}
            run = client.create_flow_run_from_deployment(deployment, parameters=asked)
            client.set_flow_run_state(run.id, Running())
            client.set_flow_run_state(run.id, Crashed(message="It died."))
        until(lambda: len(self.hook.messages) > before, 30)
        time.sleep(2)
        return self.hook.messages[before:]

    def silence(self, seconds):
        """Apply the automations with another time for silence, and return the next message."""
        wanted = yaml.safe_load(automations.FILE.read_text())
        wanted["automations"][-1]["trigger"]["within"] = seconds
        file = self.folder / "automations.yaml"
        file.write_text(yaml.safe_dump(wanted))
        before = len(self.hook.messages)
        with get_client(sync_client=True) as client:
            automations.apply(client, file)
            until(lambda: len(self.hook.messages) > before, 60)
            automations.apply(client)  # it would repeat itself
        return self.hook.messages[before:]


@pytest.fixture(scope="module")
def there(tmp_path_factory, source):
    folder = tmp_path_factory.mktemp("alarms")
    with prefect_server.with_automations(folder / "home") as address, webhook() as hook:
        told = Told(folder, address, source, hook)
        hook.as_block()
        try:
            assert "alarms     go to the block alarms" in told.line("deploy").stdout
            yield told
        finally:
            told.many.communicate(timeout=60)  # its input ends


@pytest.fixture(scope="module")
def story(there):
    """Messages by matter."""
    found = SimpleNamespace(promoted=there.retrain())
    found.unchanged = there.retrain(count=0)
    images, labels = new(20, 150)
    found.broken_batch = there.ingest("poisoned", images, (labels + 1) % 10)
    found.broken = there.retrain(code=1)
    found.train_broken = there.run("train", *QUICK, "--device", "cpu", code=1)
    there.data("accept", "poisoned", "--why", "to see the gate refuse it")
    there.were_fast()
    found.refused = there.retrain(count=2)
    there.data("retract", "poisoned", "--why", "wrong labels")
    images, labels = new(0, 197)
    dim = np.concatenate([images // 2, images // 3])  # a drift test needs 200 rows
    found.drifted = there.ingest("dim", dim, np.tile(labels, 2))
    found.spent = there.retrain("--max-train-minutes", "0.01", recipe=LONG)
    there.came_in_four_weeks_ago()
    found.stale = there.retrain(*LESS, recipe=LONG, count=2)
    found.stale_again = there.retrain(*LESS, recipe=LONG)
    found.failed = there.retrain(code=1, RETRAIN_SOURCE="/not/there")
    found.timed_out = there.retrain(recipe=LONG, code=1, script=TIMED)
    assert "not ours" in there.line.python("-c", THEIRS).stderr
    found.twice = there.run(script=TWICE)
    found.crashed = there.crash()
    found.silence = there.silence(10)
    return found


def only(messages):
    """The one message, whose body says why, what to type, and where to read on."""
    (message,) = messages
    lines = message.body.splitlines()
    assert lines[0]
    assert lines[-2].startswith("Next: ./run ")
    assert lines[-1].startswith(("Report: /", "Log: "))
    return message


def test_a_promotion_says_which_model_why_and_how_it_is_shown(story):
    message = only(story.promoted)
    assert re.fullmatch(r"folder has a new champion, models/[0-9a-f]{8}\.", message.subject)
    assert message.body.startswith("The official test: ")
    assert "Next: ./run models show --dataset folder\n" in message.body


def test_a_run_that_finds_nothing_new_says_nothing(story):
    assert story.unchanged == []


def test_a_broken_batch_is_told_when_it_comes_in_and_when_it_stops_a_retrain(story):
    came, stopped = only(story.broken_batch), only(story.broken)
    assert came.subject == "New data is broken: poisoned of folder."
    assert "contradicts" in came.body
    assert stopped.subject.startswith("Broken data: folder is not trained before")
    for message in (came, stopped):
        assert "Next: ./run data show poisoned --dataset folder\n" in message.body


def test_a_refusal_and_a_slow_training_are_told_apart(story):
    refused, slow = sorted(story.refused, key=lambda message: message.subject)
    assert re.fullmatch(
        r"The gate refused models/[0-9a-f]{8}, a new model of folder\.", refused.subject
    )
    assert "Next: ./run models show models/" in refused.body
    assert re.fullmatch(r"The training of folder took [\d.]+ s\.", slow.subject)
    assert slow.body.startswith("At the median speed of those before it")
    assert "Next: ./run preflight\n" in slow.body


def test_a_batch_that_drifts_is_told(story):
    message = only(story.drifted)
    assert message.subject == "New data is not like the data before: dim of folder."
    assert "Next: ./run data show dim --dataset folder\n" in message.body


def test_a_spent_budget_is_told_with_the_command_that_goes_on(story):
    message = only(story.spent)
    assert message.subject == "The time that folder may be trained is spent."
    assert "Next: ./run retrain --dataset folder --recipe post\n" in message.body


def test_new_data_without_a_promotion_for_four_weeks_is_told_once(story):
    spent, stale = sorted(story.stale, key=lambda message: "no new champion" in message.subject)
    assert stale.subject == "folder has new data, and no new champion for 28 days."
    assert "Next: ./run models list --dataset folder\n" in stale.body
    assert only(story.stale_again).subject == spent.subject


def test_a_failure_and_a_time_out_are_told_with_their_sentence_and_the_command(story):
    failed, timed_out = only(story.failed), only(story.timed_out)
    assert failed.subject == "retrain Failed: folder post seed 0."
    assert "/not/there" in failed.body
    assert timed_out.subject == "retrain TimedOut: folder post seed 0."
    for message in (failed, timed_out):
        assert "Next: ./run retrain --dataset folder --recipe post\n" in message.body
        assert "Log: run " in message.body  # the server does not know its own address


def test_a_crashed_run_of_a_deployment_is_said_to_start_again(story):
    (message,) = story.crashed
    assert message.subject.startswith("train Crashed: ")
    died, following, log = message.body.splitlines()
    assert died == "It died."
    assert following == (
        "Next: wait a minute, it starts again by itself; if it does not, ./run train "
        "--dataset folder --recipe post"
    )
    assert log.startswith("Log: run ")


def test_a_train_that_stops_at_broken_data_is_told_with_the_batch(story):
    message = only(story.train_broken)
    assert message.subject == "train Broken: folder post seed 0."
    assert "poisoned" in message.body
    assert "Next: ./run data list --dataset folder\n" in message.body


def test_an_alarm_that_a_server_takes_up_again_is_one_message(story):
    assert only(story.twice).subject == "Slow."


def test_silence_is_told(story):
    (message,) = story.silence
    assert message.subject == "No run of retrain has completed for eight days."
    assert message.body.endswith("Next: ./run health")


def test_nothing_else_is_told_and_nothing_of_another_project(story, there):
    told = [message for messages in vars(story).values() for message in messages]
    assert there.hook.messages == told
