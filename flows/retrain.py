"""The retrain flow: new data in, a model from it, and into use if it may replace the champion."""

from typing import Annotated, Any, Literal

from cyclopts import Parameter
from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import Field

from classifier.errors import BudgetSpentError
from flows import steps
from flows.ingest import look
from flows.names import DEFAULT, DatasetName, RecipeName
from flows.parameters import (
    Device,
    Devices,
    ImageSize,
    Plan,
    RecipeFields,
    Seed,
    flow_run_name,
    resolve,
)
from flows.retraining import Retraining
from registry import log
from reporting.report import open_run
from tasks import announce, pace
from tasks.check import Drift
from tasks.errors import BrokenData
from tasks.incoming import take_in_incoming
from tasks.ingest import check_batches
from tasks.judge import Rule, check_rule, known_answer
from tasks.new_data import new_data
from tasks.pace import Pace
from tasks.plot import Grid
from tasks.report import report
from tasks.superseded import STATE, summary, superseded
from tasks.terms import check_parameters

TIME_LIMIT = 6 * 3600  # seconds

Start = Annotated[Literal["scratch", "champion"], Parameter(name="--from")]
#: On the command line each field is an option of its own.
Limits = Annotated[Pace, Parameter(name="*", group="Pace")]
Threshold = Annotated[float | None, Field(ge=0, le=1)]


@flow(name="retrain", flow_run_name=flow_run_name, timeout_seconds=TIME_LIMIT)
def retrain(
    *,
    dataset: DatasetName = "mnist",
    recipe: RecipeName = DEFAULT,
    overrides: RecipeFields = None,
    seed: Seed = 0,
    device: Device = "auto",
    devices: Devices = 1,
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
        recipe: How to train; default is the recipe that the dataset declares
        overrides: Recipe fields to use instead of the recipe's own
        seed: Seed of the initial weights and of the order of the rows
        device: Where to train; auto takes a GPU if there is one
        devices: How many of them train one model together; on a CPU, how many processes
        start: First weights: random ones, or the champion's
        rule: What a new model must show; auto decides by what changed since the champion
        threshold: Least value of the dataset's metric on each test set, with the rule threshold
        limits: When a training is due, and what it may cost; 0 sets no limit
        drift: When a batch raises an alarm
        grid: The grids of sample images
        image_size: Size of the images, as 64x64 or 64x64x3, for a dataset that declares none
    """
    plan = check(
        dataset=dataset,
        recipe=recipe,
        overrides=overrides,
        device=device,
        devices=devices,
        rule=rule,
        threshold=threshold,
        image_size=image_size,
    )
    from_champion = start == "champion"
    log.events(dataset)  # can the log be read? before anything is fetched
    with open_run() as run, pace.alone(dataset):
        if why := superseded():
            about = summary(plan.about | {"seed": seed}, why)
            return Completed(name=STATE, message=why, data=report(run, about, {}))
        done = steps.published(plan)
        check_batches(dataset, done["normalise"])
        take_in_incoming(dataset, done["normalise"])
        checks = look(dataset, done["normalise"], drift, plan.device, plan.classes)
        announce.looked_at(dataset, checks, run.folder, broken_too=False)
        done |= checks
        try:
            new = new_data(dataset)
        except BrokenData as error:
            about = plan.about | {"seed": seed, "outcome": "broken", "state": "Broken"}
            error.found = report(run, about, done)
            announce.stopped_at_broken_data(dataset, str(error), run.folder)
            return Failed(name="Broken", message=str(error), data=error)
        done |= steps.combined(plan, done["normalise"], new)
        done |= {} if from_champion else steps.pretrained(plan)
        this = Retraining.of(run, plan, seed, grid, done, from_champion=from_champion)
        state = _outcome(this, rule, threshold, limits)
        found: Any = state.data
        announce.retrained(found, run.folder)
        return state


def check(
    *,
    dataset: str,
    recipe: RecipeName,
    overrides: RecipeFields,
    device: Device,
    devices: int,
    rule: Rule,
    threshold: float | None,
    image_size: ImageSize,
    **_: Any,
) -> Plan:
    """Check the options, and return what is to be done; raises as `check_rule` and `resolve`."""
    check_rule(rule, threshold)
    return resolve(dataset, recipe, overrides, device, image_size=image_size, device_count=devices)


def _outcome(this: Retraining, rule: Rule, threshold: float | None, limits: Pace) -> State:
    """Train and judge, if that is due, and return the state in which the run ends."""
    if answer := known_answer(this.known, this.training, rule, threshold):
        return this.unchanged(*answer)
    check_parameters(this.plan.dataset, this.plan.recipe, this.rows)
    wait = None if this.is_trained else pace.waiting(limits, this.training, this.rows)
    if wait:
        return this.unchanged(wait.why, state=wait.state)
    try:
        this.train(pace.max_seconds(limits, this.plan.dataset))
    except BudgetSpentError as error:
        return this.unchanged(str(error), state=pace.SPENT)
    return this.decide(rule, threshold)
