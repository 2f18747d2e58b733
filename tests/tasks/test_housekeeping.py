"""What the cache commands see, keep and remove, on a cache of small artifacts."""

import json
import os
import time
from datetime import UTC, datetime

import pytest

from classifier.errors import BadArgument
from tasks import artifacts, housekeeping, records

DAY = 86_400.0
NOW = time.time()


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MNIST_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("MNIST_CACHE_LIMIT", raising=False)
    return tmp_path / "data"


def make(kind, content, *, days=0.0, size=1000, **inputs):
    """An artifact with its record, last used so many days ago."""
    with artifacts.draft(kind, dataset="toy") as new:
        (new.folder / "content").write_bytes(content.encode().ljust(size, b"."))
    artifact = new.finished()
    task = {"raw": "download", "tables": "normalise", "models": "train"}[kind]
    parts = records.parts(task, f"tasks/{task}.py", inputs | {"name": content})
    key = records.key(parts, "toy")
    record = {
        "metadata": {"serializer": records.SERIALISER, "storage_key": str(records.path_of(key))},
        "result": json.dumps(artifacts.to_json(artifact)),
    }
    artifacts.write_atomically(records.parts_path(key), json.dumps(parts))
    artifacts.write_atomically(records.path_of(key), json.dumps(record))
    for path in (records.path_of(key), artifacts.note(artifact)):
        os.utime(path, (NOW - days * DAY,) * 2)
    return artifact


def report(days, *used):
    """A finished run that used these artifacts."""
    name = f"{datetime.fromtimestamp(NOW - days * DAY, UTC):%Y%m%d-%H%M%S}-{days:08.0f}"
    timeline = [{"task": "any", "artifact": artifact.name} for artifact in used]
    artifacts.write_atomically(
        artifacts.reports() / name / "report.json", json.dumps({"timeline": timeline})
    )
    return name


def there():
    return {entry.name for entry in housekeeping.inventory()}


def names(entries):
    return {entry.name for entry in entries}


# What lies there


def test_an_empty_cache_is_nothing_to_any_of_them(root):
    assert housekeeping.inventory() == []
    assert housekeeping.verify() == []
    assert housekeeping.prune(max_size=0) == []
    assert housekeeping.adopt() == []
    assert not root.exists()


def test_the_inventory_says_what_how_much_how_old_by_and_for_whom():
    raw = make("raw", "raw", days=3)
    model = make("models", "model", days=1, size=500)
    older, newer = report(3, raw), report(1, raw, model)
    one, two = (entry.row() for entry in housekeeping.inventory())
    assert one["artifact"] == raw.name
    assert one["size"] == 1000
    assert one["made_by"] == ["download"]
    assert one["used_by"] == [older, newer]
    assert one["used"] == f"{datetime.fromtimestamp(NOW - 3 * DAY, UTC):%Y-%m-%dT%H:%M:%SZ}"
    assert two["artifact"] == model.name
    assert two["size"] == 500
    assert two["used_by"] == [newer]


# What may go


def test_older_than_goes_by_the_last_use():
    old, new = make("raw", "old", days=31), make("raw", "new", days=29)
    assert names(housekeeping.prune(older_than=30 * DAY)) == {old.name}
    assert there() == {new.name}
    assert not artifacts.note(old).exists()
    assert list(records.all_keys()) == [record.key for record in records.everything()]


def test_max_size_lets_the_longest_unused_go_first():
    made = [make("models", f"{n}", days=n) for n in range(5)]
    assert names(housekeeping.prune(max_size=3000)) == {made[3].name, made[4].name}
    assert housekeeping.prune(max_size=3000) == []


def test_keep_runs_keeps_what_the_newest_runs_used():
    first, second, both = (make("models", name, days=9) for name in ("first", "second", "both"))
    report(8, first, both)
    report(2, second, both)
    assert housekeeping.prune(keep_runs=2) == []
    assert names(housekeeping.prune(keep_runs=1)) == {first.name}
    assert there() == {second.name, both.name}
    assert names(housekeeping.prune(keep_runs=0)) == {second.name, both.name}


def test_keep_runs_keeps_what_was_used_since_by_a_run_that_failed():
    kept, failed = make("models", "kept", days=9), make("models", "failed", days=1)
    report(2, kept)
    assert housekeeping.prune(keep_runs=1) == []
    assert there() == {kept.name, failed.name}


def test_a_dry_run_removes_nothing(root):
    make("raw", "old", days=31)
    before = sorted(path for path in root.rglob("*") if path.is_file())
    assert len(housekeeping.prune(older_than=30 * DAY, dry_run=True)) == 1
    assert sorted(path for path in root.rglob("*") if path.is_file()) == before


def test_what_a_run_under_way_has_used_stays():
    old, used = make("raw", "old", days=3), make("raw", "used", days=1)
    run = f"{datetime.fromtimestamp(NOW - 2 * DAY, UTC):%Y%m%d-%H%M%S}-0000abcd"
    lock = artifacts.lock(f"runs/{run}")
    lock.acquire(run)
    try:
        assert names(housekeeping.prune(max_size=0)) == {old.name}
        assert there() == {used.name}
    finally:
        lock.release()
    assert names(housekeeping.prune(max_size=0)) == {used.name}


