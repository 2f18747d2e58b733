"""Old reports leave; those of promotions and of running runs stay, and all else in the folder."""

import json
import threading

import pytest

from artifacts import layout, runs
from artifacts.errors import ArgumentError
from registry import log
from reporting import retention

NAMES = [f"20260101-00000{second}-0000000{second}" for second in range(6)]


@pytest.fixture
def reports(tmp_path, monkeypatch):
    """The folder of six reports."""
    monkeypatch.setenv("RETRAIN_DATA", str(tmp_path))
    for name in NAMES:
        folder = layout.reports() / name
        folder.mkdir(parents=True)
        (folder / "log.txt").write_text("said")
        (folder / "report.json").write_text("{}")
    return layout.reports()


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != "index.html")


def test_the_oldest_reports_beyond_the_limit_are_removed(reports):
    gone, left = retention.prune(2)
    assert [path.name for path in gone] == NAMES[:4]
    assert left == []
    assert names(reports) == NAMES[4:]


def test_the_newest_retrains_of_each_dataset_stay_which_health_and_alarms_read(
    reports, monkeypatch
):
    monkeypatch.setattr(retention, "RETRAINS", 2)
    for name, dataset in zip(NAMES[:5], ("mnist", "folder", "mnist", "mnist", "[1]"), strict=True):
        report = {"dataset": dataset, "outcome": "unchanged", "state": "Unchanged"}
        (reports / name / "report.json").write_text(json.dumps(report))
    (reports / NAMES[4] / "report.json").write_text('{"dataset": [], "outcome": 1, "state": 1}')
    retention.prune(1)
    assert names(reports) == [*NAMES[1:4], NAMES[5]]


def test_as_many_retrains_stay_as_a_median_is_taken_of():
    from tasks import history

    assert retention.RETRAINS == history.MOST


@pytest.mark.parametrize("keep", [0, 6, 500])
def test_zero_and_a_limit_that_is_not_reached_remove_nothing(reports, keep):
    assert retention.prune(keep) == ([], [])
    assert names(reports) == NAMES


def test_the_report_of_a_promotion_stays(reports):
    log.append("promote", "mnist", model="models/1", run=NAMES[1])
    retention.prune(2)
    assert names(reports) == [NAMES[1], *NAMES[4:]]


def test_the_reports_of_running_runs_and_of_the_run_that_asks_stay(reports):
    with runs.running(NAMES[2]):
        retention.prune(1, NAMES[0])
        assert names(reports) == [NAMES[0], NAMES[2], NAMES[5]]
    retention.prune(1)
    assert names(reports) == NAMES[5:]


def test_what_is_no_report_stays_and_no_link_is_followed(reports, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.txt").write_text("mine")
    strays = ["20250101-000000-0000000z", "20251301-000000-00000000", "notes", "0000"]
    for name in strays:
        (reports / name).mkdir()
    (reports / "20250101-000000-00000001").write_text("a file")
    (reports / "20250101-000000-00000002").symlink_to(elsewhere)
    (reports / NAMES[0] / "inside").symlink_to(elsewhere)
    others = sorted([*strays, "20250101-000000-00000001", "20250101-000000-00000002"])
    gone, _ = retention.prune(1)
    assert len(gone) == 5
    assert names(reports) == sorted([*others, NAMES[5]])
    assert (elsewhere / "mine.txt").read_text() == "mine"


def test_two_runs_that_end_at_once_remove_each_report_and_neither_fails(reports):
    for number in range(200):
        (reports / f"20250101-000000-{number:08x}" / "deep" / "er").mkdir(parents=True)
    failed = []
    start = threading.Barrier(4)

    def end():
        start.wait()
        try:
            retention.prune(3)
        except Exception as error:  # noqa: BLE001 - shown below
            failed.append(error)

    threads = [threading.Thread(target=end) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    retention.prune(3)  # two may have taken each other for running runs
    assert names(reports) == NAMES[3:]


@pytest.mark.parametrize("text", ["many", "-1", "1.5", "5e2", "٣", "9" * 5000])
def test_a_limit_that_is_no_number_is_one_sentence(monkeypatch, text):
    monkeypatch.setenv("RETRAIN_KEEP_REPORTS", text)
    with pytest.raises(ArgumentError, match=r"RETRAIN_KEEP_REPORTS is .*: give a number"):
        retention.limit()


def test_the_limit_is_500_unless_given(monkeypatch):
    assert retention.limit() == 500
    monkeypatch.setenv("RETRAIN_KEEP_REPORTS", "7")
    assert retention.limit() == 7


@pytest.mark.usefixtures("server", "root")
def test_a_run_that_ends_and_one_that_fails_keep_the_reports_to_their_limit(flows, monkeypatch):
    monkeypatch.setenv("RETRAIN_KEEP_REPORTS", "2")
    small = ("--dataset", "folder", "--recipe", "post", "--epochs", "1", "--device", "cpu")
    for number in range(4):
        (layout.reports() / NAMES[number]).mkdir(parents=True)
    assert flows("train", *small).code == 0
    assert names(layout.reports())[0] == NAMES[3]
    assert len(names(layout.reports())) == 2
    done = flows("train", *small[:-2], "--source", "/nonexistent")
    assert done.code != 0
    assert len(names(layout.reports())) == 2
    assert NAMES[3] not in names(layout.reports())
    assert "RETRAIN_KEEP_REPORTS is 2, old reports removed: 1" in done.err
    monkeypatch.setenv("RETRAIN_KEEP_REPORTS", "all")
    assert flows("train", *small).sentence.startswith("RETRAIN_KEEP_REPORTS is 'all': give")
