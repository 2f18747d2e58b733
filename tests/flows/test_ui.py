"""The Prefect UI of ./run ui: a browser fills in the form, starts the run, and reads its report."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from tests.conftest import FIXTURE, PROJECT, CommandLine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
PREFECT_SAYS = re.compile(
    r"Beginning |View at|Finished in|Running hook|Hook|Worker|Executing|submitt"
)
SECONDS = 240  # that a run may take on a busy machine
QUICK = {"dataset": "folder", "recipe": "post", "device": "cpu", "overrides": {"epochs": 2}}


@pytest.fixture(scope="module")
def ui(tmp_path_factory):
    """The server, deployments and worker of ./run ui, with an empty database and data root."""
    folder = tmp_path_factory.mktemp("ui")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_API_PORT": str(port),
        "RETRAIN_DATA": str(folder / "data"),
        "RETRAIN_SOURCE": str(FIXTURE),
    }
    command = [sys.executable, str(PROJECT / "scripts" / "ui.py")]
    process = subprocess.Popen(command, env=os.environ | own, stderr=subprocess.PIPE, text=True)
    try:
        said = ""
        while "open " not in said:
            line = process.stderr.readline()
            assert line, said  # it ended
            said += line
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield Ui(client, folder / "data")
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()


class Ui:
    """The server, as its API answers."""

    def __init__(self, client, root):
        self.client = client
        self.root = root
        self.address = str(client.base_url).rstrip("/")

    def ask(self, path, **body):
        answer = self.client.post(f"/api/{path}", json=body)
        answer.raise_for_status()
        return answer.json()

    def deployment(self, name):
        """Its id."""
        answer = self.client.get(f"/api/deployments/name/{name}")
        return answer.raise_for_status().json()["id"]

    def start(self, name, parameters, **more):
        """The id of a new run."""
        path = f"deployments/{self.deployment(name)}/create_flow_run"
        return self.ask(path, parameters=parameters, **more)["id"]

    def finished(self, run):
        """The run, once it has ended."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            found = self.client.get(f"/api/flow_runs/{run}").raise_for_status().json()
            if found["state_type"] in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}:
                time.sleep(5)  # in which the last lines of the log arrive
                return found
            time.sleep(0.5)
        pytest.fail(f"run {run} did not end within {SECONDS} s: {found['state_name']}")

    def logs(self, run):
        """All log lines of the run, in their order."""
        wanted, lines = {"flow_run_id": {"any_": [run]}}, []
        while more := self.ask(
            "logs/filter", logs=wanted, limit=100, offset=len(lines), sort="TIMESTAMP_ASC"
        ):
            lines += more
        return [line["message"] for line in lines]

    def artifacts(self, run):
        """Key and type of what the run left in the UI."""
        found = self.ask("artifacts/filter", artifacts={"flow_run_id": {"any_": [run]}})
        return sorted((each["key"] or "", each["type"]) for each in found)

    def task_runs(self, run):
        """Names of the task runs."""
        found = self.ask("task_runs/filter", flow_runs={"id": {"any_": [run]}})
        return sorted(each["name"] for each in found)


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium: install the package of that name")
    api = pytest.importorskip("playwright.sync_api", reason="there is no playwright")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@contextmanager
def opened(browser, address):
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.set_default_timeout(60_000)
    page.goto(address)
    yield page
    page.close()


@pytest.fixture
def form(browser, ui):
    """The page with the form of train/on-demand."""
    path = f"/deployments/deployment/{ui.deployment('train/on-demand')}/run"
    with opened(browser, f"{ui.address}/v2{path}") as page:
        yield page


def choose(form, field, value):
    form.get_by_role("button", name=f"Select {field}", exact=True).click()
    form.get_by_placeholder("Search...").fill(value)
    form.keyboard.press("Enter")
    form.get_by_role("listbox").wait_for(state="hidden")


def fill_in(form, *, epochs):
    choose(form, "dataset", "folder")
    choose(form, "recipe", "post")
    choose(form, "device", "cpu")
    form.get_by_role("tab", name="Recipe overrides").click()
    form.get_by_role("spinbutton", name="Epochs").fill(str(epochs))


