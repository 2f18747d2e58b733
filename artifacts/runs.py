"""Runs: which flows are running now, and what the reports of finished ones say of their steps."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from artifacts import layout
from artifacts.errors import ArgumentError
from artifacts.locks import lock

_ROW = {"step", "outcome", "artifact"}  # at least, of a step in a timeline
#: The name of a run: UTC time to the second, and the start of its flow run's id.
NAME = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}")


def is_name(text: str) -> bool:
    """Return whether the text is the name of a run."""
    if not NAME.fullmatch(text):
        return False
    try:
        started_at(text)
    except ValueError:  # no such day
        return False
    return True


@contextmanager
def running(run: str) -> Iterator[None]:
    """Register a run while the block runs: pruning then keeps what it has used."""
    held = lock(f"runs/{run}")
    held.acquire(run)
    try:
        yield
    finally:
        held.release()


def oldest_start() -> float:
    """Return when the oldest running run started; infinite if none is running."""
    names = [path.stem for path in (layout.locks() / "runs").glob("*.lock")]
    held = (name for name in names if is_name(name) and _is_running(name))
    return min(map(started_at, held), default=float("inf"))


def is_over(flow_run: str, since: float) -> bool:
    """Return whether this flow run began in this data root since that time, and no longer runs.

    Args:
        flow_run: the first eight hexadecimal digits of its id.
        since: in seconds; of an earlier try, this data root knows nothing of the present one.
    """
    there = (path.name for path in layout.reports().glob(f"*-{flow_run}") if is_name(path.name))
    names = [name for name in there if started_at(name) >= int(since)]
    return bool(names) and not any(map(_is_running, names))


def _is_running(name: str) -> bool:
    return not lock(f"runs/{name}").is_free()


def started_at(run: str) -> float:
    """Return the second in which the run of that name started."""
    return datetime.strptime(run[:15] + "+0000", "%Y%m%d-%H%M%S%z").timestamp()


def finished_reports() -> list[Path]:
    """Return the reports of finished runs, the oldest first: by start, then by time of writing."""
    found = (path for path in layout.reports().glob("*/report.json"))
    named = (path for path in found if is_name(path.parent.name))
    return sorted(named, key=lambda path: (path.parent.name[:15], _written(path)))


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # it is being removed
        return 0.0


def timelines() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield the finished runs, the oldest first, with the outcomes of their steps."""
    for path in finished_reports():
        try:
            timeline = json.loads(path.read_text(encoding="utf-8"))["timeline"]
            steps = [dict(step) for step in timeline]
            if all(step.keys() >= _ROW for step in steps):
                yield path.parent.name, steps
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue  # a report is for people: a damaged one stops nothing


def timeline_of(run: str | None) -> tuple[str, list[dict[str, Any]]]:
    """Return a run and the outcomes of its steps, by its name or a part of it; the last by default.

    Raises:
        ArgumentError: no run matches, or more than one.
    """
    there = dict(timelines())
    found = [name for name in there if run is None or run in name]
    if run in there:
        found = [run]
    if not found:
        asked = f"run {run}" if run else "any run"
        raise ArgumentError(
            f"There is no report of {asked} in {layout.reports()}. The log.txt of an unfinished "
            "run says what it did."
        )
    if run is not None and len(found) > 1:
        raise ArgumentError(f"{run!r} matches several runs: {', '.join(found)}.")
    return found[-1], there[found[-1]]
