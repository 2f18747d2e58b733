"""Train: from a table to a model."""

import json
from dataclasses import asdict
from pathlib import Path
from tempfile import gettempdir
from time import perf_counter
from typing import TYPE_CHECKING, Any

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun
from prefect.logging import get_run_logger

from artifacts.artifact import Artifact
from artifacts.files import explain_write_errors
from artifacts.step import code_in_key, draft, scratch
from classifier import datasets
from classifier.errors import BudgetSpentError
from classifier.training.recipe import Recipe
from reporting import progress
from tasks.errors import INPUT_ERRORS
from tasks.parts import open_split
from tasks.step import DATASET, step

if TYPE_CHECKING:
    from classifier.training.state import History

LOSS_TOLERANCE = 0.1


async def may_pass(_: Task[..., Any], __: TaskRun, state: State[Any]) -> bool:
    """Return whether a training failed by what may pass, and not by its data or its recipe."""
    error = await state.aresult(raise_on_failure=False)
    if isinstance(error, INPUT_ERRORS):
        return False
    get_run_logger().warning("The training is tried once more: %s", error)
    return True


def alike(old: Path, new: Path) -> str | None:
    """Compare two trainings whose bytes differ, by the loss of their last epoch: within a tenth."""
    a, b = (json.loads((each / "history.json").read_text())["loss"][-1] for each in (old, new))
    return (
        None if abs(a - b) <= LOSS_TOLERANCE * max(a, b) else f"its last loss is {b:g}, not {a:g}"
    )


@step(
    kind="models",
    code=DATASET,
    alike=alike,
    ignored=("device", "classes", "max_seconds", "device_count"),
    unavailable=(BudgetSpentError,),
    retries=1,
    retry_delay_seconds=1,
    retry_condition_fn=may_pass,
)
def train(
    manifest: Artifact,
    parts: list[Artifact],  # noqa: ARG001 - inputs, which lineage follows
    dataset: str,
    recipe: Recipe,
    seed: int,
    device: str,
    classes: tuple[str, ...] | None,
    initial: Artifact | None = None,
    pretrained: Artifact | None = None,
    max_seconds: float | None = None,
    device_count: int = 1,
) -> Artifact:
    """Write a model: weights, recipe and history.

    Args:
        manifest: which rows there are.
        parts: that hold them.
        dataset: its name.
        recipe: how to train; its precision is resolved.
        seed: of the initial weights and of the order of the rows.
        device: cpu, cuda or mps.
        classes: their names, for people who read the model; None for those in the table.
        initial: a model whose weights are the first ones.
        pretrained: else those that `initial_weights` returned; None for random ones.
        max_seconds: after which the training stops, to go on in the next run; None for no limit.
        device_count: on how many devices of that kind, with a process each.

    Raises:
        ArgumentError: there are fewer devices.
        InputError: the weights do not fit the network, or the loss is no longer finite.
        BudgetSpentError: it stopped after `max_seconds`.
        RankError: one of several processes ended early.
    """
    from classifier import devices, models
    from classifier.training import distributed, loop, networks, precision, rows
    from classifier.training.checkpoints import Checkpoint

    log = get_run_logger()
    place = devices.resolve_device(device)
    devices.check_count(device_count, device)
    if warning := precision.slow_bf16_warning(recipe.precision, place):
        log.warning("%s", warning)
    about, table = open_split(manifest, "train")
    subject = datasets.load(dataset)
    own = subject.networks
    network = networks.build(recipe.network, about.shape, about.classes, own, seed)
    if initial is not None:
        models.start_from(network, initial.path)
    elif pretrained is not None:
        for sentence in models.start_from_pretrained(network, pretrained.path):
            log.info("%s", sentence)
    epochs = loop.planned_epochs(recipe, len(table))
    log_every = max(1, epochs // 10)
    key, file = scratch()

    with (
        draft() as new,
        progress.bar("train") as in_terminal,
        progress.ui_progress(f"Epochs of {dataset}") as in_ui,
        devices.explain_out_of_memory(place),
    ):

        def on_progress(done: float) -> None:
            in_terminal(done, epochs)
            in_ui(done, epochs)

        def on_epoch(history: "History") -> None:
            if history.epochs % log_every == 0:
                log.info("epoch %3d: mean loss so far %.5f", history.epochs, history.mean_loss)

        checkpoint, resumes = Checkpoint(path=file, key=key), file.exists()
        if device_count == 1:
            source = rows.open_rows(
                table,
                budget=recipe.memory_budget << 20,
                to_device=loop.to_device(network, recipe, place),
            )
            started = perf_counter()
            history = loop.fit(
                network,
                source,
                recipe,
                seed=seed,
                device=place,
                on_epoch=on_epoch,
                on_progress=on_progress,
                checkpoint=checkpoint,
                captures=recipe.network not in own or recipe.network in subject.capturable,
                max_seconds=max_seconds,
            )
        else:
            started = perf_counter()
            with explain_write_errors(Path(gettempdir()), "another folder with TMPDIR"):
                history = distributed.fit(
                    network,
                    table,
                    recipe,
                    size=device_count,
                    dataset=dataset,
                    seed=seed,
                    device=place,
                    on_epoch=on_epoch,
                    on_progress=on_progress,
                    checkpoint=checkpoint,
                    max_seconds=max_seconds,
                )
        new.metadata |= {
            "train_seconds": perf_counter() - started,
            "resumed": resumes,  # then these are the seconds since
            "device": str(place) if device_count == 1 else f"{device_count} x {place}",
            # A GPU adds up in another order each time, and several processes in another than one.
            "exact": place.type == "cpu" and device_count == 1,
        }
        models.save(
            new.folder,
            network,
            recipe=recipe,
            seed=seed,
            dataset=dataset,
            shape=about.shape,
            classes=classes or table.description.classes,
            code=_reading_code(dataset),
            history=asdict(history),
        )
    return new.artifact


def _reading_code(dataset: str) -> dict[str, str]:
    """Return the fingerprints of the networks, and of the dataset's own with its `prepare`."""
    own = datasets.declared()[dataset][1].relative_to(datasets.PROJECT).as_posix()
    names = {"classifier/training/networks.py", own}
    return {name: digest for name, digest in code_in_key().items() if name in names}
