"""The index tells of every run that has a report, and nothing that lies there disturbs it."""

import json
import multiprocessing
import os
import re
import shutil
import threading
import time
from html.parser import HTMLParser

import pytest

from artifacts import layout
from artifacts.locks import lock
from reporting import index
from reporting.history import entries


@pytest.fixture
def reports(tmp_path, monkeypatch):
    monkeypatch.setenv("RETRAIN_DATA", str(tmp_path))
    layout.reports().mkdir()
    return layout.reports()


def name(number):
    return f"2026{1 + number // 600:02}{1 + number // 24 % 25:02}-{number % 24:02}0000-{number:08x}"


def add(reports, number, **about):
    """A finished run."""
    folder = reports / name(number)
    folder.mkdir()
    (folder / "report.html").touch()
    report = {
        "dataset": "toys",
        "recipe": "cnn",
        "flow": "retrain",
        "outcome": "refused",
        "test_accuracy": 0.9,
        "test_interval": [0.88, 0.92],
        "errors": 10,
        "test_rows": 100,
        "test_set": "a",
        "seconds": 61.0,
        "model": f"cache/models/{number:064x}",
        **about,
    }
    (folder / "report.json").write_text(json.dumps(report))
    return folder.name


def add_unfinished(reports, number, log):
    folder = reports / name(number)
    folder.mkdir()
    (folder / "log.txt").write_text(log)
    return folder.name


