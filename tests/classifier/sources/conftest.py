"""What the tests of the sources share."""

import threading

import pytest

from tests.classifier.sources.loopback import Web


@pytest.fixture
def web(monkeypatch):
    """A server on loopback, which is reached without any proxy."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    with Web() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.over.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def folder(tmp_path):
    """An empty folder, to be filled."""
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"
