"""The log: events are whole, numbered without a gap, and never guessed."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from artifacts.errors import InputError
from registry import log

PROJECT = Path(__file__).parents[2]
WRITER = """
import sys
from registry import log
for number in range(int(sys.argv[2])):
    log.append("ingest", "toys", writer=sys.argv[1], number=number, text="x" * 20_000)
"""


@pytest.fixture
def folder(root):
    return root / "store" / "log"


def writer(name, count):
    """Start a process that appends events, each larger than one write of a pipe."""
    command = [sys.executable, "-c", WRITER, name, str(count)]
    return subprocess.Popen(command, cwd=PROJECT, env=os.environ, stderr=subprocess.PIPE)


def numbers(folder):
    return sorted(int(path.stem) for path in folder.glob("*.json"))


def test_without_a_log_nothing_has_happened(root):
    assert log.events("toys") == []
    assert not root.exists()


def test_an_event_comes_back_as_it_was_appended(folder):
    about = {"name": "März", "rows": [1, 2], "counts": {"a": None, "b": 0.5}}
    appended = log.append("ingest", "toys", **about)
    assert log.events("toys") == [appended]
    assert (appended.number, appended.kind, appended.about) == (1, "ingest", about)
    assert time.strptime(appended.at, "%Y-%m-%dT%H:%M:%SZ")


def test_the_file_is_json_that_says_all(folder):
    appended = log.append("retract", "toys", batch="ab", why="wrong labels")
    assert [path.name for path in folder.iterdir()] == ["000001.json"]
    assert json.loads((folder / "000001.json").read_text(encoding="utf-8")) == {
        "format": 2,
        "kind": "retract",
        "dataset": "toys",
        "at": appended.at,
        "about": {"batch": "ab", "why": "wrong labels"},
    }


def test_events_of_other_datasets_do_not_show_but_share_the_numbers(folder):
    for number in range(6):
        log.append("ingest", ("toys", "digits")[number % 2], number=number)
    assert [event.number for event in log.events("toys")] == [1, 3, 5]
    assert [event.about["number"] for event in log.events("digits")] == [1, 3, 5]
    assert log.events("toy") == []


def test_numbers_above_a_million_stay_in_order(folder):
    folder.mkdir(parents=True)
    log.append("ingest", "toys", number=0)
    (folder / "000001.json").rename(folder / "999999.json")
    assert log.append("ingest", "toys", number=1).number == 1_000_000
    assert (folder / "1000000.json").is_file()
    assert numbers(folder) == [999_999, 1_000_000]


def test_other_files_beside_the_events_are_no_events(folder):
    log.append("ingest", "toys")
    for name in (".123-456.tmp", "000002.json.bak", "notes.txt", "2.json"):
        (folder / name).write_text("{")
    assert len(log.events("toys")) == 1
    assert log.append("ingest", "toys").number == 2


def test_two_processes_give_all_numbers_once_and_none_is_left_out(folder):
    writers = [writer(name, 50) for name in ("a", "b")]
    assert [(each.communicate()[1], each.returncode) for each in writers] == [(b"", 0)] * 2
    assert numbers(folder) == list(range(1, 101))
    found = log.events("toys")
    for name in ("a", "b"):
        in_order = [e.about["number"] for e in found if e.about["writer"] == name]
        assert in_order == list(range(50))


def test_a_killed_writer_leaves_whole_events_and_no_gap(folder):
    """Another process appends meanwhile, so that numbers are contended."""
    chance = random.Random(0)  # noqa: S311 - moments, no secrets
    for _ in range(4):
        before = len(numbers(folder))
        doomed = writer("doomed", 100_000)
        while len(numbers(folder)) == before:
            assert doomed.poll() is None
            time.sleep(0.005)
        for number in range(5):
            log.append("ingest", "toys", writer="alive", number=number)
            time.sleep(chance.uniform(0, 0.01))
        doomed.kill()
        doomed.communicate()
        found = log.events("toys")
        assert [event.number for event in found] == list(range(1, len(found) + 1))
        assert all(event.about.get("text", "x" * 20_000) == "x" * 20_000 for event in found)
        assert log.append("ingest", "toys").number == len(found) + 1


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b"\xff\xfe",
        b'{"kind": "ingest", "dataset": "toys"}',
        b'{"kind": "ingest", "dataset": "toys", "at": "", "about": 3}',
        b'{"format": "2", "kind": "ingest", "dataset": "toys", "at": "", "about": {}}',
        b"[" * 100_000,
    ],
    ids=lambda damage: damage.decode("latin-1")[:40],
)
def test_a_damaged_event_is_an_error_that_names_the_file(folder, damage):
    for _ in range(3):
        log.append("ingest", "toys")
    (folder / "000002.json").write_bytes(damage)
    with pytest.raises(InputError, match="restore it from a backup") as raised:
        log.events("toys")
    assert str(folder / "000002.json") in str(raised.value)


@pytest.mark.parametrize(
    ("number", "remedy"), [(None, "run `./run store migrate`"), (3, "update the project")]
)
def test_an_event_of_another_format_is_a_sentence_with_the_remedy(folder, number, remedy):
    log.append("ingest", "toys")
    path = folder / "000001.json"
    content = json.loads(path.read_text()) | {"format": number}
    path.write_text(json.dumps({n: value for n, value in content.items() if value is not None}))
    with pytest.raises(InputError, match=rf"000001\.json .*{remedy}"):
        log.events("toys")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "has format 1, and this version reads 2: run `./run store migrate`"),
        ('{"format": 3}', "newer version .format 3, and this one reads 2.: update the project"),
        ('{"format": true}', "restore it from a backup"),
        ("[]", "restore it from a backup"),
        ("", "restore it from a backup"),
    ],
)
def test_a_store_of_another_format_is_neither_read_nor_written(folder, text, said):
    log.append("ingest", "toys")
    number = folder.parent / "format.json"
    assert json.loads(number.read_text()) == {"format": 2}
    number.unlink() if text is None else number.write_text(text)
    for use in (lambda: log.events("toys"), lambda: log.append("ingest", "toys")):
        with pytest.raises(InputError, match=said):
            use()
    assert numbers(folder) == [1]


def test_damage_counts_whatever_dataset_the_event_was_about(folder):
    log.append("ingest", "digits")
    (folder / "000001.json").write_bytes(b"")
    with pytest.raises(InputError, match=r"000001\.json"):
        log.events("toys")


def test_an_event_that_is_gone_is_an_error_that_names_the_file(folder):
    for _ in range(3):
        log.append("ingest", "toys")
    (folder / "000002.json").unlink()
    with pytest.raises(InputError, match=r"000002\.json .*restore it from a backup"):
        log.events("toys")


def test_an_event_stays_whose_writer_was_killed_before_it_cleared_up(folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        log.append("first", "toys")
    log.append("second", "toys")
    assert [event.kind for event in log.events("toys")] == ["first", "second"]


def test_a_data_root_that_cannot_be_written_is_named(root):
    root.parent.mkdir(exist_ok=True)
    root.write_text("a file where the folder should be")
    with pytest.raises(InputError) as raised:
        log.append("ingest", "toys")
    assert str(root) in str(raised.value)


def test_an_event_that_is_no_json_leaves_nothing(folder):
    with pytest.raises(TypeError):
        log.append("ingest", "toys", when={1, 2})
    assert not folder.exists() or list(folder.iterdir()) == []
