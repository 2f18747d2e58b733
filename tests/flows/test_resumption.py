"""A train flow that was killed, or whose training failed, resumes from its checkpoint."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import project_copy

pytestmark = pytest.mark.slow
OPTIONS = (  # on a GPU no two trainings are equal to the byte
    *("train", "--dataset", "folder", "--recipe", "cnn", "--epochs", "60"),
    *("--device", "cpu", "--json"),
)


def write_often(project):
    """Have a project write a checkpoint many times a second."""
    checkpoints = project.folder / "classifier" / "training" / "checkpoints.py"
    text = checkpoints.read_text()
    checkpoints.write_text(text.replace("SECONDS = 30.0", "SECONDS = 0.05"))
    assert checkpoints.read_text() != text
    return project


@pytest.fixture
def often(project):
    return write_often(project)


def result(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def expected(tmp_path_factory, server):
    """The model of a training that was left alone."""
    project = write_often(project_copy(tmp_path_factory.mktemp("whole") / "project", server))
    return result(project(*OPTIONS))["model"]


def test_killed_while_it_trains_a_new_run_ends_in_the_same_model(often, expected):
    root = often.folder.parent / "data"
    for delay in (0.0, 0.7):
        process = subprocess.Popen(
            [sys.executable, "-m", "flows", *OPTIONS],
            cwd=often.folder,
            env=often.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 120
        while not list(root.glob("cache/checkpoints/*/*/*")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    again = result(often(*OPTIONS))
    assert again["model"] == expected
    assert again["steps"]["normalise"] == "cached"
    assert again["steps"]["train"] == "ran"
    assert not list(root.glob("cache/checkpoints/*/*/*"))


def test_a_training_that_fails_once_is_retried_from_its_checkpoint(often, expected):
    """The network fails in its 100th step, once."""
    failing = (
        "import sys\n"
        "from classifier.training import state\n"
        "steps = []\n"
        "train_step = state.TrainState.train_step\n"
        "def failing(self, part):\n"
        "    steps.append(self.step)\n"
        "    if len(steps) == 100:\n"
        "        raise RuntimeError('a passing fault')\n"
        "    train_step(self, part)\n"
        "state.TrainState.train_step = failing\n"
        "from flows.cli.app import main\n"
        f"code = main({list(OPTIONS)!r})\n"
        "sys.stderr.write(f'STEPS {steps[98:101]}')\n"
        "sys.exit(code)\n"
    )
    (often.folder / "failing.py").write_text(failing)
    done = often.python("failing.py")
    assert result(done)["model"] == expected
    before, failed, after = json.loads(done.stderr.rpartition("STEPS ")[2])
    assert failed == before + 1
    assert 0 < after <= failed  # resumed from a checkpoint, not from the start
