"""What may leave the cache, and what stays."""

import json
import os
from datetime import UTC, datetime

import pytest

from classifier.errors import BadArgument
from tasks import artifacts, inventory, pruning, records
from tests.tasks.small_cache import DAY, NOW, make, names, report, there

pytestmark = pytest.mark.usefixtures("root")


def test_older_than_goes_by_the_last_use():
    old, new = make("raw", "old", days=31), make("raw", "new", days=29)
    assert names(pruning.prune(older_than=30 * DAY)) == {old.name}
    assert there() == {new.name}
    assert not artifacts.note(old).exists()
    assert list(records.all_keys()) == [record.key for record in records.everything()]


def test_max_size_lets_the_longest_unused_go_first():
    made = [make("models", f"{n}", days=n) for n in range(5)]
    assert names(pruning.prune(max_size=3000)) == {made[3].name, made[4].name}
    assert pruning.prune(max_size=3000) == []


def test_keep_runs_keeps_what_the_newest_runs_used():
    first, second, both = (make("models", name, days=9) for name in ("first", "second", "both"))
    report(8, first, both)
    report(2, second, both)
    assert pruning.prune(keep_runs=2) == []
    assert names(pruning.prune(keep_runs=1)) == {first.name}
    assert there() == {second.name, both.name}
    assert names(pruning.prune(keep_runs=0)) == {second.name, both.name}


def test_keep_runs_keeps_what_was_used_since_by_a_run_that_failed():
    kept, failed = make("models", "kept", days=9), make("models", "failed", days=1)
    report(2, kept)
    assert pruning.prune(keep_runs=1) == []
    assert there() == {kept.name, failed.name}


def test_a_dry_run_removes_nothing(root):
    make("raw", "old", days=31)
    before = sorted(path for path in root.rglob("*") if path.is_file())
    assert len(pruning.prune(older_than=30 * DAY, dry_run=True)) == 1
    assert sorted(path for path in root.rglob("*") if path.is_file()) == before


def test_what_a_run_under_way_has_used_stays():
    old, used = make("raw", "old", days=3), make("raw", "used", days=1)
    run = f"{datetime.fromtimestamp(NOW - 2 * DAY, UTC):%Y%m%d-%H%M%S}-0000abcd"
    lock = artifacts.lock(f"runs/{run}")
    lock.acquire(run)
    try:
        assert names(pruning.prune(max_size=0)) == {old.name}
        assert there() == {used.name}
    finally:
        lock.release()
    assert names(pruning.prune(max_size=0)) == {used.name}


def test_what_a_step_is_working_on_stays():
    raw = make("raw", "old", days=3)
    (record,) = records.everything()
    with artifacts.lock(record.key):
        assert pruning.prune(max_size=0) == []
    assert there() == {raw.name}


def test_what_was_used_since_it_was_looked_at_stays(monkeypatch):
    raw = make("raw", "old", days=3)
    (record,) = records.everything()
    real = inventory.entries

    def looking():
        looked = real()
        os.utime(records.path_of(record.key))
        return looked

    monkeypatch.setattr(pruning, "entries", looking)
    assert pruning.prune(max_size=0) == []
    assert there() == {raw.name}


def test_what_the_store_names_stays_with_all_that_it_was_made_from(root):
    raw = make("raw", "raw", days=9)
    table = make("tables", "table", days=9, raw=raw)
    champion = make("models", "champion", days=9, table=table)
    other = make("models", "other", days=1, table=table)
    entry = root / "store" / "registry" / "champion.json"
    artifacts.write_atomically(entry, json.dumps({"model": f"cache/{champion.name}"}))
    assert names(pruning.prune(max_size=0)) == {other.name}
    assert there() == {raw.name, table.name, champion.name}
    assert json.loads(entry.read_text()) == {"model": f"cache/{champion.name}"}
    entry.unlink()
    assert len(pruning.prune(max_size=0)) == 3


def test_what_killed_runs_left_goes_and_what_is_in_the_store_does_not(root):
    make("raw", "raw")
    left = {
        root / "cache" / "tmp" / "models-1" / "weights.safetensors",
        root / "cache" / "records" / "train" / "toy" / ".x.1.tmp",
        root / "cache" / "checkpoints" / "train" / "toy" / "x.safetensors.1.tmp",
        root / "cache" / "locks" / "train" / "toy" / "x.lock",
        root / "cache" / "raw" / f"{'0' * 64}.json",
        root / "cache" / "models" / ("1" * 64) / "weights.safetensors",
        root / "reports" / "20260101-000000-00000000" / ".report.json.1.tmp",
    }
    kept = root / "store" / "incoming" / ".x.tmp"
    for path in {*left, kept}:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    assert names(pruning.prune(max_size=10**9)) == {f"models/{'1' * 64}"}
    assert [path for path in left if path.exists()] == []
    assert kept.exists()
    assert len(there()) == 1


def test_the_limit_of_the_settings(monkeypatch):
    assert pruning.limit() == 20 * 10**9 > 10**9
    monkeypatch.setenv("MNIST_CACHE_LIMIT", "1.5 MiB")
    assert pruning.limit() == 3 * 2**19


@pytest.mark.parametrize("text", ["", "much", "-1GB", "2 G", "1e9", "2GB GB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(BadArgument, match=r"--max-size is .*: write a size"):
        pruning.size("--max-size", text)