def test_what_a_step_is_working_on_stays():
    raw = make("raw", "old", days=3)
    (record,) = records.everything()
    with artifacts.lock(record.key):
        assert housekeeping.prune(max_size=0) == []
    assert there() == {raw.name}


def test_what_was_used_since_it_was_looked_at_stays(monkeypatch):
    raw = make("raw", "old", days=3)
    (record,) = records.everything()
    real = housekeeping.inventory

    def looking():
        looked = real()
        os.utime(records.path_of(record.key))
        return looked

    monkeypatch.setattr(housekeeping, "inventory", looking)
    assert housekeeping.prune(max_size=0) == []
    assert there() == {raw.name}


def test_what_the_store_names_stays_with_all_that_it_was_made_from(root):
    raw = make("raw", "raw", days=9)
    table = make("tables", "table", days=9, raw=raw)
    champion = make("models", "champion", days=9, table=table)
    other = make("models", "other", days=1, table=table)
    entry = root / "store" / "registry" / "champion.json"
    artifacts.write_atomically(entry, json.dumps({"model": f"cache/{champion.name}"}))
    assert names(housekeeping.prune(max_size=0)) == {other.name}
    assert there() == {raw.name, table.name, champion.name}
    assert json.loads(entry.read_text()) == {"model": f"cache/{champion.name}"}
    entry.unlink()
    assert len(housekeeping.prune(max_size=0)) == 3


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
    assert names(housekeeping.prune(max_size=10**9)) == {f"models/{'1' * 64}"}
    assert [path for path in left if path.exists()] == []
    assert kept.exists()
    assert len(there()) == 1


def test_the_limit_of_the_settings(monkeypatch):
    assert housekeeping.limit() == housekeeping.size(housekeeping.DEFAULT_LIMIT) > 10**9
    monkeypatch.setenv("MNIST_CACHE_LIMIT", "1.5 MiB")
    assert housekeeping.limit() == 3 * 2**19


@pytest.mark.parametrize("text", ["", "much", "-1GB", "2 G", "1e9", "2GB GB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(BadArgument, match="is no size"):
        housekeeping.size(text)


# Where it came from


def test_the_lineage_goes_down_to_the_source():
    raw = make("raw", "raw")
    table = make("tables", "table", raw=raw, limit=5)
    model = make("models", "model", table=table)
    for asked in (model.digest[:10], model.name, str(model.path), str(model.path / "content")):
        origin = housekeeping.lineage(asked).row()
        assert origin["artifact"] == model.name
    assert origin["task"] == "train"
    assert "tasks/train.py" in origin["code"]
    assert origin["versions"].keys() >= {"torch", "python"}
    middle = origin["inputs"]["table"]
    assert middle["artifact"] == table.name
    assert middle["parameters"] == {"name": "table", "limit": 5}
    assert middle["inputs"]["raw"]["artifact"] == raw.name
    assert middle["inputs"]["raw"]["inputs"] == {}


def test_the_lineage_of_what_is_unknown_or_ambiguous_is_refused():
    make("models", "one")
    make("models", "two")
    with pytest.raises(BadArgument, match="No record"):
        housekeeping.lineage("f" * 64)
    with pytest.raises(BadArgument, match="may be any of"):
        housekeeping.lineage("models/")


# Adoption


def test_only_what_differs_in_code_alone_is_adopted(monkeypatch):
    model = make("models", "model")
    real = records.fingerprint
    monkeypatch.setattr(
        records, "fingerprint", lambda path: real(path) + "2" * path.endswith("training.py")
    )
    taken = housekeeping.adopt()
    assert [row["artifact"] for row in taken] == [model.name]
    assert taken[0]["because"] == "classifier/training.py changed"
    assert housekeeping.adopt() == []
    assert len(list(records.everything())) == 2
    monkeypatch.setattr(records, "fingerprint", lambda path: real(path) + "3")
    monkeypatch.setattr(records, "versions", lambda _: {"torch": "1.0"})
    assert housekeeping.adopt() == []


def test_what_older_code_made_is_not_adopted(monkeypatch):
    """Two edits ago is not what the user vouches for."""
    real = records.fingerprint
    monkeypatch.setattr(records, "fingerprint", lambda path: real(path) + "old")
    make("models", "old", days=2)
    monkeypatch.setattr(records, "fingerprint", lambda path: real(path) + "last")
    last = make("models", "last", days=1)
    monkeypatch.setattr(records, "fingerprint", real)
    assert [row["artifact"] for row in housekeeping.adopt()] == [last.name]


def test_a_damaged_artifact_is_not_adopted(monkeypatch):
    model = make("models", "model")
    (model.path / "content").write_bytes(b"another")
    real = records.fingerprint
    monkeypatch.setattr(records, "fingerprint", lambda path: real(path) + "2")
    assert housekeeping.adopt() == []
