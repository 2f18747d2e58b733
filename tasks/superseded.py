"""Superseded: of the runs that nobody started for weeks, the first one does the work of all."""

from typing import Any
from uuid import UUID

from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType

from registry import models

STATE = "Superseded"  # name of the state of such a run


def superseded() -> str | None:
    """Say which run did what this one was to do; None if none did.

    It has the same parameters, is of the same deployment, began after this one was due, and has
    completed.
    """
    if runtime.deployment.id is None:
        return None
    completed = FlowRunFilter(
        start_time=FlowRunFilterStartTime(after_=runtime.flow_run.scheduled_start_time),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.COMPLETED])),
    )
    ours = DeploymentFilter(id=DeploymentFilterId(any_=[UUID(runtime.deployment.id)]))
    with get_client(sync_client=True) as client:
        asked = client.read_flow_run(UUID(runtime.flow_run.id)).parameters
        for run in client.read_flow_runs(deployment_filter=ours, flow_run_filter=completed):
            did_it = run.state_name != STATE  # one that was superseded itself did nothing
            if did_it and run.parameters == asked and run.start_time:
                began = f"{run.start_time:%Y-%m-%d %H:%M:%S}"
                return f"A run that began at {began} UTC, after this one was due, did the same."
    return None


def summary(about: dict[str, Any], why: str) -> dict[str, Any]:
    """Return the figures of a superseded run, JSON-ready.

    Args:
        about: what was asked for: dataset, recipe, precision, seed.
        why: as `superseded` says.
    """
    champion = models.current(about["dataset"]).champion
    return about | {
        "outcome": "unchanged",
        "state": STATE,
        "train_seconds": None,
        "champion": champion.model if champion else None,
        "challenger": None,
        "verdict": None,
        "why": [why],
    }
