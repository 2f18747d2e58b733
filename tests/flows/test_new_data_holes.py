"""What a second close reading proved of new data, each as it was found."""

import os
import shutil
import signal
import subprocess
import sys

import pytest

from tests.conftest import PROJECT
from tests.flows import pictures

pytestmark = pytest.mark.slow
WHY = ("--why", "asked to")


@pytest.fixture(scope="module")
def start(tmp_path_factory, server):
    """A data root in which a model was trained and a batch came in, with a file to be refused."""
    folder = tmp_path_factory.mktemp("start")
    source = pictures.write_source(folder / "source")
    with pictures.data_root(folder / "data", source) as root:
        root.train(epochs=1)
        delivery = pictures.as_folders(folder / "monday", *pictures.new(0, 40))
        (delivery / "0" / "readme.txt").write_text("no picture")
        root.ingest(delivery)
    return folder


@pytest.fixture
def root(start, tmp_path, monkeypatch):
    """A copy of it, with the folders of its deliveries beside."""
    monkeypatch.setenv("RETRAIN_QUIET_SECONDS", "0")
    for path in start.iterdir():
        shutil.copytree(path, tmp_path / path.name)
    with pictures.data_root(tmp_path / "data", tmp_path / "source") as found:
        yield found


@pytest.fixture
def incoming(root):
    folder = root.folder / "store" / "incoming" / "folder"
    folder.mkdir(parents=True)
    return folder


def lose(root, name):
    (artifact,) = (row["artifact"] for row in root.data("list") if row["batch"] == name)
    shutil.rmtree(root.folder / "store" / "artifacts" / artifact)


def rows(root):
    return {row["batch"]: (row["train"], row["recent"]) for row in root.data("list")}


def test_a_lost_batch_is_mended_also_when_other_rows_are_refused_this_time(root, tmp_path):
    before = rows(root)
    lose(root, "monday")
    (tmp_path / "monday" / "0" / "readme.txt").unlink()
    again = root.ingest(tmp_path / "monday")
    assert (again["batch"], again["accepted"]) == ("monday", 0)
    assert rows(root) == before
    assert root("cache", "verify").code == 0
    assert root.train(epochs=1)["batches"][0]["name"] == "monday"
    assert root.events()[-1]["kind"] == "mend"


def test_a_lost_batch_is_mended_after_an_erasure_and_stays_without_the_row(root, tmp_path):
    image = pictures.new(0, 1)[0][0]
    root.data("erase", pictures.digest(image), *WHY)
    lose(root, "monday")
    root.ingest(tmp_path / "monday")
    assert sum(rows(root)["monday"]) == 39
    assert root("cache", "verify").code == 0
    assert pictures.digest(image) not in pictures.rows_below(root.folder / "store")


def test_a_lost_batch_that_was_retracted_is_mended_and_stays_retracted(root, tmp_path):
    root.data("retract", "monday", "--why", "wrong camera")
    lose(root, "monday")
    (tmp_path / "monday" / "0" / "readme.txt").unlink()
    root.ingest(tmp_path / "monday")
    assert root.data("list")[0]["status"] == "retracted: wrong camera"
    assert root("cache", "verify").code == 0


