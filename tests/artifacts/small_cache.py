"""A cache of small artifacts, made by hand, and the toy project whose steps made them."""

import json
import os
import time
from datetime import UTC, datetime

from artifacts import artifact as artifacts
from artifacts import inventory, keys, layout, records
from artifacts.artifact import stat_cache_path
from artifacts.code import CodeRule
from artifacts.files import write_atomically
from artifacts.keys import KeyRule

DAY = 86_400.0
NOW = time.time()
STEPS = {"numbers": "draw", "squares": "square", "sums": "add"}  # by the kind that they make
CODE = {
    "draw.py": "import random\n",
    "square.py": "from shared import POWER\n",
    "add.py": "import yaml\n\nfrom shared import POWER\n",
    "shared.py": "POWER = 2\n",
}


def write(folder, files):
    """Write these texts by relative path; return the folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def project(folder, **code):
    """Write the toy project with some modules of other code; return the key rules by step."""
    write(folder, CODE | {f"{name}.py": text for name, text in code.items()})
    return {
        step: KeyRule(step=step, file=folder / f"{step}.py", rule=CodeRule(root=folder))
        for step in STEPS.values()
    }


def make(kind, content, *, days=0.0, size=1000, rules=None, **arguments):
    """An artifact with its record, last used so many days ago."""
    with artifacts.draft(kind) as new:
        (new.folder / "content").write_bytes(content.encode().ljust(size, b"."))
    new.metadata |= metadata(STEPS[kind])
    rule = (rules or project(layout.root().parent / "project"))[STEPS[kind]]
    key = keys.key_of(rule.components(arguments | {"name": content}), "toy")
    records.write_components(key, rule.components(arguments | {"name": content}))
    records.write(key, new.artifact)
    for path in (records.path_of(key), stat_cache_path(new.artifact)):
        os.utime(path, (NOW - days * DAY,) * 2)
    return new.artifact


def metadata(step):
    """What a step writes into every record."""
    return {
        "step": step,
        "group": "toy",
        "flow_run": "a flow run",
        "task_run": "a task run",
        "at": f"{datetime.fromtimestamp(NOW, UTC):%Y-%m-%dT%H:%M:%SZ}",
        "seconds": 0.5,
        "why": None,
    }


def run_name(days):
    """The name of a run that started so many days ago."""
    return f"{datetime.fromtimestamp(NOW - days * DAY, UTC):%Y%m%d-%H%M%S}-{days:08.0f}"


def report(days, *used):
    """A finished run that used these artifacts."""
    timeline = [{"step": "any", "outcome": "ran", "artifact": made.name} for made in used]
    write_report(days, {"timeline": timeline})
    return run_name(days)


def write_report(days, content):
    write_atomically(layout.reports() / run_name(days) / "report.json", json.dumps(content))


def there():
    return names(inventory.entries())


def names(entries):
    return {entry.name for entry in entries}
