"""`./run ui` as a process, on a port, a Prefect home and a data root of its own."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import FIXTURE, PROJECT
from tests.fixtures.postgres import free_port

START_SECONDS = 240


@dataclass
class Ui:
    """What `./run ui` serves, and the environment of those who use it."""

    pid: int
    port: int
    folder: Path
    environment: dict[str, str]

    @property
    def address(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def home(self):
        return self.folder / "prefect"

    @property
    def data(self):
        return self.folder / "data"

    @property
    def said(self):
        return (self.folder / "ui.log").read_text()

    def flows(self, *arguments, drop=(), **environment):
        """Run `./run …` as in another terminal."""
        return self.python("-m", "flows", *arguments, drop=drop, **environment)

    def python(self, *arguments, drop=(), **environment):
        known = {k: v for k, v in self.environment.items() if k not in drop}
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=PROJECT,
            env=known | environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )


@contextmanager
def serving(folder, **environment):
    """Start `./run ui`, and end it."""
    port = free_port()
    known = os.environ | {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_API_PORT": str(port),
        "RETRAIN_DATA": str(folder / "data"),
        "RETRAIN_SOURCE": str(FIXTURE),
    }
    known |= environment
    known.pop("PREFECT_API_URL", None)  # that of the test run's own server
    with (folder / "ui.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(PROJECT / "scripts" / "ui.py")],
            cwd=folder,
            env=known,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    client = known | {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}
    ui = Ui(process.pid, port, folder, client)
    try:
        _wait_for(process, ui)
        yield ui
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _wait_for(process, ui):
    deadline = time.monotonic() + START_SECONDS
    while "\nopen " not in ui.said:
        assert process.poll() is None, ui.said
        assert time.monotonic() < deadline, ui.said
        time.sleep(0.2)
