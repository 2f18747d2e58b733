"""The train flow: from public data to a measured and pictured classifier."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Failed

from artifacts.artifact import Artifact
from artifacts.forecast import forecasting
from artifacts.step import refreshing
from flows import steps
from flows.names import DEFAULT, DatasetName, RecipeName
from flows.parameters import (
    Device,
    Devices,
    ImageSize,
    Limit,
    Plan,
    RecipeFields,
    Seed,
    flow_run_name,
    resolve,
    tell,
)
from reporting.report import open_run
from tasks.errors import BrokenData
from tasks.new_data import NewData, new_data
from tasks.plot import Grid
from tasks.report import report, summarise

TIME_LIMIT = 6 * 3600  # seconds: a run that hangs does not block the schedule for ever


@flow(name="train", flow_run_name=flow_run_name, timeout_seconds=TIME_LIMIT)
def train(
    *,
    dataset: DatasetName = "mnist",
    recipe: RecipeName = DEFAULT,
    overrides: RecipeFields = None,
    seed: Seed = 0,
    device: Device = "auto",
    devices: Devices = 1,
    grid: Grid = Grid(),  # noqa: B008 - frozen
    limit: Limit = None,
    only_base: bool = False,
    image_size: ImageSize = None,
    refresh: bool = False,
    dry_run: bool = False,
) -> dict[str, Any] | State:
    """Download, normalise, train, evaluate, plot. Each step runs only if something changed.

    Args:
        dataset: Dataset to train on
        recipe: How to train; default is the recipe that the dataset declares
        overrides: Recipe fields to use instead of the recipe's own
        seed: Seed of the initial weights and of the order of the rows
        device: Where to train; auto takes a GPU if there is one
        devices: How many of them train one model together; on a CPU, how many processes
        grid: The grids of sample images
        limit: Only the first published rows of train and test, for a quick trial
        only_base: Train on the published rows alone, without what was ingested
        image_size: Size of the images, as 64x64 or 64x64x3, for a dataset that declares none
        refresh: Run every step, cached or not
        dry_run: Only say which steps would run, and why
    """
    plan = check(
        dataset=dataset,
        recipe=recipe,
        overrides=overrides,
        device=device,
        devices=devices,
        limit=limit,
        image_size=image_size,
    )
    try:
        data = new_data(dataset, only_base=bool(only_base or limit), shape=plan.image_size)
    except BrokenData as error:
        if dry_run:
            raise
        return Failed(name="Broken", message=str(error), data=error)
    if dry_run:
        with forecasting(refresh=refresh) as forecast:
            _steps(plan, seed, grid, limit, data)
        return tell(forecast.row())
    with open_run() as run, refreshing(refresh=refresh):
        done = _steps(plan, seed, grid, limit, data)
        return report(run, summarise(run, plan.about | {"seed": seed}, done), done)


def check(
    *,
    dataset: str,
    recipe: RecipeName,
    overrides: RecipeFields,
    device: Device,
    devices: int,
    limit: int | None,
    image_size: ImageSize,
    **_: Any,
) -> Plan:
    """Check the options, and return what is to be done; raises as `resolve`."""
    return resolve(
        dataset, recipe, overrides, device, limit=limit, image_size=image_size, device_count=devices
    )


def _steps(
    plan: Plan, seed: int, grid: Grid, limit: int | None, data: NewData
) -> dict[str, Artifact]:
    done = steps.published(plan, limit)
    done |= steps.combined(plan, done["normalise"], data)
    done |= steps.pretrained(plan)
    weights = done.get("initial-weights")
    return done | steps.fitted(
        plan, seed, grid, done["manifest"], weights=weights, has_recent=data.has_recent
    )
