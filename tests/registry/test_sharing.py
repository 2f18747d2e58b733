"""One store for several machines, on a real S3 server: one log, one champion, one winner."""

import json
import multiprocessing
import os
import shlex
import shutil

import pytest

from artifacts import layout, remote, upkeep
from artifacts.artifact import delete
from artifacts.errors import InputError
from artifacts.remote import RemoteAwayError
from registry import data, decisions, erasures, log, models, pointer, restoring, sharing, staying
from registry.decisions import ChampionChangedError
from tests.artifacts.machines import Machines, change, objects
from tests.fixtures.s3 import running
from tests.registry.stores import (
    erase,
    ingested,
    keep,
    older_cache,
    promote,
    roll_back,
    tree,
    verified,
)

pytestmark = pytest.mark.slow


def kinds(dataset="toys"):
    return [event.kind for event in log.events(dataset)]


def test_what_one_machine_decides_holds_on_the_other(machines):
    machines.on("a")
    first = promote("one")
    decisions.decide("freeze", "toys", "a holiday")
    machines.on("b")
    assert kinds() == ["promote", "freeze"]
    assert models.current("toys").frozen == "a holiday"
    assert verified() == first.about["model"]
    decisions.decide("thaw", "toys", "back")
    machines.on("a")
    assert models.current("toys").frozen is None
    assert tree(machines.top / "a" / "store") == tree(machines.top / "b" / "store")


def test_a_quiet_log_costs_two_requests_and_none_for_some_seconds(machines, bucket, monkeypatch):
    machines.on("a")
    promote("one")
    log.everything()
    before = len(bucket.requests())
    log.everything()
    assert len(bucket.requests()) - before == 2
    monkeypatch.setattr(sharing, "FRESH_SECONDS", 60.0)
    log.everything()
    assert len(bucket.requests()) - before == 2


def test_of_two_that_promote_at_once_one_wins_and_the_other_says_so(machines):
    machines.on("a")
    start = promote("one")
    machines.on("b")
    assert models.current("toys").champion.number == start.number
    machines.on("a")
    winner = promote("two", expected=start.number)
    machines.on("b")
    with pytest.raises(
        ChampionChangedError, match=f"promoted meanwhile \\({winner.about['model']}"
    ):
        promote("three", expected=start.number)
    assert verified() == winner.about["model"]


def test_who_loses_at_the_pointer_itself_says_so_too(machines, monkeypatch):
    machines.on("a")
    start = promote("one")
    machines.on("b")
    models.current("toys")
    replace = sharing.replace_pointer

    def too_late(dataset, text):
        monkeypatch.setattr(sharing, "replace_pointer", replace)
        machines.on("a")
        promote("two", expected=start.number)
        machines.on("b")
        return replace(dataset, text)

    monkeypatch.setattr(sharing, "replace_pointer", too_late)
    with pytest.raises(ChampionChangedError):
        promote("three", expected=start.number)
    assert verified() == keep("models", "two")
    assert kinds() == ["promote", "promote", "promote"]
    assert len(models.current("toys").history) == 2


def test_a_rollback_reaches_the_other_machine(machines):
    machines.on("a")
    one = promote("one")
    two = promote("two", expected=one.number)
    machines.on("b")
    assert verified() == two.about["model"]
    roll_back("one", two)
    machines.on("a")
    assert verified() == one.about["model"]


