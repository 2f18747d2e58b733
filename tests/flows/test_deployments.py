"""prefect.yaml: what a deployment of it leaves on a server; tests/flows/test_ui.py runs them."""

import time
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from tests.conftest import PROJECT, CommandLine


@pytest.fixture(scope="module")
def deployed(server):
    """The deployments by name, after they were deployed twice."""
    from prefect.client.orchestration import get_client

    for _ in range(2):
        done = CommandLine(PROJECT, server)("deploy")
        assert done.returncode == 0, done.stderr
    with get_client(sync_client=True) as client:
        found = client.read_deployments()
    return {f"{each.entrypoint.partition(':')[2]}/{each.name}": each for each in found}


@pytest.fixture(scope="module")
def form(deployed):
    """What the parameters of the form are, as JSON schema."""
    return deployed["train/on-demand"].parameter_openapi_schema


def test_there_are_five_and_all_are_for_the_local_work_pool(deployed):
    assert {name: each.entrypoint for name, each in deployed.items()} == {
        "train/on-demand": "flows/train.py:train",
        "sweep/on-demand": "flows/sweep.py:sweep",
        "retrain/weekly": "flows/retrain.py:retrain",
        "retrain/on-new-data": "flows/retrain.py:retrain",
        "ingest/incoming": "flows/ingest.py:ingest",
    }
    for deployment in deployed.values():
        assert deployment.work_pool_name == "local"
        assert deployment.description
        assert deployment.enforce_parameter_schema


def test_deploying_twice_leaves_one_active_schedule(deployed):
    (weekly,) = deployed["retrain/weekly"].schedules
    assert weekly.slug == "weekly"
    assert weekly.active
    assert weekly.schedule.cron == "0 5 * * 1"
    assert weekly.schedule.timezone == "UTC"
    assert deployed["retrain/weekly"].parameters["recipe"] == "cnn"
    assert deployed["train/on-demand"].schedules == []


def test_trainings_share_a_queue_with_room_for_one_and_no_lease_ends_a_run(deployed):
    queues = {name: found.work_queue_name for name, found in deployed.items()}
    assert queues == {
        "train/on-demand": "training",
        "sweep/on-demand": "training",
        "retrain/weekly": "training",
        "retrain/on-new-data": "training",
        "ingest/incoming": "default",
    }
    assert {found.global_concurrency_limit for found in deployed.values()} == {None}


@pytest.mark.parametrize(
    "name", ["train/on-demand", "ingest/incoming", "retrain/weekly", "retrain/on-new-data"]
)
def test_every_parameter_and_every_field_of_a_group_is_described(deployed, name):
    form = deployed[name].parameter_openapi_schema
    groups = [form, *form["definitions"].values()]
    undescribed = [
        name
        for group in groups
        for name, field in group["properties"].items()
        if not field.get("description")
    ]
    assert undescribed == []


RETRAIN = ("retrain/weekly", "retrain/on-new-data")


@pytest.mark.parametrize("name", ["train/on-demand", "ingest/incoming", *RETRAIN])
def test_dataset_recipe_and_device_are_selects(deployed, name):
    parameters = deployed[name].parameter_openapi_schema["properties"]
    assert set(parameters["dataset"]["enum"]) >= {"mnist", "fashion-mnist", "folder"}
    assert set(parameters["device"]["enum"]) == {"auto", "cpu", "cuda", "mps"}
    if name != "ingest/incoming":
        assert set(parameters["recipe"]["enum"]) >= {"default", "post", "mlp", "cnn"}
    for select in {"dataset", "device", "recipe"} & set(parameters):
        assert parameters[select]["type"] == "string"  # else the form asks for a type first


def test_the_overrides_are_the_recipe_fields_with_their_limits_and_may_stay_empty(form):
    from classifier.training.recipe import Recipe

    overrides = form["definitions"]["Overrides"]
    assert list(overrides["properties"]) == [item.name for item in fields(Recipe)]
    assert overrides.get("required", []) == []
    kinds = {"epochs": {"type": "integer", "minimum": 1, "maximum": 100_000}}
    kinds["optimiser"] = {"type": "string", "enum": ["sgd", "adam", "adamw"]}
    for name, kind in kinds.items():
        shown = overrides["properties"][name]
        assert {key: shown[key] for key in shown if key not in {"title", "description"}} == kind
    assert form["properties"]["seed"]["minimum"] == 0
    limit, _or_null = form["properties"]["limit"]["anyOf"]
    assert limit["minimum"] == 1


@pytest.mark.parametrize("name", ["train/on-demand", "ingest/incoming", *RETRAIN])
def test_every_number_of_the_form_has_a_least_value(deployed, name):
    form = deployed[name].parameter_openapi_schema
    fields_ = [
        (name, kind)
        for group in (form, *form["definitions"].values())
        for name, field in group["properties"].items()
        for kind in field.get("anyOf", [field])
    ]
    numbers = [(name, kind) for name, kind in fields_ if kind.get("type") in {"integer", "number"}]
    assert numbers
    limits = {"minimum", "exclusiveMinimum"}
    assert [name for name, kind in numbers if limits.isdisjoint(kind)] == []


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("train/on-demand", {"dataset": "nope"}),
        ("train/on-demand", {"recipe": "nope"}),
        ("train/on-demand", {"seed": -1}),
        ("train/on-demand", {"overrides": {"epochs": 0}}),
        ("train/on-demand", {"overrides": {"epoch": 1}}),
        ("train/on-demand", {"grid": {"rows": 21}}),
        ("train/on-demand", {"image_size": "large"}),
        ("ingest/incoming", {"device": "tpu"}),
        ("ingest/incoming", {"drift": {"alarms_a_year": 0}}),
        ("retrain/weekly", {"threshold": 1.5}),
        ("retrain/weekly", {"rule": "none"}),
        ("retrain/on-new-data", {"limits": {"min_new_rows": -1}}),
    ],
    ids=str,
)
def test_a_run_with_bad_parameters_is_not_even_created(deployed, name, parameters):
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError

    with (
        get_client(sync_client=True) as client,
        pytest.raises(PrefectHTTPStatusError, match="Validation failed"),
    ):
        client.create_flow_run_from_deployment(deployed[name].id, parameters=parameters)


def test_forty_batches_ask_for_one_run_that_starts_after_all_of_them(deployed):
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId

    from tasks.announce import batch_came_in

    wanted = DeploymentFilter(id=DeploymentFilterId(any_=[deployed["retrain/on-new-data"].id]))

    def runs():
        with get_client(sync_client=True) as client:
            return client.read_flow_runs(deployment_filter=wanted)

    def batch(name):
        return SimpleNamespace(name=name, about={"train": 1})

    start = datetime.now(UTC)
    batch_came_in("fashion-mnist", batch("another subject"))
    for number in range(40):
        batch_came_in("mnist", batch(f"batch-{number}"))
    deadline = time.monotonic() + 60
    while not runs() and time.monotonic() < deadline:
        time.sleep(0.5)
    time.sleep(5)  # in which others would come
    (run,) = runs()
    window = timedelta(seconds=600)
    assert run.expected_start_time - start > window
    assert run.expected_start_time - start < 2 * window
    assert (run.parameters["dataset"], run.parameters["recipe"]) == ("mnist", "cnn")
