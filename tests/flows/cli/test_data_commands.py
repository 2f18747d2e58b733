"""./run data: what is there, in words and as JSON, and every mistake as one sentence."""

import csv
import io
import json
import os
import shutil

import numpy as np
import pytest

from tests.flows import pictures

IMAGES, LABELS = pictures.new(0, 30)


@pytest.fixture(scope="module")
def root(tmp_path_factory, server):
    """A root with one batch of 30 rows, and a refused picture."""
    folder = tmp_path_factory.mktemp("data-commands")
    source = pictures.write_source(folder / "source")
    delivery = pictures.as_folders(folder / "monday", IMAGES, LABELS)
    pictures.as_folders(delivery, IMAGES[:1], [0], names=["eleven"])
    with pictures.data_root(folder / "data", source) as found:
        found.ingest(delivery)
        yield found


@pytest.fixture
def empty(tmp_path):
    with pictures.data_root(tmp_path / "empty", tmp_path / "nowhere") as found:
        yield found


def ask(root, *arguments):
    return root("data", *arguments, "--dataset", "folder")


def test_list_tells_rows_and_what_the_check_said(root):
    (row,) = root.data("list")
    assert row["batch"] == "monday"
    assert row["status"] == "in use, sound"
    assert row["train"] + row["recent"] == 30
    assert row["refused"] == 1
    lines = ask(root, "list").out.splitlines()
    assert lines[0].split()[0] == "batch"
    assert lines[1].split()[0] == "monday"
    assert lines[1].endswith("in use, sound")


def test_without_data_there_is_a_sentence(empty):
    assert ask(empty, "list").out == "No data of folder has come in.\n"
    assert empty.data("list") == []
    done = ask(empty, "rows")
    assert (done.code, "train or ingest first" in done.sentence) == (1, True)
    assert not empty.folder.exists()


def test_show_counts_classes_and_reasons(root):
    found = root.data("show", "monday")
    counts = {str(label): int(np.sum(label == LABELS)) for label in range(10)}
    assert found["counts"] == counts
    assert list(found["reasons"].values()) == [1]
    assert found["check"]["outcome"] == "sound"
    assert [name for name in found["rests_on_it"] if name.startswith("models/")] == []
    text = ask(root, "show", "monday").out
    assert "monday" in text
    assert "eleven" in text


def test_rows_is_a_csv_that_correct_takes(root, tmp_path):
    done = ask(root, "rows", "--batch", "monday")
    rows = list(csv.DictReader(io.StringIO(done.out)))
    expected = {pictures.digest(image): str(n) for image, n in zip(IMAGES, LABELS, strict=True)}
    assert {row["digest"]: row["label"] for row in rows} == expected
    train = ask(root, "rows", "--batch", "monday", "--split", "train").out
    assert set(csv.DictReader(io.StringIO(train)).fieldnames) == {"digest", "label", "split"}
    published = root.data("rows", "--split", "test")
    seen, labels = pictures.tested()
    assert [row["digest"] for row in published] == [pictures.digest(image) for image in seen]
    assert [row["label"] for row in published] == [str(label) for label in labels]
    file = tmp_path / "same.csv"
    file.write_text(done.out)
    answer = root.data("correct", file)
    assert answer["corrected"] == 30
    assert {
        row["digest"]: row["label"] for row in root.data("rows", "--batch", "monday")
    } == expected


def test_a_corrected_label_is_listed_and_a_dropped_row_says_so(root, tmp_path):
    file = tmp_path / "c.csv"
    first, second = (pictures.digest(image) for image in IMAGES[:2])
    wrong = (LABELS[0] + 1) % 10
    file.write_text(f"label,digest\n{wrong},{first}\ndrop,{second}\n")
    answer = root.data("correct", file, "--why", "seen")
    assert (answer["corrected"], answer["dropped"]) == (1, 1)
    assert answer["train"] + answer["recent"] == 2
    listed = {row["digest"]: row["label"] for row in root.data("rows", "--batch", "monday")}
    assert (listed[first], listed[second]) == (str(wrong), "drop")


