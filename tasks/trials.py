"""Trials: the trainings of a sweep, which `train` would reuse, scored by their validation rows."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from itertools import chain
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from prefect.logging import get_run_logger

from artifacts import machine
from artifacts.artifact import Artifact
from artifacts.errors import InputError
from artifacts.forecast import Forecast, forecasting
from artifacts.text import one_line
from classifier.training.recipe import Recipe
from reporting import progress
from tasks.train import train

if TYPE_CHECKING:
    from tasks.cluster import Cluster

MOST = 1_000  # local workers
LONGEST = 500  # characters of why a trial failed
KILLED = (
    "Each of the four workers that tried it died, as for want of memory: start fewer with "
    "--workers, or give a smaller --micro-batch or --memory-budget."
)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training of a sweep.

    Fields:
        values: recipe fields that set its recipe apart from others of the sweep, by name.
        seed: of the training.
        recipe: with its precision resolved.
        arguments: of `train`.
    """

    values: Mapping[str, Any]
    seed: int
    recipe: Recipe
    arguments: tuple[Any, ...]

    @property
    def name(self) -> str:
        """What sets it apart, as learning_rate=0.005 seed 3."""
        return " ".join([*label(self.values).split(), f"seed {self.seed}"])


def label(values: Mapping[str, Any]) -> str:
    """Return the values in words, as learning_rate=0.005."""
    return " ".join(f"{name}={value}" for name, value in values.items())


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a trial: its model, or why there is none."""

    trial: Trial
    model: Artifact | None = None
    why: str | None = None

    @cached_property
    def accuracy(self) -> float:
        """Share of the validation rows that its model has right."""
        assert self.model is not None  # noqa: S101 - for the type checker
        return float(self.model.read_json("history.json")["validation_accuracy"][-1])

    @property
    def seconds(self) -> float:
        """What the training took, in this run or an earlier one."""
        assert self.model is not None  # noqa: S101 - for the type checker
        return float(self.model.metadata["train_seconds"])


@dataclass(frozen=True, kw_only=True)
class Score:
    """What the trials of one recipe gave.

    Fields:
        values: that set the recipe apart.
        done: its trials that succeeded.
        failed: number of those that did not.
    """

    values: Mapping[str, Any]
    done: Sequence[Result]
    failed: int

    @property
    def mean(self) -> float:
        """The mean accuracy."""
        return fmean(one.accuracy for one in self.done)

    @property
    def spread(self) -> float | None:
        """The standard deviation of the accuracies; None of fewer than two."""
        return stdev(one.accuracy for one in self.done) if len(self.done) > 1 else None

    @property
    def best(self) -> Result | None:
        """The trial of the highest accuracy; None where all failed."""
        return max(self.done, key=lambda one: one.accuracy, default=None)


def scores(results: Sequence[Result]) -> list[Score]:
    """Return the score of each recipe, the best first.

    One of which a trial failed comes after all others, and one without any success comes last.
    """
    by_recipe: dict[str, list[Result]] = {}
    for result in results:
        by_recipe.setdefault(label(result.trial.values), []).append(result)
    return sorted(
        (_score(there) for there in by_recipe.values()),
        key=lambda one: (one.best is None, one.failed > 0, -one.mean if one.best else 0),
    )


def _score(results: Sequence[Result]) -> Score:
    done = [result for result in results if result.model is not None]
    return Score(values=results[0].trial.values, done=done, failed=len(results) - len(done))


def expect(forecast: Forecast, trials: Sequence[Trial]) -> dict[str, Any]:
    """Return what the steps so far and the trials would do, JSON-ready."""
    before = len(forecast.steps)
    for trial in trials:
        train(*trial.arguments)
    names = [one.step for one in forecast.steps[:before]]
    names += [f"train {trial.name}" for trial in trials]
    named = list(zip(names, forecast.steps, strict=True))
    return {
        "steps": {name: one.outcome for name, one in named},
        "why": {name: one.why for name, one in named if one.why},
    }


def run_trials(
    trials: Sequence[Trial],
    device: str,
    *,
    refresh: bool,
    workers: int,
    cluster: "Cluster | None",
) -> list[Result]:
    """Train what is missing, on Dask workers where there are any, and return all in order.

    Args:
        trials: of the sweep.
        device: cpu, cuda or mps.
        refresh: whether those that are cached train again.
        workers: local processes to start without a cluster; 0 for one a core or GPU.
        cluster: of other machines.

    Raises:
        InputError: the cluster went away, or does not see the data.
    """
    missing = _missing(trials, refresh=refresh)
    if cluster is not None and missing:
        cluster.check_data_root(trials[0].arguments[0])
    cached = [number for number in range(len(trials)) if number not in missing]
    found: dict[int, Result] = {}
    with _cluster(len(missing), device, workers, cluster) as there:
        rest = _in_turn(trials, missing) if there is None else _on_workers(trials, missing, there)
        for number, result in chain(_in_turn(trials, cached), rest):
            found[number] = result
            get_run_logger().info(_line(result, len(found), len(trials)))
    return [found[number] for number in range(len(trials))]


def _missing(trials: Sequence[Trial], *, refresh: bool) -> list[int]:
    """Return the numbers of the trials that train."""
    with forecasting(refresh=refresh) as forecast:
        for trial in trials:
            train(*trial.arguments)
    return [number for number, one in enumerate(forecast.steps) if one.outcome == "run"]


def _cluster(
    missing: int, device: str, workers: int, cluster: "Cluster | None"
) -> AbstractContextManager["Cluster | None"]:
    """Return the workers for the trials that train; None where these run in turn, here."""
    if cluster is not None or not missing:
        return nullcontext(cluster)
    wanted = min(workers or machine.threads(), missing, _places(device))
    if wanted == 1:
        return nullcontext()
    if find_spec("prefect_dask") is None:
        get_run_logger().info("The trials run in turn: RETRAIN_EXTRAS=scale brings Dask.")
        return nullcontext()
    from tasks.cluster import local

    return local(wanted, device)


def _places(device: str) -> int:
    """Return how many trainings may run at a time on the devices of this machine."""
    if device == "cuda":
        import torch

        return int(torch.cuda.device_count())
    return 1 if device == "mps" else MOST


def _in_turn(trials: Sequence[Trial], numbers: Sequence[int]) -> Iterator[tuple[int, Result]]:
    for number in numbers:
        trial = trials[number]
        try:
            found = _named(trial)(*trial.arguments)
        except Exception as error:  # noqa: BLE001 - the others go on
            found = error
        yield number, _result(trial, found)


def _on_workers(
    trials: Sequence[Trial], numbers: Sequence[int], cluster: "Cluster"
) -> Iterator[tuple[int, Result]]:
    calls = [(_named(trials[number]), trials[number].arguments) for number in numbers]
    with (
        progress.bar("trials") as in_terminal,
        progress.ui_progress("Trials of the sweep") as in_ui,
    ):
        for done, (position, found) in enumerate(cluster.run(calls), 1):
            trial = trials[numbers[position]]
            in_terminal(done, len(numbers))
            in_ui(done, len(numbers))
            yield numbers[position], _result(trial, found)


def _named(trial: Trial) -> Any:
    return train.with_options(task_run_name=f"train {trial.name}".replace("{", "{{"))


def _result(trial: Trial, found: Artifact | Exception) -> Result:
    """Return what became of a trial whose training gave this."""
    if isinstance(found, Exception):
        return _failed(trial, found)
    try:
        return _succeeded(trial, found)
    except (OSError, InputError) as error:  # as where its files lie on another machine alone
        return _failed(trial, error)


def _succeeded(trial: Trial, model: Artifact) -> Result:
    if not model.read_json("history.json").get("validation_accuracy"):
        return Result(trial=trial, why="There are too few rows to hold any back for validation.")
    return Result(trial=trial, model=model)


def _failed(trial: Trial, error: Exception) -> Result:
    if type(error).__name__ == "KilledWorker":  # of Dask, which may not be here
        return Result(trial=trial, why=KILLED)
    return Result(trial=trial, why=one_line(str(error) or type(error).__name__)[:LONGEST])


def _line(result: Result, done: int, trials: int) -> str:
    what = f"trial {done} of {trials}: {result.trial.name}"
    if result.model is None:
        return f"{what} failed: {result.why}"
    return f"{what}: validation accuracy {result.accuracy:.4f}"
