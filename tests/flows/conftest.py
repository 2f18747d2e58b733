"""Data roots that tests copy instead of filling each their own: a training takes seconds."""

import logging
import shutil

import pytest

from registry import erasures, sharing
from tests.conftest import FIXTURE
from tests.flows import digits, pictures
from tests.flows.running import run


@pytest.fixture(scope="session")
def _after_one_run(tmp_path_factory, server):
    folder = tmp_path_factory.mktemp("one-run") / "data"
    with pictures.data_root(folder, FIXTURE):
        return folder, run()


@pytest.fixture
def trained(root, _after_one_run):
    """The result of the first run in the data root: a copy of a root where it ran."""
    folder, result = _after_one_run
    shutil.copytree(folder, root)
    return result


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """A source of UCI digits: see tests/flows/digits.py."""
    return digits.write_source(tmp_path_factory.mktemp("uci"))


@pytest.fixture(scope="session")
def _after_one_retrain(tmp_path_factory, source, server):
    folder = tmp_path_factory.mktemp("one-retrain") / "data"
    with pictures.data_root(folder, source):
        first = digits.Root(folder).retrain()
    assert first["outcome"] == "promoted"
    return folder, first


@pytest.fixture
def first(root, _after_one_retrain):
    """The result of the first retrain in the data root: a copy of a root with that champion."""
    folder, result = _after_one_retrain
    shutil.copytree(folder, root.folder)
    return result


@pytest.fixture(scope="session")
def _after_good_rows(tmp_path_factory, source, _after_one_retrain):
    folder, _ = _after_one_retrain
    copied = shutil.copytree(folder, tmp_path_factory.mktemp("good-rows") / "data")
    with pictures.data_root(copied, source):
        digits.Root(copied).add("good", *digits.new(0, 20))
    return copied


@pytest.fixture
def good(root, first, _after_good_rows):
    """After the first retrain, a batch `good` of 20 rows came in."""
    shutil.rmtree(root.folder)
    shutil.copytree(_after_good_rows, root.folder)


@pytest.fixture
def machines(server, bucket, tmp_path, monkeypatch, caplog):
    """Give the data root of a machine, by its name; all share a bucket and a source."""
    monkeypatch.setattr(sharing, "FRESH_SECONDS", 0.0)
    source = pictures.write_source(tmp_path / "source")
    said = logging.getLogger(erasures.__name__)
    said.addHandler(caplog.handler)  # Prefect, which knows it, keeps what it says from the root
    yield lambda name: pictures.data_root(tmp_path / name, source)
    said.removeHandler(caplog.handler)
