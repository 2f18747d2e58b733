"""Push, pull, prune and clear of the remote, on a real S3 server."""

from dataclasses import replace
from datetime import timedelta

import pytest

from artifacts import remote, shared, upkeep
from artifacts.artifact import stats_of
from artifacts.errors import ArgumentError
from artifacts.remote import RemoteAwayError
from tests.artifacts.machines import CACHED, address, files_here, objects, said

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("server")]


def test_push_writes_what_was_computed_without_the_remote(toys, machines, monkeypatch):
    there = address()
    monkeypatch.delenv("RETRAIN_REMOTE")
    machines.on("a")
    toys.direct()
    monkeypatch.setenv("RETRAIN_REMOTE", there)
    assert upkeep.push() == (2, 2)
    assert upkeep.push() == (0, 0)
    machines.on("b")
    assert said(toys.direct()) == CACHED


def test_pull_brings_everything_with_its_files(toys, machines, monkeypatch):
    machines.on("a")
    toys.direct()
    machines.on("b")
    assert upkeep.pull() == 2
    assert len(files_here()) == 2
    assert upkeep.pull() == 0
    monkeypatch.delenv("RETRAIN_REMOTE")
    assert said(toys.direct()) == CACHED


def test_prune_leaves_what_is_young(toys, machines):
    machines.on("a")
    toys.direct()
    assert upkeep.prune(older_than=timedelta(days=1)) == (0, 0, 0)
    with pytest.raises(ArgumentError, match="--older-than must be a day or more"):
        upkeep.prune(older_than=timedelta(hours=1))


def test_prune_leaves_young_files_whose_record_is_on_its_way(toys, machines):
    machines.on("a")
    toys.direct()
    there = upkeep.named()
    there.delete([name for name in objects(address()) if name.startswith("records")])
    there.put(f"store/artifacts/tables/{'0' * 64}/part.parquet", b"rows")
    before = objects(address())
    assert upkeep.prune(older_than=timedelta(days=1)) == (0, 0, 0)
    assert set(before) <= set(objects(address()))


def test_nothing_is_older_than_all_time(toys, machines):
    machines.on("a")
    toys.direct()
    for days in (999_999, timedelta.max.days):
        assert upkeep.prune(older_than=timedelta(days=days)) == (0, 0, 0)


def test_prune_removes_old_records_and_what_only_they_name(toys, machines, monkeypatch):
    machines.on("a")
    numbers, total = (each.artifact for each in toys.direct())
    in_a_month(monkeypatch, young="records/draw/")
    dry = upkeep.prune(older_than=timedelta(days=7), dry_run=True)
    assert dry[:2] == (1, 2)
    assert upkeep.prune(older_than=timedelta(days=7)) == dry
    left = [each for each in objects(address()) if each.startswith(("records", "artifacts"))]
    assert sorted(left) == sorted(
        [
            f"artifacts/{numbers.name}.json",
            f"artifacts/{numbers.name}/numbers.json",
            next(each for each in left if each.startswith("records/draw/")),
        ]
    )
    machines.on("b")
    assert said(toys.direct()) == {"draw": "cached", "total": "ran"}
    place = f"store/artifacts/{total.name}"
    index = shared.index_from(stats_of(total.path))
    shared.upload(total.name, total.path, index, permanent=True)
    lost = f"store/artifacts/tables/{'0' * 64}/part.parquet"  # no index will follow
    upkeep.named().put(lost, b"rows")
    in_a_month(monkeypatch, young="nothing")
    assert upkeep.prune(older_than=timedelta(days=7))[0] == 2
    left = [each for each in objects(address()) if each.startswith(("store", "artifacts"))]
    assert sorted(left) == [f"{place}.json", *(f"{place}/{name}" for name in sorted(index))]


def in_a_month(monkeypatch, young):
    """Let listings say that all but the clock and some objects were written a month ago."""
    find = remote.Remote.find

    def aged(self, prefix, **more):
        return [
            each
            if each.name == "clock" or each.name.startswith(young)
            else replace(each, modified=each.modified - timedelta(days=30))
            for each in find(self, prefix, **more)
        ]

    monkeypatch.setattr(remote.Remote, "find", aged)


def test_clear_removes_all_that_can_be_computed(toys, machines, monkeypatch):
    machines.on("a")
    numbers, _ = (each.artifact for each in toys.direct())
    index = shared.index_from(stats_of(numbers.path))
    shared.upload(numbers.name, numbers.path, index, permanent=True)
    assert not upkeep.clear()
    place = f"store/artifacts/{numbers.name}"
    kept = ["format.json", f"{place}.json", f"{place}/numbers.json"]
    assert objects(address()) == kept
    coming = f"store/artifacts/tables/{'0' * 64}/part.parquet"
    upkeep.named().put(coming, b"rows")
    assert upkeep.clear()
    assert coming in objects(address())
    in_a_month(monkeypatch, young="nothing")
    assert not upkeep.clear()
    assert [each for each in objects(address()) if each != "clock"] == kept


def test_pull_says_that_the_remote_went_away(toys, machines, stoppable, monkeypatch):
    machines.on("a")
    toys.direct()
    machines.on("b")
    find = remote.Remote.find

    def then_stop(self, prefix, **more):
        found = find(self, prefix, **more)
        stoppable.stop()
        return found

    monkeypatch.setattr(remote.Remote, "find", then_stop)
    with pytest.raises(RemoteAwayError, match="does not answer"):
        upkeep.pull()
