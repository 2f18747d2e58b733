"""Text from outside comes through the report as text, and the UI gets no more than it may."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from artifacts.artifact import Artifact
from artifacts.outcomes import Outcome
from reporting import page, ui
from reporting.contents import Contents
from reporting.details import Checked, Confused, Confusion, Details, Score, Source
from reporting.pictures import cover, data_uri, small
from tests.conftest import project_copy

WHY = "name a|b -> <b>`x`</b>\nnext \x1b[31m"
NASTY = "<script>alert(1)</script> a|b `x` \x1b[31m \N{RIGHT-TO-LEFT OVERRIDE}"
SUMMARY = {
    "dataset": "toys",
    "recipe": "post",
    "seed": 0,
    "device": "cpu",
    "precision": "float32",
    "test_accuracy": 0.5,
    "errors": 5,
    "test_rows": 10,
    "run_id": "a run",
    "batches": [],
}
STEP = Outcome(
    step="train",
    outcome="ran",
    seconds=1.0,
    artifact=Artifact(kind="models", digest="1" * 64, size=1),
    why=WHY,
)
INGEST = {
    "dataset": "toys",
    "run_id": "a run",
    "accepted": 1,
    "recent_test": 0,
    "refused_rows": 1,
    "batches": [
        {
            "batch": NASTY,
            "delivery": NASTY,
            "accepted": 1,
            "refused": [{"what": NASTY, "reason": NASTY}],
            "refused_rows": 1,
            "check": {
                "outcome": "broken",
                "why": [NASTY],
                "note": NASTY,
                "rows": 1,
                "contradicted": 1,
                "counts": {NASTY: 1},
                "usual_shares": {NASTY: 1.0},
                "class_aucs": {NASTY: None},
            },
        }
    ],
    "waiting": [NASTY],
}


def everywhere():
    """Details with text from outside in every place that takes any."""
    score = Score(label=NASTY, accuracy=0.5, interval=(0.2, 0.8), errors=5, rows=10)
    return Details(
        scores={NASTY: [score]},
        note=NASTY,
        curves={NASTY: {NASTY: [0.5, float("nan"), 0.1]}},
        confusion=Confusion(classes=[NASTY, "b"], counts=[[1, 2], [0, 0]]),
        confused=[Confused(true=NASTY, predicted=NASTY, errors=2, rows=3)],
        checks=[Checked(batch=NASTY, outcome="broken", sentences=[NASTY], accepted=NASTY)],
        lineage=[Source(what=NASTY, artifact="models/1f", depth=0, about=NASTY)],
    )


def contents(kind, summary, outcomes, pictures, details):
    return Contents(
        kind=kind, summary=summary, outcomes=outcomes, pictures=pictures, details=details
    )


@pytest.fixture(autouse=True)
def _reports(tmp_path, monkeypatch):
    monkeypatch.setenv("RETRAIN_DATA", str(tmp_path))


@pytest.fixture
def project_copied(tmp_path):
    return project_copy(tmp_path / "project", None)


def noise(path, size=1000):
    """A picture that no compression makes small."""
    values = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    Image.fromarray(values).save(path)
    return path


def test_a_markdown_cell_stays_one_cell():
    text = ui.markdown(contents("train", SUMMARY, [STEP], {}, Details()))
    (row,) = [line for line in text.splitlines() if line.startswith("| train ")]
    assert row.count("|") == 7  # six of the table, and an escaped one
    assert r"a\|b" in row
    assert "<b>" not in row.replace(r"\<", "")
    assert "\x1b" not in row


def test_one_of_a_thing_is_in_the_singular():
    told = contents("ingest", INGEST, [STEP], {}, Details())
    for text in (page.html(told), ui.markdown(told)):
        assert "1 new image" in text
        assert "1 new images" not in text


def test_a_step_that_ran_without_a_known_reason_is_not_said_to_run_for_the_first_time():
    unknown = replace(STEP, why=None)
    text = page.html(contents("train", SUMMARY, [unknown], {}, Details()))
    assert "no earlier result is known" in text
    assert "first time" not in text


@pytest.mark.parametrize(("kind", "summary"), [("train", SUMMARY), ("ingest", INGEST)])
def test_html_is_escaped_and_holds_no_control_characters(kind, summary, tmp_path):
    pictures = {NASTY: noise(tmp_path / "a.png", 8)}
    shown = summary | {"outcome": "refused", "why": [NASTY], "champion": None, "recipe": NASTY}
    text = page.html(contents(kind, shown, [STEP], pictures, everywhere()))
    assert "&lt;script&gt;" in text
    assert "&lt;b&gt;" in text
    assert "<script" not in text
    assert "<b>`x`" not in text
    assert {"\x1b", "\N{RIGHT-TO-LEFT OVERRIDE}"}.isdisjoint(text)


@pytest.mark.parametrize(("kind", "summary"), [("train", SUMMARY), ("ingest", INGEST)])
def test_markdown_is_escaped_and_holds_no_control_characters(kind, summary, tmp_path):
    pictures = {NASTY: noise(tmp_path / "a.png", 8)}
    text = ui.markdown(contents(kind, summary, [STEP], pictures, everywhere()))
    assert r"\<script>" in text
    assert "<script" not in text.replace(r"\<script", "")
    assert {"\x1b", "\N{RIGHT-TO-LEFT OVERRIDE}"}.isdisjoint(text)


def test_a_page_needs_nothing_beside_it(tmp_path):
    picture = noise(tmp_path / "a.png", 8)
    text = page.html(contents("train", SUMMARY, [STEP], {"Grid": picture}, everywhere()))
    assert data_uri(picture.read_bytes()) in text
    assert 'src="' not in text.replace('src="data:image/png;base64,', "")
    for reaching_out in ("http:", "https:", "url(", "@import", "<link", "<iframe"):
        assert reaching_out not in text


def test_a_covered_page_shows_the_other_picture_alone(tmp_path):
    first, second, other = (noise(tmp_path / f"{size}.png", size) for size in (8, 9, 10))
    shown = tmp_path / "report.html"
    both = contents("train", SUMMARY, [STEP], {"A": first, "B": second}, Details())
    shown.write_text(page.html(both))
    assert cover(shown, other.read_bytes()) == 2
    assert shown.read_text().count(data_uri(other.read_bytes())) == 2
    assert shown.read_text().count("data:image") == 2


def test_the_report_in_the_ui_is_below_its_limit_whatever_there_is(tmp_path):
    pictures = {f"Picture {n}": noise(tmp_path / f"{n}.png") for n in range(3)}
    pictures["Small"] = noise(tmp_path / "small.png", 8)
    long = INGEST["batches"][0] | {"refused": [{"what": "x" * 2000, "reason": "y" * 2000}] * 200}
    summary = INGEST | {"batches": [long] * 60}
    for kind, told in (("train", SUMMARY), ("ingest", summary)):
        text = ui.markdown(contents(kind, told, [STEP] * 500, pictures, Details()))
        assert len(text.encode()) <= ui.MOST_BYTES
        assert "Not shown here, but in report.html: Picture" in text
        assert "![Small](data:image/png;base64," in text


def test_a_small_picture_is_narrow_and_still_the_same_picture(tmp_path):
    picture = Image.new("RGBA", (1200, 600), (0, 0, 0, 0))
    picture.paste((224, 56, 63, 255), (600, 0, 1200, 600))
    picture.save(tmp_path / "two.png")
    with Image.open(io.BytesIO(small(tmp_path / "two.png"))) as opened:
        found = opened.convert("RGBA")
    assert found.size == (600, 300)
    assert found.getpixel((10, 150))[3] == 0
    right = np.array(found.getpixel((590, 150)), int)
    assert np.abs(right - (224, 56, 63, 255)).max() <= 16


def test_templates_that_change_during_a_run_do_not_count(project_copied):
    """As where the code is updated while a worker trains."""
    done = project_copied.python(
        "-c",
        "from pathlib import Path\n"
        "from reporting import rendering\n"
        "rendering.load()\n"
        "for path in Path('reporting/templates').iterdir():\n"
        "    path.write_text('{{ of_the_next_version }}')\n"
        "print(rendering.render('index.html', entries=[], left_out=0, courses=[], chart=None))",
    )
    assert done.returncode == 0, done.stderr
    assert "There is no report yet" in done.stdout
