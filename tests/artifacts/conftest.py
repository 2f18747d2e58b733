"""What the tests of machines share."""

import pytest

from tests.artifacts.lock_processes import Processes
from tests.artifacts.machines import Machines
from tests.fixtures.s3 import running


@pytest.fixture
def elsewhere(tmp_path):
    """Start a process as on another machine; all of them are gone at the end."""
    processes = Processes(tmp_path / "machines")
    yield processes
    processes.end()


@pytest.fixture
def asked_anew(monkeypatch):
    """That the server of the test before did not answer is forgotten."""
    from artifacts import shared_locks

    monkeypatch.setattr(shared_locks._background, "away_until", 0.0)


@pytest.fixture
def machines(tmp_path, monkeypatch, bucket):
    return Machines(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def toys(server):
    from tests.artifacts import toy_steps

    return toy_steps


@pytest.fixture
def stoppable(tmp_path, monkeypatch):
    """A server of this test, which holds the remote."""
    with running(tmp_path) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("RETRAIN_REMOTE", f"{server.make(f'bucket-{server.port}')}/team")
        yield server
