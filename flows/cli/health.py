"""Health: whether retraining goes on. Cron runs it, so it needs neither server nor Prefect."""

import os
import time
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import httpx
from cyclopts import Parameter
from cyclopts.validators import Number

from artifacts import layout, runs
from artifacts.text import counted
from flows.cli.address import is_loopback, shown
from flows.cli.answer import Answer
from flows.names import DatasetName
from registry import erasures, log, models
from tasks import history, seen
from tasks.commands import dataset_option

HOUR, DAY = 3_600, 86_400
SECONDS = 10.0  # in which a server must answer
Days = Annotated[float, Parameter(validator=Number(gt=0, lte=36_500))]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is wrong, and the command to type next."""

    what: str
    next: str


def health(*, dataset: DatasetName | None = None, within: Days = 8.0) -> Answer:
    """Say whether retraining goes on as it should; the exit code is 1 if not.

    Args:
        dataset: Only this one; all that have a champion unless given
        within: Days in which a retrain must have completed, and new data must be taken in
    """
    names = [dataset] if dataset else [name for name in log.datasets() if _has_champion(name)]
    now = time.time()
    found = [_state(name, now) for name in names]
    problems = [
        *_no_dataset(names),
        *_late(found, now - within * DAY, now),
        *_not_erased(dataset),
        *_silent_server(),
    ]
    answer = {"healthy": not problems, "datasets": found, "problems": [vars(p) for p in problems]}
    if not problems:
        said = (f"{one['dataset']} {one['outcome']}, {_ago(one['at'], now)}" for one in found)
        return Answer(answer, f"Retraining goes on: {'; '.join(said)}.")
    lines = [f"{problem.what} Next: {problem.next}" for problem in problems]
    return Answer(answer, "\n".join(lines), code=1)


def _has_champion(dataset: str) -> bool:
    return models.current(dataset).champion is not None


def _state(dataset: str, now: float) -> dict[str, Any]:
    """Return the last retrain of a dataset that completed, and since when data waits; JSON-ready.

    A retrain that ended `unchanged` or `refused` has done its work; one with broken data has not.
    """
    past = (one for one in history.retrains(dataset) if runs.started_at(one["run_id"]) <= now)
    last = next((one for one in past if one["outcome"] != "broken"), None)
    waiting = seen.waiting_since(dataset)
    return {
        "dataset": dataset,
        "outcome": last["outcome"] if last else None,
        "recipe": last.get("recipe") if last else None,
        "at": _utc(runs.started_at(last["run_id"])) if last else None,
        "report": layout.relative(layout.reports() / last["run_id"]) if last else None,
        "waiting_since": None if waiting is None else _utc(waiting),
    }


def _no_dataset(names: list[str]) -> Iterator[Problem]:
    if not names:
        yield Problem(
            what=f"No dataset in {layout.root()} has a champion.", next="./run retrain --recipe cnn"
        )


def _late(found: list[dict[str, Any]], limit: float, now: float) -> Iterator[Problem]:
    """Yield what has not happened since the limit."""
    for one in found:
        name, option = one["dataset"], dataset_option(one["dataset"])
        if one["at"] is None:
            yield Problem(
                what=f"No retrain of {name} has completed.", next=f"./run retrain{option}"
            )
        elif _seconds(one["at"]) < limit:
            yield Problem(
                what=f"The last retrain of {name} that completed was {_ago(one['at'], now)}.",
                next=f"./run retrain{option} --recipe {one['recipe'] or 'default'}",
            )
        if one["waiting_since"] and _seconds(one["waiting_since"]) < limit:
            yield Problem(
                what=f"New data of {name} has been lying in {seen.folder_of(name)} since "
                f"{one['waiting_since'][:10]}.",
                next=f"./run ingest{option}",
            )


def _not_erased(dataset: str | None) -> Iterator[Problem]:
    """Yield the erasures of other machines that were not done here."""
    for erasure in erasures.left():
        if dataset in {None, erasure.dataset}:
            yield Problem(what=erasure.what, next=erasure.command)


def _silent_server() -> Iterator[Problem]:
    """Yield a problem where a Prefect server is configured, and does not answer."""
    address = (_configured() or "").rstrip("/")
    if not address:
        return
    proxies = not is_loopback(address)
    for _ in range(2):  # one that is busy may answer the second time
        with suppress(httpx.HTTPError, httpx.InvalidURL):
            if httpx.get(f"{address}/health", timeout=SECONDS, trust_env=proxies).is_success:
                return
    yield Problem(
        what=f"No Prefect server answers at {shown(address)}, so no schedule fires.",
        next="./run ui, or start that server as you did before",
    )


def _configured() -> str | None:
    """Return the server that Prefect would use, from the environment or its active profile."""
    if address := os.environ.get("PREFECT_API_URL"):
        return address
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    file = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml")
    with suppress(OSError, ValueError, AttributeError, KeyError, TypeError):
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        name = os.environ.get("PREFECT_PROFILE") or content["active"]
        return str(content["profiles"][name].get("PREFECT_API_URL") or "") or None
    return None


def _utc(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


def _ago(at: str, now: float) -> str:
    seconds = max(0.0, now - _seconds(at))
    if seconds < HOUR:
        return "less than an hour ago"
    if seconds < DAY:
        return f"{counted(int(seconds / HOUR), 'hour')} ago"
    return f"{seconds / DAY:.1f} days ago"
