"""What the tests share: tiers, a throw-away Prefect, a small fixture, and a fresh data root."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

# A shell that starts the tests in the background lets them, and all that they start, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Before torch is imported, here and in every process that a test starts: workers share the cores,
# and threads that outnumber them slow each other down many times over.
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // WORKERS))

#: Where the user says that the real files are; the tests of all else know nothing of it.
REAL_SOURCE = os.environ.get("RETRAIN_SOURCE")

# Before Prefect is imported: nothing of the user's own Prefect is read or written.
os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="prefect-home-")
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW"] = "ignore"  # what is logged in no run
OURS = (
    "RETRAIN_DATA",
    "RETRAIN_SOURCE",
    "RETRAIN_CACHE_LIMIT",
    "RETRAIN_KEEP_REPORTS",
    "RETRAIN_REMOTE",
    "RETRAIN_LOCKS",
    "RETRAIN_DASK",
)
for name in ("PREFECT_API_URL", "PREFECT_PROFILE", *OURS):
    os.environ.pop(name, None)

#: The files that take longest, because they wait, the longest first: none is left for the end.
LONGEST = (
    "operation/test_failures",
    "flows/test_crash",
    "flows/test_ui",
    "flows/test_alarms",
    "flows/test_faults",
    "operation/test_secrets",
)

PROJECT = Path(__file__).parent.parent
FIXTURE = PROJECT / "tests" / "fixtures" / "mnist"


def pytest_addoption(parser):
    tiers = parser.getgroup("tiers", "How much is tested")
    tiers.addoption("--quick", action="store_true", help="Only what needs no Prefect server")
    tiers.addoption("--all", action="store_true", help="Also what is slow")


def pytest_xdist_auto_num_workers(config):
    """One worker a core, and with --all one more: there is always a test that waits.

    No more than four: each has a Prefect server.
    """
    return min(4, (os.cpu_count() or 1) + config.option.all)


def start(item):
    """The place of a test in the order of all: long files first, then those with slow tests."""
    file = item.path.relative_to(PROJECT / "tests").with_suffix("").as_posix()
    if file in LONGEST:
        return LONGEST.index(file)
    return len(LONGEST) + (item.get_closest_marker("slow") is None)


def pytest_collection_modifyitems(config, items):
    """Choose the tier, and the order."""
    chosen, left_out = [], []
    for item in items:
        slow = item.get_closest_marker("slow") is not None
        if config.option.quick:
            wanted = not slow and "server" not in item.fixturenames
        else:
            wanted = config.option.all or not slow
        (chosen if wanted else left_out).append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = sorted(chosen, key=start)


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


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL of its own: see tests/fixtures/postgres.py."""
    from tests.fixtures.postgres import cluster, programs

    if programs() is None:
        pytest.skip("there is no PostgreSQL here: it is Debian's package `postgresql`")
    with cluster() as running:
        yield running


@pytest.fixture(scope="session")
def s3(tmp_path_factory):
    """An S3 server of its own: see tests/fixtures/s3.py."""
    from tests.fixtures.s3 import running

    with running(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def bucket(s3, monkeypatch):
    """The server with an empty bucket as the remote of this test."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RETRAIN_REMOTE", f"{s3.make(f'bucket-{secrets.token_hex(8)}')}/team")
    return s3


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty data root, fed from the fixture: 800 train and 200 test images."""
    monkeypatch.setenv("RETRAIN_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("RETRAIN_SOURCE", str(FIXTURE))
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
    from flows.cli.app import SETTINGS, main

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
    for package in ("artifacts", "classifier", "flows", "registry", "reporting", "tasks"):
        ignored = shutil.ignore_patterns("__pycache__", ".*")
        shutil.copytree(PROJECT / package, folder / package, ignore=ignored)
    return CommandLine(folder=folder, server=server)


class CommandLine:
    """The project in some folder, run as a user runs it."""

    def __init__(self, folder: Path, server: str | None) -> None:
        self.folder = folder
        self.environment = os.environ | {"RETRAIN_SOURCE": str(FIXTURE)}
        self.environment["RETRAIN_DATA"] = str(folder.parent / "data")
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
