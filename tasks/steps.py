"""What happened to each step of a run, told as it happens and summed up at the end."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun
from prefect.logging.loggers import task_run_logger
from prefect.runtime import flow_run
from prefect.runtime import task_run as this_task_run

from tasks.artifacts import Artifact


@dataclass(frozen=True, kw_only=True)
class Step:
    """One task of a run: what became of it, in how many seconds, and what it gave."""

    task: str
    outcome: Literal["ran", "cached", "failed"]
    seconds: float
    artifact: Artifact | None
    why: str | None

    def row(self) -> dict[str, str | float | None]:
        """JSON-ready."""
        return {
            "task": self.task,
            "outcome": self.outcome,
            "seconds": round(self.seconds, 3),
            "artifact": self.artifact.name if self.artifact else None,
            "why": self.why,
        }

    def __str__(self) -> str:
        line = f"{self.task:<10} {self.outcome:<6} {self.seconds:8.2f} s   {self.artifact or ''}"
        return f"{line}   {self.why}" if self.why and self.outcome == "cached" else line


_steps: dict[UUID, list[Step]] = defaultdict(list)
_reasons: dict[str, str] = {}  # by task run


def explain(why: str | None) -> None:
    """Say why the step that is under way runs, or where its result is from."""
    if why:
        _reasons[str(this_task_run.id)] = why


def note(task: Task[..., Any], run: TaskRun, state: State[Any]) -> None:
    """A state hook: one line a step."""
    outcome: Literal["ran", "cached", "failed"] = "ran"
    if not state.is_completed():
        outcome = "failed"
    elif state.name == "Cached":
        outcome = "cached"
    result = None if outcome == "failed" else state.result()
    step = Step(
        task=task.name,
        outcome=outcome,
        seconds=run.total_run_time.total_seconds(),
        artifact=result,
        why=_reasons.pop(str(run.id), None),
    )
    if run.flow_run_id is not None:
        _steps[run.flow_run_id].append(step)
    task_run_logger(run, task).info(str(step).rstrip())


def taken(flow_run_id: UUID) -> list[Step]:
    """The steps of that run so far, which are then forgotten here."""
    return _steps.pop(flow_run_id, [])


def flow_run_name() -> str:
    """`mnist post seed 0`: what the flow run is about."""
    return "{dataset} {recipe} seed {seed}".format_map(flow_run.parameters)


def task_run_name() -> str:
    """`train mnist post seed 0`: the task, and what its flow run is about."""
    return f"{this_task_run.task_name} {flow_run_name()}"
