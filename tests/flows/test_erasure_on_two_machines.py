"""Erasure where machines share a bucket: what one erased leaves the other by the command it names.

Both machines are data roots of this process, on a real S3 server.
"""

import shlex
import shutil

import pytest

from artifacts import layout, remote, runs
from artifacts import sharing as records_there
from artifacts.remote import RemoteAwayError
from registry import erasures, staying
from tests.flows import pictures
from tests.flows.test_erasure import report_pictures

pytestmark = pytest.mark.slow

WHY = "it's her wish; $(touch evil)"
IMAGES, LABELS = pictures.new(0, 60)
ROW = pictures.digest(IMAGES[3])
PUBLISHED = pictures.digest(pictures.published()[0][5])
TOLD = "Erase them here too"


def shown(root):
    """Names of the artifacts of the cache that show rows, or tell of single ones."""
    kinds = ("pictures", "checks")
    return {path.name for kind in kinds for path in root.folder.glob(f"cache/{kind}/*/")}


def rows_in_bucket(folder):
    """Digests of all rows and pictures in the files of the bucket."""
    there = remote.current()
    shutil.rmtree(folder, ignore_errors=True)  # what was there earlier
    for each in there.find(""):
        path = folder / each.name
        path.parent.mkdir(parents=True, exist_ok=True)
        there.download(each.name, path)
    return set(pictures.rows_below(folder))


def shown_in_bucket():
    """Names of the artifacts of the bucket that show rows, or tell of single ones."""
    names = (each.name.removesuffix(".json") for each in remote.current().find("artifacts"))
    parts = [name.split("/") for name in names]
    return {digest for _, kind, digest, *_ in parts if kind in {"pictures", "checks"}}


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
        assert words == ["data", "erase", "--dataset", "folder", f"--why={WHY}", ROW]
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


def test_the_source_is_not_blamed_for_what_is_only_missing_here(machines, tmp_path):
    begin(machines, tmp_path)
    with machines("b") as b:
        b.train(epochs=1)  # cached: the published rows stay in the bucket
    command = ("data", "erase", ROW, "--why", WHY, "--dataset", "folder")
    for name in "ab":
        with machines(name) as each:
            done = each(*command)
            assert done.code == 0
            assert "published source" not in done.out


def begin(machines, tmp_path):
    """Let `a` train on a batch; all of it is in the bucket."""
    with machines("a") as a:
        a.ingest(pictures.as_folders(tmp_path / "new", IMAGES, LABELS))
        a.train(epochs=1)
        return shown(a)


def erase_on_a(machines):
    with machines("a") as a:
        a.data("erase", ROW, PUBLISHED, "--why", WHY)
        assert shown_in_bucket() == set()


def test_what_waited_for_the_bucket_is_not_written_after_an_erasure(
    machines, tmp_path, monkeypatch
):
    begin(machines, tmp_path)
    with machines("b") as b:
        with monkeypatch.context() as away:

            def does_not_answer(*_):
                raise RemoteAwayError("It does not answer.")

            away.setattr(records_there, "_push", does_not_answer)
            away.setattr(records_there, "look", lambda _: None)
            b.train(epochs=1)
        assert records_there.waiting()
        pictured = shown(b)
    erase_on_a(machines)
    with machines("b") as b:
        b.train(epochs=1)
        assert len(erasures.left()) == 1
        assert shown_in_bucket().isdisjoint(pictured)
        assert PUBLISHED not in rows_in_bucket(tmp_path / "bucket")


def test_what_a_run_makes_while_rows_are_erased_elsewhere_is_not_written(
    machines, tmp_path, monkeypatch
):
    pictured = begin(machines, tmp_path)
    push, erased = records_there.push, []

    def erase_first(key):
        if key.startswith("plot/") and not erased:
            erased.append(key)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("RETRAIN_DATA", str(tmp_path / "a"))
                erase_on_a(machines)
        push(key)

    with machines("b") as b:
        with monkeypatch.context() as patch:
            patch.setattr(records_there, "look", lambda _: None)  # it computes all itself
            patch.setattr(records_there, "push", erase_first)
            b.train(epochs=1)
        assert erased
        assert shown_in_bucket().isdisjoint(pictured)


def test_a_machine_that_only_pulled_is_told_too(machines, tmp_path):
    pictured = begin(machines, tmp_path)
    with machines("c") as c:
        assert c("cache", "pull").code == 0
        assert shown(c) == pictured
    erase_on_a(machines)
    with machines("c") as c:
        assert c("cache", "push").code == 1
        assert shown_in_bucket() == set()


def test_what_was_erased_alone_does_not_come_back_from_the_bucket(machines, tmp_path, monkeypatch):
    pictured = begin(machines, tmp_path)
    with machines("a") as a:
        with monkeypatch.context() as alone:
            alone.delenv("RETRAIN_REMOTE")
            a.data("erase", ROW, PUBLISHED, "--why", WHY)
        assert a("cache", "pull").code == 0
        assert shown(a).isdisjoint(pictured)
        assert shown_in_bucket().isdisjoint(pictured)


def test_rows_stay_to_be_erased_while_a_run_is_under_way(machines, tmp_path):
    begin(machines, tmp_path)
    with machines("b") as b:
        b.train(epochs=1)
    erase_on_a(machines)
    with machines("b") as b:
        b.data("list")
        (erasure,) = erasures.left()
        words = shlex.split(erasure.command)[1:]
        with runs.running("20260101-000000-aaaaaaaa"):
            assert "under way: erase the same rows again" in b(*words).out
        assert erasures.left() == [erasure]
        assert b(*words).code == 0
        assert erasures.left() == []


def test_rows_of_a_batch_that_was_lost_here_are_erased_in_the_bucket(machines, tmp_path):
    begin(machines, tmp_path)
    with machines("a") as a:
        (batch,) = (layout.permanent() / "batches").glob("*/")
        shutil.rmtree(batch)
        a.data("erase", ROW, "--why", WHY)
        assert ROW not in pictures.rows_below(a.folder)
        assert ROW not in rows_in_bucket(tmp_path / "bucket")
    with machines("d") as new:
        new.data("list")
        assert ROW not in pictures.rows_below(new.folder)


def test_another_machine_finishes_what_an_erasure_left_in_the_bucket(
    machines, tmp_path, monkeypatch
):
    pictured = begin(machines, tmp_path)

    def killed(*_):
        raise KeyboardInterrupt

    with machines("a") as a, monkeypatch.context() as patch:
        patch.setattr(staying, "clear", killed)
        assert a("data", "erase", ROW, PUBLISHED, "--why", WHY, "--dataset", "folder").code == 130
        assert pictured & shown_in_bucket()
    with machines("c") as c:
        assert c("cache", "pull").code == 0
        assert shown(c).isdisjoint(pictured)
        assert shown_in_bucket().isdisjoint(pictured)
        assert PUBLISHED not in rows_in_bucket(tmp_path / "bucket")
