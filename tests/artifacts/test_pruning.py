"""What may leave the cache, and what stays."""

import json
import os
import threading
import time

import pytest

from artifacts import layout, pruning, records, runs
from artifacts.artifact import draft, stat_cache_path
from artifacts.errors import ArgumentError
from artifacts.files import write_atomically
from artifacts.locks import lock
from tests.artifacts.small_cache import DAY, NOW, make, names, report, run_name, there, write

pytestmark = pytest.mark.usefixtures("root")


def test_older_than_goes_by_the_last_use():
    old, new = make("numbers", "old", days=31), make("numbers", "new", days=29)
    assert names(pruning.prune(older_than=30 * DAY)) == {old.name}
    assert there() == {new.name}
    assert not old.path.exists()
    assert not stat_cache_path(old).exists()
    assert list(records.all_keys()) == [record.key for record in records.everything()]


def test_max_size_lets_the_longest_unused_go_first():
    made = [make("sums", f"{n}", days=n) for n in range(5)]
    assert names(pruning.prune(max_size=3000)) == {made[3].name, made[4].name}
    assert pruning.prune(max_size=3000) == []


def test_keep_runs_keeps_what_the_newest_runs_used():
    first, second, both = (make("sums", name, days=9) for name in ("first", "second", "both"))
    report(8, first, both)
    report(2, second, both)
    assert pruning.prune(keep_runs=2) == []
    assert names(pruning.prune(keep_runs=1)) == {first.name}
    assert there() == {second.name, both.name}
    assert names(pruning.prune(keep_runs=0)) == {second.name, both.name}


def test_keep_runs_keeps_what_was_used_since_by_a_run_that_failed():
    kept, failed = make("sums", "kept", days=9), make("sums", "failed", days=1)
    report(2, kept)
    assert pruning.prune(keep_runs=1) == []
    assert there() == {kept.name, failed.name}


def test_a_dry_run_removes_nothing(root):
    make("numbers", "old", days=31)
    before = sorted(path for path in root.rglob("*") if path.is_file())
    assert len(pruning.prune(older_than=30 * DAY, dry_run=True)) == 1
    assert sorted(path for path in root.rglob("*") if path.is_file()) == before


def test_what_a_run_under_way_has_used_stays():
    old, used = make("numbers", "old", days=3), make("numbers", "used", days=1)
    with runs.running(run_name(2)):
        assert names(pruning.prune(max_size=0)) == {old.name}
        assert there() == {used.name}
    assert names(pruning.prune(max_size=0)) == {used.name}


def test_what_a_step_is_working_on_stays():
    numbers = make("numbers", "old", days=3)
    (record,) = records.everything()
    with lock(record.key):
        assert pruning.prune(max_size=0) == []
    assert there() == {numbers.name}
    assert len(pruning.prune(max_size=0)) == 1


def test_what_a_running_step_has_published_stays_although_no_record_names_it_yet():
    with lock(f"add/toy/{'1' * 64}"):
        with draft("sums") as new:
            (new.folder / "total.json").write_text("12")
        assert pruning.prune(max_size=10**9) == []
        assert there() == {new.artifact.name}
    os.utime(stat_cache_path(new.artifact), (NOW - DAY,) * 2)
    assert names(pruning.prune(max_size=10**9)) == {new.artifact.name}


def test_what_was_used_since_it_was_looked_at_stays():
    """The step uses the record while pruning, which has chosen it, waits to remove it."""
    numbers = make("numbers", "old", days=3)
    (record,) = records.everything()
    gone = []
    pruner = threading.Thread(target=lambda: gone.extend(pruning.prune(max_size=0)))
    with lock("publish"):
        pruner.start()
        wait_until(lock(record.key).path.exists)  # it is chosen
        os.utime(records.path_of(record.key))
    pruner.join(timeout=30)
    assert not pruner.is_alive()
    assert gone == []
    assert there() == {numbers.name}
    os.utime(records.path_of(record.key), (NOW - DAY,) * 2)
    assert len(pruning.prune(max_size=0)) == 1


def test_what_was_published_again_since_it_was_looked_at_stays():
    numbers = make("numbers", "old", days=3)
    os.utime(stat_cache_path(numbers), (NOW + DAY,) * 2)
    assert pruning.prune(max_size=0) == []
    assert there() == {numbers.name}


def wait_until(true):
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_what_the_store_names_stays_with_all_that_it_was_made_from(root):
    numbers = make("numbers", "numbers", days=9)
    squares = make("squares", "squares", days=9, numbers=numbers)
    best = make("sums", "best", days=9, squares=squares)
    other = make("sums", "other", days=1, squares=squares)
    entry = root / "store" / "registry" / "best.json"
    write_atomically(entry, json.dumps({"sum": f"cache/{best.name}"}))
    assert names(pruning.prune(max_size=0)) == {other.name}
    assert there() == {numbers.name, squares.name, best.name}
    assert json.loads(entry.read_text()) == {"sum": f"cache/{best.name}"}
    entry.unlink()
    assert len(pruning.prune(max_size=0)) == 3


