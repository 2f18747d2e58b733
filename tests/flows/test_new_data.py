"""Training on what was ingested: retraction, corrections, checks, and changed classes."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest

from tests.conftest import Done, project_copy
from tests.flows import pictures
from tests.flows.running import STEPS

pytestmark = pytest.mark.slow
RECENT = (*STEPS, "evaluate-recent")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, server):
    return tmp_path_factory.mktemp("new-data")


def content(root, name):
    """Name and bytes of each file of an artifact."""
    top = root.folder / name
    return {path.name: path.read_bytes() for path in sorted(top.rglob("*")) if path.is_file()}


def manifest(root, result):
    return json.loads((root.folder / result["manifest"] / "manifest.json").read_text())


# Train after ingest, and retraction: one story, told once.


@pytest.fixture(scope="module")
def story(folder):
    """Train; ingest A, and B, which repeats five rows of A; train; retract A; train; restore A."""
    source = pictures.write_source(folder / "source")
    images, labels = pictures.new(0, 120)
    a = pictures.as_folders(folder / "A", images[:60], labels[:60])
    b = pictures.as_folders(folder / "B", images[55:], labels[55:])
    story = SimpleNamespace()
    with pictures.data_root(folder / "data", source) as root:
        story.root = root
        story.base = root.train()
        story.a, story.b = root.ingest(a), root.ingest(b)
        story.both, story.again = root.train(), root.train()
        story.only_base = root.train("--only-base")
        story.limited = root.train("--limit", 50)
        story.shown = root.data("show", "A")
        story.refused = [
            root("data", "retract", "A", "--why", why, "--dataset", "folder") for why in ("", " ")
        ]
        story.retraction = root.data("retract", "A", "--why", "wrong writer")
        story.twice = root("data", "retract", "A", "--why", "again", "--dataset", "folder")
        story.same_path = root("ingest", a, "--dataset", "folder", "--json")
        story.without_a = root.train()
        story.restoration = root.data("restore", "A")
        story.not_retracted = root("data", "restore", "A", "--dataset", "folder")
        story.restored = root.train()
    with pictures.data_root(folder / "only-b", source) as other:
        story.other = other
        other.ingest(b)
        story.only_b = other.train()
    return story


def test_new_rows_are_trained_and_tested_on(story):
    assert tuple(story.both["steps"]) == RECENT
    assert story.both["steps"] == dict.fromkeys(RECENT, "ran") | {
        "download": "cached",
        "normalise": "cached",
        "manifest": "cached",  # the ingest looked at it
    }
    recent = story.a["recent_test"] + story.b["recent_test"]
    assert story.both["recent_rows"] == recent > 0
    assert story.both["train_rows"] == 400 + 120 - recent
    assert 0 <= story.both["recent_accuracy"] <= 1
    assert story.both["test_rows"] == 200
    left_out = [batch["left_out"] for batch in story.both["batches"]]
    assert [batch["name"] for batch in story.both["batches"]] == ["A", "B"]
    assert left_out == [0, 5]
    assert sum(batch["train"] + batch["recent"] for batch in story.both["batches"]) == 120


def test_the_report_tells_of_batches_and_recent_accuracy(story):
    report = story.root.report(story.both)
    assert report["batches"] == story.both["batches"]
    page = (story.root.folder / story.both["report"] / "report.html").read_text()
    assert "recent" in page
    for name in ("A", "B"):
        assert f">{name}<" in page


def test_duplicates_of_another_batch_are_refused_with_their_names(story):
    assert story.a["refused"] == []
    assert story.b["accepted"] == 60
    assert {row["reason"] for row in story.b["refused"]} <= {"duplicate", "test image"}
    assert len(story.b["refused"]) == 5
    there = {f"{row['what']}" for row in story.b["refused"]}
    labels = pictures.new(55, 60)[1]
    assert there == {f"{label}/{number:04d}.png" for number, label in enumerate(labels)}


def test_a_second_run_is_cached_throughout(story):
    assert set(story.again["steps"].values()) == {"cached"}
    assert story.again["model"] == story.both["model"]
    assert story.again["recent_accuracy"] == story.both["recent_accuracy"]


def test_only_base_has_the_keys_of_before(story):
    assert tuple(story.only_base["steps"]) == STEPS
    assert set(story.only_base["steps"].values()) == {"cached"}
    assert story.only_base["model"] == story.base["model"]
    assert story.only_base["batches"] == []
    assert "recent_accuracy" not in story.only_base


def test_limit_ignores_new_data(story):
    assert tuple(story.limited["steps"]) == STEPS
    assert (story.limited["train_rows"], story.limited["test_rows"]) == (50, 50)
    assert story.limited["batches"] == []


def test_retraction_names_the_models_and_runs_that_rest_on_the_batch(story):
    model = story.both["model"].removeprefix("cache/")
    models = [name for name in story.retraction["rests_on_it"] if name.startswith("models/")]
    assert models == [model]
    assert story.retraction["status"] == "retracted: wrong writer"
    assert story.shown["rests_on_it"] == story.retraction["rests_on_it"]
    runs = {story.both["run_id"], story.again["run_id"]}  # the second found it cached
    assert runs <= set(story.shown["reports"])
    others = {story.base["run_id"], story.only_base["run_id"], story.limited["run_id"]}
    assert others.isdisjoint(story.shown["reports"])


def test_after_a_retraction_it_is_as_if_the_batch_never_came(story):
    assert content(story.root, story.without_a["manifest"]) == content(
        story.other, story.only_b["manifest"]
    )
    assert content(story.root, story.without_a["model"]) == content(
        story.other, story.only_b["model"]
    )
    assert story.without_a["model"] == story.only_b["model"] != story.both["model"]
    for name in ("test_accuracy", "recent_accuracy", "recent_rows", "train_rows", "test_set"):
        assert story.without_a[name] == story.only_b[name]


def test_rows_that_repeated_the_retracted_batch_count_again(story):
    (batch,) = story.without_a["batches"]
    assert batch["name"] == "B"
    assert batch["train"] + batch["recent"] == 65
    assert batch["left_out"] == 0


def test_what_was_retracted_does_not_come_back_by_ingesting_it_again(story):
    assert story.same_path.code == 0
    again = json.loads(story.same_path.out)
    assert (again["batch"], again["accepted"]) == ("A", 0)
    assert "retracted" in story.same_path.err
    assert "restore" in story.same_path.err


def test_restoration_gives_the_manifest_and_the_model_of_before(story):
    assert story.restored["manifest"] == story.both["manifest"]
    assert story.restored["model"] == story.both["model"]
    assert set(story.restored["steps"].values()) == {"cached"}


def test_a_reason_is_needed_and_nothing_happens_twice(story):
    for done in story.refused:
        assert done.code == 2
        assert "--why is empty" in done.sentence
    assert story.twice.code == 2
    assert story.twice.sentence == "A is retracted already: wrong writer."
    assert story.not_retracted.code == 2
    assert story.not_retracted.sentence == "A is not retracted."


# Corrections.

WRONG, GONE = (3, 50, 120, 250, 399), (7, 8, 300)
QUICK = (("post", 2), ("mlp", 2))


def corrections(path, pairs):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["digest", "label", "remark"])
        writer.writerows([digest, label, "seen by me"] for digest, label in pairs)
    return path


@pytest.fixture(scope="module")
def corrected(folder):
    """A source with wrong labels that is corrected, beside one that was right from the start."""
    images, labels = pictures.published()
    wrong = labels.copy()
    wrong[list(WRONG)] = (wrong[list(WRONG)] + 1) % 10
    keep = np.setdiff1d(np.arange(len(images)), GONE)
    story = SimpleNamespace()
    right = pictures.write_source(folder / "right")
    less = pictures.write_source(folder / "less", (images[keep], labels[keep]))
    mistaken = pictures.write_source(folder / "wrong", (images, wrong))

    def trained(root):
        return [root.train(recipe=recipe, epochs=epochs) for recipe, epochs in QUICK]

    with pictures.data_root(folder / "data-right", right) as root:
        story.right = [content(root, run["model"]) for run in trained(root)]
    with pictures.data_root(folder / "data-less", less) as root:
        story.less = [content(root, run["model"]) for run in trained(root)]
    with pictures.data_root(folder / "data-wrong", mistaken) as root:
        story.first = trained(root)
        story.wrong = [content(root, run["model"]) for run in story.first]
        pairs = [(pictures.digest(images[row]), labels[row]) for row in WRONG]
        story.answer = root.data("correct", corrections(folder / "c.csv", pairs))
        runs = trained(root)
        story.steps = [run["steps"] for run in runs]
        story.corrected = [content(root, run["model"]) for run in runs]
        pairs = [(pictures.digest(images[row]), "drop") for row in GONE]
        story.dropping = root.data("correct", corrections(folder / "d.csv", pairs))
        story.after = trained(root)
        story.dropped = [content(root, run["model"]) for run in story.after]
        seen, test_labels = pictures.tested()
        pairs = [(pictures.digest(seen[0]), (test_labels[0] + 1) % 10)]
        story.testing = root.data("correct", corrections(folder / "t.csv", pairs))
        story.retested = root.train(recipe="post", epochs=2)
    return story


def test_corrected_labels_give_the_model_of_the_right_source(corrected):
    assert corrected.corrected == corrected.right
    assert corrected.corrected != corrected.wrong
    assert {steps["train"] for steps in corrected.steps} == {"ran"}
    counted = {"corrected": 5, "dropped": 0, "train": 5, "test": 0, "recent": 0}
    assert corrected.answer.items() >= counted.items()
    assert corrected.answer["not_comparable"] == []


def test_dropped_rows_give_the_model_of_a_source_without_them(corrected):
    assert corrected.dropped == corrected.less
    assert corrected.after[0]["train_rows"] == 397
    assert corrected.dropping.items() >= {"corrected": 0, "dropped": 3, "train": 3}.items()


def test_a_corrected_test_row_makes_earlier_scores_not_comparable(corrected):
    sets = {run["test_set"] for run in (*corrected.first, *corrected.after)}
    assert len(sets) == 1
    assert corrected.retested["test_set"] not in sets
    assert corrected.retested["steps"]["train"] == "ran" or (
        corrected.retested["model"] == corrected.after[0]["model"]
    )
    assert corrected.testing["test"] == 1
    earlier = {run["run_id"] for run in (*corrected.first, *corrected.after)}
    assert earlier <= set(corrected.testing["not_comparable"])


# The check.


@pytest.fixture(scope="module")
def checked(folder):
    """A trained model, a batch of wrong labels, one that has drifted, and another subject."""
    source = pictures.write_source(folder / "checked")
    images, labels = pictures.new(0, 400)
    story = SimpleNamespace()
    with pictures.data_root(folder / "data-checked", source) as root:
        story.root = root
        root.train(epochs=30)
        shifted = pictures.as_table(
            folder / "shifted.parquet", images[:120], (labels[:120] + 1) % 10
        )
        story.broken, story.again = root.ingest(shifted), root.ingest(shifted)
        story.stopped = root("train", "--dataset", "folder", "--recipe", "post", "--json")
        story.planned = root("train", "--dataset", "folder", "--recipe", "post", "--dry-run")
        story.only_base = root.train("--only-base", epochs=30)
        story.listed = root.data("list")
        story.accepted = root.data("accept", "shifted", "--why", "a new way to count")
        story.trained = root.train(epochs=1)
        root.data("retract", "shifted", "--why", "no")
        dim = pictures.as_table(folder / "dim.parquet", images[120:400] // 2, labels[120:400])
        story.drifted = root.ingest(dim)
        story.after = root.train(epochs=1)
        story.events = root.events()
        root.data("retract", "dim", "--why", "no")
        root.train(epochs=30)
        story.clothes = root.ingest(pictures.as_folders(folder / "clothes", *pictures.clothes()))
        story.stopped_again = root("train", "--dataset", "folder", "--recipe", "post", "--json")
    return story


def test_wrong_labels_are_named_broken_and_stop_the_training(checked):
    (batch,) = checked.broken["batches"]
    assert batch["check"]["outcome"] == "broken"
    assert batch["check"]["contradicted"] > 60
    assert "contradicts" in batch["check"]["why"][0]
    assert checked.stopped.code == 1
    assert checked.stopped.out == ""
    assert "Batch shifted of folder is broken. The model contradicts" in checked.stopped.err
    assert "./run data show shifted" in checked.stopped.err
    assert "accept" in checked.stopped.err
    assert "Traceback" not in checked.stopped.err
    assert ".." not in checked.stopped.err
    assert checked.planned.code == 1
    assert checked.listed[0]["status"] == "broken"
    assert set(checked.only_base["steps"].values()) == {"cached"}


def test_images_of_another_subject_are_named_broken_and_stop_the_training(checked):
    assert checked.clothes["accepted"] == 300
    (batch,) = checked.clothes["batches"]
    assert batch["check"]["outcome"] == "broken"
    assert batch["check"]["contradicted"] > 150
    assert batch["check"]["auc"] > 0.6  # features of `post` are its outputs alone
    assert checked.stopped_again.code == 1
    assert "Batch clothes of folder is broken." in checked.stopped_again.err


def test_a_batch_is_checked_once(checked):
    assert checked.broken["steps"]["check shifted"] == "ran"
    assert not [name for name in checked.again["steps"] if name.startswith("check")]
    (digest,) = {e["about"]["batch"] for e in checked.events if e["kind"] == "accept"}
    kinds = [e["kind"] for e in checked.events if e["about"].get("batch") == digest]
    assert kinds == ["ingest", "check", "accept", "retract"]


def test_an_accepted_batch_is_trained_on(checked):
    assert checked.accepted["status"] == "accepted: a new way to count"
    assert [batch["name"] for batch in checked.trained["batches"]] == ["shifted"]


def test_drift_is_reported_and_stops_nothing(checked):
    (batch,) = checked.drifted["batches"]
    assert batch["check"]["outcome"] == "drift"
    assert batch["check"]["auc"] > 0.6
    assert "differ" in batch["check"]["why"][0]
    report = checked.root.folder / checked.drifted["report"]
    assert (report / "drifted-0.png").read_bytes().startswith(b"\x89PNG")
    assert [batch["name"] for batch in checked.after["batches"]] == ["dim"]


# Classes: a dataset file of its own, in a copy of the project.

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TOYS = """
from classifier.datasets import Dataset

