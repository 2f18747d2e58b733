"""What the reports of real runs show: one page a run, and an index of all."""

import html
import json
import re

import pytest
from scipy import stats

from tests.flows.running import run

pytestmark = pytest.mark.usefixtures("server")


def text_of(page):
    """What a page says, without its markup."""
    body = re.sub(r"<style>.*?</style>", "", page.read_text(), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def test_the_page_shows_score_interval_steps_and_lineage(root, flows):
    result = run(overrides={"learning_rate": 0.5})
    said = text_of(root / result["report"] / "report.html")
    right = result["test_rows"] - result["errors"]
    interval = stats.binomtest(right, result["test_rows"]).proportion_ci(method="exact")
    assert result["test_interval"] == pytest.approx(list(interval))
    assert f"{100 * interval.low:.2f} % to {100 * interval.high:.2f} %" in said
    assert "There is no champion to compare it with." in said
    for heading in ("How good is it?", "What does it confuse?", "How it learned"):
        assert heading in said
    traced = json.loads(flows("cache", "lineage", result["model"], "--json").out)
    rows = traced["inputs"]["manifest"]
    table = rows["inputs"]["base"]
    (raw,) = table["inputs"].values()
    for artifact in (traced, rows, table, raw):
        assert artifact["artifact"] in said


def test_the_page_shows_earlier_runs_on_the_same_test_rows_alone(root):
    run(limit=100)
    first = run()
    result = run(seed=1)
    said = text_of(root / result["report"] / "report.html")
    shown = said[said.index("How good is it?") : said.index("What it sees")]
    assert shown.count("post, train") == 1
    assert f"{100 * first['test_accuracy']:.2f} %" in shown


def test_the_index_has_the_failed_run_with_its_sentence(root, trained, monkeypatch):
    monkeypatch.setenv("RETRAIN_SOURCE", str(root / "nowhere"))
    with pytest.raises(Exception, match="nowhere"):
        run(refresh=True)
    (failed,) = [path for path in (root / "reports").glob("2*") if path.name != trained["run_id"]]
    assert [path.name for path in failed.iterdir()] == ["log.txt"]
    page = root / "reports" / "index.html"
    assert f'href="{failed.name}/log.txt"' in page.read_text()
    assert f'href="{trained["run_id"]}/report.html"' in page.read_text()
    said = text_of(page)
    assert re.search(r"failed train folder .*nowhere", said)
    assert f"trained {100 * trained['test_accuracy']:.2f} % train folder post" in said


def test_an_index_that_cannot_be_written_stops_no_run(root):
    (root / "reports" / "index.html" / "in the way").mkdir(parents=True)
    result = run()
    log = (root / result["report"] / "report.json").read_text()
    assert json.loads(log)["flow"] == "train"


def test_the_report_in_the_ui_has_its_pictures_and_stays_below_its_limit(root, flows):
    from prefect.client.orchestration import get_client

    done = flows("train", "--dataset", "folder", "--recipe", "post", "--epochs", "3")
    assert done.code == 0
    with get_client(sync_client=True) as client:
        found = client.request("POST", "/artifacts/latest/filter", json={}).json()
    (report,) = [item for item in found if item["key"] == "folder-report"]
    assert len(report["data"].encode()) <= 150_000
    assert report["data"].count("](data:image/png;base64,") == 5
    assert "report.html:" not in report["data"]  # nothing is left out


@pytest.mark.slow
def test_the_page_of_a_champion_s_successor_shows_both(root, flows):
    asked = "retrain --dataset folder --recipe post --epochs 30 --json"
    first = json.loads(flows(*asked.split()).out)
    assert first["outcome"] == "promoted"
    again = json.loads(flows(*asked.split()).out)
    assert "This model is the champion." in text_of(root / again["report"] / "report.html")
    refused = json.loads(flows(*asked.replace("30", "1").split()).out)
    assert refused["outcome"] == "refused"
    said = text_of(root / refused["report"] / "report.html")
    assert "Refused: the champion stays in use" in said
    shown = said[said.index("How good is it?") : said.index("What it sees")]
    for result, label in ((refused, "This model"), (first, "Champion")):
        assert f"{label} {100 * result['test_accuracy']:.2f} %" in shown
    low, high = (100 * end for end in refused["verdict"]["interval"])
    assert f"95 % interval {low:+.2f} to {high:+.2f}" in said
    index = (root / "reports" / "index.html").read_text()
    assert index.count("<circle") == 3
    assert len(re.findall(r'<circle[^>]*class="s0"', index)) == 1
