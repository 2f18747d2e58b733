"""History: what the reports that are still there say of their runs.

Nothing of a report is believed: a damaged or foreign one is named as such, or left out, and one
that goes while it is read was not there.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from artifacts import layout, runs
from artifacts.locks import lock

DONE = {"ingest": "ingested", "sweep": "swept"}  # outcome of a flow whose report names none
RUNNING, FAILED, DAMAGED = "running", "failed", "report is damaged"
HEAD, TAIL = 1_000, 4_000  # bytes of a log that are read
STARTED = re.compile(r"flow  started (\S+) of (\S+)")
ENDED = re.compile(r"flow  ended: (.+)")
_WORST = ("broken", "drift", "sound")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A run in the history; what is not known is None.

    Fields:
        run: its name.
        outcome: promoted, refused, unchanged, broken, trained, swept, ingested, or one of those
            above.
        state: of Prefect, where it says more than the outcome.
        model: its name.
        accuracy: on the official test set, whose digest is `test_set`.
        errors, rows: of that test set.
        interval: of 95 %.
        seconds: from start to end.
        page: whether it has one.
        why: it failed.
    """

    run: str
    outcome: str
    page: bool
    flow: str | None = None
    dataset: str | None = None
    recipe: str | None = None
    state: str | None = None
    accuracy: float | None = None
    interval: tuple[float, float] | None = None
    errors: int | None = None
    rows: int | None = None
    test_set: str | None = None
    model: str | None = None
    seconds: float | None = None
    why: str | None = None

    @property
    def started(self) -> datetime:
        """When it started."""
        return datetime.fromtimestamp(runs.started_at(self.run), UTC)


def entries() -> list[Entry]:
    """Return the runs that have a report, the newest first."""
    try:
        names = sorted((path.name for path in layout.reports().iterdir()), reverse=True)
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = (_entry(layout.reports() / name) for name in names if runs.is_name(name))
    return [entry for entry in found if entry is not None]


def _entry(folder: Path) -> Entry | None:
    page = (folder / "report.html").is_file()
    path = folder / "report.json"
    try:
        if path.is_file():
            report = json.loads(path.read_text(encoding="utf-8"))
            return _finished(folder.name, report, page=page)
        return _unfinished(folder)
    except OSError:  # it went
        return None
    except (ValueError, TypeError, RecursionError, OverflowError):
        return Entry(run=folder.name, outcome=DAMAGED, page=page)


def _finished(run: str, report: Any, *, page: bool) -> Entry:
    """Return what a report says; raises ValueError where it is none of ours."""
    dataset = report.get("dataset") if isinstance(report, dict) else None
    if not isinstance(dataset, str):
        raise ValueError("it names no dataset")  # noqa: TRY004 - the type is that of a value in it
    outcome, is_ingest = _text(report, "outcome"), "accepted" in report
    older = "ingest" if is_ingest else "retrain" if outcome else "train"
    flow = _text(report, "flow") or older
    state = _text(report, "state") or (_check(report) if is_ingest else None)
    return Entry(
        run=run,
        outcome=outcome or DONE.get(flow, "trained"),
        page=page,
        flow=flow,
        dataset=_text(report, "dataset"),
        recipe=_text(report, "recipe"),
        state=state if (state or "").lower() != outcome else None,
        accuracy=_share(report.get("test_accuracy")),
        interval=_interval(report.get("test_interval")),
        errors=_whole(report.get("errors")),
        rows=_whole(report.get("test_rows")),
        test_set=_text(report, "test_set"),
        model=(_text(report, "model") or "").removeprefix("cache/") or None,
        seconds=_number(report.get("seconds")),
    )


def _unfinished(folder: Path) -> Entry | None:
    """Return what the log of a run without a report says; None where there is no log."""
    if not (folder / "log.txt").is_file():  # a pipe would never open
        return None
    with (folder / "log.txt").open("rb") as file:
        head = file.read(HEAD).decode(errors="replace")
        size = file.seek(0, 2)
        file.seek(max(0, size - TAIL))
        tail = file.read().decode(errors="replace")
    started, ended = STARTED.search(head), ENDED.search(tail)
    held = lock(f"runs/{folder.name}")
    runs_on = held.path.exists() and not held.is_free()
    took = (folder / "log.txt").stat().st_mtime - runs.started_at(folder.name)
    return Entry(
        run=folder.name,
        outcome=RUNNING if runs_on else FAILED,
        page=False,
        flow=started and started[1],
        dataset=started and started[2],
        seconds=None if runs_on else max(0.0, took),
        why=None if runs_on else ended[1] if ended else "It ended without a word, as when killed.",
    )


def _check(report: Mapping[str, Any]) -> str | None:
    """Return the worst that the checks of an ingest found."""
    batches = report.get("batches")
    checks = [one.get("check") for one in batches or () if isinstance(one, dict)]
    found = {check.get("outcome") for check in checks if isinstance(check, dict)}
    return next((outcome for outcome in _WORST if outcome in found), None)


def _text(report: Mapping[str, Any], name: str) -> str | None:
    value = report.get(name)
    return value[:200] if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if known and math.isfinite(value) and value >= 0 else None


def _whole(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _share(value: Any) -> float | None:
    number = _number(value)
    return number if number is not None and number <= 1 else None


def _interval(value: Any) -> tuple[float, float] | None:
    if not isinstance(value, list) or len(value) != 2:  # noqa: PLR2004 - its two ends
        return None
    low, high = map(_share, value)
    return None if low is None or high is None or low > high else (low, high)
