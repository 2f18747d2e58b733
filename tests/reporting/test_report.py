"""Text from outside comes through the report as text."""

from artifacts.artifact import Artifact
from artifacts.outcomes import Outcome
from reporting import report

WHY = "name a|b -> <b>`x`</b>\nnext \x1b[31m"
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


def test_a_markdown_cell_stays_one_cell():
    page = report._render("train.md", SUMMARY, [STEP], {})
    (row,) = [line for line in page.splitlines() if line.startswith("| train ")]
    assert row.count("|") == 7  # six of the table, and an escaped one
    assert r"a\|b" in row
    assert "<b>" not in row.replace(r"\<", "")
    assert "\x1b" not in row


def test_html_is_escaped():
    page = report._render("train.html", SUMMARY, [STEP], {})
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
