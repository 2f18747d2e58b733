"""Erasures that are killed, that meet, or that find a batch that was mended."""

import shlex
import shutil

import numpy as np
import pytest

from artifacts import layout, remote
from artifacts.artifact import find_damage
from artifacts.remote import RemoteAwayError
from registry import data, erasures, log, staying
from tests.flows import pictures
from tests.flows.test_erasure_on_two_machines import (
    IMAGES,
    LABELS,
    PUBLISHED,
    ROW,
    WHY,
    rows_in_bucket,
)

pytestmark = pytest.mark.slow
OTHER = pictures.digest(IMAGES[7])


def do_what_is_told(root):
    root.data("list")
    for erasure in erasures.left():
        assert root(*shlex.split(erasure.command)[1:]).code == 0
    assert erasures.left() == []


@pytest.mark.parametrize("shared", [True, False])
def test_one_that_is_killed_after_its_event_is_told_until_it_is_done(
    machines,
    tmp_path,
    monkeypatch,
    shared,
):
    if not shared:
        monkeypatch.delenv("RETRAIN_REMOTE")

    def killed(*_):
        raise KeyboardInterrupt

    with machines("a") as a:
        a.ingest(pictures.as_folders(tmp_path / "new", IMAGES, LABELS))
        with monkeypatch.context() as patch:
            patch.setattr(staying, "remove", killed)
            assert a("data", "erase", ROW, "--why", WHY, "--dataset", "folder").code == 130
        assert ROW in pictures.rows_below(a.folder)
        told = a("health", "--dataset", "folder").out
        assert "An erasure of rows of folder was begun here and has not ended." in told
        do_what_is_told(a)
        assert ROW not in pictures.rows_below(a.folder)
        assert "erasure" not in a("health", "--dataset", "folder").out
        assert [event["kind"] for event in a.events()].count("erase") == 1


@pytest.fixture
def meanwhile(monkeypatch, tmp_path):
    """Let another machine act while `b` decides: before or after its batches are uploaded."""

    def place(kind, act, *, uploaded):
        push = staying.push

        def late(there, events, look_out):
            if f'"kind": "{kind}"' not in events[-1]:
                push(there, events, look_out)
                return
            monkeypatch.setattr(staying, "push", push)
            if uploaded:
                push(there, events, look_out)
            act()
            monkeypatch.setenv("RETRAIN_DATA", str(tmp_path / "b"))
            if not uploaded:
                push(there, events, look_out)

        monkeypatch.setattr(staying, "push", late)

    return place


@pytest.mark.parametrize("uploaded", [True, False])
@pytest.mark.parametrize("row", [OTHER, ROW])
def test_two_at_once_on_one_batch_leave_none_of_the_rows(
    machines, tmp_path, meanwhile, row, uploaded
):
    with machines("a") as a:
        a.ingest(pictures.as_folders(tmp_path / "new", IMAGES, LABELS))

    def erase():
        with machines("a") as a:
            assert a("data", "erase", ROW, "--why", WHY, "--dataset", "folder").code == 0

    with machines("b") as b:
        b.data("list")
        meanwhile("erase", erase, uploaded=uploaded)
        command = ("data", "erase", row, "--why", "asked", "--dataset", "folder")
        done = b(*command)
        assert done.code == 1
        assert "or erased rows of it, meanwhile: run the same command again" in done.err
        assert ROW not in pictures.rows_below(b.folder)
        assert ROW not in rows_in_bucket(tmp_path / "bucket")
        # The same row leaves the same batch on both: that one is no draft, and stays.
        (batch,) = data.current("folder").batches
        assert (layout.permanent() / batch.artifact.name).is_dir()
        assert b(*command).code == 0
    for name in "abc":
        with machines(name) as each:
            do_what_is_told(each)
            assert not {ROW, row} & pictures.rows_below(each.folder).keys()
    assert not {ROW, row} & rows_in_bucket(tmp_path / "bucket")


def test_what_a_batch_was_before_it_was_mended_goes_everywhere(machines, tmp_path):
    new = pictures.as_folders(tmp_path / "new", IMAGES, LABELS)
    with machines("a") as a:
        a.ingest(new)
    with machines("b") as b:
        b.data("list")
        assert ROW in pictures.rows_below(b.folder)
    with machines("a") as a:
        (batch,) = (layout.permanent() / "batches").glob("*/")
        (batch / "batch.json").write_text("broken")
        (new / "0" / "junk.png").write_bytes(b"none")  # so that its mended form is another
        a.ingest(new)
        assert "mend" in [event["kind"] for event in a.events()]
        shutil.rmtree(batch, ignore_errors=True)  # as `erase` advises
        assert a("data", "erase", ROW, "--why", WHY, "--dataset", "folder").code == 0
        assert pictures.rows_below(a.folder).get(ROW, set()) == set()
    assert ROW not in rows_in_bucket(tmp_path / "bucket")
    for name in "bc":
        with machines(name) as each:
            each.data("list")
            assert ROW not in pictures.rows_below(each.folder)


