"""The pages as a browser shows them: on a phone and a desktop, in light and dark."""

import numpy as np
import pytest
from PIL import Image

from artifacts.artifact import Artifact
from artifacts.outcomes import Outcome
from reporting import index, page
from reporting.contents import Contents
from reporting.details import Checked, Confused, Confusion, Details, Score, Source
from tests.reporting.browser import DESKTOP, PHONE, browser
from tests.reporting.test_index import add
from tests.reporting.test_report import INGEST

pytestmark = pytest.mark.slow

LONG = "a-name-of-" + 60 * "x"
BLUE = (20, 90, 250)


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def pages(tmp_path, monkeypatch):
    """A page of each kind with all that can be in it, and long names."""
    monkeypatch.setenv("RETRAIN_DATA", str(tmp_path))
    reports = tmp_path / "reports"
    reports.mkdir()
    for number in range(12):
        outcome = "promoted" if number % 4 == 0 else LONG
        add(reports, number, outcome=outcome, recipe=LONG, test_accuracy=0.9 + number / 200)
    index.write()
    Image.new("RGB", (1000, 600), BLUE).save(tmp_path / "grid.png")
    scores = [
        Score(label=LONG, accuracy=0.99, interval=(0.98, 1.0), errors=100, rows=10_000),
        Score(label="This model", accuracy=0.98, interval=None, errors=200, rows=10_000),
    ]
    details = Details(
        scores={"Official test set": scores},
        curves={"Loss": {"train": [3.0, 1.0, 0.5]}, "Accuracy": {"train": [0.5, 0.9, 0.95]}},
        confusion=Confusion(classes=[LONG] * 20, counts=[[10_000] * 20] * 20),
        confused=[Confused(true=LONG, predicted=LONG, errors=9, rows=99)],
        checks=[Checked(batch=LONG, outcome="drift", sentences=[LONG])],
        lineage=[Source(what=LONG, artifact="models/" + "1" * 64, depth=n) for n in range(4)],
    )
    steps = [
        Outcome(
            step=LONG,
            outcome=outcome,
            seconds=21_594.0,  # "saved 5 h 59 min"
            artifact=Artifact(kind="models", digest="1" * 64, size=1),
            why=LONG,
        )
        for outcome in ("ran", "cached")
    ]
    summary = {
        "dataset": LONG,
        "recipe": LONG,
        "seed": 0,
        "device": "cpu",
        "precision": "float32",
        "run_id": "20261126-180120-9bf57235",
        "test_accuracy": 0.99,
        "errors": 100,
        "test_rows": 10_000,
        "outcome": "refused",
        "why": [LONG],
        "champion": "models/" + "1" * 64,
        "batches": [{"name": LONG, "train": 1, "recent": 1, "left_out": 1}],
    }
    found = {"index": reports / "index.html"}
    for kind, told in (("train", summary), ("ingest", INGEST)):
        found[kind] = tmp_path / f"{kind}.html"
        text = page.html(
            Contents(
                kind=kind,
                summary=told,
                outcomes=steps,
                pictures={LONG: tmp_path / "grid.png"},
                details=details,
            )
        )
        found[kind].write_text(text)
    (tmp_path / "grid.png").unlink()  # all is in the page
    return found


@pytest.mark.parametrize("kind", ["train", "ingest", "index"])
@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_a_page_does_not_scroll_sideways(tab, pages, kind, width):
    tab.open(pages[kind], width=width)
    assert tab.value("innerWidth") == width
    assert tab.value("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("kind", ["train", "ingest"])
def test_the_pictures_are_seen_and_nothing_is_asked_for(tab, pages, kind):
    tab.open(pages[kind], width=PHONE)
    assert tab.value("[...document.images].map(one => one.naturalWidth)") == [1000]
    pixels = np.asarray(tab.picture(), int)
    seen = (np.abs(pixels - BLUE).max(axis=-1) < 8).sum()
    assert seen > 300 * 180
    assert tab.requested() == [pages[kind].as_uri()]


@pytest.mark.parametrize("kind", ["train", "ingest", "index"])
def test_a_page_is_dark_where_that_is_preferred(tab, pages, kind):
    brightness = []
    for dark in (False, True):
        tab.open(pages[kind], dark=dark)
        brightness.append(np.median(np.asarray(tab.picture())))
    assert brightness[0] > 230
    assert brightness[1] < 40


def test_scores_are_drawn_on_one_scale(tab, pages):
    for width in (PHONE, DESKTOP):
        tab.open(pages["train"], width=width)
        tracks = "[...document.querySelectorAll('.score .track')]"
        places = tab.value(f"{tracks}.map(one => one.getBoundingClientRect()).map(one => one.x)")
        widths = tab.value(f"{tracks}.map(one => one.clientWidth)")
        assert len(places) == 2
        assert len(set(places)) == 1
        assert len(set(widths)) == 1
