"""The sweep flow: many trainings, and which recipe is best by its validation rows."""

import os
import re
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from prefect import flow
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.runtime import deployment, flow_run
from prefect.states import Failed
from pydantic import Field

from artifacts.artifact import Artifact
from artifacts.forecast import forecasting
from artifacts.step import refreshing
from classifier.errors import ArgumentError, InputError
from flows import steps
from flows.names import DEFAULT, DatasetName, RecipeName
from flows.parameters import Device, ImageSize, Limit, Plan, RecipeFields, tell
from flows.retrain import retrain
from flows.sweeping import Sweep
from reporting.report import open_run
from tasks.errors import BrokenData
from tasks.new_data import NewData, new_data
from tasks.sweep_report import NoModelError, report
from tasks.train import train
from tasks.trials import Result, Trial, expect, run_trials

if TYPE_CHECKING:
    from tasks.cluster import Cluster

TIME_LIMIT = 24 * 3600  # seconds
#: The scheduler that runs of a deployment may name; from a terminal, any.
SCHEDULER = "RETRAIN_DASK"

Choices = Annotated[list[str] | None, Parameter(name="--set", negative="")]
Draws = Annotated[int | None, Field(ge=1, le=1_000_000)]
Workers = Annotated[int, Field(ge=0, le=1_000)]


def flow_run_name() -> str:
    """Name a flow run after what it is about: `sweep mnist cnn`."""
    given = flow_run.parameters
    return f"sweep {given['dataset']} {given['recipe'] or DEFAULT}"


@flow(name="sweep", flow_run_name=flow_run_name, timeout_seconds=TIME_LIMIT)
def sweep(
    *,
    dataset: DatasetName = "mnist",
    recipe: RecipeName = DEFAULT,
    overrides: RecipeFields = None,
    choices: Choices = None,
    random: Draws = None,
    seeds: str = "0..2",
    device: Device = "auto",
    limit: Limit = None,
    only_base: bool = False,
    image_size: ImageSize = None,
    challenge: bool = False,
    workers: Workers = 0,
    dask: str | None = None,
    refresh: bool = False,
    dry_run: bool = False,
) -> dict[str, Any] | State:
    """Train with several recipes and seeds, and say which is best on the validation rows.

    Args:
        dataset: Dataset to train on
        recipe: How to train; default is the recipe that the dataset declares
        overrides: Recipe fields that all trials have instead of the recipe's own
        choices: Values of a recipe field to try, as learning_rate=0.005,0.01; with --random also a
            range, as learning_rate=0.001..0.1. Repeat it for more fields
        random: Recipes to draw from the values and ranges, instead of trying all
        seeds: Seeds of each recipe, as 0..9, which includes 9, or 0,3,5
        device: Where to train; auto takes a GPU if there is one
        limit: Only the first published rows of train and test, for a quick trial
        only_base: Train on the published rows alone, without what was ingested
        image_size: Size of the images, as 64x64 or 64x64x3, for a dataset that declares none
        challenge: Let the best model challenge the champion, as retrain does
        workers: Local trainings at a time; 0 for as many as the machine has cores, or GPUs
        dask: Address of a Dask scheduler, as tcp://host:8786, whose workers train instead; from a
            deployment only the one that RETRAIN_DASK names
        refresh: Run every step, cached or not
        dry_run: Only say which steps would run, and why
    """
    asked = check(
        dataset=dataset,
        recipe=recipe,
        overrides=overrides,
        choices=choices,
        random=random,
        seeds=seeds,
        device=device,
        limit=limit,
        only_base=only_base,
        image_size=image_size,
        challenge=challenge,
        workers=workers,
        dask=dask,
    )
    with _connected(dask, dataset, device) as cluster:
        plans = cluster.same(asked.plans, device) if cluster else asked.plans(device)
        try:
            data = new_data(dataset, only_base=bool(only_base or limit), shape=plans[0].image_size)
        except BrokenData as error:
            if dry_run:
                raise
            return Failed(name="Broken", message=str(error), data=error)
        if dry_run:
            with forecasting(refresh=refresh) as forecast:
                _, trials = _prepared(asked, plans, data)
                return tell(expect(forecast, trials))
        with open_run() as run, refreshing(refresh=refresh):
            for sentence in asked.notes:
                get_run_logger().info(sentence)
            done, trials = _prepared(asked, plans, data)
            results = run_trials(
                trials, plans[0].device, refresh=refresh, workers=workers, cluster=cluster
            )
            try:
                found, best = report(run, asked.about(plans), done, results, asked.command)
            except NoModelError as error:
                return Failed(name="NoModel", message=str(error), data=error)
    here: Device = "auto" if dask else device
    return found | {"challenge": _challenge(asked, best, here)} if challenge else found


