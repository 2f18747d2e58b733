"""Machines that share a store, where one acts between two steps of the other, or is killed there.

The other machine's command is placed at one point by a patch; the S3 server is a real one.
"""

import os
import shutil

import pytest

from artifacts import artifact, layout, remote, shared, upkeep
from artifacts import sharing as records_there
from artifacts.errors import InputError
from artifacts.files import write_atomically
from artifacts.remote import RemoteError
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
    staying,
)
from registry.decisions import ChampionChangedError
from tests.artifacts.machines import objects
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


def table(text):
    """An artifact of the cache with this text in it."""
    with artifact.draft("tables") as new:
        (new.folder / "content.txt").write_text(text)
    return new.artifact


def erased_elsewhere(machines):
    """Rows of an ingest of `b` are erased by `a`, and `b`, where this ends, is told."""
    machines.on("a")
    ingested("others")
    machines.on("b")
    log.everything()
    machines.on("a")
    log.append("erase", "toys", rows=[ROW], batches={}, why=WHY)
    machines.on("b")
    log.everything()
    assert erasures.left()


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


def test_a_batch_that_no_event_names_is_not_shared_while_rows_are_to_be_erased(machines):
    erased_elsewhere(machines)
    keep("batches", "rows of a person")  # as of an ingest that was killed
    there = objects(os.environ["RETRAIN_REMOTE"])
    batches = {name for name in there if "artifacts/batches" in name}
    decisions.decide("freeze", "toys", "a holiday")
    new = set(objects(os.environ["RETRAIN_REMOTE"])) - set(there)
    assert [name.rpartition("/")[0] for name in new] == ["store/log"]
    named = ingested("of these, an event says so")
    there = objects(os.environ["RETRAIN_REMOTE"])
    there = {name for name in there if "artifacts/batches" in name}
    assert {name for name in there - batches if named.partition("/")[2] not in name} == set()
    assert there > batches


def test_no_checkpoint_is_shared_while_rows_are_to_be_erased(machines):
    key = "train/toys/" + "0" * 64

    def checkpoints():
        layout.scratch(key).parent.mkdir(parents=True, exist_ok=True)
        with records_there.scratch(key):
            layout.scratch(key).write_bytes(os.urandom(8))
        names = objects(os.environ["RETRAIN_REMOTE"])
        return [name for name in names if name.startswith("checkpoints")]

    erased_elsewhere(machines)
    assert checkpoints() == []
    erasures.done("toys", {ROW})
    assert checkpoints() == [f"checkpoints/{key}"]


def test_what_is_promoted_while_another_machine_lists_the_bucket_stays(machines, monkeypatch):
    machines.on("a")
    one = promote("one")
    machines.on("b")
    log.everything()
    clear, promoted = upkeep.clear, []

    def late(kept):
        monkeypatch.setattr(upkeep, "clear", clear)

        def stays():
            if not promoted:
                machines.on("a")
                promoted.append(promote("two", expected=one.number))
                machines.on("b")
            return kept()

        clear(stays)

    monkeypatch.setattr(upkeep, "clear", late)
    staying.begin_clearing()
    staying.clear()
    machines.on("c")
    assert verified() == models.artifact_of(keep("models", "two")).name


def test_the_mark_of_an_interrupted_erasure_goes_when_another_machine_has_finished_it(
    machines,
    bucket,
):
    machines.on("a")
    batch = ingested("rows of a person")
    staying.begin_clearing()
    erase(batch)  # and is killed
    machines.on("b")
    log.everything()
    assert remote.current().get("store/clearing") is None
    machines.on("a")
    log.everything()
    before = len(bucket.requests())
    log.everything()
    assert len(bucket.requests()) - before == 2


def test_a_backup_says_so_if_an_erasure_comes_in(machines, tmp_path, monkeypatch):
    machines.on("a")
    batch = ingested("rows of a person")
    machines.on("b")
    log.everything()
    monkeypatch.setattr(sharing, "FRESH_SECONDS", 60.0)
    log.everything()
    machines.on("a")
    erase(batch)
    machines.on("b")
    add = backup._Tar.add

    def late(tar, path):
        if "artifacts" in path.parts:
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


@pytest.mark.parametrize("too", [False, True])  # whether the other machine has it anew
def test_what_is_written_to_the_remote_during_an_erasure_elsewhere_does_not_stay(
    machines, monkeypatch, too
):
    machines.on("a")
    ingested("others")
    machines.on("b")
    log.everything()
    made = table("of many")
    upload = shared._upload

    def late(*arguments):
        done = upload(*arguments)
        monkeypatch.setattr(shared, "_upload", upload)
        machines.on("a")
        log.append("erase", "toys", rows=[ROW], batches={}, why=WHY)
        staying.clear()
        if too:
            records_there.push_artifact(table("of many"))
        machines.on("b")
        return done

    monkeypatch.setattr(shared, "_upload", late)
    with pytest.raises(InputError, match="erased on another machine, and not yet here"):
        records_there.push_artifact(made)
    there = objects(os.environ["RETRAIN_REMOTE"])
    left = [name for name in there if name.startswith("artifacts/tables")]
    assert left == [f"artifacts/{made.name}.json", f"artifacts/{made.name}/content.txt"] * too


