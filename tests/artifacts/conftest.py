"""What the tests of locks between machines share."""

import pytest

from tests.artifacts.lock_processes import Processes


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
