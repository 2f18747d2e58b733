"""Erasures that are killed, that meet, or that find a batch that was mended."""

import shlex
import shutil

import pytest

from artifacts import layout
from registry import data, erasures, staying
from tests.flows import pictures
from tests.flows.test_erasure_on_two_machines import IMAGES, LABELS, ROW, WHY, rows_in_bucket

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


@pytest.mark.parametrize("row", [OTHER, ROW])
def test_two_at_once_on_one_batch_leave_none_of_the_rows(machines, tmp_path, monkeypatch, row):
    with machines("a") as a:
        a.ingest(pictures.as_folders(tmp_path / "new", IMAGES, LABELS))
    begin_clearing = staying.begin_clearing

    def late():
        monkeypatch.setattr(staying, "begin_clearing", begin_clearing)
        with machines("a") as a:
            assert a("data", "erase", ROW, "--why", WHY, "--dataset", "folder").code == 0
        monkeypatch.setenv("RETRAIN_DATA", str(tmp_path / "b"))
        begin_clearing()

    with machines("b") as b:
        b.data("list")
        monkeypatch.setattr(staying, "begin_clearing", late)
        command = ("data", "erase", row, "--why", WHY, "--dataset", "folder")
        done = b(*command)
        assert done.code == 1
        assert "erased rows of the same batch of folder meanwhile: run the same" in done.err
        assert ROW not in pictures.rows_below(b.folder)
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
