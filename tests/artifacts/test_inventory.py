"""What lies in the cache, who made and used it, and whether it is intact."""

import os
from datetime import UTC, datetime

import pytest

from artifacts import inventory, lineage, pruning, records, runs
from artifacts.errors import InputError
from tests.artifacts.small_cache import DAY, NOW, make, report, there, write, write_report

pytestmark = pytest.mark.usefixtures("root")


def test_an_empty_cache_is_nothing_to_any_of_them(root):
    assert inventory.entries() == []
    assert inventory.verify() == []
    assert pruning.prune(max_size=0) == []
    assert lineage.adopt({}) == []
    assert not root.exists()


def test_the_inventory_says_what_how_much_how_old_by_and_for_whom():
    numbers = make("numbers", "numbers", days=3)
    total = make("sums", "total", days=1, size=500)
    older, newer = report(3, numbers), report(1, numbers, total)
    one, two = (entry.row() for entry in inventory.entries())
    assert one["artifact"] == numbers.name
    assert one["size"] == 1000
    assert one["made_by"] == ["draw"]
    assert one["made_at"] == numbers.metadata["at"]
    assert one["made_in"] == "a flow run"
    assert one["used_by"] == [older, newer]
    assert one["last_used"] == f"{datetime.fromtimestamp(NOW - 3 * DAY, UTC):%Y-%m-%dT%H:%M:%SZ}"
    assert two["artifact"] == total.name
    assert two["size"] == 500
    assert two["used_by"] == [newer]


def test_one_artifact_of_several_keys_is_one_entry_that_was_used_when_the_last_of_them_was():
    make("numbers", "the same", days=3, seed=0)
    make("numbers", "the same", days=1, seed=1)
    (entry,) = inventory.entries()
    assert len(entry.records) == 2
    assert entry.last_used == pytest.approx(NOW - DAY)


def test_an_artifact_without_a_record_and_unfinished_work_are_listed_too(root):
    make("numbers", "kept")
    write(root / "cache", {f"sums/{'1' * 64}/total.json": "12", f"checkpoints/add/all/{KEY}": "1"})
    by_name = {entry.name: entry for entry in inventory.entries()}
    orphan, unfinished = by_name[f"sums/{'1' * 64}"], by_name[f"checkpoints/add/all/{KEY}"]
    assert (orphan.size, orphan.row()["made_by"], orphan.orphaned) == (2, [], True)
    assert (unfinished.size, unfinished.row()["made_by"], unfinished.orphaned) == (
        1,
        ["add"],
        False,
    )
    assert len(by_name) == 3


KEY = "2" * 64


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"timeline": 5},
        {"timeline": [5]},
        {"timeline": [{"artifact": ["numbers"]}]},
        {"timeline": [{"artifact": {}}]},
        {"timeline": [{"x": 1}]},
    ],
    ids=str,
)
def test_a_damaged_report_stops_nothing(content):
    numbers = make("numbers", "numbers")
    write_report(2, content)
    newer = report(1, numbers)
    (entry,) = inventory.entries()
    assert entry.runs == (newer,)


def test_a_report_that_is_nested_without_end_stops_nothing(root):
    make("numbers", "numbers")
    name = report(1)
    write(root, {f"reports/{name}/report.json": "[" * 100_000})
    assert len(inventory.entries()) == 1


def test_a_folder_with_an_impossible_date_is_no_run(root):
    make("numbers", "numbers")
    newer = report(1)
    write(root, {"reports/20261399-000000-00000000/report.json": '{"timeline": []}'})
    assert runs.timeline_of(None)[0] == newer
    assert pruning.prune(keep_runs=1, dry_run=True) is not None


# Verify


def test_verify_is_silent_about_what_is_intact():
    make("numbers", "one")
    make("sums", "two")
    assert inventory.verify() == []


def test_verify_finds_what_looks_as_before_and_repair_removes_it():
    numbers, total = make("numbers", "numbers"), make("sums", "total")
    path = numbers.path / "content"
    before = path.stat()
    path.write_bytes(b"x" * before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    found = [{"what": numbers.name, "problem": "content has changed"}]
    assert inventory.verify() == found
    assert there() == {numbers.name, total.name}
    assert inventory.verify(repair=True) == found
    assert there() == {total.name}
    assert not numbers.path.exists()
    assert inventory.verify() == []


def test_the_next_run_gives_what_was_repaired_as_its_reason():
    numbers = make("numbers", "numbers")
    (record,) = records.everything()
    (numbers.path / "content").unlink()
    inventory.verify(repair=True)
    assert records.reason(record.key, record.components()) == "content is missing"


def test_verify_names_a_damaged_record_and_repair_evicts_it():
    numbers = make("numbers", "numbers")
    (record,) = records.everything()
    records.path_of(record.key).write_text("{")
    found = {"what": f"records/{record.key}", "problem": "its record is damaged"}
    assert found in inventory.verify()
    assert found in inventory.verify(repair=True)
    assert list(records.all_keys()) == []
    assert there() == {numbers.name}  # intact, and without a record until a step makes it again
    assert records.reason(record.key, {}) == "its record is damaged"


def test_whoever_knows_unfinished_work_says_whether_it_is_damaged(root):
    names = [f"checkpoints/add/all/{digit * 64}" for digit in "123"]
    write(root / "cache", {name: "good" if "1" in name else "bad" for name in names})

    def read(path):
        if path.name.startswith("3"):
            path.unlink()  # its step ends meanwhile
        if path.read_text() == "bad":
            raise InputError(f"{path.name[0]} is no unfinished work.")

    found = [{"what": names[1], "problem": "2 is no unfinished work."}]
    assert inventory.verify(read_checkpoint=read) == found
    assert inventory.verify(repair=True, read_checkpoint=read) == found
    assert there() == {names[0]}


def test_what_was_removed_since_verify_looked_is_no_damage(monkeypatch):
    make("numbers", "numbers")
    there = inventory.entries()
    pruning.prune(max_size=0)
    monkeypatch.setattr(inventory, "entries", lambda: there)
    assert inventory.verify() == []
