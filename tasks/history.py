"""History: what the reports of earlier retrainings say. It imports neither Prefect nor torch."""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from statistics import median
from typing import Any

from artifacts import runs

#: What two trainings must have in common for their times to be compared.
ALIKE = ("dataset", "recipe_fields", "device")
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
    """Return the report of the last retraining in front of the run of that name."""
    return next((one for one in retrains(dataset) if one["run_id"] < before), None)


def usual_seconds(found: Mapping[str, Any]) -> float | None:
    """Return the median time of the last trainings like this one; None where they are too few.

    Those that came from the cache are none.
    """
    wanted = json.loads(json.dumps({name: found[name] for name in ALIKE}))  # as in a report
    alike = (
        float(one["train_seconds"])
        for one in retrains(str(found["dataset"]))
        if one["run_id"] != found["run_id"]
        and one.get("train_seconds")
        and wanted.items() <= one.items()
    )
    seconds = list(islice(alike, MOST))
    return median(seconds) if len(seconds) >= FEWEST else None
