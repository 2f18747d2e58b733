"""Who may use the server that `./run ui` starts: this machine alone, and with a password."""

import json
from pathlib import Path

import httpx
import pytest

from tests.operation.serving import serving

pytestmark = pytest.mark.slow

PASSWORD = "admin:a secret of the tests"  # noqa: S105
CLIENT = "PREFECT_API_AUTH_STRING"
SERVER = "PREFECT_SERVER_API_AUTH_STRING"
TRAIN = ("train", "--dataset", "folder", "--epochs", "1", "--json")


@pytest.fixture(scope="module")
def ui(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("auth"), **{SERVER: PASSWORD}) as ui:
        yield ui


def listening(ui):
    """The addresses at which the processes of `./run ui` listen, as /proc writes them."""
    processes = [each for each in Path("/proc").glob("[0-9]*") if _is_below(each.name, ui.pid)]
    sockets = {
        str(descriptor.readlink())
        for process in processes
        for descriptor in (process / "fd").iterdir()
        if descriptor.is_symlink()
    }
    tables = [Path("/proc/net", name).read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    fields = [line.split() for table in tables for line in table]
    return {each[1] for each in fields if each[3] == "0A" and f"socket:[{each[9]}]" in sockets}


def _is_below(pid, ancestor):
    pid = int(pid)
    while pid > 1:
        if pid == ancestor:
            return True
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            return False
    return False


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="there is no /proc here")
def test_everything_that_listens_listens_on_the_loopback_address_alone(ui):
    found = listening(ui)
    assert f"0100007F:{ui.port:04X}" in found
    assert {address.partition(":")[0] for address in found} == {"0100007F"}


def test_without_the_password_the_server_answers_401_to_all_but_its_health(ui):
    assert httpx.get(f"{ui.address}/api/health").status_code == 200
    for path in ("/api/flows/count", "/api/flow_runs/filter", "/api/deployments/filter"):
        assert httpx.post(f"{ui.address}{path}", json={}).status_code == 401
    user, _, password = PASSWORD.partition(":")
    answer = httpx.post(f"{ui.address}/api/flows/count", json={}, auth=(user, password))
    assert answer.status_code == 200


def test_a_web_page_from_elsewhere_gets_no_answer_that_a_browser_would_show_it(ui):
    user, _, password = PASSWORD.partition(":")

    def allowed(origin):
        headers = {"Access-Control-Request-Method": "POST", "Origin": origin}
        address = f"{ui.address}/api/flows/filter"
        asked = httpx.options(address, headers=headers)
        answer = httpx.post(address, json={}, headers=headers, auth=(user, password))
        name = "access-control-allow-origin"
        return asked.headers.get(name), answer.headers.get(name)

    assert allowed("http://elsewhere.example") == (None, None)
    assert allowed(ui.address) == (ui.address, ui.address)


@pytest.mark.parametrize("given", [{}, {CLIENT: "admin:wrong"}], ids=["none", "wrong"])
def test_a_run_without_the_password_is_refused_in_one_sentence_with_the_remedy(ui, given):
    done = ui.flows(*TRAIN, drop=(SERVER,), **given)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert ui.address in line
    assert "set PREFECT_API_AUTH_STRING" in line
    assert "wrong" not in done.stderr


def test_deploy_without_the_password_is_refused_in_the_same_sentence(ui):
    done = ui.flows("deploy", drop=(SERVER,))
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Error: The Prefect server at {ui.address}/api wants another user")


def test_with_the_password_a_run_from_a_terminal_works(ui):
    done = ui.flows(*TRAIN, drop=(SERVER,), **{CLIENT: PASSWORD})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["test_rows"] == 200
    assert PASSWORD not in done.stdout + done.stderr


def test_a_run_of_the_worker_works(ui):
    done = ui.python(
        *("-m", "prefect", "deployment", "run", "train/on-demand", "--watch"),
        *("--param", "dataset=folder", "--param", 'overrides={"epochs": 1}'),
        **{CLIENT: PASSWORD},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "finished successfully in 'Completed'" in done.stdout


def test_a_run_without_a_server_works_where_the_password_of_the_server_alone_is_set(ui, tmp_path):
    elsewhere = {"PREFECT_HOME": str(tmp_path / "home"), SERVER: PASSWORD}
    done = ui.flows(*TRAIN, drop=("PREFECT_API_URL",), **elsewhere)
    assert done.returncode == 0, done.stderr
