"""Announce: events that Prefect's automations can act on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect.events import emit_event
from prefect.logging import get_run_logger

from artifacts.artifact import Artifact
from artifacts.errors import InputError
from registry import data
from registry.data import Batch
from tasks import alarms
from tasks.alarms import Alarm

PROJECT = "image-retraining"
BATCH_CAME_IN = f"{PROJECT}.batch.ingested"


def batch_came_in(dataset: str, batch: Batch) -> None:
    """Emit that a dataset has a new batch; a server that does not answer is no error.

    `prefect.yaml` runs retrain on it. What retrain itself takes in is not announced.
    """
    _emit(BATCH_CAME_IN, dataset, batch=batch.name, rows=batch.about["train"])


def retrained(found: Mapping[str, Any], folder: Path) -> None:
    """Emit what people should know of a retraining that ended; a fault here does not end it again.

    Args:
        found: the figures of its report.
        folder: of its report.
    """
    try:
        told = list(alarms.of_retrain(found))
    except (OSError, ValueError, TypeError, KeyError, InputError) as error:
        get_run_logger().warning("People are not told of this run: %s", error)
        return
    for alarm in told:
        _send(alarm, str(found["dataset"]), folder)


def stopped_at_broken_data(dataset: str, why: str, folder: Path) -> None:
    """Emit that nothing is trained on the data that there is."""
    broken = [batch.name for batch in data.current(dataset).live if batch.broken]
    if broken:  # unless it was retracted meanwhile
        _send(alarms.of_broken_data(dataset, broken[0], why), dataset, folder)


def looked_at(
    dataset: str, checks: Mapping[str, Artifact], folder: Path, *, broken_too: bool = True
) -> None:
    """Emit which batches drift or are broken, in one event each.

    Args:
        dataset: its name.
        checks: of batches, by `check <batch>`.
        folder: of the report of the run.
        broken_too: unless the run stops at those and says so itself.
    """
    for outcome in ("drift", "broken") if broken_too else ("drift",):
        found = {
            name.removeprefix("check "): check
            for name, artifact in checks.items()
            if (check := artifact.read_json("check.json"))["outcome"] == outcome
        }
        if found:
            _send(alarms.of_checks(dataset, outcome, found), dataset, folder)


def _send(alarm: Alarm, dataset: str, folder: Path) -> None:
    """Emit an alarm under a name of its own, by which a server can tell that it has seen it."""
    said = {"what": alarm.what, "why": alarm.why, "next": alarm.next}
    name = {f"{PROJECT}.alarm": f"{alarm.kind} {folder.name}"}
    said["report"] = str(folder / "report.html")
    _emit(f"{PROJECT}.{alarm.kind}", dataset, name, **said)


def _emit(
    event: str, dataset: str, labels: Mapping[str, str] | None = None, **payload: Any
) -> None:
    emit_event(
        event,
        resource={
            "prefect.resource.id": f"{PROJECT}.dataset.{dataset}",
            "prefect.resource.name": dataset,
            **(labels or {}),
        },
        payload={"dataset": dataset, **payload},
    )