class Rows(HTMLParser):
    """The cells of the table, and where they lead."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.links, self.inside = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append("")
        self.inside = self.inside or tag == "td"
        if tag == "a":
            self.links.append(dict(attributes)["href"])

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "td"

    def handle_data(self, text):
        if self.inside:
            self.rows[-1][-1] += text


def written(reports):
    index.write()
    return (reports / "index.html").read_text()


def test_a_row_tells_of_each_run_the_newest_first(reports):
    first = add(reports, 1)
    second = add(reports, 2, outcome="unchanged", state="TooSoon", recipe="mlp")
    page = Rows(written(reports))
    assert page.links == [f"{run}/report.html" for run in (second, first)]
    assert [row[1:] for row in page.rows if row] == [
        ["unchanged TooSoon", "90.00 %", "retrain", "toys", "mlp", "1 min 1 s"],
        ["refused", "90.00 %", "retrain", "toys", "cnn", "1 min 1 s"],
    ]


def test_a_failed_run_is_there_with_its_log_and_why(reports):
    start = "2026-11-26 18:00:00,000 INFO    flow  started train of toys\n"
    failed = add_unfinished(
        reports, 1, start + "x ERROR   flow  ended: InputError: no <b>disk</b>\n"
    )
    killed = add_unfinished(reports, 2, start)
    running = add_unfinished(reports, 3, start)
    with lock(f"runs/{running}"):
        text = written(reports)
    page = Rows(text)
    assert page.links == [f"{run}/log.txt" for run in (running, killed, failed)]
    rows = [row for row in page.rows if row]
    assert [row[1] for row in rows if len(row) > 2] == ["running", "failed", "failed"]
    assert [row[4] for row in rows if len(row) > 2] == ["toys"] * 3
    assert [row[1] for row in rows if len(row) == 2] == [
        "It ended without a word, as when killed.",
        "InputError: no <b>disk</b>",
    ]
    assert "<b>disk" not in text


DAMAGED = {
    "no JSON": b"{",
    "no text": b"\x80\x02\xff",
    "a list": b"[1]",
    "deep": b"[" * 100_000,
    "no dataset": b'{"accuracy": 1}',
    "a huge number": b'{"dataset": "toys", "test_accuracy": 1' + b"0" * 5000 + b"}",
    "other types": b'{"dataset": "toys", "test_accuracy": [], "errors": "x", "seconds": NaN,'
    b'"test_interval": [1, "x"], "recipe": {}, "outcome": 3, "batches": 5, "accepted": 1,'
    b'"state": [], "test_set": 1, "model": {}}',
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_report_disturbs_nothing(reports, content):
    whole = add(reports, 2)
    damaged = add(reports, 1)
    (reports / damaged / "report.json").write_bytes(content)
    assert Rows(written(reports)).links == [f"{run}/report.html" for run in (whole, damaged)]


def test_what_is_no_run_is_not_listed(reports):
    run = add(reports, 1)
    shutil.copytree(reports / run, reports / "copy of it")
    shutil.copytree(reports / run, reports / "20269999-000000-00000000")
    (reports / name(2)).touch()
    (reports / name(3)).mkdir()
    os.mkfifo(reports / run / "pipe")
    (reports / name(4)).mkdir()
    os.mkfifo(reports / name(4) / "report.json")
    assert Rows(written(reports)).links == [f"{run}/report.html"]


def test_names_are_shown_as_text(reports):
    nasty = '"><script>alert(1)</script>\x1b'
    add(reports, 1, dataset=nasty, recipe=nasty, outcome=nasty, state=nasty, flow=nasty)
    text = written(reports)
    assert "<script" not in text
    assert "\x1b" not in text


def test_the_chart_marks_promotions_and_leaves_out_other_test_rows(reports):
    add(reports, 1, outcome="promoted", test_accuracy=0.8)
    add(reports, 2, test_accuracy=0.7)
    add(reports, 3, outcome="promoted", test_accuracy=0.9)
    add(reports, 4, outcome="trained", test_set="of a trial", test_accuracy=0.1)
    add(reports, 5, dataset="other")
    (course,) = [one for one in index.courses(entries()) if one.dataset == "toys"]
    assert [mark.promoted for mark in course.marks] == [True, False, True]
    assert course.marks[1].y > course.marks[0].y > course.marks[2].y  # SVG counts from the top
    assert [mark.x for mark in course.marks] == sorted(mark.x for mark in course.marks)
    assert course.other == 1
    text = written(reports)
    assert text.count("<svg") == 2
    assert len(re.findall(r"<circle[^>]*class=", text)) == 2


def test_a_report_that_goes_while_it_is_read_was_not_there(reports):
    """Folders vanish and come back all the time; the index is whole each time."""
    runs = [add(reports, number) for number in range(20)]
    stop = threading.Event()

    def vanish():
        while not stop.is_set():
            for run in runs[:10]:
                shutil.rmtree(reports / run)
            for number in range(10):
                add(reports, number)

    thread = threading.Thread(target=vanish)
    thread.start()
    try:
        for _ in range(30):
            links = Rows(written(reports)).links
            assert set(links) >= {f"{run}/report.html" for run in runs[10:]}
    finally:
        stop.set()
        thread.join()


def finish(number, barrier):
    barrier.wait()
    add(layout.reports(), number)
    index.write()


def test_of_runs_that_end_at_once_none_is_missing(reports):
    spawn = multiprocessing.get_context("spawn")  # no threads of other tests
    for turn in range(2):
        barrier = spawn.Barrier(4)
        numbers = range(4 * turn, 4 * turn + 4)
        ending = [spawn.Process(target=finish, args=(number, barrier)) for number in numbers]
        for process in ending:
            process.start()
        for process in ending:
            process.join()
            assert process.exitcode == 0
        links = Rows((reports / "index.html").read_text()).links
        assert len(links) == 4 * turn + 4
        assert [path.name for path in reports.glob(".*")] == []


def test_five_hundred_reports_take_little_time(reports):
    timeline = [{"step": "train", "outcome": "ran", "artifact": "x" * 80, "why": "y" * 80}] * 10
    for number in range(500):
        add(reports, number, timeline=timeline, why=["a sentence of a verdict"] * 5)
    index.write()
    started = time.process_time()
    index.write()
    assert time.process_time() - started < 2.0
    assert len(Rows((reports / "index.html").read_text()).links) == 500


def test_of_very_many_runs_the_oldest_are_counted_and_not_listed(reports, monkeypatch):
    runs = [add(reports, number) for number in range(5)]
    monkeypatch.setattr(index, "MOST_SHOWN", 3)
    text = written(reports)
    assert Rows(text).links == [f"{run}/report.html" for run in reversed(runs[2:])]
    assert "Not listed: 2 older runs." in text
    assert "5 runs with a report" in text


@pytest.mark.timeout(60)
def test_a_pipe_in_place_of_a_log_holds_nothing_up(reports):
    (reports / name(1)).mkdir()
    os.mkfifo(reports / name(1) / "log.txt")
    assert entries() == []


def test_the_name_of_a_dataset_is_cut(reports):
    add(reports, 1, dataset="a" * 1_000)
    assert entries()[0].dataset == "a" * 200
