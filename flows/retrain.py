"""The retrain flow: new data in, a model from it, and into use if it may replace the champion."""

from typing import Annotated, Any, Literal

from cyclopts import Parameter
from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from prefect.transactions import transaction
from pydantic import Field

from artifacts.artifact import Artifact
from classifier import datasets
from classifier.errors import BudgetSpentError
from flows import steps
from flows.ingest import look
from flows.names import DatasetName, RecipeName
from flows.parameters import Device, ImageSize, Plan, RecipeFields, Seed, flow_run_name, resolve
from registry import models
from registry.models import Models
from reporting.report import Run, open_run
from tasks import champion, pace
from tasks.check import Drift
from tasks.errors import BrokenData
from tasks.export import export
from tasks.flips import plot_flips
from tasks.incoming import take_in_incoming
from tasks.ingest import check_batches
from tasks.judge import Bars, Rule, Training, bars, check_rule, judge, known_answer
from tasks.new_data import new_data
from tasks.pace import Pace
from tasks.parts import parts_of
from tasks.plot import Grid
from tasks.promote import promote
from tasks.report import report, summarise
from tasks.terms import Term, check_parameters, latency
from tasks.test_sets import OFFICIAL, RECENT, TestSet
from tasks.train import train

TIME_LIMIT = 6 * 3600  # seconds

Start = Annotated[Literal["scratch", "champion"], Parameter(name="--from")]
#: On the command line each field is an option of its own.
Limits = Annotated[Pace, Parameter(name="*", group="Pace")]
Threshold = Annotated[float | None, Field(ge=0, le=1)]


@flow(name="retrain", flow_run_name=flow_run_name, timeout_seconds=TIME_LIMIT)
def retrain(
    *,
    dataset: DatasetName = "mnist",
    recipe: RecipeName = None,
    overrides: RecipeFields = None,
    seed: Seed = 0,
    device: Device = "auto",
    start: Start = "scratch",
    rule: Rule = "auto",
    threshold: Threshold = None,
    limits: Limits = Pace(),  # noqa: B008 - frozen
    drift: Drift = Drift(),  # noqa: B008 - frozen
    grid: Grid = Grid(),  # noqa: B008 - frozen
    image_size: ImageSize = None,
) -> dict[str, Any] | State:
    """Take in new data, train, and replace the champion if the new model passes the gate.

    Args:
        dataset: Dataset to train on
        recipe: How to train; the dataset's default recipe unless given
        overrides: Recipe fields to use instead of the recipe's own
        seed: Seed of the initial weights and of the order of the rows
        device: Where to train; auto takes a GPU if there is one
        start: First weights: random ones, or the champion's
        rule: What a new model must show; auto decides by what changed since the champion
        threshold: Least value of the dataset's metric on each test set, with the rule threshold
        limits: When a training is due, and what it may cost; 0 sets no limit
        drift: When a batch raises an alarm
        grid: The grids of sample images
        image_size: Size of the images, as 64x64 or 64x64x3, for a dataset that declares none
    """
    check_rule(rule, threshold)
    plan = resolve(dataset, recipe, overrides, device, image_size=image_size)
    with open_run() as run:
        done = steps.published(plan)
        check_batches(dataset, done["normalise"])
        take_in_incoming(dataset, done["normalise"])
        done |= look(dataset, done["normalise"], drift, plan.device, plan.classes)
        try:
            new = new_data(dataset)
        except BrokenData as error:
            error.found = report(
                run, _about(plan, seed) | {"outcome": "broken", "state": "Broken"}, done
            )
            return Failed(name="Broken", message=str(error), data=error)
        done |= steps.combined(plan, done["normalise"], new)
        known, rows = models.current(dataset), done["manifest"]
        if known.champion is not None:
            champion.check_shape(known.champion.model, rows, dataset)
        initial = _initial(dataset, known) if start == "champion" else None
        done |= steps.pretrained(plan)
        training = _training(plan, seed, rows, initial, done.get("initial-weights"))
        if answer := known_answer(known, training, rule, threshold):
            why, summary = answer
            return _unchanged(run, known, why, summary, done)
        check_parameters(dataset, plan.recipe, rows)
        if wait := pace.waiting(limits, training, rows):
            return _unchanged(run, known, wait.why, _about(plan, seed), done, wait.state)
        try:
            done |= _fitted(run, plan, seed, grid, training, done, initial, limits)
        except BudgetSpentError as error:
            return _unchanged(run, known, str(error), _about(plan, seed), done, pace.SPENT)
        summary = summarise(run, _about(plan, seed), done)
        return _decide(run, plan, grid, training, known, summary, done, rule, threshold)


def _about(plan: Plan, seed: int) -> dict[str, Any]:
    return plan.about | {"seed": seed}


def _initial(dataset: str, known: Models) -> Artifact:
    """Return the champion, from whose weights a training starts."""
    if known.champion is None:
        raise champion.no_champion(dataset)
    if not champion.clean(dataset, known.champion):
        raise champion.rests_on_retracted(dataset)
    return champion.intact(known.champion.model)


