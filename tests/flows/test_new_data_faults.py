"""What a close reading and hostile use proved of new data, each as it was found."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.conftest import PROJECT
from tests.flows import pictures

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def start(tmp_path_factory, server):
    """A data root in which a model was trained and two batches came in."""
    folder = tmp_path_factory.mktemp("start")
    source = pictures.write_source(folder / "source")
    with pictures.data_root(folder / "data", source) as root:
        root.train(epochs=30)
        for name, rows in (("monday", (0, 40)), ("tuesday", (40, 80))):
            root.ingest(pictures.as_folders(folder / name, *pictures.new(*rows)))
    return folder


@pytest.fixture
def root(start, tmp_path):
    """A copy of it, with the folders of its deliveries beside."""
    for path in start.iterdir():
        shutil.copytree(path, tmp_path / path.name)
    with pictures.data_root(tmp_path / "data", tmp_path / "source") as found:
        yield found


def sentence(done, code=1):
    assert done.code == code
    return done.sentence


def batch_folder(root, name):
    (artifact,) = (row["artifact"] for row in root.data("list") if row["batch"] == name)
    return root.folder / "store" / "artifacts" / artifact


TRAIN = ("train", "--dataset", "folder", "--recipe", "post", "--epochs", "1")


def test_a_lost_batch_is_named_everywhere_and_whole_again_from_its_files(root, tmp_path):
    folder = batch_folder(root, "monday")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    shutil.rmtree(folder)
    for command in ((*TRAIN, "--dry-run"), TRAIN):
        said = sentence(root(*command))
        assert "Batch monday of folder cannot be used" in said
        assert "`./run data retract monday --why … --dataset folder`" in said
    (found,) = json.loads(root("cache", "verify", "--json").out)
    assert found["what"] == f"store/artifacts/{folder.parent.name}/{folder.name}"
    assert "is missing: ingest its files again" in found["problem"]
    again = root.ingest(tmp_path / "monday")
    assert (again["batch"], again["accepted"]) == ("monday", 0)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert root("cache", "verify").code == 0


def test_verify_never_says_that_a_damaged_batch_was_removed(root):
    path = batch_folder(root, "monday") / "train.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    for options in ((), ("--repair",)):
        done = root("cache", "verify", *options)
        assert done.code == 1
        assert "restore it from a backup" in done.out
        assert "--repair" not in done.out
        assert "removed" not in done.out
    assert path.exists()
    event = root.folder / "store" / "log" / "000001.json"
    event.write_text("")
    done = root("cache", "verify")
    assert done.code == 1
    assert "000001.json is not a readable event" in done.out


def test_a_batch_of_another_image_size_is_refused_before_it_is_stored(root, tmp_path):
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("0", "1"):
            place = tmp_path / "own" / split / name
            place.mkdir(parents=True)
            for number in range(4):
                pixels = random.integers(0, 256, (20, 20), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.png")
    stored, events = root.stored(), root.events()
    other = (*("--source", tmp_path / "own"), *("--image-size", "16x16"), "--dataset", "folder")
    said = sentence(root("ingest", tmp_path / "own" / "train", *other))
    assert "Batch monday has images of (28, 28), but the published rows are (16, 16)" in said
    assert "--image-size" in said
    assert (root.stored(), root.events()) == (stored, events)


def test_rows_of_a_retracted_batch_that_come_back_are_named(root, tmp_path):
    root.data("retract", "monday", "--why", "wrong camera")
    folder = pictures.as_folders(tmp_path / "more", *pictures.new(30, 50), first=500)
    done = root("ingest", folder, "--dataset", "folder")
    assert done.code == 0
    assert "more holds 10 rows of monday, which is retracted (wrong camera)" in done.err
    assert "tuesday" not in done.err


def test_a_broken_batch_is_followed_by_what_to_type(root, tmp_path):
    images, labels = pictures.new(100, 300)
    path = pictures.as_table(tmp_path / "shifted.parquet", images, (labels + 1) % 10)
    done = root("ingest", path, "--dataset", "folder")
    assert done.code == 0
    assert "check      broken" in done.out
    assert "next       ./run data show shifted --dataset folder, then retract" in done.out


def test_a_small_batch_says_that_drift_was_not_tested(root, tmp_path):
    folder = pictures.as_folders(tmp_path / "few", *pictures.new(100, 130), first=700)
    done = root("ingest", folder, "--dataset", "folder")
    assert "No drift test: it needs 200 reference and batch rows, and has 30." in done.out
    assert "No drift test" in root("data", "show", "few", "--dataset", "folder").out


def test_drift_that_stops_is_broken_in_report_and_log_alike(root, tmp_path):
    images, labels = pictures.new(80, 400)
    path = pictures.as_table(tmp_path / "dim.parquet", images // 2, labels)
    result = root.ingest(path, "--drift.stop")
    assert result["batches"][0]["check"]["outcome"] == "broken"
    assert root.events()[-1]["about"]["outcome"] == "broken"


def test_an_erasure_sweeps_what_killed_runs_left_and_survives_unreadable_deliveries(root, tmp_path):
    digest = pictures.digest(pictures.new(0, 1)[0][0])
    incoming = root.folder / "store" / "incoming" / "folder"
    incoming.mkdir(parents=True)
    (incoming / "notes.txt").write_text("no data")
    pictures.as_folders(incoming / "copy", *pictures.new(0, 3))
    staged = root.folder / "cache" / "staging" / "batches-killed"
    shutil.copytree(batch_folder(root, "monday"), staged)
    assert digest in pictures.rows_below(root.folder)
    done = root("data", "erase", digest.upper(), "--why", "asked to", "--dataset", "folder")
    assert done.code == 0, done.err
    assert "notes.txt" in done.out
    assert "rows in incoming files: 1" in done.out
    assert digest not in pictures.rows_below(root.folder)
    assert digest not in {row["digest"] for row in root.data("rows", "--batch", "monday")}


def test_models_of_before_an_erasure_are_still_named(root):
    first, second = (pictures.digest(image) for image in pictures.new(0, 2)[0])
    trained = root.train(epochs=1)
    model = trained["model"].removeprefix("cache/")
    assert model in root.data("erase", first, "--why", "one")["models"]
    assert model in root.data("erase", second, "--why", "two")["models"]
    assert model in root.data("retract", "monday", "--why", "three")["rests_on_it"]


def test_an_erased_published_row_is_in_no_list_and_in_no_training(root):
    image = pictures.published()[0][0]
    root.data("erase", pictures.digest(image), "--why", "asked to")
    for options in (("--only-base",), ("--limit", "50")):
        expected = pictures.PUBLISHED if options[0] == "--only-base" else 50
        assert root.train(*options, epochs=1)["train_rows"] == expected - 1
    assert pictures.digest(image) not in {row["digest"] for row in root.data("rows")}


def test_a_correction_made_again_counts(root, tmp_path):
    digest = pictures.digest(pictures.new(0, 1)[0][0])
    for label in ("3", "5", "3"):
        (tmp_path / "c.csv").write_text(f"digest,label\n{digest},{label}\n")
        root.data("correct", tmp_path / "c.csv")
    labels = {row["digest"]: row["label"] for row in root.data("rows", "--batch", "monday")}
    assert labels[digest] == "3"


def test_an_unusable_delivery_is_named_and_one_that_met_a_full_disk_comes_in_later(root, server):
    incoming = root.folder / "store" / "incoming" / "folder"
    pictures.as_folders(incoming / "late", *pictures.new(200, 220))
    (incoming / "empty.parquet").write_bytes(b"PAR1")
    os.utime(incoming / "empty.parquet", (1, 1))
    script = (
        "import resource, sys\n"
        "from flows.cli.app import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, resource.RLIM_INFINITY))\n"
        "sys.exit(main(['ingest', '--dataset', 'folder']))\n"
    )
    quiet = {"RETRAIN_QUIET_SECONDS": "0", "PREFECT_API_URL": server}
    full = subprocess.run(
        [sys.executable, "-c", script],
        cwd=PROJECT,
        env=os.environ | quiet,
        capture_output=True,
        text=True,
        check=False,
    )
    assert full.returncode == 1
    assert "File too large" in full.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETRAIN_QUIET_SECONDS", "0")
        done = root("ingest", "--dataset", "folder")
    assert done.code == 0, done.err
    assert "batch      late" in done.out
    assert [row["batch"] for row in root.data("list")][-1] == "late"


def test_names_that_are_no_text_reach_report_and_terminal(root, tmp_path):
    images, labels = pictures.new(240, 246)
    folder = pictures.as_folders(tmp_path / "odd", images, labels)
    first = min(folder.rglob("*.png"))
    first.rename(first.with_name(os.fsdecode(b"\xff\xfe.png")))
    old, old_labels = pictures.published()
    pictures.as_folders(folder, old[3:4], old_labels[3:4], first=900)
    (copy,) = folder.rglob("0900.png")
    copy.rename(copy.with_name(os.fsdecode(b"\xfe\xff.png")))
    result = root.ingest(folder)
    assert result["accepted"] == 6
    assert [row["reason"] for row in result["refused"]] == ["duplicate"]
    assert (root.folder / result["report"] / "report.html").exists()
