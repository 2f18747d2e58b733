"""Outcomes: which steps of a flow run ran, which were cached, and why.

An artifact says itself which task run made it, so this holds wherever the step ran.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from artifacts import records
from artifacts.artifact import Artifact


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one step of a flow run.

    Fields:
        step: its name.
        outcome: whether it ran in this flow run.
        seconds: what the step took when it ran, in this flow run or an earlier one.
        artifact: its result.
        why: why it ran, or why an older artifact counts.
    """

    step: str
    outcome: Literal["ran", "cached"]
    seconds: float
    artifact: Artifact
    why: str | None

    @classmethod
    def of(cls, artifact: Artifact, *, cached: bool, step: str | None = None) -> "Outcome":
        """Return the outcome of the step that returned this artifact."""
        about = artifact.metadata
        return cls(
            step=step or str(about["step"]),
            outcome="cached" if cached else "ran",
            seconds=float(about["seconds"]),
            artifact=artifact,
            why=records.adoption(about) if cached else about["why"],
        )

    def row(self) -> dict[str, Any]:
        """Return the outcome, JSON-ready; `seconds` is None for a cached step."""
        return {
            "step": self.step,
            "outcome": self.outcome,
            "seconds": round(self.seconds, 3) if self.outcome == "ran" else None,
            "saved_seconds": round(self.seconds, 3) if self.outcome == "cached" else None,
            "artifact": self.artifact.name,
            "why": self.why,
        }

    def __str__(self) -> str:
        took = f"{self.seconds:8.2f} s" if self.outcome == "ran" else " " * 10
        line = f"{self.step:<15} {self.outcome:<6} {took}   {self.artifact}"
        return f"{line}   {self.why}" if self.why and self.outcome == "cached" else line


def outcomes(results: Mapping[str, Artifact], flow_run: str) -> list[Outcome]:
    """Return the outcome of each named step of that flow run, in order.

    A step is cached when another flow run made its artifact, or an earlier step of this one.
    """
    return list(_outcomes(results.items(), flow_run))


def _outcomes(results: Iterable[tuple[str, Artifact]], flow_run: str) -> Iterable[Outcome]:
    seen: set[str] = set()
    for step, artifact in results:
        task_run = str(artifact.metadata["task_run"])
        cached = artifact.metadata["flow_run"] != flow_run or task_run in seen
        seen.add(task_run)
        yield Outcome.of(artifact, cached=cached, step=step)
