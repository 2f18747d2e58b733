"""Two flows for the same thing: one computes, the other waits and reuses."""

import json
import re
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import PROJECT, CommandLine
from tests.flows.running import STEPS

LONG = ("train", "--dataset", "folder", "--recipe", "cnn", "--epochs", "80", "--json")
LONG += ("--grid.rows", "1", "--grid.columns", "2")


@dataclass
class Started:
    """A flow in a process of its own."""

    process: subprocess.Popen
    out: Path
    err: Path

    def steps(self):
        """What became of its steps, once it has ended well."""
        assert self.process.wait(timeout=240) == 0, self.err.read_text()
        return json.loads(self.out.read_text())["steps"]


@pytest.fixture
def start(server, root, tmp_path):
    """Start a flow beside the others; all of them are gone at the end."""
    project = CommandLine(PROJECT, server)
    project.environment |= {"RETRAIN_DATA": str(root), "OMP_NUM_THREADS": "1"}
    running = []

    def starting(*arguments, **environment):
        out, err = (tmp_path / f"{len(running)}.{name}" for name in ("out", "err"))
        with out.open("w") as to_out, err.open("w") as to_err:
            process = subprocess.Popen(
                [sys.executable, "-m", "flows", *arguments],
                cwd=PROJECT,
                env=project.environment | environment,
                stdout=to_out,
                stderr=to_err,
            )
        running.append(process)
        return Started(process, out, err)

    yield starting
    for process in running:
        process.kill()
        process.wait()


def training(root):
    """The lock of the training that is under way, once there is one."""
    return wait_until(lambda: next(root.glob("cache/locks/train/*/*.lock"), None))


def wait_until(found):
    deadline = time.monotonic() + 60
    while not (there := found()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return there


def says(lock, started):
    return lock.exists() and f"process {started.process.pid} " in lock.read_text()


@pytest.mark.slow
def test_one_computes_and_the_other_waits_saying_what_for_and_reuses(start, root):
    first = start(*LONG)
    lock = training(root)
    assert says(lock, first)
    second = start(*LONG)
    mine, other = first.steps(), second.steps()
    assert mine["train"] == "ran"
    assert other["train"] == "cached"
    assert len(list(root.glob("cache/models/*/"))) == 1
    for step in STEPS:
        assert sorted((mine[step], other[step])) == ["cached", "ran"]
    (waiting,) = re.findall(
        r"^train: waiting for process (\d+) \(folder cnn seed 0\), which computes the same result$",
        second.err.read_text(),
        re.MULTILINE,
    )
    assert int(waiting) == first.process.pid
    assert not list(root.glob("cache/locks/**/*.lock"))


@pytest.mark.slow
def test_started_at_once_each_step_runs_once(start):
    quick = ("train", "--dataset", "folder", "--recipe", "post", "--epochs", "2", "--json")
    mine, other = (started.steps() for started in [start(*quick), start(*quick)])
    for step in STEPS:
        assert sorted((mine[step], other[step])) == ["cached", "ran"]


@pytest.mark.slow
def test_when_the_worker_is_killed_the_other_takes_its_place(start, root):
    first = start(*LONG)
    lock = training(root)
    second = start(*LONG)
    wait_until(lambda: "train: waiting" in second.err.read_text())
    first.process.kill()
    first.process.wait()
    wait_until(lambda: says(lock, second))
    assert second.steps()["train"] == "ran"


@pytest.mark.slow
def test_other_keys_do_not_wait(start, root):
    first = start(*LONG)
    lock = training(root)
    other = start("train", "--dataset", "folder", "--recipe", "post", "--epochs", "2", "--json")
    assert other.steps()["train"] == "ran"
    assert "waiting" not in other.err.read_text()
    assert says(lock, first)
    assert first.process.poll() is None


@pytest.mark.slow
@pytest.mark.timeout(600)  # both train
def test_on_two_machines_one_waits_for_the_other_and_says_so(start, root, postgres):
    postgres.create("same_key")
    shared = {"RETRAIN_LOCKS": postgres.address("same_key")}
    other_root = root.parent / "other"
    first = start(*LONG, **shared)
    training(root)
    second = start(*LONG, **shared, RETRAIN_DATA=str(other_root))
    mine, other = first.steps(), second.steps()
    assert mine["train"] == other["train"] == "ran"  # it has no copy of what the first computed
    host = socket.gethostname().partition(".")[0][:30]
    assert (
        f"train: waiting for process {first.process.pid} on {host} (folder cnn seed 0), which "
        "computes the same result\n"
    ) in second.err.read_text()
    names = [
        {path.name for path in folder.glob("cache/models/*/")} for folder in (root, other_root)
    ]
    assert names[0] == names[1]
    assert len(names[0]) == 1
    files = (path for path in root.parent.rglob("*") if path.is_file())
    having = [path for path in files if postgres.password.encode() in path.read_bytes()]
    assert having == []
    assert not list(root.parent.glob("*/cache/locks/**/*.lock"))