@pytest.mark.parametrize("uploaded", [True, False])
def test_an_ingest_that_an_erasure_meets_does_not_bring_the_row_back(
    machines, tmp_path, meanwhile, uploaded
):
    more, labels = pictures.new(100, 130)
    with machines("b") as b:
        b.ingest(pictures.as_folders(tmp_path / "base", more[20:], labels[20:]))
    mixed = pictures.as_folders(
        tmp_path / "mixed",
        np.concatenate([more[:20], IMAGES[3:4]]),
        np.concatenate([labels[:20], LABELS[3:4]]),
    )

    def ingest_and_erase():
        with machines("a") as a:
            a.ingest(pictures.as_folders(tmp_path / "new", IMAGES, LABELS))
            assert a("data", "erase", ROW, "--why", WHY, "--dataset", "folder").code == 0

    with machines("b") as b:
        meanwhile("ingest", ingest_and_erase, uploaded=uploaded)
        done = b("ingest", mixed, "--dataset", "folder")
        assert done.code == 1
        assert "or erased rows of it, meanwhile: run the same command again" in done.err
        do_what_is_told(b)
        assert "erased" in {each["reason"] for each in b.ingest(mixed)["refused"]}
    assert ROW not in rows_in_bucket(tmp_path / "bucket")
    for name in "abc":
        with machines(name) as each:
            each.data("list")
            assert len(data.current("folder").batches) == 3
            below = pictures.rows_below(each.folder)
            assert ROW not in below
            assert pictures.digest(more[0]) in below


def test_of_two_ingests_of_the_same_files_at_once_one_counts(machines, tmp_path, meanwhile):
    new = pictures.as_folders(tmp_path / "new", IMAGES, LABELS)

    def ingest():
        with machines("a") as a:
            a.ingest(new)

    with machines("b") as b:
        meanwhile("ingest", ingest, uploaded=True)
        done = b("ingest", new, "--dataset", "folder", "--batch", "mine")
        assert done.code == 1
        assert "Another machine took in data of folder" in done.err
        assert b.ingest(new)["accepted"] == 0
    for name in "abc":
        with machines(name) as each:
            each.data("list")
            (batch,) = data.current("folder").batches
            assert (batch.name, find_damage(batch.artifact)) == ("new", None)


def test_a_batch_that_is_mended_while_rows_of_it_are_erased_does_not_return(
    machines, tmp_path, meanwhile
):
    new = pictures.as_folders(tmp_path / "new", IMAGES, LABELS)
    with machines("b") as b:
        b.ingest(new)
    (new / "0" / "junk.png").write_bytes(b"none")  # so that its mended form is another

    def erase():
        with machines("a") as a:
            assert a("data", "erase", ROW, "--why", WHY, "--dataset", "folder").code == 0

    with machines("b") as b:
        (batch,) = (layout.permanent() / "batches").glob("*/")
        (batch / "batch.json").write_text("broken")
        meanwhile("mend", erase, uploaded=True)
        done = b("ingest", new, "--dataset", "folder")
        assert done.code == 1
        assert "or erased rows of it, meanwhile: run the same command again" in done.err
        do_what_is_told(b)
    assert ROW not in rows_in_bucket(tmp_path / "bucket")
    for name in "abc":
        with machines(name) as each:
            each.data("list")
            assert ROW not in pictures.rows_below(each.folder)
            assert len(data.current("folder").batches) == 1


def test_an_erasure_that_an_ingest_meets_is_done_again(machines, tmp_path, meanwhile):
    with machines("b") as b:
        b.ingest(pictures.as_folders(tmp_path / "new", IMAGES, LABELS))

    def ingest():
        with machines("a") as a:
            a.ingest(pictures.as_folders(tmp_path / "same", IMAGES[:9], LABELS[:9]))

    with machines("b") as b:
        meanwhile("erase", ingest, uploaded=True)
        command = ("data", "erase", ROW, "--why", WHY, "--dataset", "folder")
        assert b(*command).code == 1
        assert b(*command).code == 0
        assert ROW not in pictures.rows_below(b.folder)
    assert ROW not in rows_in_bucket(tmp_path / "bucket")
    with machines("a") as a:
        a.data("list")
        assert len(data.current("folder").batches) == 2
        assert ROW not in pictures.rows_below(a.folder)


