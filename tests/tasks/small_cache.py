"""A cache of small artifacts, made by hand."""

import json
import os
import time
from datetime import UTC, datetime

from tasks import artifacts, inventory, records

DAY = 86_400.0
NOW = time.time()


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
    return {entry.name for entry in inventory.entries()}


def names(entries):
    return {entry.name for entry in entries}