def check(
    *,
    dataset: str,
    recipe: RecipeName,
    overrides: RecipeFields,
    choices: list[str] | None,
    random: int | None,
    seeds: str,
    device: Device,
    limit: int | None,
    only_base: bool,
    image_size: ImageSize,
    challenge: bool,
    workers: int,
    dask: str | None,
    **_: Any,
) -> Sweep:
    """Check, before anything is fetched, that the options go together; return what they ask for.

    Raises:
        ArgumentError: they do not, or a recipe that they give cannot be.
        InputError: Dask is not installed, or whoever asked may not choose its scheduler.
    """
    asked = Sweep.of(
        overrides,
        choices or [],
        random,
        seeds,
        dataset=dataset,
        recipe=recipe,
        image_size=image_size,
        limit=limit,
        only_base=only_base,
    )
    if challenge and (asked.limit or asked.only_base):
        raise ArgumentError(
            "--challenge judges a model of all rows: leave out --limit and --only-base."
        )
    if dask is not None and workers:
        raise ArgumentError(
            "--workers starts local ones, and --dask names others: leave one of them out."
        )
    if dask is not None and not re.fullmatch(r"(tcp|tls|ws|wss)://[^\s@]+:\d+", dask):
        raise ArgumentError(
            f"--dask is {dask.rpartition('@')[2]!r}: give the address of a scheduler, as "
            "tcp://host:8786, without a user or password."
        )
    if dask is not None and find_spec("prefect_dask") is None:
        raise InputError("--dask needs the extra `scale`: set RETRAIN_EXTRAS=scale, and try again.")
    if dask is not None and deployment.id and dask != os.environ.get(SCHEDULER):
        raise InputError(
            f"A run of a deployment may name no Dask scheduler but that of {SCHEDULER}: what "
            f"comes from there is run. Set {SCHEDULER} where the worker starts, or leave dask out."
        )
    if dask is None:  # else the workers know best
        asked.plans(device)
    return asked


def _connected(
    dask: str | None, dataset: str, device: str
) -> "AbstractContextManager[Cluster | None]":
    """Return the workers of that address, which are fit to train; None without an address."""
    if dask is None:
        return nullcontext()
    from tasks import cluster

    return cluster.remote(dask, train, dataset, device)


def _prepared(
    asked: Sweep, plans: list[Plan], data: NewData
) -> tuple[dict[str, Artifact], list[Trial]]:
    """Return the steps that all trials have in common, and the trials."""
    done = steps.published(plans[0], asked.limit)
    done |= steps.combined(plans[0], done["normalise"], data)
    for plan in plans:
        if plan.initial_weights and "initial-weights" not in done:
            done |= steps.pretrained(plan)
    return done, asked.trials(plans, done["manifest"], done.get("initial-weights"))


def _challenge(asked: Sweep, best: Result, device: Device) -> dict[str, Any]:
    """Let retrain judge the best model, which is cached; with new data it trains its recipe."""
    found: Any = retrain(
        dataset=asked.dataset,
        recipe=asked.recipe,
        overrides=asked.overrides(best.trial.values, best.trial.recipe.precision),
        seed=best.trial.seed,
        device=device,
        image_size=asked.image_size,
    )
    return dict(found)
