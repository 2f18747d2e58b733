"""What the tests of several machines share."""

import pytest

from registry import sharing
from tests.artifacts.machines import Machines


@pytest.fixture
def machines(tmp_path, monkeypatch, bucket):
    monkeypatch.setattr(sharing, "FRESH_SECONDS", 0.0)
    return Machines(tmp_path, monkeypatch)