HEAD = "digest,label\n"
KNOWN = pictures.digest(IMAGES[5])
BAD = {
    "unknown digest": (HEAD + "0" * 64 + ",3\n", "belong to no row of folder"),
    "no digest": (HEAD + "abc,3\n", "line 2: 'abc' is no digest"),
    "unknown label": (HEAD + f"{KNOWN},eleven\n", "line 2: there is no class 'eleven'"),
    "no label": (HEAD + f"{KNOWN}\n", "line 2: there is no class ''"),
    "missing column": (f"digest,class\n{KNOWN},3\n", "needs the columns digest and label"),
    "empty": ("", "needs the columns digest and label; it has none"),
    "only a head": (HEAD, "has no rows"),
    "binary": (bytes(range(256)) * 4, "is no CSV in UTF-8"),
    "two labels": (HEAD + f"{KNOWN},3\n{KNOWN},4\n", "line 3:"),
    "one good, one bad": (HEAD + f"{KNOWN},3\n{'0' * 64},3\n", "1 digests belong to no row"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_csv_is_one_sentence_and_nothing_is_stored(root, tmp_path, name):
    content, sentence = BAD[name]
    file = tmp_path / "bad.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    stored = root.stored()
    done = ask(root, "correct", file, "--json")
    assert done.code == 1
    assert sentence in done.sentence
    assert "bad.csv" in done.sentence
    assert root.stored() == stored


def test_a_csv_that_is_not_there_is_one_sentence(root, tmp_path):
    for path in (tmp_path / "none.csv", tmp_path, "/dev/zero"):
        done = ask(root, "correct", path)
        assert done.code == 1
        assert str(path) in done.sentence


@pytest.mark.parametrize(
    "command",
    [
        ("show", "none"),
        ("rows", "--batch", "none"),
        ("retract", "none", "--why", "x"),
        ("restore", "none"),
        ("accept", "none", "--why", "x"),
    ],
)
def test_an_unknown_batch_is_a_sentence_that_lists_the_known_ones(root, empty, command):
    for place, rest in ((root, "choose one of monday."), (empty, "no data has come in yet.")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RETRAIN_DATA", str(place.folder))
            stored = place.stored()
            done = ask(place, *command)
            assert done.code == 2
            assert done.sentence == f"There is no batch 'none': {rest}"
            assert place.stored() == stored


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (("accept", "monday", "--why", "x"), "monday was not found broken"),
        (("retract", "monday", "--why", " "), "--why is empty"),
        (("restore", "monday"), "monday is not retracted."),
        (("erase", "abc", "--why", "x"), "'abc' is no digest"),
        (("erase", KNOWN, "--why", ""), "--why is empty"),
        (("rows", "--split", "validation"), "--split"),
    ],
)
def test_what_cannot_be_done_is_a_sentence_and_nothing_is_stored(root, command, sentence):
    stored = root.stored()
    done = ask(root, *command)
    assert done.code == 2
    assert sentence in done.sentence
    assert root.stored() == stored


def test_an_erased_row_is_in_no_file_and_no_list(root, tmp_path):
    digest = pictures.digest(IMAGES[9])
    copied = shutil.copytree(root.folder, tmp_path / "copy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETRAIN_DATA", str(copied))
        assert digest in pictures.rows_below(copied)
        done = ask(root, "erase", digest, "--why", "asked to")
        assert (done.code, done.err) == (0, "")
        assert "rows in batches: 1" in done.out
        assert digest not in pictures.rows_below(copied)
        left = [row["digest"] for row in root.data("rows", "--batch", "monday")]
        assert len(left) == 29
        assert digest not in left


def test_erasing_a_row_that_nobody_has_is_a_sentence(root):
    stored = root.stored()
    done = ask(root, "erase", "0" * 64, "--why", "asked to")
    assert done.code == 1
    assert "No row of folder here has one of these digests." in done.sentence
    assert root.stored() == stored


def test_a_damaged_batch_is_named_with_the_remedy(root):
    (row,) = root.data("list")
    path = root.folder / "store" / "artifacts" / row["artifact"] / "train.parquet"
    content = path.read_bytes()
    try:
        path.write_bytes(content[:-1] + b"\0")
        for command in (("show", "monday"), ("rows", "--batch", "monday")):
            done = ask(root, *command)
            assert done.code == 1
            assert "Batch monday is damaged" in done.sentence
            assert "restore it from a backup" in done.sentence
    finally:
        path.write_bytes(content)


def test_a_missing_event_is_named_with_the_remedy(root):
    first = min((root.folder / "store" / "log").glob("*.json"))
    aside = first.with_suffix(".aside")
    first.rename(aside)
    try:
        done = ask(root, "list")
        assert done.code == 1
        assert str(first) in done.sentence
        assert "backup" in done.sentence
    finally:
        aside.rename(first)


def test_json_is_one_value_and_nothing_else(root):
    for command in (("list",), ("show", "monday"), ("rows",)):
        done = ask(root, *command, "--json")
        assert done.code == 0
        assert done.err == ""
        json.loads(done.out)


def test_a_path_that_is_no_utf_8_is_refused_before_the_run(flows, root, tmp_path):
    folder = tmp_path / os.fsdecode(b"bad\xff")
    folder.mkdir()
    reports = set(root.folder.glob("reports/*"))
    done = flows("ingest", folder)
    assert done.code == 2
    assert done.err.startswith("Error: The name ")
    assert "bad\\udcff' is no UTF-8: give the file or folder another one." in done.err
    assert set(root.folder.glob("reports/*")) == reports
