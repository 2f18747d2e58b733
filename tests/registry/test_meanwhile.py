"""Machines that share a store, where one acts between two steps of the other, or is killed there.

The other machine's command is placed at one point by a patch; the S3 server is a real one.
"""

import shutil
from contextlib import nullcontext

import pytest

from artifacts import layout
from artifacts.errors import InputError
from registry import (
    backup,
    data,
    decisions,
    erasures,
    log,
    models,
    pointer,
    restoring,
    sharing,
)
from registry.decisions import ChampionChangedError
from tests.registry.stores import (
    erase,
    ingested,
    keep,
    older_cache,
    promote,
    roll_back,
    verified,
)

pytestmark = pytest.mark.slow
WHY = "asked"
ROW = "f" * 64


@pytest.fixture
def before_the_event(machines, monkeypatch):
    """Let `a` act after what `b` decides on was read, and before its event is written."""
    append = log.append

    def place(act):
        def late(*args, **about):
            monkeypatch.setattr(log, "append", append)
            machines.on("a")
            act()
            machines.on("b")
            return append(*args, **about)

        monkeypatch.setattr(log, "append", late)

    return place


def test_a_promotion_that_came_with_the_event_is_not_replaced(machines, before_the_event):
    machines.on("a")
    one = promote("one")
    machines.on("b")
    log.everything()
    won = []
    before_the_event(lambda: won.append(promote("two", expected=one.number)))
    with pytest.raises(ChampionChangedError):
        promote("three", expected=one.number)
    for name in "ab":
        machines.on(name)
        assert verified() == won[0].about["model"]


def test_a_rollback_that_came_with_the_event_stays_and_blocks(machines, before_the_event):
    machines.on("a")
    one = promote("one")
    two = promote("two", expected=one.number)
    machines.on("b")
    log.everything()
    before_the_event(lambda: roll_back("one", two))
    with pytest.raises(ChampionChangedError):
        promote("three", expected=two.number)
    machines.on("a")
    assert two.about["model"] in models.current("toys").blocked
    assert verified() == one.about["model"]


def test_a_retraction_counts_for_what_an_erasure_left_of_the_batch(machines, before_the_event):
    machines.on("a")
    old = ingested("rows of a person").partition("/")[2]
    machines.on("b")
    log.everything()
    new = {"batch": keep("batches", "the rest").partition("/")[2], "content": "1", "about": {}}
    before_the_event(lambda: log.append("erase", "toys", rows=[ROW], batches={old: new}, why=WHY))
    log.append("retract", "toys", batch=old, why="wrong labels")
    (now,) = data.current("toys").batches
    assert (now.digest, now.retracted) == (new["batch"], "wrong labels")
    log.append("restore", "toys", batch=old, why="right after all")
    assert data.current("toys").batches[0].retracted is None
    log.append("check", "toys", batch=old, verdict="ok")
    assert data.current("toys").batches[0].check is None  # that was of other rows


def test_a_restore_that_is_killed_has_noted_what_is_to_be_erased(machines, tmp_path, monkeypatch):
    older_cache(machines, tmp_path / "a.tar")
    remove = shutil.rmtree

    def killed(path, **options):
        if layout.store().exists():
            raise KeyboardInterrupt
        remove(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            restoring.restore(tmp_path / "a.tar")
    assert [each.rows for each in erasures.left()] == [(ROW,)]


@pytest.mark.parametrize("is_read", [True, False])  # when the batch goes
def test_a_backup_says_so_if_an_erasure_comes_in(machines, tmp_path, monkeypatch, is_read):
    machines.on("a")
    batches = sorted([ingested("rows of a person"), ingested("others")])
    machines.on("b")
    log.everything()
    monkeypatch.setattr(sharing, "FRESH_SECONDS", 60.0)
    log.everything()
    machines.on("a")
    erase(batches[0 if is_read else 1])
    machines.on("b")
    add = backup._Tar.add

    def late(tar, path):
        if batches[0].partition("/")[2] in path.parts:
            sharing.expire()
            log.everything()  # as `./run data list` does meanwhile
        return add(tar, path)

    monkeypatch.setattr(backup._Tar, "add", late)
    with pytest.raises(InputError, match="removed meanwhile, as by an erasure"):
        backup.back_up(tmp_path / "b.tar")
    assert not (tmp_path / "b.tar").exists()


def test_a_promotion_that_is_taken_back_halfway_does_not_return(machines, monkeypatch):
    machines.on("a")
    one = promote("one")
    two = promote("two", expected=one.number)
    machines.on("b")
    assert verified() == two.about["model"]

    def killed(*_):
        raise KeyboardInterrupt

    machines.on("a")
    with monkeypatch.context() as patch:
        patch.setattr(pointer, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            decisions.undo("toys", two)
    machines.on("b")
    shutil.rmtree(layout.cache())
    for name in "bac":  # c is new
        machines.on(name)
        assert verified() == one.about["model"]
        assert models.current("toys").status(two.about["model"]) != models.CHAMPION
    machines.on("b")
    with pytest.raises(ChampionChangedError):
        promote("three", expected=two.number)
    three = promote("three", expected=one.number)
    for name in "abc":
        machines.on(name)
        assert [each.number for each in models.current("toys").history] == [
            one.number,
            three.number,
        ]


def test_a_promotion_that_meets_the_taking_back_of_the_one_before_stays(machines, before_the_event):
    machines.on("a")
    one = promote("one")
    machines.on("b")
    two = promote("two", expected=one.number)
    won = []
    before_the_event(lambda: won.append(promote("three", expected=two.number)))
    decisions.undo("toys", two)
    for name in "abc":
        machines.on(name)
        assert [event.kind for event in log.events("toys")] == ["promote"] * 3
        assert verified() == won[0].about["model"]


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_model_that_was_taken_back_is_none_to_roll_back_to(machines, monkeypatch, is_killed):
    """Its event comes between event and pointer of the promotion that follows it."""
    machines.on("a")
    one = promote("one")
    two = promote("two", expected=one.number)
    machines.on("b")
    log.everything()
    write = pointer.write

    def killed(*_):
        raise KeyboardInterrupt

    def late(dataset, to):
        machines.on("b")
        if is_killed:
            monkeypatch.setattr(pointer, "write", killed)
            with pytest.raises(KeyboardInterrupt):
                decisions.undo("toys", two)
        monkeypatch.setattr(pointer, "write", write)
        if not is_killed:
            decisions.undo("toys", two)
        machines.on("a")
        write(dataset, to)

    machines.on("a")
    monkeypatch.setattr(pointer, "write", late)
    with nullcontext() if is_killed else pytest.raises(ChampionChangedError):
        promote("three", expected=two.number)
    for name in "abc":
        machines.on(name)
        known = models.current("toys")
        history = [one.number, two.number + 1][: 1 + is_killed]
        assert [each.number for each in known.history] == history
        assert known.status(two.about["model"]) == models.REFUSED
