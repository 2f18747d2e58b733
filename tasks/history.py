"""History: what the reports of earlier retrainings say. It imports neither Prefect nor torch."""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from statistics import median
from typing import Any

from artifacts import runs

#: What two trainings must have in common for their times to be compared.
ALIKE = ("dataset", "recipe_fields", "device")
#: What ends without saying anything of data that waits.
SILENT = ("Broken", "Superseded")
FEWEST, MOST = 3, 20  # earlier trainings of which a median is taken


def retrains(dataset: str) -> Iterator[dict[str, Any]]:
    """Yield the reports of the retrainings of a dataset that have ended, the newest first."""
    for path in reversed(runs.finished_reports()):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["dataset"] == dataset and "outcome" in found and "state" in found:
                yield dict(found, run_id=path.parent.name)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue  # a report is for people: a damaged one stops nothing


def last_retrain(dataset: str, *, before: str) -> dict[str, Any] | None:
    """Return the report of the last retraining before the run of that name that could speak."""
    earlier = (one for one in retrains(dataset) if one["run_id"] < before)
    return next((one for one in earlier if one["state"] not in SILENT), None)


def usual_seconds(found: Mapping[str, Any]) -> float | None:
    """Return what this training takes at the median speed of the last ones like it.

    None where they are too few. Those that came from the cache are none.
    """
    wanted = json.loads(json.dumps({name: found[name] for name in ALIKE}))  # as in a report
    others = (one for one in retrains(str(found["dataset"])) if one["run_id"] != found["run_id"])
    speeds = (_seconds_a_row(one) for one in others if wanted.items() <= one.items())
    known = list(islice((speed for speed in speeds if speed), MOST))
    return median(known) * found["train_rows"] if len(known) >= FEWEST else None


def _seconds_a_row(report: Mapping[str, Any]) -> float | None:
    """Return the seconds a row of a whole training; None where a report gives none."""
    if report.get("resumed"):  # what it gives is the time of the last piece
        return None
    seconds, rows = report.get("train_seconds"), report.get("train_rows")
    if not isinstance(seconds, int | float) or not isinstance(rows, int) or rows < 1:
        return None
    return seconds / rows