def _training(
    plan: Plan, seed: int, rows: Artifact, initial: Artifact | None, weights: Artifact | None
) -> Training:
    components = train.key_components(
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
    return Training.of(plan.dataset, components)


def _fitted(
    run: Run,
    plan: Plan,
    seed: int,
    grid: Grid,
    training: Training,
    done: steps.Results,
    initial: Artifact | None,
    limits: Pace,
) -> steps.Results:
    """Train within the limits, and count what it costs, also where it fails."""
    rows = done["manifest"]
    with pace.counting(training, rows, str(run.flow_run_id)) as counted:
        made = steps.fitted(
            plan,
            seed,
            grid,
            rows,
            initial,
            done.get("initial-weights"),
            max_seconds=pace.max_seconds(limits, plan.dataset),
        )
        counted["train"] = made["train"]
    return made


def _unchanged(
    run: Run,
    known: Models,
    why: str,
    summary: dict[str, Any],
    done: steps.Results,
    state: str = "Unchanged",
) -> State:
    """End the run without a new model: what a training gives is known, or none is due."""
    live = known.champion.model if known.champion else None
    about = summary | {
        "train_seconds": None,
        "outcome": "unchanged",
        "state": state,
        "champion": live,
        "challenger": None,
        "verdict": None,
        "why": [why],
    }
    found = report(run, about, done)
    return Completed(name=state, message=why, data=found)


def _decide(
    run: Run,
    plan: Plan,
    grid: Grid,
    training: Training,
    known: Models,
    summary: dict[str, Any],
    done: steps.Results,
    rule: Rule,
    threshold: float | None,
) -> State:
    """Judge the model, and put it in use if it passes."""
    rows, model = done["manifest"], done["train"]
    before = known.champion
    if before and before.model == model.name:
        return _unchanged(run, known, "The training gave the champion again.", summary, done)
    if why := _refusal(plan.dataset, model, rows):
        return _end(run, "refused", known, model, None, [why], summary, done)
    sets = _test_sets(done)
    against = bars(known, training, model, rows, sets)
    for name, promotion in against.items():
        done |= steps.scored(plan, champion.intact(promotion.model), rows, name)
    if "evaluate-champion" in done:
        both = done["evaluate"], done["evaluate-champion"]
        done["plot-flips"] = plot_flips(rows, parts_of(rows), *both, grid, plan.classes)
    sets = _test_sets(done, against)
    terms = _terms(plan, against, model, done)
    names = tuple(model.read_json("model.json")["classes"])
    verdict = judge(training, model, rows, sets, against, summary, rule, threshold, names, terms)
    if not verdict["promote"]:
        return _end(run, "refused", known, model, verdict, verdict["why"], summary, done)
    done["export"] = export(model, plan.dataset)
    with transaction():
        promote(
            training,
            model,
            done["export"],
            rows,
            sets,
            done["plot"],
            summary,
            verdict["why"],
            before.number if before else None,
            run.id,
        )
        return _end(run, "promoted", known, model, verdict, verdict["why"], summary, done)


def _terms(plan: Plan, against: Bars, model: Artifact, done: steps.Results) -> list[Term]:
    """Return what the dataset asks of the challenger beside its scores."""
    if against.champion is None or datasets.load(plan.dataset).max_latency_ratio is None:
        return []
    done["export"] = export(model, plan.dataset)
    before = champion.intact(str(against.champion.about["export"]))
    return [latency(plan.dataset, done["export"], before)]


def _refusal(dataset: str, model: Artifact, rows: Artifact) -> str | None:
    """Say why no verdict is asked for, as of now: people may have decided during the training."""
    if champion.is_retracted(dataset, rows):
        return "A batch on which it was trained was retracted meanwhile."
    return models.refusal(models.current(dataset), model.name)


def _test_sets(done: steps.Results, against: Bars | None = None) -> list[TestSet]:
    """Return the test sets with the evaluations that there are."""
    has = [name for name, _ in against.items()] if against else []
    found = []
    for name, suffix in ((OFFICIAL, ""), (RECENT, "-recent")):
        if f"evaluate{suffix}" in done:
            found.append(
                TestSet(
                    name=name,
                    challenger=done[f"evaluate{suffix}"],
                    champion=done[f"evaluate-champion{suffix}"] if "champion" in has else None,
                    anchor=done[f"evaluate-anchor{suffix}"] if "anchor" in has else None,
                )
            )
    return found


def _end(
    run: Run,
    outcome: Literal["promoted", "refused"],
    known: Models,
    model: Artifact,
    verdict: dict[str, Any] | None,
    why: list[str],
    summary: dict[str, Any],
    done: steps.Results,
) -> State:
    before = known.champion.model if known.champion else None
    about = summary | {
        "outcome": outcome,
        "state": outcome.capitalize(),
        "champion": model.name if outcome == "promoted" else before,
        "challenger": model.name,
        "verdict": verdict,
        "why": why,
    }
    found = report(run, about, done)
    return Completed(name=outcome.capitalize(), message=" ".join(why), data=found)