DATASET = Dataset(name="toys", shape=(28, 28), classes={classes})
"""
MANY = """
import contextlib, io, json, sys
from flows.cli.app import main

answers = []
for command in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(command)
    answers.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(answers))
"""
TRAIN = ("train", "--recipe", "post", "--epochs", "2")


class Toys:
    """A dataset's own file, in a copy of the project, and commands under each edit of it."""

    def __init__(self, folder, server):
        self.project = project_copy(folder / "project", server)
        self.source = pictures.write_source(folder / "source")
        (self.project.folder / "many.py").write_text(MANY)

    def ask(self, names, *commands):
        """What the commands give, in one process, when the classes have these names."""
        file = self.project.folder / "classifier" / "datasets" / "toys.py"
        file.write_text(TOYS.format(classes=tuple(names)))
        asked = []
        for command in commands:
            dataset = () if "--dataset" in command else ("--dataset", "toys")
            asked.append([str(word) for word in (*command, *dataset, "--json")])
        done = self.project.python("many.py", json.dumps(asked), RETRAIN_SOURCE=str(self.source))
        assert done.returncode == 0, done.stderr
        return [Done(*answer) for answer in json.loads(done.stdout)]

    def json(self, names, *commands):
        answers = self.ask(names, *commands)
        assert {answer.code for answer in answers} == {0}, [answer.err for answer in answers]
        return [json.loads(answer.out) for answer in answers]


