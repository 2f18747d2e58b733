"""`./run ui` under a supervisor: TERM ends all of it, a training too.

tests/test_run.py has Ctrl-C, which takes the same way.
"""

import os
import signal
import subprocess
import sys
import time
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


def test_ends_all_within_ten_seconds_while_a_training_runs(tmp_path):
    operation = Operation(tmp_path)
    script = operation.copy / "scripts" / "ui.py"
    script.parent.mkdir()
    script.write_bytes((PROJECT / "scripts" / "ui.py").read_bytes())
    with (tmp_path / "ui.log").open("wb") as log:
        ui = subprocess.Popen(
            [sys.executable, str(script)], env=operation.environment, stdout=log, stderr=log
        )
    try:
        wait(lambda: "open " in (tmp_path / "ui.log").read_text(), 180, "it does not start")
        run = operation.asked("train/on-demand", **LONG)
        operation.wait_for_training()
        assert operation.state(run) == "Running"
        ui.send_signal(signal.SIGTERM)
        signalled = time.monotonic()
        assert ui.wait(60) == 128 + signal.SIGTERM
        assert time.monotonic() - signalled < 10
        time.sleep(1)
        assert processes(operation) == []
    finally:
        if ui.poll() is None:
            os.kill(ui.pid, signal.SIGKILL)
            ui.wait()
        operation.end()
        for line in processes(operation):
            sys.stderr.write(f"left: {line}\n")