@pytest.mark.parametrize("when", ["before", "during", "during, and others decide"])
def test_a_batch_of_a_machine_that_is_lost_before_its_event_is_erased_too(
    machines, tmp_path, monkeypatch, when
):
    with machines("a") as a:
        a.ingest(pictures.as_folders(tmp_path / "new", IMAGES, LABELS))
    with machines("c") as c:
        c.data("list")

    def lost(*_):
        raise KeyboardInterrupt

    def ingest_and_be_lost():
        with machines("b") as b, monkeypatch.context() as patch:
            patch.setattr(staying, "push", then(staying.push, lost))
            new = pictures.as_folders(tmp_path / "more", IMAGES[:9], LABELS[:9])
            assert b("ingest", new, "--dataset", "folder").code == 130
        shutil.rmtree(tmp_path / "b")
        assert ROW in rows_in_bucket(tmp_path / "bucket")
        if when == "during, and others decide":
            with machines("c") as c:
                assert c("models", "freeze", "--dataset", "folder", "--why", "x").code == 0
        monkeypatch.setenv("RETRAIN_DATA", str(tmp_path / "a"))

    if when == "before":
        ingest_and_be_lost()
    with machines("a") as a:
        if when != "before":
            monkeypatch.setattr(log, "append", before(log.append, ingest_and_be_lost))
        assert a("data", "erase", ROW, "--why", WHY, "--dataset", "folder").code == 0
        assert ROW not in pictures.rows_below(a.folder)
    assert ROW not in rows_in_bucket(tmp_path / "bucket")
    for name in "cd":
        with machines(name) as each:
            each.data("list")
            assert ROW not in pictures.rows_below(each.folder)


def before(function, act):
    """The function, before which another one is called the first time."""
    left = [act]

    def called(*args, **options):
        while left:
            left.pop()()
        return function(*args, **options)

    return called


def then(function, act):
    """The function, which the first time calls another one afterwards."""
    left = [act]

    def called(*args, **options):
        found = function(*args, **options)
        while left:
            left.pop()()
        return found

    return called


def test_what_is_shared_while_an_erasure_decides_goes_if_it_is_killed(
    machines, tmp_path, monkeypatch
):
    with machines("a") as a:
        a.ingest(pictures.as_folders(tmp_path / "new", IMAGES, LABELS))
    with machines("b") as b:
        b.data("list")
    cleared, create = [], remote.Remote.create

    def train():
        with machines("c") as c:  # the first thing that it does
            c.train(epochs=1)
            assert PUBLISHED in rows_in_bucket(tmp_path / "bucket")
        monkeypatch.setenv("RETRAIN_DATA", str(tmp_path / "a"))

    def late(there, name, content):
        if b'"erase"' in content:
            monkeypatch.setattr(remote.Remote, "create", create)
            assert cleared == []
            train()
        return create(there, name, content)

    def killed(*_):
        raise KeyboardInterrupt

    with machines("a") as a, monkeypatch.context() as patch:
        monkeypatch.setattr(remote.Remote, "create", late)
        patch.setattr(staying, "clear", lambda: cleared.append(1))
        patch.setattr(staying, "remove", killed)
        erased = ("data", "erase", PUBLISHED, "--why", WHY, "--dataset", "folder")
        assert a(*erased).code == 130
    assert PUBLISHED in rows_in_bucket(tmp_path / "bucket")
    with machines("b") as b:
        b.data("list")  # to which the event is new
    assert PUBLISHED not in rows_in_bucket(tmp_path / "bucket")


def test_it_says_that_the_bucket_went_away_after_its_event(machines, tmp_path, monkeypatch):
    def away(*_):
        raise RemoteAwayError("It does not answer.")

    with machines("a") as a:
        a.ingest(pictures.as_folders(tmp_path / "new", IMAGES, LABELS))
        command = ("data", "erase", ROW, "--why", WHY, "--dataset", "folder")
        with monkeypatch.context() as patch:
            patch.setattr(staying, "remove", away)
            done = a(*command)
        assert done.code == 1
        assert "The rows of folder are not yet erased there: run the same command" in done.err
        assert [event["kind"] for event in a.events()].count("erase") == 1
        assert a(*command).code == 0
    assert ROW not in rows_in_bucket(tmp_path / "bucket")
