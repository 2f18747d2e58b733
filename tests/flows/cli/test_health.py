"""./run health: what cron is told."""

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from artifacts import layout
from tests.conftest import PROJECT
from tests.registry import stores

DAY = 86_400


@pytest.fixture(autouse=True)
def _root(root, tmp_path, monkeypatch):
    """An empty data root, and no Prefect that is configured."""
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.delenv("PREFECT_PROFILE", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))


def retrained(days, outcome="unchanged", dataset="mnist"):
    """Write the report of a retraining that started so many days ago."""
    start = time.gmtime(time.time() - days * DAY)
    folder = layout.reports() / f"{time.strftime('%Y%m%d-%H%M%S', start)}-{0:08x}"
    folder.mkdir(parents=True)
    about = {"dataset": dataset, "recipe": "cnn", "outcome": outcome, "state": outcome.title()}
    (folder / "report.json").write_text(json.dumps(about))


def delivered(name="scans.parquet", dataset="mnist"):
    path = layout.store() / "incoming" / dataset / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("rows")
    return path


@contextmanager
def prefect_server(status):
    """Stands at the address of a Prefect server."""

    class Health(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status if self.path == "/api/health" else 404)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Health) as web:
        threading.Thread(target=web.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{web.server_port}/api"
        web.shutdown()


@pytest.mark.parametrize(
    ("days", "ago"),
    [
        (3, "3.0 days ago"),
        (0.3, "7 hours ago"),
        (0.06, "1 hour ago"),
        (0.01, "less than an hour ago"),
    ],
)
def test_a_retrain_within_eight_days_is_one_line_and_exit_code_0(flows, days, ago):
    stores.promote("a model", dataset="mnist")
    retrained(days)
    done = flows("health")
    assert (done.code, done.err) == (0, "")
    assert done.out == f"Retraining goes on: mnist unchanged, {ago}.\n"


def test_a_retrain_that_is_longer_ago_is_a_sentence_with_the_next_command(flows):
    stores.promote("a model", dataset="mnist")
    retrained(9)
    done = flows("health")
    assert done.code == 1
    what = "The last retrain of mnist that completed was 9.0 days ago."
    assert done.out == f"{what} Next: ./run retrain --recipe cnn\n"
    assert flows("health", "--within", "10").code == 0


def test_the_newest_counts_and_one_with_broken_data_does_not(flows):
    stores.promote("a model", dataset="mnist")
    for days, outcome in ((30, "promoted"), (9, "refused"), (1, "broken")):
        retrained(days, outcome)
    done = flows("health", "--json")
    assert done.code == 1
    (found,) = json.loads(done.out)["datasets"]
    assert found["outcome"] == "refused"
    retrained(2, "refused")
    assert flows("health").code == 0


def test_every_dataset_with_a_champion_counts_unless_one_is_named(flows):
    for dataset in ("mnist", "folder"):
        stores.promote("a model", dataset=dataset)
    retrained(1)
    done = flows("health")
    assert done.code == 1
    (line,) = done.out.splitlines()
    assert line == "No retrain of folder has completed. Next: ./run retrain --dataset folder"
    assert flows("health", "--dataset", "mnist").code == 0


def test_without_a_champion_it_is_unhealthy(flows):
    done = flows("health")
    assert done.code == 1
    assert "has a champion. Next: ./run retrain" in done.out


def test_data_that_lies_in_incoming_too_long_is_unhealthy(flows):
    stores.promote("a model", dataset="mnist")
    retrained(0)
    file = delivered()
    assert flows("health").code == 0
    time.sleep(0.1)
    done = flows("health", "--within", str(0.05 / DAY))
    assert done.code == 1
    assert f"New data of mnist has been lying in {file.parent} since 20" in done.out
    assert "Next: ./run ingest\n" in done.out


def test_data_that_was_looked_at_and_a_hidden_file_are_not_new(flows):
    from tasks import seen

    stores.promote("a model", dataset="mnist")
    file = delivered()
    delivered(".partial")
    seen.remember("mnist", dict(seen.stamps_of(file, file.parent)))
    assert seen.waiting_since("mnist") is None
    file.write_text("other rows")
    assert seen.waiting_since("mnist") == file.stat().st_ctime


def test_the_date_of_a_copied_original_does_not_count():
    from tasks import seen

    os.utime(delivered(), (0, 0))
    assert seen.waiting_since("mnist") > time.time() - 60


def test_a_configured_server_must_answer(flows, monkeypatch):
    stores.promote("a model", dataset="mnist")
    retrained(1)
    with prefect_server(200) as address:
        monkeypatch.setenv("PREFECT_API_URL", address)
        assert flows("health").code == 0
    with prefect_server(503) as address:
        monkeypatch.setenv("PREFECT_API_URL", address)
        done = flows("health")
    assert done.code == 1
    assert done.out.startswith(f"No Prefect server answers at {address}, so no schedule fires.")


def test_the_server_of_the_active_profile_counts_too(flows, tmp_path):
    stores.promote("a model", dataset="mnist")
    retrained(1)
    profiles = tmp_path / "prefect" / "profiles.toml"
    profiles.parent.mkdir()
    profiles.write_text(
        'active = "here"\n[profiles.here]\nPREFECT_API_URL = "http://127.0.0.1:9/api"\n'
    )
    assert "No Prefect server answers at http://127.0.0.1:9/api" in flows("health").out
    profiles.write_text('active = "here"\n[profiles.here]\n')
    assert flows("health").code == 0


def test_the_server_is_asked_past_proxies_whatever_ends_its_address(flows, monkeypatch):
    stores.promote("a model", dataset="mnist")
    retrained(1)
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")
    with prefect_server(200) as address:
        monkeypatch.setenv("PREFECT_API_URL", f"{address}/")
        assert flows("health").code == 0


def test_a_password_in_the_address_is_not_printed(flows, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://admin:secret@127.0.0.1:9/api")
    done = flows("health")
    assert "No Prefect server answers at http://127.0.0.1:9/api" in done.out
    assert "secret" not in done.out + done.err


def test_a_server_that_answers_the_second_time_is_healthy(flows, monkeypatch):
    from types import SimpleNamespace

    from flows.cli import health

    asked = []

    def get(address, **_):
        asked.append(address)
        if len(asked) == 1:
            raise health.httpx.ReadTimeout("it is busy")
        return SimpleNamespace(is_success=True)

    monkeypatch.setattr(health.httpx, "get", get)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert list(health._silent_server()) == []


@pytest.mark.parametrize(
    "content",
    [b"\xff", b"active = 1\nprofiles = 2", b'active = ["a"]\n[profiles]', b"profiles = []"],
)
def test_an_odd_file_of_profiles_configures_no_server(tmp_path, content):
    from flows.cli import health

    (tmp_path / "prefect").mkdir()
    (tmp_path / "prefect" / "profiles.toml").write_bytes(content)
    assert health._configured() is None


@pytest.mark.parametrize("days", ["0", "-1", "nan"])
def test_days_that_are_none_are_refused(flows, days):
    done = flows("health", "--within", days)
    assert done.code == 2
    assert "--within" in done.sentence


def test_it_loads_neither_prefect_nor_torch():
    code = "import sys; from flows.cli.app import main; main(['health']); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert not {"prefect", "torch", "numpy"} & set(done.stdout.split())


def test_a_report_of_the_future_says_nothing_of_the_past(flows):
    stores.promote("a model", dataset="mnist")
    retrained(20)
    retrained(-2_000)  # written while the clock was wrong
    done = flows("health")
    assert done.code == 1
    assert "was 20.0 days ago" in done.out


def test_a_link_that_leads_out_of_incoming_does_not_wait_for_ever(flows, tmp_path):
    stores.promote("a model", dataset="mnist")
    retrained(1)
    (tmp_path / "outside.parquet").write_text("rows")
    folder = layout.store() / "incoming" / "mnist" / "delivery"
    folder.mkdir(parents=True)
    (folder / "link.parquet").symlink_to(tmp_path / "outside.parquet")
    assert json.loads(flows("health", "--json").out)["datasets"][0]["waiting_since"] is None
