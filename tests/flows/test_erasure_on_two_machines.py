"""Erasure where machines share a bucket: what one erased leaves the other by the command it names.

Both machines are data roots of this process, on a real S3 server.
"""

import logging
import shlex

import pytest

from registry import erasures, sharing
from tests.flows import pictures
from tests.flows.test_erasure import report_pictures

pytestmark = pytest.mark.slow

WHY = "it's her wish; $(touch evil)"
IMAGES, LABELS = pictures.new(0, 60)
ROW = pictures.digest(IMAGES[3])
TOLD = "Erase them here too"


def shown(root):
    """Names of the artifacts of the cache that show rows, or tell of single ones."""
    kinds = ("pictures", "checks")
    return {path.name for kind in kinds for path in root.folder.glob(f"cache/{kind}/*/")}


@pytest.fixture
def machines(server, bucket, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(sharing, "FRESH_SECONDS", 0.0)
    source = pictures.write_source(tmp_path / "source")
    said = logging.getLogger(erasures.__name__)
    said.addHandler(caplog.handler)  # Prefect, which knows it, keeps what it says from the root
    yield lambda name: pictures.data_root(tmp_path / name, source)
    said.removeHandler(caplog.handler)


def test_the_command_that_the_other_machine_is_told_erases_all_of_it_there(
    machines, tmp_path, caplog
):
    with machines("a") as a:
        a.ingest(pictures.as_folders(tmp_path / "new", IMAGES, LABELS))
        a.train(epochs=1)
    with machines("b") as b:
        assert b("cache", "pull").code == 0
        run = b.train(epochs=1)
        before, pictured = report_pictures(b, run), shown(b)
        assert before
        assert pictured
        assert ROW in pictures.rows_below(b.folder)
    with machines("a") as a:
        a.data("erase", ROW, "--why", WHY)
    with machines("b") as b:
        b.data("list")
        (told,) = {each for each in caplog.messages if TOLD in each}
        words = shlex.split(told.partition("./run ")[2])
        assert words == ["data", "erase", "--dataset", "folder", "--why", WHY, ROW]
        refused = b("cache", "push")
        assert refused.code == 1
        assert told.partition("./run ")[2] in refused.sentence
        (problem,) = b.json("health", code=1)["problems"][1:]
        assert problem["next"] == f"./run {shlex.join(words)}"
        done = b(*words)
        assert done.code == 0, done.err
        assert f"models/{run['model'].rpartition('/')[2][:8]}" in done.out
        assert ROW not in pictures.rows_below(b.folder)
        assert shown(b).isdisjoint(pictured)
        after = report_pictures(b, run)
        assert [name for name in before if before[name] == after[name]] == []
        assert b("cache", "push").code == 0
        assert len(b.json("health", code=1)["problems"]) == 1


def test_both_machines_train_after_an_erasure_and_neither_is_told_of_its_own(
    machines, tmp_path, caplog
):
    with machines("a") as a:
        a.ingest(pictures.as_folders(tmp_path / "new", IMAGES, LABELS))
        a.train(epochs=1)
    with machines("b") as b:
        b.train(epochs=1)
    with machines("a") as a:
        a.data("erase", ROW, "--why", WHY)
    with machines("b") as b:
        first = b.train(epochs=1)
        b.data("erase", ROW, "--why", WHY)
    caplog.clear()
    with machines("a") as a:
        assert a.train(epochs=1)["model"] == first["model"]
        assert TOLD not in " ".join(caplog.messages)
        assert [event["kind"] for event in a.events()].count("erase") == 1