def test_an_error_about_another_batch_leaves_a_delivery_for_the_next_time(root, incoming):
    pictures.as_folders(incoming / "tuesday", *pictures.new(40, 60))
    from tests.flows.pictures import write_source

    small = write_source(
        root.folder.parent / "small",
        (pictures.published()[0][:, :20, :20], pictures.published()[1]),
        (pictures.tested()[0][:, :20, :20], pictures.tested()[1]),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETRAIN_SOURCE", str(small))
        done = root("ingest", "--dataset", "folder")
    assert done.code == 1
    assert "Batch monday has images of (28, 28)" in done.err
    found = root.ingest()
    assert [batch["batch"] for batch in found["batches"]] == ["tuesday"]


def test_an_erasure_looks_in_incoming_in_the_size_of_the_batch_that_held_the_row(
    root, incoming, tmp_path
):
    delivery = pictures.as_folders(incoming / "tuesday", *pictures.new(40, 60))
    root.ingest()
    image = pictures.new(40, 41)[0][0]
    from tests.flows.pictures import write_source

    small = write_source(
        tmp_path / "small",
        (pictures.published()[0][:, :20, :20], pictures.published()[1]),
        (pictures.tested()[0][:, :20, :20], pictures.tested()[1]),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETRAIN_SOURCE", str(small))
        root("train", "--dataset", "folder", "--epochs", "1", "--recipe", "post")
        assert len(list(delivery.glob("*/*.png"))) == 20
        found = root.data("erase", pictures.digest(image), *WHY)
    assert found["removed"]["rows in incoming files"] == 1
    assert len(list(delivery.glob("*/*.png"))) == 19


def test_an_erasure_names_folders_too_deep_to_be_read(root, incoming):
    image = pictures.new(40, 41)[0]
    pictures.as_folders(incoming / "tuesday", *pictures.new(40, 60))
    place = incoming / "tuesday" / "0" / "camera" / "deep"
    pictures.as_folders(place, image, [3])
    root.ingest()
    found = root.data("erase", pictures.digest(image[0]), *WHY)
    assert [note for note in found["notes"] if f"{place} lies too deep" in note]


def test_an_erasure_removes_what_a_killed_one_left_in_incoming(root, incoming):
    images, labels = pictures.new(40, 60)
    pictures.as_table(incoming / "week.parquet", images, labels)
    root.ingest()
    script = (
        "import os, signal, sys\n"
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from flows.cli.app import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    arguments = ("data", "erase", pictures.digest(images[0]), *WHY, "--dataset", "folder")
    killed = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=PROJECT, env=os.environ, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert list(incoming.glob(".*.tmp"))
    for image in images[:2]:
        root.data("erase", pictures.digest(image), *WHY)
    assert not list(incoming.glob(".*.tmp"))
    assert not {pictures.digest(each) for each in images[:2]} & pictures.rows_below(incoming).keys()


def test_pictures_of_a_killed_run_are_erased(root):
    folder = root.folder / "reports" / "20261101-000000-0a0b0c0d"
    folder.mkdir()
    pictures.as_folders(folder, *pictures.new(0, 1))
    (folder / "means-0.png").write_bytes(next(folder.glob("*/*.png")).read_bytes())
    root.data("erase", pictures.digest(pictures.new(0, 1)[0][0]), *WHY)
    assert not (folder / "means-0.png").exists()


def test_a_dry_run_lists_the_evaluation_of_recent_rows(root, tmp_path):
    assert "evaluate-recent" in root.train("--dry-run", epochs=1)["steps"]
    assert "evaluate-recent" in root.train(epochs=1)["steps"]


def test_a_size_that_is_not_that_of_the_published_rows_is_refused(root, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RETRAIN_SOURCE")
        done = root(
            "ingest", tmp_path / "monday", "--dataset", "folder", "--image-size", "64x64", "--json"
        )
    assert done.code == 2
    assert "--image-size is 64x64, and the published rows of folder are 28x28" in done.err


def test_a_size_that_is_not_that_of_a_batch_is_refused_by_dry_run_and_run_alike(root):
    for options in (("--dry-run",), ()):
        done = root("train", "--dataset", "folder", "--image-size", "48x48", *options)
        assert done.code == 1
        assert "Batch monday has images of (28, 28), and not of (48, 48)" in done.err


def test_a_batch_of_nothing_but_known_rows_trains_nothing_again(root, tmp_path):
    first = root.train(epochs=1)
    known = pictures.as_folders(tmp_path / "again", *pictures.new(0, 30))
    again = root.ingest(known)
    assert (again["batch"], again["accepted"]) == ("again", 0)
    second = root.train(epochs=1)
    assert second["steps"]["train"] == second["steps"]["evaluate"] == "cached"
    assert second["manifest"] == first["manifest"]
    assert root.data("show", "again")["left_out"] == 30


def test_a_corrected_recent_row_concerns_runs_with_a_recent_score_alone(root, tmp_path):
    with_recent = root.train(epochs=1)
    (digest, *_) = [row["digest"] for row in root.data("rows", "--batch", "monday", "--split",
                                                       "recent")]  # fmt: skip
    (tmp_path / "c.csv").write_text(f"digest,label\n{digest},drop\n")
    found = root.data("correct", tmp_path / "c.csv")
    assert (found["test"], found["recent"]) == (0, 1)
    assert found["not_comparable"] == [with_recent["run_id"]]
    after = root.train(epochs=1)
    assert after["test_set"] == with_recent["test_set"]
    assert after["recent_test_set"] != with_recent["recent_test_set"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("",), 2, "A path is empty"),
        (("nowhere",), 1, "nowhere is not there"),
        ((".", "--batch", "../x"), 2, "--batch is '../x'"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_fetched(root, arguments, code, said):
    done = root("ingest", *arguments, "--dataset", "folder")
    assert done.code == code
    assert said in done.err
    assert "download" not in done.err


def test_a_batch_comes_in_where_the_present_model_cannot_be_read(root, tmp_path, monkeypatch):
    from classifier import models
    from classifier.errors import InputError

    def unreadable(folder):
        raise InputError(f"{folder} is not a readable model (other code): train it again.")

    monkeypatch.setattr(models, "load", unreadable)
    done = root(
        "ingest", pictures.as_folders(tmp_path / "b", *pictures.new(40, 60)), "--dataset", "folder"
    )
    assert done.code == 0, done.err
    assert "No drift or labels are checked" in done.err
