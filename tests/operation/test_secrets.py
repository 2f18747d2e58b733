"""PostgreSQL as the server's database, and secrets: no file, database or output has them.

They are in the environment and in a source's URL. Everything runs on a server with a password whose
database has one too, so that both are in use.
"""

import json
import os
import subprocess
import threading

import pytest

from tests.classifier.sources.loopback import Web, status
from tests.conftest import project_copy
from tests.fixtures.postgres import ROLE, programs
from tests.operation.serving import serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # eight runs, before the first test

DATABASE = "of_secrets"
API, PROXY, SOURCE = "s3cret-of-the-api", "s3cret-of-the-proxy", "s3cret-of-the-source"
DECLARED = """
from classifier.datasets import Dataset
from classifier.sources import Mirror

DATASET = Dataset(
    name="{name}", shape=(28, 28), classes=tuple("0123456789"), sources=(Mirror("{url}"),)
)
"""
DIGITS = ("--dataset", "folder", "--recipe", "post", "--epochs", "2")


@pytest.fixture(scope="module")
def web():
    with Web() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.over.set()
        running.shutdown()


@pytest.fixture(scope="module")
def ui(postgres, tmp_path_factory):
    proxy = f"http://someone:{PROXY}@127.0.0.1:9"
    address = postgres.create(DATABASE)
    with serving(
        tmp_path_factory.mktemp("secrets"),
        PREFECT_SERVER_DATABASE_CONNECTION_URL=address,
        RETRAIN_LOCKS=address,
        PREFECT_SERVER_API_AUTH_STRING=f"admin:{API}",
        PREFECT_API_AUTH_STRING=f"admin:{API}",
        HTTP_PROXY=proxy,
        http_proxy=proxy,
        NO_PROXY="127.0.0.1",
        no_proxy="127.0.0.1",
    ) as ui:
        yield ui


@pytest.fixture(scope="module")
def copy(ui, web, tmp_path_factory):
    """The project with three datasets more: their mirrors serve, refuse, and lie behind a proxy."""
    made = project_copy(tmp_path_factory.mktemp("copy") / "project", None)
    made.environment = ui.environment | {"RETRAIN_DATA": str(ui.data)}
    del made.environment["RETRAIN_SOURCE"]
    served = web.serve_mirror()
    web.answers["/refused/train-images-idx3-ubyte.gz"] = status(403)
    urls = {"served": served, "refused": f"{web.url}/refused", "proxied": "http://a.invalid/mnist"}
    for name, url in urls.items():
        private = url.replace("://", f"://reader:{SOURCE}@")
        file = made.folder / "classifier" / "datasets" / f"{name}.py"
        file.write_text(DECLARED.format(name=name, url=private))
    return made


@pytest.fixture(scope="module")
def said(ui, copy, web, tmp_path_factory):
    """What all runs printed, and what they left on disk and in the database, as bytes by place."""
    printed, codes = {"./run ui": ui.said.encode()}, {}

    def note(name, done):
        printed[name], codes[name] = (done.stdout + done.stderr).encode(), done.returncode

    note("train", ui.flows("train", *DIGITS, "--debug"))
    note("retrain", ui.flows("retrain", *DIGITS))
    run = ("-m", "prefect", "deployment", "run", "train/on-demand", "--watch")
    note("worker", ui.python(*run, "--param", "dataset=folder", "--param", "recipe=post"))
    for name in ("served", "refused", "proxied"):
        note(name, copy("train", "--dataset", name, "--recipe", "post", "--epochs", "2"))
    note("datasets", copy("datasets"))
    expected = {"refused": 1, "proxied": 1}
    assert codes == {name: expected.get(name, 0) for name in codes}, printed
    dump = [programs() / "pg_dump", "--inserts", "-h", "127.0.0.1", "-U", ROLE, DATABASE]
    return printed | {"database": dump_of(dump, ui)} | files_below(ui.folder)


def dump_of(command, ui):
    address = ui.environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"]
    password, port = address.split(":")[2].split("@")[0], address.split(":")[-1].split("/")[0]
    environment = os.environ | {"PGPASSWORD": password, "PGPORT": port}
    return subprocess.run(command, env=environment, check=True, capture_output=True).stdout


def files_below(folder):
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def having(said, text):
    return [place for place, content in said.items() if text.encode() in content]


def test_what_is_searched_has_what_is_not_secret(said, web, ui):
    assert {"worker", "database"} <= set(having(said, "folder post seed 0"))
    refused = having(said, f"{web.url}/refused: HTTP 403")
    assert {"refused", "database"} <= set(refused)
    assert any(place.endswith("log.txt") for place in refused)
    records = [place for place in having(said, f"{web.url}/mnist") if "/records/download/" in place]
    assert records


@pytest.mark.parametrize("secret", [API, PROXY, SOURCE])
def test_nothing_has_the_password_of(said, secret):
    assert having(said, secret) == []


def test_nothing_has_the_password_of_the_database(said, postgres):
    assert having(said, postgres.password) == []


def test_the_reports_of_the_runs_are_there(said, ui):
    assert len(list(ui.data.glob("reports/*/report.json"))) == 4
    assert json.loads(next(ui.data.glob("reports/*/report.json")).read_text())


# The database.


@pytest.fixture(scope="module")
def runs(said, postgres):
    """The state of each flow run in the database, by its number."""
    return dict(postgres.query(DATABASE, "SELECT id::text, state_type::text FROM flow_run"))


def test_runs_and_their_artifacts_are_in_that_database(runs, ui, postgres):
    kinds = "SELECT type FROM artifact WHERE flow_run_id::text = '{}'"
    steps = "SELECT name FROM task_run WHERE flow_run_id::text = '{}'"
    reports = [json.loads(path.read_text()) for path in ui.data.glob("reports/*/report.json")]
    assert reports
    for report in reports:
        number = report["flow_run_id"]
        assert runs[number] == "COMPLETED"
        found = {kind for (kind,) in postgres.query(DATABASE, kinds.format(number))}
        assert found >= {"markdown"}
        assert len(postgres.query(DATABASE, steps.format(number))) >= len(report["steps"])


def test_the_deployments_are_in_that_database(postgres, ui):
    names = {name for (name,) in postgres.query(DATABASE, "SELECT name FROM deployment")}
    assert {"on-demand", "incoming", "weekly", "on-new-data"} <= names


def test_the_server_makes_no_sqlite_file(ui, said):
    assert list(ui.home.rglob("*.db*")) == []
