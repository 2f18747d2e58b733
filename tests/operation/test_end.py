"""`./run ui` under a supervisor: TERM ends all of it, a training too, which then goes on.

tests/test_run.py has Ctrl-C, which takes the same way.
"""

import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import PROJECT
from tests.operation.running import LONG, Operation, wait

pytestmark = pytest.mark.slow


def processes(operation):
    """Command lines of all processes that belong to this operation."""
    mine, found = f"RETRAIN_DATA={operation.root}\0".encode(), []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mine in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # it ended meanwhile
            continue
    return found


@contextmanager
def serving(operation):
    """Start `./run ui` of the copy; it is gone at the end."""
    said = operation.folder / "ui.log"
    command = [sys.executable, str(operation.copy / "scripts" / "ui.py")]
    with said.open("wb") as log:
        ui = subprocess.Popen(command, env=operation.environment, stdout=log, stderr=log)
    try:
        wait(lambda: "\nopen " in said.read_text(), 180, "it does not start")
        yield ui
    finally:
        ui.terminate()
        ui.wait(60)
        operation.end()
        assert processes(operation) == []


def test_ends_all_within_ten_seconds_and_the_training_goes_on_at_the_next_start(tmp_path):
    operation = Operation(tmp_path)
    # Without it, the run would wait for a place of the queue until its heartbeats are missed.
    operation.without("mark runs as crashed that died with their machine")
    script = operation.copy / "scripts" / "ui.py"
    script.parent.mkdir()
    script.write_bytes((PROJECT / "scripts" / "ui.py").read_bytes())
    with serving(operation) as ui:
        run = operation.asked("train/on-demand", **LONG)
        operation.wait_for_training()
        assert operation.state(run) == "Running"
        ui.terminate()
        signalled = time.monotonic()
        assert ui.wait(60) == 128 + signal.SIGTERM
        assert time.monotonic() - signalled < 10
        time.sleep(1)
        assert processes(operation) == []
    with serving(operation):
        name = operation.run(run)["name"]
        assert f"restarted  {name}" in (tmp_path / "ui.log").read_text()
        operation.wait_for(run, "Completed")
        assert operation.history(run).count("Running") == 2
        assert operation.report(run)["resumed"]
