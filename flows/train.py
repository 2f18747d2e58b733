"""The train flow: from public data to a measured and pictured classifier."""

from typing import Any

from prefect import flow

from flows.parameters import DatasetName, Device, Limit, RecipeFields, RecipeName, Seed, settle
from tasks import report, steps
from tasks.download import download, local_content
from tasks.evaluate import evaluate
from tasks.normalise import normalise
from tasks.plot import Grid, plot
from tasks.train import train as train_model


@flow(name="train", flow_run_name=steps.flow_run_name)
def train(
    *,
    dataset: DatasetName = "mnist",
    recipe: RecipeName = "post",
    overrides: RecipeFields = None,
    seed: Seed = 0,
    device: Device = "auto",
    grid: Grid = Grid(),  # noqa: B008 - frozen
    limit: Limit = None,
    refresh: bool = False,  # noqa: ARG001 - the cache policy reads it
) -> dict[str, Any]:
    """Download, normalise, train, evaluate, plot. Every step is kept, and reused while it holds.

    Args:
        dataset: What to learn
        recipe: How to train
        overrides: Recipe fields to use instead of the recipe's own
        seed: Of the initial weights and of the order of the rows
        device: Where to train; auto takes a GPU if there is one
        grid: The grids of sample images
        limit: A dev run: only the first rows of the train and test tables
        refresh: Run every step, also those that are cached
    """
    chosen = settle(recipe, overrides, dataset)
    with report.opened() as run:
        raw = download(dataset, local_content())
        table = normalise(raw, dataset, limit)
        model = train_model(table, dataset, chosen, seed, device)
        evaluation = evaluate(model, table, dataset, device)
        pictures = plot(table, model, evaluation, grid)
        return run.write(
            dataset=dataset,
            recipe=recipe,
            seed=seed,
            model=model,
            evaluation=evaluation,
            pictures=pictures,
        )
