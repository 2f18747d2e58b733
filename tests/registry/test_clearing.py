"""What an erasure clears from the bucket, while other machines write there.

The other machine's command is placed at one point by a patch; the S3 server is a real one.
"""

import os
from dataclasses import replace
from datetime import timedelta

import pytest

from artifacts import artifact, layout, remote, shared, upkeep
from artifacts import sharing as records_there
from artifacts.errors import InputError
from artifacts.files import write_atomically
from artifacts.remote import RemoteError
from registry import decisions, erasures, log, models, sharing, staying
from tests.artifacts.machines import change, objects
from tests.registry.stores import erase, ingested, keep, promote, verified

pytestmark = pytest.mark.slow
WHY = "asked"
ROW = "f" * 64


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


def there():
    return objects(os.environ["RETRAIN_REMOTE"])


def begin(machines):
    """Both machines know one promotion, whose event this returns; it ends on `a`."""
    machines.on("a")
    one = promote("one")
    machines.on("b")
    log.everything()
    machines.on("a")
    return one


@pytest.mark.parametrize("trained", [True, False])  # so that its files are in the bucket already
def test_what_is_promoted_while_another_machine_clears_the_bucket_stays(
    machines, monkeypatch, trained
):
    one = begin(machines)
    if trained:
        with artifact.draft(models.MODELS) as new:
            (new.folder / "content.txt").write_text("two")
        records_there.push_artifact(new.artifact)
    promoted, delete = [], remote.Remote.delete

    def late(remote_there, names):
        if not promoted:  # all is listed
            machines.on("a")
            promoted.append(1)
            promoted.append(promote("two", expected=one.number))
            machines.on("b")
        delete(remote_there, names)

    machines.on("b")
    with monkeypatch.context() as patch:
        patch.setattr(remote.Remote, "delete", late)
        upkeep.clear()
    assert not [name for name in there() if name.startswith("artifacts")]
    machines.lose("a")
    for name in "bc":
        machines.on(name)
        assert verified() == promoted[1].about["model"]


