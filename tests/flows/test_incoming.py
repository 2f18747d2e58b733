"""The incoming folder: what lies there is taken in once, when it has been left alone."""

import os
import shutil
import time

import pytest

from tests.flows import pictures

pytestmark = pytest.mark.slow
QUIET = "RETRAIN_QUIET_SECONDS"


@pytest.fixture(scope="module")
def base(tmp_path_factory, server):
    """A data root that knows the published rows, to be copied."""
    folder = tmp_path_factory.mktemp("incoming")
    source = pictures.write_source(folder / "source")
    with pictures.data_root(folder / "data", source) as root:
        root.ingest()
    return folder


@pytest.fixture
def root(base, tmp_path):
    shutil.copytree(base / "data", tmp_path / "data")
    with pictures.data_root(tmp_path / "data", base / "source") as found:
        found.incoming = tmp_path / "data" / "store" / "incoming" / "folder"
        found.incoming.mkdir(parents=True)
        yield found


def leave_alone(folder, seconds=3600):
    """Make all files look as if nobody had written them for so long."""
    then = time.time() - seconds
    for path in folder.rglob("*"):
        os.utime(path, (then, then))


def names(root):
    return [row["batch"] for row in root.data("list")]


def test_each_delivery_becomes_a_batch_and_an_unusable_one_holds_up_nothing(root):
    images, labels = pictures.new(0, 50)
    pictures.as_folders(root.incoming / "monday", images[:20], labels[:20])
    pictures.as_table(root.incoming / "tuesday.parquet", images[20:35], labels[20:35])
    (root.incoming / "a-broken.parquet").write_bytes(b"PAR1 but no more")
    (root.incoming / "nothing").mkdir()
    (root.incoming / "nothing" / "read.me").write_text("no picture")
    pictures.as_idx(root.incoming, images[35:], labels[35:], stem="wednesday")
    leave_alone(root.incoming)
    result = root.ingest()
    assert names(root) == ["monday", "tuesday", "wednesday-images"]
    assert result["accepted"] == 50
    assert result["waiting"] == []
    by_name = {batch["batch"]: batch["accepted"] for batch in result["batches"]}
    assert by_name == {"monday": 20, "tuesday": 15, "wednesday-images": 15, None: 0}
    refused = {row["what"]: row["reason"] for row in result["refused"]}
    assert refused.keys() == {"a-broken.parquet", "nothing"}
    assert "damaged Parquet" in refused["a-broken.parquet"]
    checks = [name for name in result["steps"] if name.startswith("check ")]
    assert checks == ["check monday", "check tuesday", "check wednesday-images"]
    page = (root.folder / result["report"] / "report.html").read_text()
    for name in ("monday", "tuesday", "wednesday-images", "a-broken.parquet"):
        assert name in page
    # What was looked at is not read again, though its bytes could not even be read.
    for path in root.incoming.rglob("*"):
        if path.is_file():
            size, then = path.stat().st_size, path.stat().st_mtime_ns
            path.write_bytes(b"\xff" * size)
            os.utime(path, ns=(then, then))
    again = root.ingest()
    assert (again["accepted"], again["batches"], again["refused"]) == (0, [], [])
    assert len(names(root)) == 3


def test_files_that_were_just_written_wait_and_hold_up_nothing(root, monkeypatch):
    images, labels = pictures.new(50, 70)
    pictures.as_folders(root.incoming / "done", images[:10], labels[:10])
    leave_alone(root.incoming)
    pictures.as_folders(root.incoming / "writing", images[10:], labels[10:])
    result = root.ingest()
    assert result["waiting"] == ["writing"]
    assert names(root) == ["done"]
    leave_alone(root.incoming / "writing", 30)
    assert root.ingest()["waiting"] == ["writing"]  # a minute is asked for
    monkeypatch.setenv(QUIET, "20")
    result = root.ingest()
    assert (result["batch"], result["accepted"]) == ("writing", 10)


def test_no_quiet_period_is_asked_of_a_path_that_is_named(root, tmp_path):
    folder = pictures.as_folders(tmp_path / "named", *pictures.new(70, 75))
    assert root.ingest(folder)["accepted"] == 5


def test_class_folders_right_there_are_one_delivery_and_later_files_come_in_too(root):
    images, labels = pictures.new(80, 100)
    pictures.as_folders(root.incoming, images[:10], labels[:10])
    leave_alone(root.incoming)
    first = root.ingest()
    assert first["accepted"] == 10
    pictures.as_folders(root.incoming, images[10:], labels[10:], first=10)
    leave_alone(root.incoming)
    second = root.ingest()
    assert second["accepted"] == 10
    assert {row["reason"] for row in second["refused"]} <= {"duplicate", "test image"}
    assert len(names(root)) == 2


def test_a_delivery_that_changed_is_read_again(root):
    images, labels = pictures.new(100, 110)
    path = root.incoming / "grown.parquet"
    pictures.as_table(path, images[:5], labels[:5])
    leave_alone(root.incoming)
    assert root.ingest()["accepted"] == 5
    pictures.as_table(path, images, labels)
    leave_alone(root.incoming, 1800)
    result = root.ingest()
    assert (result["batch"], result["accepted"]) == ("grown-2", 5)


def test_hidden_files_are_left_alone(root):
    (root.incoming / ".hidden").write_text("x")
    (root.incoming / ".part.parquet").write_text("x")
    result = root.ingest()
    assert (result["batches"], result["waiting"]) == ([], [])


@pytest.mark.parametrize("value", ["soon", "nan", "-1"])
def test_a_quiet_period_that_is_no_number_is_one_sentence(root, monkeypatch, value):
    pictures.as_folders(root.incoming / "x", *pictures.new(0, 2))
    leave_alone(root.incoming)
    monkeypatch.setenv(QUIET, value)
    done = root("ingest", "--dataset", "folder")
    assert done.code == 1
    assert f"{QUIET} is '{value}'" in done.sentence


def test_a_name_is_for_paths_only(root):
    done = root("ingest", "--batch", "x", "--dataset", "folder")
    assert done.code == 2
    assert "--batch" in done.sentence


def test_a_link_out_of_the_folder_is_refused_and_what_it_leads_to_is_neither_read_nor_erased(
    root, tmp_path
):
    images, labels = pictures.new(0, 20)
    elsewhere = tmp_path / "elsewhere"
    pictures.as_folders(elsewhere / "pictures", images[:10], labels[:10])
    pictures.as_table(elsewhere / "rows.parquet", images[10:], labels[10:])
    (root.incoming / "folder").symlink_to(elsewhere / "pictures")
    (root.incoming / "table.parquet").symlink_to(elsewhere / "rows.parquet")
    pictures.as_folders(root.incoming / "mine", images, labels)
    leave_alone(root.incoming / "mine")
    for link in ("folder", "table.parquet"):
        os.utime(root.incoming / link, (0, 0), follow_symlinks=False)
    result = root.ingest()
    assert names(root) == ["mine"]
    refused = {row["what"]: row["reason"] for row in result["refused"]}
    for link in ("folder", "table.parquet"):
        assert refused[link].startswith(f"{link} is a symbolic link that leads out of the incoming")
    before = {path: path.read_bytes() for path in elsewhere.rglob("*") if path.is_file()}
    digest = pictures.digest(images[0])
    erased = root.data("erase", digest, "--why", "asked for")
    assert erased["removed"]["rows in incoming files"] == 1
    assert {path: path.read_bytes() for path in before} == before
