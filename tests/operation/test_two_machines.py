"""Two machines, one story: each a data root and processes of its own, with real S3 and PostgreSQL.

PostgreSQL is Prefect's database and holds the locks.
"""

import json
import signal
import subprocess
import sys
import time

import pytest

from tests.artifacts.machines import change, objects
from tests.conftest import project_copy
from tests.flows.prefect_server import running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
CNN = ("--dataset", "folder", "--recipe", "cnn", "--device", "cpu", "--json")
QUICK, LONG = (*CNN, "--epochs", "3"), (*CNN, "--epochs", "30")
CACHED = dict.fromkeys(("download", "normalise", "manifest", "train", "evaluate", "plot"), "cached")


@pytest.fixture(autouse=True)
def _credentials(s3, monkeypatch):
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)


class Machine:
    """A data root, and the project that runs there."""

    def __init__(self, name, project, remote):
        self.root = project.folder.parent / name
        self.project, self.environment = project, remote | {"RETRAIN_DATA": str(self.root)}

    def __call__(self, *arguments):
        """Run a command, and return its JSON."""
        done = self.project(*arguments, **self.environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def start(self, *arguments):
        return subprocess.Popen(
            [sys.executable, "-m", "flows", *arguments],
            cwd=self.project.folder,
            env=self.project.environment | self.environment,
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
    postgres.create("locks_of_two")
    remote = s3.environment | {
        "RETRAIN_REMOTE": address,
        "RETRAIN_LOCKS": postgres.address("locks_of_two"),
    }
    connection = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": database}
    with running(folder / "prefect", **connection) as server:
        project = project_copy(folder / "project", server)
        for file, old, new in (
            ("classifier/training/checkpoints.py", "SECONDS = 30.0", "SECONDS = 0.05"),
            ("artifacts/sharing.py", "SCRATCH_SECONDS = 10.0", "SCRATCH_SECONDS = 0.1"),
        ):
            text = (project.folder / file).read_text()
            assert old in text
            (project.folder / file).write_text(text.replace(old, new))
        yield Machine("a", project, remote), Machine("b", project, remote)


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
    assert len(s3.requests()) - before < 10  # news of the log, and the JSON that the report shows


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


def test_two_retrainings_at_once_take_turns_and_both_machines_agree(machines):
    a, b = machines
    runs = [
        one.start("retrain", *CNN, "--epochs", epochs, "--rule", "not-worse")
        for one, epochs in ((a, "8"), (b, "9"))
    ]
    said = [process.communicate(timeout=500) for process in runs]
    assert [err for _, err in said if "waiting for process" in err]
    done = [json.loads(out)["outcome"] for out, _ in said if out]
    assert done
    assert set(done) <= {"promoted", "refused"}
    for process, (_, err) in zip(runs, said, strict=True):
        assert process.returncode == 0 or "was promoted meanwhile" in err
    listed = [one("models", "list", "--dataset", "folder", "--json") for one in machines]
    assert listed[0] == listed[1]
    assert len(listed[0]) >= 2


def test_a_file_that_is_damaged_in_the_bucket_is_found_and_mended(machines, address):
    a, b = machines
    model = a("train", *QUICK)["model"].removeprefix("cache/")
    change(address, f"artifacts/{model}/weights.safetensors", b"damaged")
    found = a.project("cache", "verify", "--remote", "--json", **a.environment)
    assert found.returncode == 1
    assert [row["what"] for row in json.loads(found.stdout)] == [f"artifacts/{model}"]
    assert a("cache", "verify", "--remote", "--repair", "--json")
    assert a("cache", "verify", "--remote", "--json") == []
    b("cache", "pull", "--json")
    assert "weights.safetensors" in b.here("models")
