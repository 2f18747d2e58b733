"""What the tests share: a throw-away Prefect, a small real fixture, and a fresh data root."""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

#: Where the user says that the real files are; the tests of all else know nothing of it.
REAL_SOURCE = os.environ.get("MNIST_SOURCE")

# Before Prefect is imported: nothing of the user's own Prefect is read or written.
os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="prefect-home-")
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
OURS = ("MNIST_DATA", "MNIST_SOURCE", "MNIST_CACHE_LIMIT")
for name in ("PREFECT_API_URL", "PREFECT_PROFILE", *OURS):
    os.environ.pop(name, None)

PROJECT = Path(__file__).parent.parent
FIXTURE = PROJECT / "tests" / "fixtures" / "mnist"


@pytest.fixture(scope="session", autouse=True)
def _remove_prefect_home():
    yield
    shutil.rmtree(os.environ["PREFECT_HOME"], ignore_errors=True)


@pytest.fixture(scope="session")
def server():
    """Address of a Prefect server with an empty database, for this process and its children."""
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        temporary_settings,
    )
    from prefect.testing.utilities import prefect_test_harness

    with (
        prefect_test_harness(server_startup_timeout=120),
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),  # a second a flow
    ):
        yield PREFECT_API_URL.value()


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty data root, fed from the fixture: 800 train and 200 test images."""
    monkeypatch.setenv("MNIST_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MNIST_SOURCE", str(FIXTURE))
    return tmp_path / "data"


@dataclass
class Done:
    """What one command gave."""

    code: int
    out: str
    err: str

    @property
    def sentence(self):
        """The one error that it tells of."""
        assert "Traceback" not in self.err
        assert self.out == ""
        (line,) = [line for line in self.err.splitlines() if line.startswith("Error: ")]
        return line.removeprefix("Error: ")


@pytest.fixture
def flows(monkeypatch, capsys):
    """The command line within this process, which is faster; calling it gives a `Done`."""
    from flows.__main__ import SETTINGS, main

    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)  # and so undone at the end

    def run(*arguments):
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Done(code, *capsys.readouterr())

    return run


@pytest.fixture
def project(tmp_path, server):
    """A copy of the project's code, to be edited; calling it runs the command line there."""
    return project_copy(tmp_path / "project", server)


def project_copy(folder, server):
    """The same for fixtures of a wider scope; its data root is `data` beside the folder."""
    for room in ("classifier", "tasks", "flows"):
        shutil.copytree(
            PROJECT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__", ".*")
        )
    return CommandLine(folder=folder, server=server)


class CommandLine:
    """The project in some folder, run as a user runs it."""

    def __init__(self, folder: Path, server: str | None) -> None:
        self.folder = folder
        self.environment = os.environ | {"MNIST_SOURCE": str(FIXTURE)}
        self.environment["MNIST_DATA"] = str(folder.parent / "data")
        if server:
            self.environment["PREFECT_API_URL"] = server

    def __call__(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.python("-m", "flows", *arguments, **environment)

    def python(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
