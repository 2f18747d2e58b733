"""The steps that flows have in common, each with the results that it needs."""

from typing import Any

from artifacts.artifact import Artifact
from flows.parameters import Plan
from tasks.download import asked_at, download, local_digest
from tasks.evaluate import evaluate, evaluate_recent
from tasks.initial_weights import initial_weights
from tasks.manifest import manifest
from tasks.new_data import NewData
from tasks.normalise import normalise
from tasks.parts import has_rows, parts_of
from tasks.plot import Grid, plot
from tasks.train import train

Results = dict[str, Artifact]


def published(plan: Plan, limit: int | None = None) -> Results:
    """Download and normalise the published rows."""
    raw = download(plan.dataset, local_digest(), asked_at(plan.dataset), plan.image_size)
    return {"download": raw, "normalise": normalise(raw, plan.dataset, limit, plan.classes)}


def combined(plan: Plan, base: Artifact, new: NewData) -> Results:
    """Combine the published rows and what was ingested."""
    rows = manifest(base, new.batches, new.patches, new.erased, plan.dataset, plan.classes)
    return {"manifest": rows}


def pretrained(plan: Plan) -> Results:
    """Fetch the initial weights that the dataset declares for the network of the recipe, if any."""
    weights = plan.initial_weights
    if weights is None:
        return {}
    return {"initial-weights": initial_weights(plan.dataset, weights.sha256)}


def train_arguments(
    plan: Plan, seed: int, rows: Artifact, initial: Artifact | None, weights: Artifact | None
) -> tuple[Any, ...]:
    """Return the arguments of `train` that decide what it gives."""
    return (
        rows,
        parts_of(rows),
        plan.dataset,
        plan.recipe,
        seed,
        plan.device,
        plan.classes,
        initial,
        weights,
    )


def trained(
    plan: Plan,
    seed: int,
    rows: Artifact,
    initial: Artifact | None = None,
    weights: Artifact | None = None,
    *,
    max_seconds: float | None = None,
) -> Artifact:
    """Train on the rows of a manifest; arguments and errors as `fitted`."""
    asked = train_arguments(plan, seed, rows, initial, weights)
    model: Artifact = train(*asked, max_seconds, plan.device_count)
    return model


def fitted(
    plan: Plan,
    seed: int,
    grid: Grid,
    rows: Artifact,
    initial: Artifact | None = None,
    weights: Artifact | None = None,
    *,
    has_recent: bool = False,
    max_seconds: float | None = None,
) -> Results:
    """Train on the rows of a manifest, evaluate and plot.

    Args:
        plan: of the run.
        seed: of the training.
        grid: of the pictures.
        rows: the manifest.
        initial: the model whose weights are the first ones.
        weights: what `pretrained` returned; they are the first ones where `initial` is None.
        has_recent: whether there are recent test rows, where the manifest is not known yet.
        max_seconds: after which the training stops.

    Raises:
        BudgetSpentError: the training stopped after `max_seconds`.
    """
    model = trained(plan, seed, rows, initial, weights, max_seconds=max_seconds)
    parts = parts_of(rows)
    scores = scored(plan, model, rows, has_recent=has_recent)
    pictures = plot(rows, parts, model, scores["evaluate"], grid, plan.classes)
    return {"train": model, "evaluate": scores.pop("evaluate"), "plot": pictures, **scores}


def scored(
    plan: Plan, model: Artifact, rows: Artifact, name: str = "", *, has_recent: bool = False
) -> Results:
    """Score a model on the official and, where there is one, the recent test set.

    Args:
        plan: of the run.
        model: to be scored.
        rows: the manifest.
        name: of the model in the report; the one that was trained needs none.
        has_recent: as `fitted`.
    """
    parts, label = parts_of(rows), f"-{name}" if name else ""
    done = {f"evaluate{label}": evaluate(model, rows, parts, plan.dataset, plan.device)}
    if has_rows(rows, "recent", unknown=has_recent):
        recent = evaluate_recent(model, rows, parts, plan.dataset, plan.device)
        done[f"evaluate{label}-recent"] = recent
    return done
