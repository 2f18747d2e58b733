"""Two machines, one story: each a data root and processes of its own, with real S3 and PostgreSQL.

PostgreSQL is Prefect's database and holds the locks.
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from tests.artifacts.machines import change, objects
from tests.conftest import project_copy
from tests.flows.prefect_server import running

pytestmark = pytest.mark.slow
CNN = ("--dataset", "folder", "--recipe", "cnn", "--device", "cpu", "--json")
QUICK, LONG = (*CNN, "--epochs", "3"), (*CNN, "--epochs", "60")
CACHED = dict.fromkeys(("download", "normalise", "manifest", "train", "evaluate", "plot"), "cached")


class Machine:
    """A data root, and the project that runs there."""

    def __init__(self, name, project, remote):
        self.root = project.folder.parent / name
        self.project, self._environment = project, remote | {"RETRAIN_DATA": str(self.root)}

    def __call__(self, *arguments):
        """Run a command, and return its JSON."""
        done = self.project(*arguments, **self._environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def start(self, *arguments):
        return subprocess.Popen(
            [sys.executable, "-m", "flows", *arguments],
            cwd=self.project.folder,
            env=self.project.environment | self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def here(self, kind):
        """Names of the files of that kind on this machine."""
        return sorted(path.name for path in self.root.glob(f"cache/{kind}/*/*"))


@pytest.fixture(scope="module")
def address(s3):
    return s3.make("two-machines") + "/team"


@pytest.fixture(scope="module")
def machines(s3, postgres, address, tmp_path_factory):
    """Two machines, whose trainings write a checkpoint often."""
    folder = tmp_path_factory.mktemp("machines")
    database = postgres.create("prefect_of_two")
    remote = s3.environment | {
        "RETRAIN_REMOTE": address,
        "RETRAIN_LOCKS": postgres.address("locks"),
    }
    postgres.create("locks")
    connection = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": database}
    with _environment(s3.environment), running(folder / "prefect", **connection) as server:
        project = project_copy(folder / "project", server)
        for file, old, new in (
            ("classifier/training/checkpoints.py", "SECONDS = 30.0", "SECONDS = 0.05"),
            ("artifacts/sharing.py", "SCRATCH_SECONDS = 10.0", "SCRATCH_SECONDS = 0.1"),
        ):
            text = (project.folder / file).read_text()
            assert old in text
            (project.folder / file).write_text(text.replace(old, new))
        yield Machine("a", project, remote), Machine("b", project, remote)


@contextmanager
def _environment(values):
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    yield
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def test_the_second_machine_reuses_all_and_opens_only_what_it_shows(machines, s3):
    a, b = machines
    first = a("train", *QUICK)
    before = len(s3.requests())
    second = b("train", *QUICK)
    assert len(s3.requests()) - before < 20
    assert second["steps"] == CACHED
    assert second["test_accuracy"] == first["test_accuracy"]
    assert second["model"] == first["model"]
    assert {kind: b.here(kind) for kind in ("raw", "tables", "models", "evaluations")} == {
        "raw": [],
        "tables": [],
        "models": [],
        "evaluations": [],
    }
    assert "predictions.png" in b.here("pictures")
    before = len(s3.requests())
    assert b("train", *QUICK)["steps"] == CACHED
    assert len(s3.requests()) - before < 5


def test_a_machine_that_dies_while_training_leaves_its_checkpoint_to_the_other(
    machines, address, s3, tmp_path
):
    a, b = machines
    alone = Machine("alone", a.project, {})
    expected = alone("train", *LONG)["model"]
    process = a.start("train", *LONG)
    deadline = time.monotonic() + 180
    while not [name for name in objects(address) if name.startswith("checkpoints/train/")]:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = len(s3.requests())
    done = b("train", *LONG)
    assert done["steps"]["train"] == "ran"
    assert done["model"] == expected
    asked = s3.requests()[before:]
    assert [path for method, path in asked if method == "GET" and "/checkpoints/train/" in path]
    assert not [name for name in objects(address) if name.startswith("checkpoints/train/")]


def test_what_one_promotes_is_in_use_on_both(machines):
    a, b = machines
    first = a("retrain", *QUICK)
    assert first["outcome"] == "promoted"
    (listed,) = (row for row in b("models", "list", "--dataset", "folder", "--json"))
    assert (listed["model"], listed["status"]) == (first["challenger"], "champion")
    assert b("retrain", *QUICK)["outcome"] == "unchanged"


def test_of_two_promotions_at_once_one_wins_and_the_other_says_so(machines):
    a, b = machines
    for seed in ("1", "2"):
        a("train", *QUICK, "--seed", seed)
    both = [
        one.start("retrain", *CNN, "--epochs", epochs, "--mode", "better")
        for one, epochs in ((a, "20"), (b, "21"))
    ]
    outcomes = []
    for process in both:
        out, err = process.communicate(timeout=240)
        outcomes.append(json.loads(out)["outcome"] if process.returncode == 0 else err)
    assert [each for each in outcomes if each == "promoted"]


def test_a_file_that_is_damaged_in_the_bucket_is_found_and_mended(machines, address):
    a, b = machines
    model = a("train", *QUICK)["model"].removeprefix("cache/")
    change(address, f"artifacts/{model}/weights.safetensors", b"damaged")
    found = a.project("cache", "verify", "--remote", "--json", **a._environment)
    assert found.returncode == 1
    assert [row["what"] for row in json.loads(found.stdout)] == [f"artifacts/{model}"]
    assert a("cache", "verify", "--remote", "--repair", "--json")
    assert a("cache", "verify", "--remote", "--json") == []
    b("cache", "pull", "--json")
    assert "weights.safetensors" in b.here("models")
