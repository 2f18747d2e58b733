"""PostgreSQL as the database of the Prefect server."""

import json

import pytest

from tests.operation.serving import serving

pytestmark = pytest.mark.slow

DATABASE = "of_prefect"


@pytest.fixture(scope="module")
def ui(postgres, tmp_path_factory):
    address = postgres.create(DATABASE)
    folder = tmp_path_factory.mktemp("postgres")
    with serving(folder, PREFECT_SERVER_DATABASE_CONNECTION_URL=address) as ui:
        yield ui


@pytest.fixture(scope="module")
def result(ui):
    """What a training from another terminal says."""
    done = ui.flows("train", "--dataset", "folder", "--epochs", "1", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_run_and_its_artifacts_are_in_that_database(postgres, result):
    runs = dict(postgres.query(DATABASE, "SELECT id::text, state_type::text FROM flow_run"))
    (run_id,) = (each for each in runs if each.startswith(result["run_id"].split("-")[-1]))
    assert runs[run_id] == "COMPLETED"
    kinds = "SELECT type FROM artifact WHERE flow_run_id::text = '{}'"
    assert {kind for (kind,) in postgres.query(DATABASE, kinds.format(run_id))} >= {"markdown"}
    steps = "SELECT name FROM task_run WHERE flow_run_id::text = '{}'"
    assert len(postgres.query(DATABASE, steps.format(run_id))) >= len(result["steps"])


def test_the_deployments_are_in_that_database(postgres, ui):
    names = {name for (name,) in postgres.query(DATABASE, "SELECT name FROM deployment")}
    assert {"on-demand", "incoming", "weekly", "on-new-data"} <= names


def test_the_server_makes_no_sqlite_file(ui, result):
    assert list(ui.home.rglob("*.db*")) == []
