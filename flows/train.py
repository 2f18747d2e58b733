"""The train flow: from public data to a measured and pictured classifier."""

from typing import Any

from prefect import flow

from artifacts.artifact import Artifact
from artifacts.forecast import forecasting
from artifacts.step import refreshing
from flows.parameters import (
    DatasetName,
    Device,
    Limit,
    Plan,
    RecipeFields,
    RecipeName,
    Seed,
    flow_run_name,
    resolve,
)
from reporting.report import open_run
from tasks.download import download, local_digest
from tasks.evaluate import evaluate
from tasks.normalise import normalise
from tasks.plot import Grid, plot
from tasks.report import report
from tasks.train import train as train_model

TIME_LIMIT = 6 * 3600  # seconds: a run that hangs does not block the schedule for ever


@flow(name="train", flow_run_name=flow_run_name, timeout_seconds=TIME_LIMIT)
def train(
    *,
    dataset: DatasetName = "mnist",
    recipe: RecipeName = None,
    overrides: RecipeFields = None,
    seed: Seed = 0,
    device: Device = "auto",
    grid: Grid = Grid(),  # noqa: B008 - frozen
    limit: Limit = None,
    refresh: bool = False,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Download, normalise, train, evaluate, plot. Each step runs only if something changed.

    Args:
        dataset: Dataset to train on
        recipe: How to train; the dataset's default recipe unless given
        overrides: Recipe fields to use instead of the recipe's own
        seed: Seed of the initial weights and of the order of the rows
        device: Where to train; auto takes a GPU if there is one
        grid: The grids of sample images
        limit: Only the first rows of the train and test tables, for a quick trial
        refresh: Run every step, cached or not
        dry_run: Only say which steps would run, and why
    """
    plan = resolve(dataset, recipe, overrides, device, limit=limit)
    if dry_run:
        with forecasting(refresh=refresh) as forecast:
            _steps(plan, seed, grid, limit)
        return forecast.row()
    with open_run() as run, refreshing(refresh=refresh):
        return report(run, plan.about | {"seed": seed}, _steps(plan, seed, grid, limit))


def _steps(plan: Plan, seed: int, grid: Grid, limit: int | None) -> dict[str, Artifact]:
    raw = download(plan.dataset, local_digest())
    table = normalise(raw, plan.dataset, limit)
    model = train_model(table, plan.dataset, plan.recipe, seed, plan.device)
    evaluation = evaluate(model, table, plan.dataset, plan.device)
    pictures = plot(table, model, evaluation, grid)
    return {
        "download": raw,
        "normalise": table,
        "train": model,
        "evaluate": evaluation,
        "plot": pictures,
    }