@pytest.fixture(scope="module")
def toys(folder, server):
    """What edits of the classes do to data that came in before; and another dataset beside it."""
    toys = Toys(folder / "toys", server)
    images, labels = pictures.new(0, 60)
    first = pictures.as_folders(folder / "toys" / "first", images[:30], labels[:30], names=NAMES)
    digits = pictures.as_folders(folder / "toys" / "other" / "first", images[30:], labels[30:])
    more = [*NAMES, "letter"]
    letters = pictures.as_folders(folder / "letters", images[30:32], [10, 10], names=more)
    other = ("--dataset", "folder")
    (_, toys.trained, toys.nothing, toys.other, toys.other_trained, toys.listed) = toys.json(
        NAMES,
        ("ingest", first),
        TRAIN,
        ("data", "list", *other),
        ("ingest", digits, *other),
        (*TRAIN, *other),
        ("data", "list"),
    )
    (toys.renamed,) = toys.json(["drei" if name == "three" else name for name in NAMES], TRAIN)
    toys.appended, toys.letters = toys.json(more, TRAIN, ("ingest", letters))
    commands = (TRAIN, ("ingest", first), ("data", "show", "first"), ("data", "rows"))
    toys.reordered = toys.ask(["one", "zero", *NAMES[2:]], *commands)
    toys.removed = toys.ask(NAMES[:-1], *commands)
    return toys