def test_numbers_are_given_once_to_many_machines(machines, bucket):
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(3)
    workers = [
        context.Process(target=append_some, args=(str(machines.top / name), start, name))
        for name in ("a", "b", "c")
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    machines.on("d")
    events = log.everything()
    assert [event.number for event in events] == list(range(1, 16))
    assert sorted((e.about["who"], e.about["which"]) for e in events) == [
        (who, which) for who in "abc" for which in range(5)
    ]


def append_some(root, start, who):
    os.environ["RETRAIN_DATA"] = root
    start.wait(60)
    for which in range(5):
        log.append("freeze", "toys", why="many", who=who, which=which)


def test_a_store_that_was_made_alone_is_shared_when_a_remote_is_named(machines, monkeypatch):
    there = os.environ["RETRAIN_REMOTE"]
    monkeypatch.delenv("RETRAIN_REMOTE")
    machines.on("a")
    event = promote("one")
    monkeypatch.setenv("RETRAIN_REMOTE", there)
    assert models.current("toys").champion.number == event.number
    machines.on("b")
    assert verified() == event.about["model"]


def test_a_store_that_went_on_alone_catches_up(machines, monkeypatch):
    machines.on("a")
    one = promote("one")
    there = os.environ["RETRAIN_REMOTE"]
    monkeypatch.delenv("RETRAIN_REMOTE")
    two = promote("two", expected=one.number)
    monkeypatch.setenv("RETRAIN_REMOTE", there)
    log.everything()
    machines.on("b")
    assert verified() == two.about["model"]


def test_two_stores_that_went_on_alone_are_told_apart_and_neither_is_changed(machines, monkeypatch):
    machines.on("a")
    decisions.decide("freeze", "toys", "here")
    there = os.environ["RETRAIN_REMOTE"]
    monkeypatch.delenv("RETRAIN_REMOTE")
    machines.on("b")
    decisions.decide("freeze", "toys", "there")
    monkeypatch.setenv("RETRAIN_REMOTE", there)
    before = tree(machines.top / "b" / "store"), objects(there)
    with pytest.raises(InputError, match=r"Event 1 of .* is another one"):
        log.everything()
    with pytest.raises(InputError, match=r"Event 1 of .* is another one"):
        log.append("thaw", "toys", why="no")
    assert (tree(machines.top / "b" / "store"), objects(there)) == before


def test_a_cleaned_cache_loses_nothing(machines):
    machines.on("a")
    one = promote("one")
    shutil.rmtree(layout.cache())
    assert verified() == one.about["model"]
    decisions.decide("freeze", "toys", "later")
    machines.on("b")
    assert kinds() == ["promote", "freeze"]


def test_a_store_that_went_on_alone_catches_up_without_its_cache(machines, monkeypatch):
    machines.on("a")
    one = promote("one")
    there = os.environ["RETRAIN_REMOTE"]
    monkeypatch.delenv("RETRAIN_REMOTE")
    two = promote("two", expected=one.number)
    shutil.rmtree(layout.cache())
    monkeypatch.setenv("RETRAIN_REMOTE", there)
    assert verified() == two.about["model"]
    machines.on("b")
    assert verified() == two.about["model"]


def test_a_restored_older_store_is_brought_up_to_date(machines):
    machines.on("a")
    one = promote("one")
    shutil.copytree(layout.store(), machines.top / "older")
    two = promote("two", expected=one.number)
    shutil.rmtree(layout.store())
    shutil.copytree(machines.top / "older", layout.store())
    assert verified() == two.about["model"]


def test_an_artifact_that_is_damaged_there_is_not_believed(machines):
    machines.on("a")
    event = promote("one")
    model = event.about["model"]
    stays = f"store/artifacts/{model}/content.txt"
    content = remote.current().get(stays)
    change(os.environ["RETRAIN_REMOTE"], stays, b"evil")
    machines.on("b")
    assert models.current("toys").champion.model == model
    assert not (layout.permanent() / model).exists()
    change(os.environ["RETRAIN_REMOTE"], stays, content)
    assert verified() == model


@pytest.mark.parametrize(
    "name",
    [
        "store/log/notes.txt",
        "store/log/1.json",
        "store/registry/x",
        "store/registry/toys/old/champion.json",
        "store/artifacts/x",
        "store/artifacts/models/old/x",
        "store/names/x.txt",
    ],
)
def test_objects_of_others_in_the_bucket_do_not_matter(machines, name):
    machines.on("a")
    event = promote("one")
    change(os.environ["RETRAIN_REMOTE"], name, b"\xff")
    machines.on("b")
    assert verified() == event.about["model"]
    two = promote("two", expected=event.number)
    machines.on("a")
    assert verified() == two.about["model"]


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff\xfe", b"[]", b'{"kind": "freeze"}'])
def test_an_event_that_is_damaged_there_is_not_written_here(machines, content):
    machines.on("a")
    promote("one")
    decisions.decide("freeze", "toys", "a holiday")
    there, name = os.environ["RETRAIN_REMOTE"], "store/log/000002.json"
    intact = remote.current().get(name)
    change(there, name, content)
    machines.on("b")
    with pytest.raises(InputError, match=r"Event 2 of .* is damaged"):
        log.everything()
    assert not (layout.log() / "000002.json").exists()
    change(there, name, intact)
    assert kinds() == ["promote", "freeze"]


def test_an_older_event_that_is_damaged_here_is_one_sentence(machines):
    machines.on("a")
    one = promote("one")
    two = promote("two", expected=one.number)
    machines.on("b")
    verified()
    (layout.log() / f"{one.number:06d}.json").write_text("undo")
    shutil.rmtree(remote.current().folder)  # as where the cache was removed
    machines.on("a")
    promote("three", expected=two.number)
    machines.on("b")
    with pytest.raises(InputError, match=r"000001"):
        log.everything()


def test_without_the_remote_it_is_read_and_nothing_is_decided(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(sharing, "FRESH_SECONDS", 0.0)
    machines = Machines(tmp_path, monkeypatch)
    with running(tmp_path) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("RETRAIN_REMOTE", f"{server.make(f'bucket-{server.port}')}/team")
        machines.on("a")
        one = promote("one")
        server.stop()
        assert models.current("toys").champion.number == one.number
        assert "What is here counts until it does." in caplog.text
        before = tree(layout.store())
        with pytest.raises(RemoteAwayError, match="nothing was decided: run the same command"):
            decisions.decide("freeze", "toys", "now")
        with pytest.raises(RemoteAwayError, match="nothing was decided"):
            promote("two", expected=one.number)
        assert tree(layout.log()) == {
            n.removeprefix("log/"): c for n, c in before.items() if "log/" in n
        }
        assert pointer.read("toys").event == one.number


def test_what_an_erasure_removed_leaves_the_other_machine_and_the_bucket(machines, caplog):
    machines.on("a")
    batch = keep("batches", "rows of a person")
    log.append("ingest", "toys", batch=batch.partition("/")[2], name="one", content="0", size=1)
    machines.on("b")
    log.everything()
    assert (layout.permanent() / batch).is_dir()
    machines.on("a")
    digest = batch.partition("/")[2]
    log.append("erase", "toys", rows=["f" * 64], batches={digest: {}}, why="asked")
    staying.remove([models.artifact_of(batch)])
    assert not [name for name in objects(os.environ["RETRAIN_REMOTE"]) if digest in name]
    machines.on("b")
    log.everything()
    assert not (layout.permanent() / batch).exists()
    assert "Erase them here too" in caplog.text


def test_an_erasure_of_a_machine_that_went_on_alone_reaches_the_bucket(machines, monkeypatch):
    machines.on("a")
    batch = ingested("rows of a person")
    there = os.environ["RETRAIN_REMOTE"]
    monkeypatch.delenv("RETRAIN_REMOTE")
    erase(batch)
    delete(models.artifact_of(batch), permanent=True)
    monkeypatch.setenv("RETRAIN_REMOTE", there)
    log.everything()
    assert not [name for name in objects(there) if batch.partition("/")[2] in name]
    decisions.decide("freeze", "toys", "later")
    machines.on("b")
    assert kinds() == ["ingest", "erase", "freeze"]
    assert not (layout.permanent() / batch).exists()


def test_an_erased_batch_that_still_lies_in_the_bucket_does_not_come_back(machines):
    """As where the erasure was killed after its event."""
    machines.on("a")
    batch = ingested("rows of a person")
    machines.on("b")
    log.everything()
    machines.on("a")
    erase(batch)
    machines.on("b")
    log.everything()
    machines.on("a")
    decisions.decide("freeze", "toys", "later")
    machines.on("b")
    assert kinds() == ["ingest", "erase", "freeze"]
    assert not (layout.permanent() / batch).exists()


def test_the_command_after_an_erasure_elsewhere_can_be_typed(machines, caplog):
    why = 'it\'s "private" $(id)'
    machines.on("a")
    batch = ingested("rows of a person")
    machines.on("b")
    log.everything()
    machines.on("a")
    erase(batch, why)
    machines.on("b")
    log.everything()
    (said,) = [each for each in caplog.messages if "Erase them here too" in each]
    words = shlex.split(said.partition("files: ")[2])
    assert words[:3] == ["./run", "data", "erase"]
    assert words[3:] == ["--dataset", "toys", f"--why={why}", "f" * 64]


def test_an_erasure_elsewhere_is_told_until_it_is_done_here(machines, caplog):
    machines.on("a")
    batch = ingested("rows of a person")
    machines.on("b")
    log.everything()
    machines.on("a")
    erase(batch)
    machines.on("b")
    for _ in range(2):
        caplog.clear()
        erasures._told.clear()  # as in a new process
        log.everything()
        assert "Erase them here too" in caplog.text
        with pytest.raises(InputError, match="so nothing was written"):
            erasures.check_none_left()
    erasures.done("other", {"f" * 64})
    erasures.done("toys", {"e" * 64})
    assert len(erasures.left()) == 1
    erasures.done("toys", {"f" * 64})
    caplog.clear()
    erasures._told.clear()
    log.everything()
    assert caplog.text == ""
    erasures.check_none_left()


def test_what_is_erased_here_in_part_is_told_for_the_rest(machines):
    machines.on("b")
    ingested("rows")
    machines.on("a")
    log.everything()
    log.append("erase", "toys", rows=["e" * 64, "f" * 64], batches={}, why="asked")
    machines.on("b")
    log.everything()
    erasures.done("toys", {"e" * 64})
    assert [each.rows for each in erasures.left()] == [("f" * 64,)]


def test_an_erasure_of_before_does_not_concern_a_new_machine(machines, caplog):
    machines.on("a")
    erase(ingested("rows of a person"))
    machines.on("b")
    assert kinds() == ["ingest", "erase"]
    assert erasures.left() == []
    assert "Erase them here too" not in caplog.text


def test_an_erasure_concerns_a_machine_that_worked_alone_before(machines):
    machines.on("a")
    erase(ingested("rows of a person"))
    machines.on("b")
    report = layout.reports() / "20260101-000000" / "report.json"
    report.parent.mkdir(parents=True)
    report.touch()
    log.everything()
    assert [each.rows for each in erasures.left()] == [("f" * 64,)]


@pytest.mark.parametrize(
    "name", ["store/log/.DS_Store", "store/log/notes.json", "store/log/000001.json.bak"]
)
def test_what_people_put_beside_the_log_is_no_event(machines, name):
    machines.on("a")
    promote("one")
    change(os.environ["RETRAIN_REMOTE"], name, b"")
    machines.on("b")
    assert kinds() == ["promote"]


def test_an_ingest_knows_what_was_decided_while_it_waited(machines, monkeypatch):
    from prefect.logging import disable_run_logger

    from registry import data
    from tasks import ingest

    monkeypatch.setattr(sharing, "FRESH_SECONDS", 60.0)
    machines.on("b")
    log.everything()
    machines.on("a")
    log.append("erase", "toys", rows=["f" * 64], batches={}, why="asked")
    machines.on("b")
    with disable_run_logger(), ingest._alone("toys"):
        assert data.current("toys").erased == {"f" * 64}


def test_a_promotion_that_was_taken_back_does_not_return_from_a_machine_without_its_cache(machines):
    machines.on("a")
    one = promote("one")
    two = promote("two", expected=one.number)
    machines.on("b")
    assert verified() == two.about["model"]
    machines.on("a")
    decisions.undo("toys", two)
    machines.on("b")
    shutil.rmtree(layout.cache())
    assert verified() == one.about["model"]
    machines.on("a")
    assert verified() == one.about["model"]


def test_a_promotion_that_was_taken_back_alone_stays_so_without_its_cache(machines, monkeypatch):
    machines.on("a")
    one = promote("one")
    two = promote("two", expected=one.number)
    there = os.environ["RETRAIN_REMOTE"]
    monkeypatch.delenv("RETRAIN_REMOTE")
    decisions.undo("toys", two)
    shutil.rmtree(layout.cache())
    monkeypatch.setenv("RETRAIN_REMOTE", there)
    assert verified() == one.about["model"]
    machines.on("b")
    assert verified() == one.about["model"]


@pytest.mark.parametrize("content", ["", "garbage", '{"format": 1, "event": 9', "older"])
def test_a_pointer_that_is_damaged_or_put_back_here_counts_nowhere(machines, content):
    machines.on("a")
    one = promote("one")
    machines.on("b")
    assert verified() == one.about["model"]
    older = pointer.path_of("toys").read_text()
    machines.on("a")
    two = promote("two", expected=one.number)
    machines.on("b")
    assert verified() == two.about["model"]
    pointer.path_of("toys").write_text(older if content == "older" else content)
    assert verified() == two.about["model"]
    machines.on("a")
    assert verified() == two.about["model"]


def test_a_promotion_that_others_use_stays_where_a_full_disk_ends_it(machines, monkeypatch):
    machines.on("a")
    one = promote("one")
    machines.on("b")
    assert verified() == one.about["model"]
    machines.on("a")

    def full(*_):
        raise OSError(28, "No space left on device", str(layout.root()))

    with monkeypatch.context() as patch:
        patch.setattr(pointer, "write_atomically", full)
        with pytest.raises(InputError, match="No space left"):
            promote("two", expected=one.number)
    machines.on("b")
    two = verified()
    assert two != one.about["model"]
    for name in ("a", "b"):
        machines.on(name)
        assert verified() == two


INGEST = {"kind": "ingest", "dataset": "toys", "at": "x", "format": 2}
ERASE = INGEST | {"kind": "erase"}


@pytest.mark.parametrize(
    "event",
    [
        {"kind": "freeze", "about": {}},
        {"kind": "freeze", "about": {"why": "x"}, "dataset": 5, "at": "x", "format": 2},
        ERASE | {"about": {"batches": {}, "rows": 5, "why": "x"}},
        ERASE | {"about": {"batches": {}, "rows": ["../up"], "why": "x"}},
        ERASE | {"about": {"batches": ["0" * 64], "rows": [], "why": "x"}},
        ERASE | {"about": {"batches": {"../up": {}}, "rows": [], "why": "x"}},
        INGEST | {"kind": "undo", "about": {"promotion": float("inf")}},
    ],
)
def test_what_is_no_event_is_not_taken_from_the_bucket(machines, event):
    machines.on("a")
    promote("one")
    change(os.environ["RETRAIN_REMOTE"], "store/log/000002.json", json.dumps(event).encode())
    machines.on("b")
    with pytest.raises(InputError, match=r"Event 2 of s3://.* is damaged"):
        log.everything()
    assert not (layout.log() / "000002.json").exists()


@pytest.mark.parametrize(
    "content", [b'{"format": 1, "event": 1e999, "model": "m"}', b"{}", b"\xff"]
)
def test_what_is_no_pointer_is_not_taken_from_the_bucket(machines, content):
    machines.on("a")
    one = promote("one")
    change(os.environ["RETRAIN_REMOTE"], "store/registry/toys/champion.json", content)
    machines.on("b")
    with pytest.raises(InputError, match=r"champion.json is missing|restore it from a backup"):
        models.current("toys")
    assert not pointer.path_of("toys").exists()
    machines.on("a")
    assert verified() == one.about["model"]
    machines.on("b")
    assert verified() == one.about["model"]


def test_a_restored_log_tells_of_erasures_where_the_cache_is_older(machines, tmp_path):
    older_cache(machines, tmp_path / "a.tar")
    restoring.restore(tmp_path / "a.tar")
    assert [each.rows for each in erasures.left()] == [("f" * 64,)]
    machines.on("new")
    restoring.restore(tmp_path / "a.tar")
    assert erasures.left() == []


def test_an_artifact_of_the_store_that_is_damaged_in_the_bucket_is_mended(machines, caplog):
    machines.on("a")
    batch = ingested("rows")
    there = os.environ["RETRAIN_REMOTE"]
    place = f"store/artifacts/{batch}"
    change(there, f"{place}/content.txt", b"broken disk")
    machines.on("b")
    decisions.decide("freeze", "toys", "it goes on")
    assert kinds() == ["ingest", "freeze"]
    assert not (layout.permanent() / batch).exists()
    (problem,) = data.problems()
    said = f"damaged in {there}, where it stays: run `./run cache verify --remote --repair` on"
    assert said in problem["problem"]
    assert said in caplog.text
    damage = {"what": place, "problem": "content.txt is damaged", "left": True}
    assert upkeep.verify(repair=True) == [damage]  # by a machine that lacks it
    assert f"{place}.json" in objects(there)
    machines.on("a")
    assert upkeep.verify(repair=True) == [damage | {"left": False}]
    assert upkeep.verify() == []
    machines.on("b")
    assert kinds() == ["ingest", "freeze"]
    assert (layout.permanent() / batch / "content.txt").exists()


@pytest.mark.parametrize("lost", [(2,), (1, 2, 3)])
def test_events_that_the_bucket_lost_come_back_by_a_push(machines, lost):
    machines.on("a")
    promote("one")
    decisions.decide("freeze", "toys", "x")
    decisions.decide("thaw", "toys", "y")
    gone = [f"store/log/{number:06d}.json" for number in lost]
    remote.current().delete([*gone, "store/registry/toys/champion.json"])
    decisions.decide("freeze", "toys", "z")
    machines.on("b")
    with pytest.raises(InputError, match=f"Event {lost[0]} is not in s3://.*cache push"):
        log.everything()
    machines.on("a")
    sharing.push()
    machines.on("b")
    assert kinds() == ["promote", "freeze", "thaw", "freeze"]
    assert verified() == keep("models", "one")


@pytest.mark.parametrize("number", ["000009", "99999999"])
def test_an_event_after_a_gap_is_not_taken_from_the_bucket(machines, number):
    machines.on("a")
    promote("one")
    event = json.dumps(INGEST | {"kind": "freeze", "about": {"why": "x"}}).encode()
    change(os.environ["RETRAIN_REMOTE"], f"store/log/{number}.json", event)
    machines.on("b")
    with pytest.raises(InputError, match="Event 2 is not in s3://"):
        log.everything()
    remote.current().delete([f"store/log/{number}.json"])
    assert kinds() == ["promote"]


def test_an_event_that_was_lost_here_comes_back(machines):
    machines.on("a")
    promote("one")
    decisions.decide("freeze", "toys", "x")
    decisions.decide("thaw", "toys", "y")
    (layout.log() / "000002.json").unlink()
    shutil.rmtree(layout.cache())
    assert kinds() == ["promote", "freeze", "thaw"]
