"""Train: from a table to a model."""

from dataclasses import asdict
from time import perf_counter
from typing import Any

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun
from prefect.logging import get_run_logger

from classifier import datasets
from classifier.errors import BadInput
from classifier.recipe import Recipe
from tasks import artifacts, caching, progress
from tasks.artifacts import Artifact
from tasks.caching import BY_CONTENT, step


async def worth_another_try(_: Task[..., Any], __: TaskRun, state: State[Any]) -> bool:
    """Whether a training failed by what may pass, and not by its data or its recipe."""
    return not isinstance(await state.aresult(raise_on_failure=False), BadInput)


@step(
    name="train",
    cache_policy=BY_CONTENT - "device",
    retries=1,
    retry_delay_seconds=1,
    retry_condition_fn=worth_another_try,
)
def train(table: Artifact, dataset: str, recipe: Recipe, seed: int, device: str) -> Artifact:
    """A model: weights, recipe and history.

    Args:
        table: what `normalise` gave.
        dataset: its name.
        recipe: how to train.
        seed: of the initial weights and of the order of the rows.
        device: auto, cpu, cuda or mps.
    """
    from classifier import checkpoints, devices, models, networks, rows, state, tables, training

    log = get_run_logger()
    place = devices.pick(device)
    about = tables.describe(table.path)
    own = datasets.load(dataset).networks
    network = networks.build(recipe.network, about.shape, len(about.classes), own, seed)
    key = caching.current_key()
    checkpoint = checkpoints.Checkpoint(path=artifacts.checkpoint(key), key=key)
    told = max(1, recipe.epochs // 10)

    with (
        artifacts.draft("models", dataset=dataset) as new,
        progress.bar("train") as in_terminal,
        progress.artifact(f"Epochs of {dataset}") as in_ui,
        devices.enough_memory(place),
    ):

        def on_progress(epochs: float) -> None:
            in_terminal(epochs, recipe.epochs)
            in_ui(epochs, recipe.epochs)

        def on_epoch(history: state.History) -> None:
            if history.epochs % told == 0:
                log.info("epoch %3d: mean loss so far %.5f", history.epochs, history.mean_loss)

        seen = rows.rows_of(
            table.path,
            "train",
            budget=recipe.memory_budget << 20,
            put=training.put(network, recipe, place),
        )
        started = perf_counter()
        history = training.fit(
            network,
            seen,
            recipe,
            seed=seed,
            device=place,
            on_epoch=on_epoch,
            on_progress=on_progress,
            checkpoint=checkpoint,
        )
        new.made |= {"seconds": perf_counter() - started, "device": str(place)}
        models.save(
            new.folder, network, recipe=recipe, seed=seed, table=about, history=asdict(history)
        )
    checkpoint.remove()
    return new.finished()