def test_a_run_is_started_in_the_form_and_shows_its_report(form, ui):
    fill_in(form, epochs=3)
    with form.expect_response(re.compile("create_flow_run$")) as answer:
        form.get_by_role("button", name="Submit").click()
    run = answer.value.json()["id"]

    form.goto(f"{ui.address}/v2/runs/flow-run/{run}")
    form.get_by_role("main").get_by_text("Completed", exact=True).first.wait_for(
        timeout=SECONDS * 1000
    )
    assert form.get_by_role("main").get_by_text("folder post seed 0").first.is_visible()
    form.get_by_role("tab", name="Artifacts").click()
    form.get_by_role("link", name="folder-report").click()
    form.locator("a[href*='/artifacts/artifact/']").first.click()
    form.get_by_role("heading", name="folder, recipe post, seed 0").wait_for()
    pictures = form.locator("main img[src^='data:image/png']")
    pictures.first.wait_for()
    widths = pictures.evaluate_all("all => all.map(image => image.naturalWidth)")
    assert len(widths) >= 3
    assert min(widths) > 100  # each is drawn

    form.goto(f"{ui.address}/v2/runs/flow-run/{run}?tab=Artifacts")
    form.get_by_role("link", name="folder-metrics").click()
    form.locator("a[href*='/artifacts/artifact/']").first.click()
    (report,) = ui.root.glob(f"reports/*-{run[:8]}/report.json")
    form.get_by_role("row", name="errors").wait_for()
    errors = re.search(r'"errors": (\d+)', report.read_text())[1]
    assert form.get_by_role("row", name=f"errors {errors}").is_visible()


def test_the_form_refuses_a_value_out_of_its_limits(form, ui):
    before = ui.ask("flow_runs/count")
    fill_in(form, epochs=0)
    form.get_by_role("button", name="Submit").click()
    refusal = form.get_by_role("spinbutton", name="Epochs").evaluate("it => it.validationMessage")
    assert "1" in refusal
    form.wait_for_timeout(2000)  # in which a run would be created
    assert form.url.endswith("/run")
    assert ui.ask("flow_runs/count") == before


def test_the_pages_find_their_server_under_another_name_of_it(browser, ui):
    elsewhere = ui.address.replace("127.0.0.1", "localhost")
    with opened(browser, f"{elsewhere}/v2/deployments") as page:
        page.get_by_text("on-new-data").first.wait_for()


def test_runs_of_terminal_schedule_and_form_look_alike(ui):
    """The form asks the server for a run as `start` does."""
    soon = datetime.now(UTC) + timedelta(seconds=2)
    details = {"scheduled_time": soon.isoformat()}
    scheduled = {"type": "SCHEDULED", "state_details": details}
    runs = [
        ui.finished(ui.start("train/on-demand", QUICK)),
        ui.finished(ui.start("train/on-demand", QUICK, state=scheduled)),
    ]
    terminal = CommandLine(PROJECT, f"{ui.address}/api")
    done = terminal(
        *("train", "--dataset", "folder", "--recipe", "post", "--device", "cpu", "--epochs", "2"),
        RETRAIN_DATA=str(ui.root),
    )
    assert done.returncode == 0, done.stderr
    (last,) = re.findall(r"/flow-run/([0-9a-f-]+)", done.stdout)
    runs.append(ui.finished(last))

    assert {(run["name"], run["state_name"]) for run in runs} == {
        ("folder post seed 0", "Completed")
    }
    of_a_cached_run = [("folder-metrics", "table"), ("folder-report", "markdown")]
    assert [ui.artifacts(run["id"]) for run in runs[1:]] == [of_a_cached_run] * 2
    assert ui.artifacts(runs[0]["id"]) == [("", "progress"), *of_a_cached_run]
    _, second, third = ([ui.task_runs(run["id"]), ui.logs(run["id"])] for run in runs)
    assert second == third
    assert len(second[0]) == 6


def test_the_log_of_a_long_run_is_short_and_without_what_prefect_says_of_itself(ui):
    long = QUICK | {"limit": 20, "overrides": {"epochs": 4000}}
    run = ui.finished(ui.start("retrain/weekly", QUICK | {"overrides": {"epochs": 60}}))
    assert run["state_name"] == "Promoted"
    retrained = ui.logs(run["id"])
    run = ui.finished(ui.start("train/on-demand", long))
    assert run["state_name"] == "Completed"
    trained = ui.logs(run["id"])
    assert any(line.startswith("epoch 4000") for line in trained)
    for lines in (retrained, trained):
        assert 6 <= len(lines) < 200
        assert [line for line in lines if PREFECT_SAYS.match(line)] == []


def test_the_log_of_a_run_that_fails_still_says_why(ui):
    run = ui.finished(ui.start("train/on-demand", QUICK | {"image_size": "5x5"}))
    assert run["state_type"] == "FAILED"
    assert any("the train images are (28, 28)" in line for line in ui.logs(run["id"]))


def test_the_server_removes_old_runs_and_events(ui):
    settings = ui.client.get("/api/admin/settings").raise_for_status().json()["server"]
    vacuum = settings["services"]["db_vacuum"]
    assert set(vacuum["enabled"]) == {"events", "flow_runs"}
    assert vacuum["retention_period"] == "P90D"
    assert settings["events"]["retention_period"] == "P7D"