def test_what_is_being_written_to_stay_is_not_cleared(machines, monkeypatch):
    machines.on("a")
    one = promote("one")
    machines.on("b")
    log.everything()
    upload = shared.upload

    def late(name, *arguments):
        upload(name, *arguments)
        if name.startswith(models.MODELS):
            machines.on("b")
            staying.begin_clearing()
            staying.clear()
            machines.on("a")

    machines.on("a")
    with monkeypatch.context() as patch:
        patch.setattr(shared, "upload", late)
        two = promote("two", expected=one.number)
    machines.on("c")
    assert verified() == two.about["model"]
    there = objects(os.environ["RETRAIN_REMOTE"])
    assert not [name for name in there if name.startswith("store/coming")]


def test_whoever_is_killed_while_it_learns_of_an_erasure_learns_of_it_again(machines, monkeypatch):
    machines.on("a")
    batch = ingested("rows of a person")
    machines.on("b")
    log.everything()
    machines.on("a")
    erase(batch)

    def killed(*_, **__):
        raise KeyboardInterrupt

    machines.on("b")
    with monkeypatch.context() as patch:
        patch.setattr(erasures, "follow", killed)
        with pytest.raises(KeyboardInterrupt):
            log.everything()
    assert (layout.permanent() / batch).is_dir()
    log.everything()
    assert not (layout.permanent() / batch).exists()
    assert [each.rows for each in erasures.left()] == [(ROW,)]


def test_an_erasure_removes_the_names_of_a_batch_everywhere(machines):
    machines.on("a")
    batch = keep("batches", "rows of a person")
    digest = batch.partition("/")[2]
    write_atomically(layout.store() / "names" / f"{digest}.jsonl", '["portrait of a person.png"]')
    log.append("ingest", "toys", batch=digest, name="one", content="0", size=1)
    machines.on("b")
    log.everything()
    here = layout.store() / "names" / f"{digest}.jsonl"
    assert here.exists()
    machines.on("a")
    erase(batch)
    staying.remove([models.artifact_of(batch)])
    assert not [name for name in objects(os.environ["RETRAIN_REMOTE"]) if digest in name]
    machines.on("b")
    log.everything()
    assert not here.exists()


def test_an_erased_batch_that_the_bucket_lacks_is_not_written_with_its_erasure(
    machines,
    monkeypatch,
):
    machines.on("a")
    batch = keep("batches", "rows of a person")
    digest = batch.partition("/")[2]
    there = os.environ["RETRAIN_REMOTE"]
    uploaded, upload = [], shared.upload

    def seen(name, *arguments):
        uploaded.append(name)
        upload(name, *arguments)

    monkeypatch.setattr(shared, "upload", seen)
    log.append("erase", "toys", rows=[ROW], batches={digest: {}}, why=WHY)
    assert uploaded == []
    assert not [name for name in objects(there) if digest in name]


def test_what_an_erasure_elsewhere_removed_is_not_taken_for_there(machines):
    machines.on("a")
    ingested("others")
    machines.on("b")
    log.everything()
    made = table("of many")
    records_there.push_artifact(made)
    assert shared.can_come(made.name)
    machines.on("a")
    log.append("erase", "toys", rows=[ROW], batches={}, why=WHY)
    staying.clear()
    machines.on("b")
    log.everything()
    assert not shared.can_come(made.name)


def test_rows_that_a_lost_machine_was_writing_do_not_outlive_their_erasure(machines, monkeypatch):
    machines.on("a")
    ingested("others")
    machines.on("b")
    log.everything()
    put = remote.Remote.put

    def killed(there, name, content):
        if name.startswith("store/artifacts/batches"):
            raise KeyboardInterrupt
        put(there, name, content)

    machines.on("a")
    with monkeypatch.context() as patch:
        patch.setattr(remote.Remote, "put", killed)
        with pytest.raises(KeyboardInterrupt):
            ingested("rows of a person")
    machines.lose("a")
    machines.on("b")
    (kept,) = staying.names(remote.current())
    staying.begin_clearing()
    log.append("erase", "toys", rows=[ROW], batches={}, why=WHY)
    staying.clear()
    there = objects(os.environ["RETRAIN_REMOTE"])
    assert all(kept in name for name in there if name.startswith("artifacts"))


def test_a_batch_that_is_cleared_while_it_is_written_is_there_afterwards(machines, monkeypatch):
    machines.on("b")
    log.everything()
    upload = shared.upload

    def late(*arguments):
        monkeypatch.setattr(shared, "upload", upload)
        upload(*arguments)
        machines.on("b")
        staying.begin_clearing()
        staying.clear()
        machines.on("a")

    machines.on("a")
    monkeypatch.setattr(shared, "upload", late)
    batch = ingested("rows")
    machines.on("c")
    log.everything()
    assert (layout.permanent() / batch).is_dir()


def test_whoever_may_remove_nothing_from_the_bucket_decides_all_the_same(machines, monkeypatch):
    def refused(_, names):
        if list(names):
            raise RemoteError("it refuses")

    machines.on("a")
    monkeypatch.setattr(remote.Remote, "delete", refused)
    one = promote("one")
    two = promote("two", expected=one.number)
    machines.on("b")
    assert verified() == two.about["model"]


def test_a_mark_that_the_bucket_lost_comes_back_by_a_push(machines):
    machines.on("a")
    model = promote("one").about["model"]
    remote.current().delete([f"store/artifacts/{model}"])
    sharing.push()
    machines.on("c")
    assert verified() == model
