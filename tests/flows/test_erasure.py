"""Erasure: the pixels of rows are nowhere below the data root, and do not come back.

What lies there is read without the project's code: every row of every Parquet and IDX file, and
every picture.
"""

import base64
import hashlib
import io
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.flows import pictures

pytestmark = pytest.mark.slow

WHY = ("--why", "asked to")
EMBEDDED = re.compile(r'src="data:image/png;base64,([^"]*)"')
IMAGES, LABELS = pictures.new(0, 100)
MORE, _ = pictures.new(300, 304)


def leads_to_recent(image):
    """Whether a row without a group belongs to the recent test set: a fifth, by its digest."""
    leading = hashlib.sha256(image.tobytes()).digest()[:4]
    return int.from_bytes(leading) < 0.2 * 2**32


def split(images):
    """Numbers of the rows for training, and of those for testing."""
    recent = np.array([leads_to_recent(image) for image in images])
    return np.flatnonzero(~recent).tolist(), np.flatnonzero(recent).tolist()


TRAIN, RECENT = split(IMAGES[:60])


def report_pictures(root, result):
    folder = root.folder / result["report"]
    beside = {path.name: path.read_bytes() for path in sorted(folder.glob("*.png"))}
    page = (folder / "report.html").read_text()
    embedded = map(base64.b64decode, EMBEDDED.findall(page))
    return beside | {f"in the page: {number}": found for number, found in enumerate(embedded)}


MARKED = {
    "train row of a batch": IMAGES[TRAIN[3]],
    "recent row of a batch": IMAGES[RECENT[1]],
    "row of a Parquet file": IMAGES[60],
    "row of an IDX file": IMAGES[80],
    "refused row of a batch": IMAGES[84],
    "row of a retracted batch": IMAGES[90],
    "picture of no class": MORE[0],
    "not taken in yet": MORE[1],
    "published train row": pictures.published()[0][11],
    "published test row": pictures.tested()[0][0],
    # Nothing but pictures of reports shows these.
    "refused row of no batch": MORE[2],
    "refused row of a batch that was there": MORE[3],
}
ONLY_SHOWN = ("refused row of no batch", "refused row of a batch that was there")
DIGESTS = {name: pictures.digest(image) for name, image in MARKED.items()}


class Story:
    """Marked rows everywhere, a run of everything, and their erasure."""

    def __init__(self, folder):
        self.folder = folder
        self.source = pictures.write_source(folder / "source")
        with pictures.data_root(folder / "data", self.source) as root:
            self.root = root
            self.incoming = root.folder / "store" / "incoming" / "folder"
            self.take_in()
            self.erase()
            self.go_on()

    def take_in(self):
        root = self.root
        self.runs = []
        delivery = pictures.as_folders(self.incoming / "pictures", IMAGES[:60], LABELS[:60])
        pictures.as_folders(delivery, MORE[:1], [0], names=["unknown"])
        pictures.as_hugging_face(self.incoming / "table.parquet", IMAGES[60:75], LABELS[60:75])
        labels = LABELS[75:85].copy()
        labels[-1] = 200
        pictures.as_idx(self.incoming, IMAGES[75:85], labels)
        self.outside = shutil.copytree(delivery, self.folder / "outside")
        self.runs.append(root.ingest())
        pair = pictures.as_idx(self.folder / "none", MORE[2:3], np.array([201]))
        self.runs.append(root.ingest(*pair, code=1))
        pair = pictures.as_idx(self.folder / "again", MORE[3:4], np.array([202]))
        self.runs.append(root.ingest(self.outside, *pair))
        self.trained = root.train(epochs=1)
        self.runs.append(self.trained)
        gone = pictures.as_table(self.folder / "gone.parquet", IMAGES[85:], LABELS[85:])
        root.ingest(gone)
        root.data("retract", "gone", *WHY)
        pictures.as_folders(self.incoming / "later", MORE[1:2], [0])

    def erase(self):
        root = self.root
        self.before = pictures.rows_below(root.folder)
        self.batches = root.data("list")
        self.pictures = [report_pictures(root, run) for run in self.runs]
        self.answer = root.data("erase", *DIGESTS.values(), *WHY)
        self.after = pictures.rows_below(root.folder)
        self.batches_after = root.data("list")
        self.pictures_after = [report_pictures(root, run) for run in self.runs]
        self.twice = root.data("erase", *DIGESTS.values(), *WHY)

    def go_on(self):
        root = self.root
        self.taken_again = root.ingest(self.outside)
        self.incoming_again = root.ingest()
        self.batches_again = root.data("list")
        self.retrained = root.train(epochs=1)
        self.after_training = pictures.rows_below(root.folder)
        root.data("restore", "gone")
        self.after_restoration = root.train(epochs=1)


@pytest.fixture(scope="module")
def story(tmp_path_factory, server):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETRAIN_QUIET_SECONDS", "0")
        return Story(tmp_path_factory.mktemp("erasure"))


def test_the_marked_rows_were_there(story):
    assert all(story.pictures)
    there = {name for name, digest in DIGESTS.items() if digest in story.before}
    assert there == DIGESTS.keys() - set(ONLY_SHOWN)
    stored = story.root.folder / "store" / "artifacts" / "batches"
    refused = story.before[DIGESTS["refused row of a batch"]]
    assert any(path.is_relative_to(stored) for path in refused)


def test_no_file_below_the_root_has_the_pixels(story):
    left = {name: story.after[d] for name, d in DIGESTS.items() if d in story.after}
    assert left == {}


