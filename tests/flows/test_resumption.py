"""A train flow that was killed, or whose training failed, resumes from its checkpoint."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.slow
OPTIONS = (  # on a GPU no two trainings are equal to the byte
    *("train", "--dataset", "folder", "--recipe", "cnn", "--epochs", "60"),
    *("--device", "cpu", "--json"),
)


@pytest.fixture
def often(project):
    """A project that writes a checkpoint many times a second."""
    checkpoints = project.folder / "classifier" / "training" / "checkpoints.py"
    text = checkpoints.read_text()
    checkpoints.write_text(text.replace("SECONDS = 30.0", "SECONDS = 0.05"))
    assert checkpoints.read_text() != text
    return project


def result(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_killed_while_it_trains_a_new_run_ends_in_the_same_model(often):
    data = {"RETRAIN_DATA": str(often.folder.parent / "whole")}
    expected = result(often(*OPTIONS, **data))["model"]
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


def test_a_training_that_fails_once_is_retried_from_its_checkpoint(often):
    """The network fails in its 100th step, once."""
    expected = result(often(*OPTIONS, RETRAIN_DATA=str(often.folder.parent / "whole")))["model"]
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
