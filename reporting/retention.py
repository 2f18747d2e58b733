"""Retention: the oldest reports leave, so that a schedule does not fill the disk."""

import json
import os
import re
import shutil
from pathlib import Path

from prefect.logging import get_run_logger

from artifacts import layout, runs
from artifacts.errors import ArgumentError
from artifacts.locks import lock

LIMIT, DEFAULT_LIMIT = "RETRAIN_KEEP_REPORTS", "500"
RETRAINS = 20  # of each dataset that stay: as many as `tasks/history.py` takes a median of


def limit() -> int:
    """Return how many reports stay: RETRAIN_KEEP_REPORTS, or the default; 0 for all.

    Raises:
        ArgumentError: it is no such number.
    """
    text = os.environ.get(LIMIT) or DEFAULT_LIMIT
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ArgumentError(f"{LIMIT} is {text!r}: give a number of reports, or 0 to keep all.")
    return int(text)


def keep_to_limit(keep: int, run: str) -> None:
    """Remove the oldest reports at the end of a run, and say so; arguments as `prune`."""
    try:
        gone, left = prune(keep, run)
    except OSError as error:  # the run itself is done
        get_run_logger().warning("Old reports were not removed: %s", error)
        return
    if gone:
        get_run_logger().info("%s is %d, old reports removed: %d", LIMIT, keep, len(gone))
    if left:
        get_run_logger().warning("%d old reports could not be removed: %s", len(left), left[0])


def prune(keep: int, run: str | None = None) -> tuple[list[Path], list[Path]]:
    """Remove the oldest reports, but for those of running runs, promotions and retrains.

    Of each dataset the newest twenty retrains stay, which health and alarms read.

    Args:
        keep: how many of the newest stay; 0 for all.
        run: name of the run that asks, whose report stays too.

    Returns:
        Those that it removed, and those that it could not remove.
    """
    old = [folder for folder in _removable(keep, run) if folder.is_dir()]
    for folder in old:
        shutil.rmtree(folder, ignore_errors=True)
    left = [folder for folder in old if folder.exists()]
    return [folder for folder in old if folder not in left], left


def _removable(keep: int, run: str | None) -> list[Path]:
    """Return the reports that may go, the oldest first."""
    there = sorted(path for path in layout.reports().iterdir() if _is_report(path))
    old = there[:-keep] if keep else []
    ended = [path for path in old if path.name != run and not _is_running(path.name)]
    # Only now: a run ends after its promotion.
    kept = _named_by_log() | _last_retrains(there) if ended else set()
    return [path for path in ended if path.name not in kept]


def _last_retrains(there: list[Path]) -> set[str]:
    """Return the newest retrains of each dataset, which `tasks/history.py` reads."""
    found: dict[str, list[str]] = {}
    for path in reversed(there):
        try:
            report = json.loads((path / "report.json").read_text(encoding="utf-8"))
            if "outcome" in report and "state" in report:
                found.setdefault(report["dataset"], []).append(path.name)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
    return {name for names in found.values() for name in names[:RETRAINS]}


def _is_report(path: Path) -> bool:
    return runs.is_name(path.name) and path.is_dir() and not path.is_symlink()


def _is_running(run: str) -> bool:
    return not lock(f"runs/{run}").is_free()


def _named_by_log() -> set[str]:
    """Return the runs that an event names; a promotion names the one that made it."""
    if not layout.log().is_dir():
        return set()
    texts = (
        path.read_text(encoding="utf-8", errors="replace") for path in layout.log().glob("*.json")
    )
    return {name for text in texts for name in runs.NAME.findall(text)}
