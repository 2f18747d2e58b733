"""Which Prefect server a run reports to: the configured one, a local one that fits, or its own."""

import gc
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.conftest import FIXTURE, PROJECT, CommandLine

#: As `python -m flows`, but the usual local address is one where nothing listens, and the address
#: of the server that the run reports to is the last line on standard error.
RUN = """
import os, sys
from contextlib import contextmanager
from flows.cli import app
os.environ |= app.SETTINGS  # Prefect reads them when it is imported, which is now
from flows.cli import server

@contextmanager
def report_address(choose=server.choose):
    with choose() as address:
        yield address
        print(server.PREFECT_API_URL.value(), file=sys.stderr)

server.LOCAL, server.choose = "http://127.0.0.1:9", report_address
sys.exit(app.main(sys.argv[1:]))
"""


@contextmanager
def answering(status, body, monkeypatch, *, after=0.0, healthy=False):
    """A web server at what is then the usual local address, with one answer to everything else."""
    from flows.cli import server

    over = threading.Event()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            over.wait(after)
            with suppress(ConnectionError):  # who asked has gone
                asked_for_health = healthy and self.path == "/api/health"
                self.send_response(200 if asked_for_health else status)
                self.end_headers()
                self.wfile.write(json.dumps(asked_for_health or body).encode())

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as web:
        monkeypatch.setattr(server, "LOCAL", f"http://127.0.0.1:{web.server_port}")
        threading.Thread(target=web.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        over.set()
        web.shutdown()


@pytest.fixture
def answers_here(monkeypatch):
    """The address of what answers as a Prefect server on this machine."""
    import prefect

    with answering(200, prefect.__version__, monkeypatch, healthy=True) as ours:
        yield f"{ours.LOCAL}/api"


@pytest.fixture
def unconfigured():
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        yield


def listens(address):
    with socket.socket() as probe:
        return probe.connect_ex(address) == 0


def test_the_configured_server_is_used_whatever_answers_elsewhere(server, monkeypatch):
    import prefect

    with answering(200, prefect.__version__, monkeypatch) as ours, ours.choose() as address:
        assert f"{address}/api" == server == ours.PREFECT_API_URL.value()


def test_a_configured_server_that_does_not_answer_is_named_with_the_remedy(root, flows):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        done = flows("train", "--dataset", "folder", "--json")
    assert done.code == 1
    assert "http://127.0.0.1:9/api" in done.sentence
    assert "unset PREFECT_API_URL" in done.sentence
    assert not root.exists()


def test_a_local_server_of_this_release_line_is_used(unconfigured, monkeypatch):
    import prefect

    line = ".".join(prefect.__version__.split(".")[:2])
    with answering(200, f"{line}.999", monkeypatch) as ours, ours.choose() as address:
        assert address == ours.LOCAL
        assert ours.PREFECT_API_URL.value() == f"{ours.LOCAL}/api"


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, "2.20.3"), (200, "3.999.0"), (200, {"detail": "hello"}), (404, "no"), (500, "sorry")],
)
def test_a_local_server_that_does_not_fit_is_not_used(unconfigured, monkeypatch, status, body):
    with answering(status, body, monkeypatch) as ours:
        assert ours._ask_local() == "none"


def test_a_local_server_that_wants_a_password_is_named_and_the_run_reports_elsewhere(
    unconfigured, monkeypatch, capsys
):
    said = "wants another user and password: set PREFECT_API_AUTH_STRING"
    with answering(401, {"exception_message": "no"}, monkeypatch, healthy=True) as ours:
        monkeypatch.setattr(ours, "_start_temporary", lambda: "http://127.0.0.1:9/api")
        with ours.choose() as address:
            assert address is None
            assert ours.PREFECT_API_URL.value() == "http://127.0.0.1:9/api"
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"The Prefect server at {ours.LOCAL} {said}")
        assert line.endswith("This run does not report to it.")