def test_what_the_store_names_stays_beside_another_kind_of_equal_content(root):
    """A digest alone does not say which of the two kinds an ancestor is."""
    numbers = make("numbers", "numbers", days=9)
    make("squares", "equal", days=9, numbers=numbers)
    named = make("sums", "equal", days=8, numbers=numbers)
    last = make("numbers", "last", days=7, sums=named)
    write(root, {"store/last.json": json.dumps(f"cache/{last.name}")})
    pruning.prune(max_size=0)
    assert there() >= {numbers.name, named.name, last.name}
    write(root, {"store/last.json": json.dumps(f"cache/squares/{named.digest}")})
    pruning.prune(max_size=0)
    assert there() >= {numbers.name, f"squares/{named.digest}"}


def test_what_the_store_names_stays_where_components_are_damaged(root):
    total = make("sums", "total", days=9)
    (record,) = records.everything()
    write(root, {"store/best.json": json.dumps(f"cache/{total.name}")})
    for damaged in ('{"input numbers": ["1"]}', "[[1, 2]]", "[" * 100_000):
        records.components_path(record.key).write_text(damaged)
        assert pruning.prune(max_size=0) == []
    assert there() == {total.name}


def long_ago(*paths):
    """Written before pruning began, but by a run of today."""
    for path in paths:
        os.utime(path, (NOW - 60,) * 2)


def test_what_killed_runs_left_goes_and_what_is_in_the_store_does_not(root):
    make("numbers", "numbers")
    left = {
        root / "cache" / "staging" / "sums-1" / "total.json",
        root / "cache" / "records" / "add" / "toy" / ".x.1.tmp",
        root / "cache" / "checkpoints" / "add" / "toy" / "x.1.tmp",
        root / "cache" / "locks" / "add" / "toy" / "x.lock",
        root / "cache" / "numbers" / f"{'0' * 64}.json",
        root / "cache" / "sums" / ("1" * 64) / "total.json",
        root / "reports" / "20260101-000000-00000000" / ".report.json.1.tmp",
    }
    kept = root / "store" / "incoming" / ".x.tmp"
    for path in {*left, kept}:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
        long_ago(path, path.parent)
    assert names(pruning.prune(max_size=10**9)) == {f"sums/{'1' * 64}"}
    assert [path for path in left if path.exists()] == []
    assert kept.exists()
    assert len(there()) == 1


def test_what_a_running_flow_is_writing_is_not_swept_away(root):
    make("numbers", "numbers")
    staged = root / "cache" / "staging" / "sums-1" / "total.json"
    with runs.running(run_name(0.5)):
        write(root, {"cache/staging/sums-1/total.json": "12"})
        long_ago(staged, staged.parent)
        pruning.prune(max_size=10**9)
        assert staged.exists()
    pruning.prune(max_size=10**9)
    assert not staged.exists()


def test_unfinished_work_goes_by_its_last_use_and_at_once_when_its_step_has_ended():
    make("numbers", "numbers")
    (record,) = records.everything()
    ended, unfinished = layout.scratch(record.key), layout.scratch(f"add/toy/{'1' * 64}")
    for path in (ended, unfinished):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    os.utime(unfinished, (NOW - 3 * DAY,) * 2)
    pruning.prune(older_than=4 * DAY)
    assert (ended.exists(), unfinished.exists()) == (False, True)
    pruning.prune(older_than=2 * DAY)
    assert not unfinished.exists()


def test_the_limit_of_the_settings(monkeypatch):
    assert pruning.limit() == 20 * 10**9 > 10**9
    monkeypatch.setenv("RETRAIN_CACHE_LIMIT", "1.5 MiB")
    assert pruning.limit() == 3 * 2**19


@pytest.mark.parametrize("text", ["", "much", "-1GB", "2 G", "1e9", "2GB GB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ArgumentError, match=r"--max-size is .*: write a size"):
        pruning.parse_size("--max-size", text)


def test_what_a_step_stages_since_pruning_began_is_not_swept_away(monkeypatch):
    """Nothing ran when it began, and then a step started."""
    entries = pruning.entries
    with draft("numbers") as new:
        (new.folder / "content").touch()

        def looking():
            os.utime(new.folder)
            return entries()

        monkeypatch.setattr(pruning, "entries", looking)
        pruning.prune(max_size=0)
        assert (new.folder / "content").exists()


def test_what_is_no_file_in_the_store_references_nothing(root):
    made = make("numbers", "numbers")
    (root / "store" / "exports.json").mkdir(parents=True)
    (root / "store" / "gone.json").symlink_to(root / "nowhere")
    assert names(pruning.prune(max_size=0)) == {made.name}


def test_a_size_beyond_any_disk_is_refused():
    with pytest.raises(ArgumentError, match="more than any disk holds"):
        pruning.parse_size("--max-size", "9" * 400 + "GB")
