"""Forecast: what a flow would run, and why, without running anything."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

from artifacts import records, sharing
from artifacts.artifact import Artifact, find_damage
from artifacts.keys import KeyRule, artifacts_of


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """What one step would do.

    Fields:
        step: its name.
        outcome: whether it would run.
        artifact: what it would return, where that is known.
        why: why it would run.
    """

    step: str
    outcome: Literal["run", "cached"]
    artifact: Artifact | None
    why: str | None


@dataclass
class Forecast:
    """The expectations so far, in the order of the calls."""

    refresh: bool = False
    steps: list[Expectation] = field(default_factory=list)
    _pending: dict[str, str] = field(default_factory=dict)  # digest of a stand-in -> its step

    def call(self, rule: KeyRule, arguments: Mapping[str, Any]) -> Artifact:
        """Note what the step would do; return its artifact, or a stand-in for it."""
        expected = self._expect(rule, arguments)
        self.steps.append(expected)
        if expected.artifact is not None:
            return expected.artifact
        digest = f"pending {len(self._pending)}"
        self._pending[digest] = rule.step
        return Artifact(kind="pending", digest=digest, size=0)

    def row(self) -> dict[str, Any]:
        """Return the forecast, JSON-ready."""
        return {
            "steps": {each.step: each.outcome for each in self.steps},
            "why": {each.step: each.why for each in self.steps if each.why},
        }

    def _expect(self, rule: KeyRule, arguments: Mapping[str, Any]) -> Expectation:
        waits_for = [
            self._pending[artifact.digest]
            for artifact in artifacts_of(arguments.values())
            if artifact.digest in self._pending
        ]
        if waits_for:
            return self._run(rule, f"depends on {waits_for[0]}")
        components = rule.components(arguments)
        key = rule.key(components, arguments)
        found = records.read(key)
        if not self.refresh and isinstance(found, str) and (shared := sharing.look(key)):
            return Expectation(step=rule.step, outcome="cached", artifact=shared[0], why=None)
        if isinstance(found, str):
            there = records.path_of(key).exists()
            why = found if there else records.reason(key, components) or "first run"
        else:
            why = find_damage(found.artifact) or ""
        if self.refresh:
            why = "a refresh was requested"
        if why or isinstance(found, str):
            return self._run(rule, why)
        return Expectation(step=rule.step, outcome="cached", artifact=found.artifact, why=None)

    def _run(self, rule: KeyRule, why: str) -> Expectation:
        return Expectation(step=rule.step, outcome="run", artifact=None, why=why)


_current: ContextVar[Forecast | None] = ContextVar("forecast", default=None)


def current() -> Forecast | None:
    """Return the forecast that is being made, if any."""
    return _current.get()


@contextmanager
def forecasting(*, refresh: bool = False) -> Iterator[Forecast]:
    """Note what each step called in the block would do; none runs."""
    forecast = Forecast(refresh=refresh)
    token = _current.set(forecast)
    try:
        yield forecast
    finally:
        _current.reset(token)