def test_a_renamed_class_retrains_nothing(toys):
    steps = toys.renamed["steps"]
    for name in ("download", "normalise", "train", "evaluate", "evaluate-recent"):
        assert steps[name] == "cached"
    assert toys.renamed["model"] == toys.trained["model"]


def test_an_appended_class_trains_again_and_keeps_older_batches(toys):
    assert toys.appended["steps"]["train"] == "ran"
    assert toys.appended["batches"] == toys.trained["batches"]
    assert toys.letters["accepted"] == 2


@pytest.mark.parametrize("change", ["reordered", "removed"])
def test_reordered_or_removed_classes_are_refused_with_the_remedy(toys, change):
    for done in getattr(toys, change):
        assert done.code == 1
        assert "Declare the classes as zero, one, two" in done.sentence
        assert "new ones at the end" in done.sentence


def test_two_datasets_in_one_root_have_nothing_in_common(toys):
    assert toys.nothing == []
    assert toys.other["batch"] == "first"  # a name that the other one has too
    assert toys.other["accepted"] == 30
    assert [batch["batch"] for batch in toys.listed] == ["first"]
    rows = {batch["train"] + batch["recent"] for batch in toys.other_trained["batches"]}
    assert rows == {30}
    assert toys.trained["train_rows"] + toys.trained["recent_rows"] == 430
    assert toys.other_trained["model"] != toys.trained["model"]