def test_the_other_rows_are_still_there(story):
    gone = story.before.keys() - story.after.keys() - set(DIGESTS.values())
    # The published rows come back with the next run; those of new data could not.
    assert gone.isdisjoint({pictures.digest(image) for image in IMAGES})
    assert len(list((story.incoming / "pictures").glob("*/*.png"))) == 61 - 3
    assert len(pictures.read_idx(story.incoming / "new-images.idx")) == 8
    assert len(pictures.read_idx(story.incoming / "new-labels.idx")) == 8


def test_every_picture_of_the_reports_that_show_them_was_replaced(story):
    for run, before, after in zip(story.runs, story.pictures, story.pictures_after, strict=True):
        assert before.keys() == after.keys()
        same = [name for name in before if before[name] == after[name]]
        assert same == [], run["report"]
        assert any(name.startswith("in the page") for name in after), run["report"]
        for content in after.values():
            with Image.open(io.BytesIO(content)) as picture:
                picture.load()
    beside = [name for run in story.pictures for name in run if name.endswith(".png")]
    assert story.answer["removed"]["pictures of reports"] >= len(beside)


def test_the_models_that_saw_them_are_named(story):
    assert story.answer["models"] == [story.trained["model"].removeprefix("cache/")]


def test_the_batches_keep_their_names_and_lose_the_rows(story):
    def rows(batches):
        return {b["batch"]: (b["train"] + b["recent"], b["refused"]) for b in batches}

    assert rows(story.batches) == {
        "pictures": (60, 1),
        "table": (15, 0),
        "new-images": (9, 1),
        "gone": (15, 0),
    }
    assert rows(story.batches_after) == {
        "pictures": (58, 1),  # of the refused one there were no pixels
        "table": (14, 0),
        "new-images": (8, 0),
        "gone": (14, 0),
    }
    assert [b["batch"] for b in story.batches] == [b["batch"] for b in story.batches_after]


def test_erasing_twice_is_fine(story):
    assert story.twice["rows"] == sorted(DIGESTS.values())
    assert sum(story.twice["removed"].values()) == sum(
        count for name, count in story.twice["removed"].items() if name == "pictures of reports"
    )


def test_ingesting_the_same_files_again_does_not_bring_them_back(story):
    assert story.taken_again["accepted"] == 0
    assert [row["reason"] for row in story.taken_again["refused"]].count("erased") == 2
    assert story.incoming_again["accepted"] == 0
    # the second ingest made a manifest, which tells how many rows are left out
    assert [batch | {"left_out": None} for batch in story.batches_again] == story.batches_after


def test_later_runs_do_not_use_the_rows_that_the_source_still_has(story):
    rows = sum(b["train"] for b in story.batches_after if b["batch"] != "gone")
    skipped = sum(batch["left_out"] for batch in story.retrained["batches"])
    assert skipped == 0
    assert story.retrained["train_rows"] == 399 + rows
    assert story.retrained["test_rows"] == 199
    cache = story.root.folder / "cache"
    held = {n: story.after_training[d] for n, d in DIGESTS.items() if d in story.after_training}
    assert held.keys() == {"published train row", "published test row"}  # the source has them
    for path in set.union(*held.values()):
        assert path.is_relative_to(cache / "raw") or path.is_relative_to(cache / "tables")
    gone = next(b for b in story.batches_after if b["batch"] == "gone")
    assert story.after_restoration["train_rows"] == 399 + rows + gone["train"]


def test_the_only_row_of_a_batch_can_be_erased(story, tmp_path):
    image, label = pictures.new(350, 351)
    with pictures.data_root(story.root.folder, story.source) as root:
        root.ingest(pictures.as_folders(tmp_path / "single", image, label))
        root.data("erase", pictures.digest(image[0]), *WHY)
        (row,) = [row for row in root.data("list") if row["batch"] == "single"]
        assert row["train"] + row["recent"] == 0
        assert pictures.digest(image[0]) not in pictures.rows_below(root.folder)
        again = root("ingest", tmp_path / "single", "--dataset", "folder", "--json")
        assert again.code == 1
        assert "erased" in again.err
        trained = root.train(epochs=1)
        assert "single" not in [batch["name"] for batch in trained["batches"]]


def test_reports_keep_their_pictures_unless_they_may_show_the_row(story, tmp_path):
    image, label = pictures.new(360, 361)
    train = pictures.published()
    older = pictures.write_source(tmp_path / "older", (train[0][:390], train[1][:390]))
    with pictures.data_root(tmp_path / "data", older) as root:
        forgotten = root.train(epochs=1)
        shutil.rmtree(root.folder / "cache")
    with pictures.data_root(tmp_path / "data", story.source) as root:
        base = root.train(epochs=1)
        root.ingest(pictures.as_folders(tmp_path / "other", *pictures.new(370, 375)))
        other = root.train(epochs=1)
        root.ingest(pictures.as_folders(tmp_path / "one", image, label))
        shown = root.train(epochs=1)
        runs = {"forgotten": forgotten, "base": base, "other": other, "shown": shown}
        before = {name: report_pictures(root, run) for name, run in runs.items()}
        root.data("erase", pictures.digest(image[0]), *WHY)
        after = {name: report_pictures(root, run) for name, run in runs.items()}
    assert {name for name in runs if before[name] == after[name]} == {"base", "other"}
    for name in ("forgotten", "shown"):
        assert all(before[name][file] != after[name][file] for file in before[name])