def test_what_is_being_written_to_stay_is_not_cleared(machines, monkeypatch):
    one = begin(machines)
    put = remote.Remote.put

    def late(remote_there, name, content):
        if name.startswith("store/artifacts"):  # its files are there, and no index is
            machines.on("b")
            assert upkeep.clear()
            machines.on("a")
        put(remote_there, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(remote.Remote, "put", late)
        two = promote("two", expected=one.number)
    machines.on("c")
    assert verified() == two.about["model"]


def test_the_note_of_an_interrupted_erasure_goes_when_another_machine_has_finished_it(
    machines, bucket
):
    def noted():
        return [name for name in there() if name.startswith("store/clearing")]

    machines.on("a")
    batch = ingested("rows of a person")
    machines.on("b")
    log.everything()
    machines.on("a")
    erase(batch)  # and is killed
    assert noted() == ["store/clearing/000002"]
    machines.on("b")
    log.everything()
    assert noted() == []
    machines.on("a")
    log.everything()
    before = len(bucket.requests())
    log.everything()
    assert len(bucket.requests()) - before == 2


def test_the_note_of_an_erasure_that_was_killed_before_its_event_clears_nothing(
    machines, monkeypatch
):
    begin(machines)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(remote.Remote, "create", killed)
        with pytest.raises(KeyboardInterrupt):
            log.append("erase", "toys", rows=[ROW], batches={}, why=WHY)
    made = table("of many")
    records_there.push_artifact(made)
    machines.on("b")
    log.everything()
    staying.clear()  # of another erasure, whose event is not that one
    assert "store/clearing/000002" in there()
    records_there.push_artifact(table("of many"))
    for name in "ab":
        machines.on(name)
        log.everything()
    assert f"artifacts/{made.name}.json" in there()
    decisions.decide("freeze", "toys", "a holiday")  # takes the number
    machines.on("a")
    log.everything()
    assert "store/clearing/000002" not in there()


def test_files_that_a_lost_machine_was_writing_go_after_a_day(machines, monkeypatch):
    machines.on("a")
    ingested("others")
    machines.on("b")
    log.everything()
    put, find = remote.Remote.put, remote.Remote.find

    def killed(remote_there, name, content):
        if name.startswith("store/artifacts/batches"):
            raise KeyboardInterrupt
        put(remote_there, name, content)

    machines.on("a")
    with monkeypatch.context() as patch:
        patch.setattr(remote.Remote, "put", killed)
        with pytest.raises(KeyboardInterrupt):
            ingested("rows of a person")
    machines.lose("a")
    machines.on("b")
    (kept,) = staying.names_there()

    def lost():
        stays = [name for name in there() if name.startswith("store/artifacts")]
        return [name for name in stays if kept not in name]

    assert staying.clear()
    assert len(lost()) == 1

    def aged(*arguments, **options):
        for each in find(*arguments, **options):
            days = 0 if each.name == "clock" else 2
            yield replace(each, modified=each.modified - timedelta(days=days))

    monkeypatch.setattr(remote.Remote, "find", aged)
    assert not staying.clear()
    assert lost() == []
    machines.on("c")
    log.everything()
    assert (layout.permanent() / kept).is_dir()


def test_a_batch_that_is_erased_while_another_machine_brings_it_does_not_stop_that(
    machines, monkeypatch
):
    machines.on("a")
    batch = ingested("rows of a person")
    names = shared.names

    def late(*arguments, **options):
        found = names(*arguments, **options)
        monkeypatch.setattr(shared, "names", names)
        machines.on("a")
        erase(batch)
        staying.remove([models.artifact_of(batch)])
        machines.on("b")
        return found

    machines.on("b")
    monkeypatch.setattr(shared, "names", late)
    assert [event.kind for event in log.everything()] == ["ingest", "erase"]
    assert not (layout.permanent() / batch).exists()


def test_erasures_of_one_row_of_two_datasets_are_both_told_of(machines):
    machines.on("a")
    promote("one")
    erasures.begin("mnist", [ROW], WHY)
    erasures.begin("toys", [ROW], WHY)
    assert [each.dataset for each in erasures.left()] == ["mnist", "toys"]
    erasures.done("toys", [ROW])
    assert [each.dataset for each in erasures.left()] == ["mnist"]


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


def test_a_batch_does_not_come_to_count_once_its_number_is_taken(machines, monkeypatch):
    begin(machines)
    before = set(there())
    upload = shared._upload

    def killed(*_):
        raise KeyboardInterrupt

    def late(*arguments):
        done = upload(*arguments)
        monkeypatch.setattr(shared, "_upload", upload)
        machines.on("a")
        log.append("erase", "toys", rows=[ROW], batches={}, why=WHY)
        machines.on("b")
        monkeypatch.setattr(sharing, "_bring", killed)  # and `b` is lost
        return done

    machines.on("b")
    monkeypatch.setattr(shared, "_upload", late)
    with pytest.raises(KeyboardInterrupt):
        ingested("rows of a person")
    assert set(there()) - before == {"store/clearing/000002", "store/log/000002.json"}


def test_a_batch_that_is_erased_during_a_repair_is_not_written_back(machines, monkeypatch):
    machines.on("a")
    batch = ingested("rows of a person")
    machines.on("b")
    log.everything()
    names = shared.names

    def late(*arguments, **options):
        found = names(*arguments, **options)
        if options.get("permanent"):
            monkeypatch.setattr(shared, "names", names)
            machines.on("a")
            erase(batch)
            staying.remove([models.artifact_of(batch)])
            machines.on("b")
        return found

    monkeypatch.setattr(shared, "names", late)
    assert upkeep.verify(repair=True) == []
    assert not [name for name in there() if batch in name]


def test_damage_is_mended_where_nothing_may_be_removed_and_beside_a_clearing(machines, monkeypatch):
    def refused(_, names):
        if list(names):
            raise RemoteError("it refuses")

    machines.on("a")
    batch = ingested("rows")
    for name in (f"store/artifacts/{batch}/content.txt", f"store/artifacts/{batch}.json"):
        change(os.environ["RETRAIN_REMOTE"], name, b"broken disk")
        with monkeypatch.context() as patch:
            patch.setattr(remote.Remote, "delete", refused)
            (found,) = upkeep.verify(repair=True)
        assert not found["left"]
        assert upkeep.verify() == []
    machines.on("b")
    log.everything()
    assert (layout.permanent() / batch).is_dir()


def test_a_withdrawal_that_is_killed_leaves_nothing_that_others_bring(machines, monkeypatch):
    begin(machines)
    draft = models.artifact_of(keep("batches", "rows of a person"))
    staying.push(remote.current(), [], lambda: None)
    delete = remote.Remote.delete

    def killed(*arguments):
        delete(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(remote.Remote, "delete", killed)
        with pytest.raises(KeyboardInterrupt):
            staying.remove([draft], named=False)
    assert draft.name not in staying.names_there()
    decisions.decide("freeze", "toys", "a holiday")
    machines.on("b")
    assert len(log.everything()) == 2
    assert not (layout.permanent() / draft.name).exists()


def test_a_push_does_not_write_back_what_was_erased_right_before(machines):
    machines.on("a")
    batch = ingested("rows of a person")
    machines.on("b")
    log.everything()  # as `./run cache push` begins
    machines.on("a")
    erase(batch)
    staying.remove([models.artifact_of(batch)])
    machines.on("b")
    with pytest.raises(InputError, match="erased on another machine, and not yet here"):
        sharing.push()
    assert not [name for name in there() if batch in name]


def test_one_command_does_all_erasures_of_a_dataset_that_are_left(machines, caplog):
    begin(machines)
    machines.on("b")
    other = "e" * 64
    decisions.decide("freeze", "mnist", "a holiday")
    machines.on("a")
    for dataset, row, why in (("toys", ROW, WHY), ("mnist", ROW, WHY), ("toys", other, "hers")):
        log.append("erase", dataset, rows=[row], batches={}, why=why)
    machines.on("b")
    log.everything()
    left = {each.dataset: (set(each.rows), each.why) for each in erasures.left()}
    assert left == {"toys": ({ROW, other}, f"{WHY}; hers"), "mnist": ({ROW}, WHY)}
    assert caplog.text.count("Erase them here too") == 2
    erasures.done("toys", {ROW, other})
    assert [each.dataset for each in erasures.left()] == ["mnist"]
