"""The ingest flow: any form goes in, what cannot be used is named, and a kill loses nothing."""

import base64
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.conftest import PROJECT
from tests.flows import pictures

OPTIONS = ("--dataset", "folder", "--json")
TEST_IMAGE = 7  # its number among the published test images


@pytest.fixture(scope="module")
def root(tmp_path_factory, server):
    folder = tmp_path_factory.mktemp("ingest")
    source = pictures.write_source(folder / "source")
    with pictures.data_root(folder / "data", source) as found:
        yield found


@pytest.fixture(scope="module")
def mixed(tmp_path_factory, root):
    """A delivery of good and bad pictures, taken in: its folder, its good rows, the result."""
    folder = tmp_path_factory.mktemp("deliveries") / "mixed"
    images, labels = pictures.new(0, 40)
    pictures.as_folders(folder, images, labels)
    old, old_labels = pictures.published()
    seen, _ = pictures.tested()
    pictures.as_folders(folder / "3", [images[0]], [0], names=["sub"])  # a group, not a class
    (folder / "3" / "sub").rename(folder / "eleven")
    pictures.as_folders(folder, old[:1], old_labels[:1], first=100)
    pictures.as_folders(folder, old[1:2], [(old_labels[1] + 1) % 10], first=101)
    pictures.as_folders(folder, seen[TEST_IMAGE : TEST_IMAGE + 1], [5], first=102)
    shifted = np.roll(seen[TEST_IMAGE + 1], 1, axis=1)
    pictures.as_folders(folder, [shifted], [5], first=103)
    pictures.as_folders(folder, np.full((1, 28, 28), 9, np.uint8), [5], first=104)
    whole = (folder / "5" / "0103.png").read_bytes()
    (folder / "5" / "0105.png").write_bytes(whole[: len(whole) // 2])
    (folder / "5" / "0106.png").write_text("no picture")
    return folder, (images, labels), root.ingest(folder)


def test_good_rows_go_in_and_each_other_one_is_named_with_a_reason(mixed):
    _, (_, labels), result = mixed
    _, old_labels = pictures.published()
    assert result["batch"] == "mixed"
    assert result["accepted"] == len(labels)
    assert 0 < result["recent_test"] < len(labels)
    reasons = {row["what"]: row["reason"] for row in result["refused"]}
    assert all(row.keys() == {"what", "reason"} for row in result["refused"])
    wrong = (old_labels[1] + 1) % 10
    test_reason = "another label" if pictures.tested()[1][TEST_IMAGE] != 5 else "test image"
    exact = {
        f"{old_labels[0]}/0100.png": "duplicate",
        f"{wrong}/0101.png": "another label",
        "5/0102.png": test_reason,
        "5/0103.png": "near a test image",
        "5/0104.png": "a blank image: every value is 9",
    }
    assert reasons.items() >= exact.items()
    assert "eleven" in reasons["eleven/0000.png"]
    assert "not a readable picture" in reasons["5/0105.png"]
    assert "not a readable picture" in reasons["5/0106.png"]
    assert len(reasons) == len(result["refused"]) == result["refused_rows"] == 8


def test_the_report_shows_batch_and_refused_rows(root, mixed):
    *_, result = mixed
    report = root.report(result)
    assert report["accepted"] == result["accepted"]
    page = (root.folder / result["report"] / "report.html").read_text()
    shown = (root.folder / result["report"] / "refused-0.png").read_bytes()
    assert shown.startswith(b"\x89PNG")
    for text in ("mixed", "5/0104.png", "near a test image", base64.b64encode(shown).decode()):
        assert text in page


def test_the_same_path_again_adds_nothing_and_is_no_error(root, mixed):
    folder, *_ = mixed
    stored = root.stored()
    for options in ((), ("--batch", "another")):
        again = root.ingest(folder, *options)
        assert again["batch"] == "mixed"
        assert (again["accepted"], again["recent_test"]) == (0, 0)
    assert root.stored() == stored


def test_the_same_rows_in_another_form_add_nothing(root, mixed, tmp_path):
    _, (images, labels), _ = mixed
    known = root.data("rows", "--batch", "mixed")
    by_digest = {pictures.digest(image): n for n, image in enumerate(images)}
    order = [by_digest[row["digest"]] for row in known if row["digest"] in by_digest]
    path = pictures.as_table(tmp_path / "again.parquet", images[order], labels[order])
    again = root.ingest(path)
    assert again["accepted"] == 0
    assert {row["what"] for row in again["refused"]} == {
        f"again.parquet row {n}" for n in range(40)
    }
    assert {row["reason"] for row in again["refused"]} == {"duplicate", "test image"}


def test_a_taken_name_with_other_rows_is_refused_and_nothing_is_stored(root, mixed, tmp_path):
    folder = pictures.as_folders(tmp_path / "other", *pictures.new(380, 385))
    stored = root.stored()
    done = root("ingest", folder, "--batch", "mixed", "--dataset", "folder", "--json")
    assert done.code == 2
    assert "'mixed'" in done.sentence
    assert "another" in done.sentence
    assert root.stored() == stored
    assert not list((root.folder / "cache" / "staging").glob("names-*"))


@pytest.mark.parametrize("name", ["", "a/b", "../x", ".hidden", "x" * 81, "new\nline"])
def test_a_name_that_cannot_be_is_refused(root, tmp_path, name):
    folder = pictures.as_folders(tmp_path / "other", *pictures.new(380, 382))
    stored = root.stored()
    done = root("ingest", folder, "--batch", name, "--dataset", "folder")
    assert done.code == 2
    assert "--batch" in done.sentence
    assert root.stored() == stored


def test_without_a_good_row_the_run_fails_and_still_reports(root, tmp_path):
    folder = pictures.as_folders(tmp_path / "bad", *pictures.new(0, 3), names=["x"] * 10)
    stored = root.stored()
    done = root("ingest", folder, "--dataset", "folder", "--json")
    assert done.code == 1
    assert "Error: None of the 3 rows can be used. The first is x/0000.png" in done.err
    found = json.loads(done.out)
    assert found["batch"] is None
    assert found["accepted"] == 0
    assert len(found["refused"]) == 3
    assert (root.folder / found["report"] / "report.html").is_file()
    assert root.stored() == stored


@pytest.mark.parametrize("given", ["missing", "empty", "text", "picture"])
def test_a_path_that_holds_nothing_usable_is_one_sentence(root, tmp_path, given):
    path = tmp_path / given
    if given == "empty":
        path.mkdir()
    elif given == "text":
        path.write_text("no images")
    elif given == "picture":
        path = pictures.as_folders(tmp_path / "one", *pictures.new(0, 1))
        (path,) = path.glob("*/*.png")
    stored = root.stored()
    done = root("ingest", path, "--dataset", "folder")
    assert done.code == 1
    assert path.name in done.sentence
    assert root.stored() == stored


# The forms.


def rows_of(root, name):
    return [(row["digest"], row["label"]) for row in root.data("rows", "--batch", name)]


def expected(images, labels):
    pairs = zip(images, labels, strict=True)
    return [(pictures.digest(image), str(label)) for image, label in pairs]


def test_hugging_face_parquet_goes_in_as_it_is(root, tmp_path):
    images, labels = pictures.new(60, 80)
    path = pictures.as_hugging_face(tmp_path / "hugging.parquet", images, labels)
    assert root.ingest(path)["accepted"] == 20
    assert rows_of(root, "hugging") == expected(images, labels)
    stored = root.stored()
    same = root.ingest(pictures.as_table(tmp_path / "same.parquet", images, labels))
    assert (same["batch"], same["accepted"], same["refused"]) == ("hugging", 0, [])
    assert root.stored() == stored


def test_table_parquet_goes_in_as_it_is_and_groups_stay_together(root, tmp_path):
    images, labels = pictures.new(80, 140)
    writers = [f"writer {number % 12}" for number in range(60)]
    path = pictures.as_table(tmp_path / "table.parquet", images, labels, groups=writers)
    assert root.ingest(path)["accepted"] == 60
    assert rows_of(root, "table") == expected(images, labels)
    splits = {row["digest"]: row["split"] for row in root.data("rows", "--batch", "table")}
    by_writer = {}
    for image, writer in zip(images, writers, strict=True):
        by_writer.setdefault(writer, set()).add(splits[pictures.digest(image)])
    assert all(len(found) == 1 for found in by_writer.values())
    assert set.union(*by_writer.values()) == {"train", "recent"}
    # Writers that come back later, in folders, go to the side where they were.
    more, classes = pictures.new(140, 164)
    for number, writer in enumerate(sorted(by_writer)):
        part = slice(2 * number, 2 * number + 2)
        pictures.as_folders(
            tmp_path / "later", more[part], classes[part], group=writer, first=2 * number
        )
    assert root.ingest(tmp_path / "later")["accepted"] == 24
    splits = {row["digest"]: row["split"] for row in root.data("rows", "--batch", "later")}
    for number, writer in enumerate(sorted(by_writer)):
        mine = {splits[pictures.digest(image)] for image in more[2 * number : 2 * number + 2]}
        assert mine == by_writer[writer]


def test_a_pair_of_idx_files_goes_in_as_it_is(root, tmp_path):
    images, labels = pictures.new(170, 190)
    assert root.ingest(*pictures.as_idx(tmp_path, images, labels))["accepted"] == 20
    assert rows_of(root, "new-images") == expected(images, labels)


def test_pictures_of_other_sizes_and_modes_are_prepared(root, tmp_path):
    folder = pictures.in_odd_forms(tmp_path / "odd", *pictures.new(190, 210))
    assert root.ingest(folder)["accepted"] == 20
    prepared = [
        (pictures.digest(pictures.prepared(path)), path.parent.name)
        for path in sorted(folder.glob("*/*"))
    ]
    assert rows_of(root, "odd") == prepared


def test_several_paths_make_one_batch_of_the_first_ones_name(root, tmp_path):
    images, labels = pictures.new(210, 220)
    first = pictures.as_folders(tmp_path / "day 2026.1.2", images[:5], labels[:5])
    second = pictures.as_table(tmp_path / "more.parquet", images[5:], labels[5:])
    result = root.ingest(first, second)
    assert result["batch"] == "day-2026.1.2"
    assert result["accepted"] == 10


def test_a_batch_that_a_killed_run_left_unchecked_is_checked_by_the_next_ingest(root, tmp_path):
    def checks():
        return [e["about"]["batch"] for e in root.events() if e["kind"] == "check"]

    first = root.ingest(pictures.as_folders(tmp_path / "first", *pictures.new(220, 225)))
    log = root.folder / "store" / "log"
    last = max(log.glob("*.json"))
    (unchecked,) = checks()[-1:]
    last.unlink()  # as if that run had been killed before it was written
    assert unchecked not in checks()
    second = root.ingest(pictures.as_folders(tmp_path / "second", *pictures.new(225, 230)))
    assert [name for name in second["steps"] if name.startswith("check")] == [
        f"check {first['batch']}",
        "check second",
    ]
    assert checks().count(unchecked) == 1


def test_a_batch_is_announced_once_also_where_the_look_at_it_fails(root, tmp_path, monkeypatch):
    from flows import ingest

    announced = []
    monkeypatch.setattr(ingest, "batch_came_in", lambda *about: announced.append(about))

    def fails(*_):
        raise OSError("no disk")

    folder = pictures.as_folders(tmp_path / "third", *pictures.new(230, 235))
    with monkeypatch.context() as patch:
        patch.setattr(ingest, "look", fails)
        assert root("ingest", folder, "--dataset", "folder").code == 1
    root.ingest(folder)
    ((dataset, batch),) = announced
    assert (dataset, batch.name) == ("folder", "third")


# Kills, and two at once.


class Process:
    """Ingests as processes of their own, with a data root of their own."""

    def __init__(self, folder, server):
        self.folder = folder
        self.source = pictures.write_source(folder / "source")
        self.delivery = pictures.in_odd_forms(folder / "killed", *pictures.new(0, 400))
        self.environment = os.environ | {
            "PREFECT_API_URL": server,
            "RETRAIN_DATA": str(folder / "data"),
            "RETRAIN_SOURCE": str(self.source),
        }

    def start(self):
        return subprocess.Popen(
            [sys.executable, "-m", "flows", "ingest", self.delivery, *OPTIONS],
            cwd=PROJECT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, process):
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
        return json.loads(out)


@pytest.fixture
def process(tmp_path, server):
    return Process(tmp_path, server)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_ingest_leaves_no_batch_or_the_whole_one_and_the_next_finishes(process):
    root = pictures.Root(process.folder / "data")
    started = time.monotonic()
    whole = process.finish(process.start())
    seconds = time.monotonic() - started
    names = {path.name for path in (root.folder / "store" / "artifacts" / "batches").glob("*")}
    moments = np.random.default_rng(0)
    for number in range(3):
        fresh = process.folder / f"data-{number}"
        process.environment["RETRAIN_DATA"] = str(fresh)
        running = process.start()
        # The first half of the time is spent on imports.
        time.sleep(seconds * moments.uniform(0.4, 1.0))
        running.send_signal(signal.SIGKILL)
        running.communicate()
        log = pictures.Root(fresh).events()
        assert len([event for event in log if event["kind"] == "ingest"]) <= 1
        again = process.finish(process.start())
        assert again["batch"] == "killed"
        assert again["accepted"] in ({0} if log else {whole["accepted"]})
        there = {path.name for path in (fresh / "store" / "artifacts" / "batches").glob("*")}
        assert there == names
        kinds = [event["kind"] for event in pictures.Root(fresh).events()]
        assert kinds == ["ingest", "check"]


@pytest.mark.slow
def test_two_ingests_of_one_folder_at_once_make_one_batch(process):
    first, second = process.start(), process.start()
    results = [process.finish(first), process.finish(second)]
    assert sorted(result["accepted"] > 0 for result in results) == [False, True]
    assert {result["batch"] for result in results} == {"killed"}
    kinds = [event["kind"] for event in pictures.Root(process.folder / "data").events()]
    assert kinds.count("ingest") == 1
    assert kinds.count("check") == 1
