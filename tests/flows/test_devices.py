"""Training on several devices, through the flow: here processes on one CPU."""

import errno
import json
import os
import signal
import sys
import tempfile
import threading
from contextlib import suppress

import pytest

import artifacts.errors
from artifacts import records
from classifier.errors import InputError
from classifier.training import checkpoints
from classifier.training.checkpoints import Checkpoint
from tests.fixtures.processes import MARK, marked, of_rank
from tests.flows.running import ran, run

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="there are no two cores here",
)


def test_the_number_of_devices_is_recorded_and_computes_nothing_anew(server, root):
    first = run(device="cpu", devices=2)
    assert "train" in ran(first)
    assert first["device"] == "2 x cpu"
    (model,) = [r.artifact for r in records.everything() if r.step == "train"]
    assert not model.metadata["exact"]
    again = run(device="cpu", devices=1)
    assert ran(again) == set()
    assert again["model"] == first["model"]
    alone = run(device="cpu", overrides={"epochs": 4}, dry_run=True)
    assert alone["why"]["train"] == "recipe.epochs 3 -> 4"


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
def test_a_killed_rank_ends_the_step_and_its_retry_resumes(server, root, monkeypatch, caplog):
    monkeypatch.setenv(MARK, str(root))
    monkeypatch.setitem(Checkpoint.__init__.__kwdefaults__, "seconds", 0.0)
    killed, steps, ended = [], [], threading.Event()

    def watch():
        """Kill rank 1 once there is a checkpoint, and note the step of each from then on."""
        while not ended.wait(0.05):
            for path in root.glob("cache/checkpoints/*/*/*"):
                with suppress(InputError, OSError, ValueError):
                    if not killed:
                        killed.append(of_rank(marked(str(root)), 1))
                        os.kill(killed[0], signal.SIGKILL)
                    elif path.suffix != ".tmp":
                        steps.append(json.loads(checkpoints.read(path)[1]["about"])["step"])

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        result = run(device="cpu", devices=2, overrides={"epochs": 300})
    finally:
        ended.set()
        thread.join()
    assert ran(result) >= {"train"}
    said = "Rank 1 of the 2 processes that train was ended by SIGKILL, most likely for lack of"
    warned = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert [each for each in warned if f"The training is tried once more: {said}" in each]
    assert 0 < steps[0] < 300
    assert steps == sorted(steps)
    assert marked(str(root)) == {}


def test_a_full_folder_for_temporary_files_is_named(root, server, monkeypatch):
    from classifier.training import distributed

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(distributed, "fit", full)
    with pytest.raises(
        artifacts.errors.InputError, match=f"Cannot write to {tempfile.gettempdir()}: .*TMPDIR"
    ):
        run(device="cpu", devices=2)