def test_what_wants_a_password_and_is_no_prefect_server_is_not_named(unconfigured, monkeypatch):
    with answering(401, "no", monkeypatch) as ours:
        assert ours._ask_local() == "none"


def test_a_local_server_that_does_not_answer_is_not_waited_for(unconfigured, monkeypatch):
    import prefect

    with answering(200, prefect.__version__, monkeypatch, after=120) as ours:
        asked = time.monotonic()
        assert ours._ask_local() == "none"
        assert time.monotonic() - asked < 60  # a second, on a quiet machine


@pytest.mark.slow
def test_without_any_server_a_temporary_one_comes_and_goes_with_the_run(tmp_path):
    caller = tmp_path / "caller"
    shutil.copytree(FIXTURE, caller / "mine")
    (caller / "flows.py").write_text("raise SystemExit('not this one')")
    done = CommandLine(caller, server=None).python(
        "-P",  # as ./run: modules are not looked for in the caller's folder
        "-c",
        RUN,
        *("train", "--dataset", "folder", "--recipe", "post", "--epochs", "2", "--json"),
        *("--data", "results", "--source", "mine"),
        PREFECT_HOME=str(tmp_path / "home"),
        PYTHONPATH=str(PROJECT),
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    result = json.loads(done.stdout)
    assert set(result["steps"].values()) == {"ran"}
    assert (caller / "results" / result["report"] / "report.html").is_file()
    assert (tmp_path / "home" / "prefect.db").is_file()

    api = done.stderr.splitlines()[-1]
    host, port = api.removeprefix("http://").removesuffix("/api").split(":")
    deadline = time.monotonic() + 60
    while listens((host, int(port))) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not listens((host, int(port)))


def test_the_temporary_server_outlives_a_collection_of_garbage(tmp_path, monkeypatch):
    """A traceback may hold its process in a cycle, with which its standard input would close."""
    from flows.cli import server

    start, ended = subprocess.Popen, tmp_path / "ended"
    stand_in = f"import sys, pathlib; sys.stdin.read(); pathlib.Path({str(ended)!r}).touch()"

    def in_cycle(address, process):
        cycle = [process]
        cycle.append(cycle)

    monkeypatch.setattr(
        subprocess, "Popen", lambda _, **how: start([sys.executable, "-c", stand_in], **how)
    )
    monkeypatch.setattr(server, "_wait_for", in_cycle)
    server._start_temporary()
    gc.collect()
    time.sleep(2)
    assert not ended.exists()
    process = server._started.pop()
    process.stdin.close()
    assert process.wait(60) == 0
    assert ended.exists()


def test_no_proxy_is_asked_for_this_machine(monkeypatch):
    from flows.cli import server

    monkeypatch.setenv("NO_PROXY", "intranet")
    monkeypatch.setenv("no_proxy", "")
    for _ in range(2):
        server._pass_by_proxies("http://prefect.example/api")
    assert os.environ["NO_PROXY"] == "intranet,127.0.0.1,localhost"
    assert os.environ["no_proxy"] == "127.0.0.1,localhost"
    server._pass_by_proxies("http://[::1]:4200/api")
    assert os.environ["no_proxy"] == "127.0.0.1,localhost,::1"


def test_no_proxy_is_asked_for_a_configured_server_of_this_machine(monkeypatch, answers_here):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.cli import server

    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")
    with temporary_settings({PREFECT_API_URL: answers_here}), server.present():
        pass


def test_the_address_of_the_configured_server_is_shown_without_password_and_slash():
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.cli import server

    configured = {PREFECT_API_URL: "http://admin:secret@127.0.0.1:9/api/"}
    with temporary_settings(configured), server.choose() as address:
        assert address == "http://127.0.0.1:9"
    with (
        temporary_settings(configured),
        pytest.raises(server.InputError, match=r"answers at http://127\.0\.0\.1:9/api"),
        server.present(),
    ):
        pass
