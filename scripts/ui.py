"""The Prefect UI with the deployments of prefect.yaml and a worker, until Ctrl-C or TERM.

Not sh: what sh starts with & ignores SIGINT, to which Prefect's worker turns the TERM that it gets,
so that such a worker cannot be ended politely.
"""  # noqa: INP001 - a script, not a package

import fcntl
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
HOST, PORT = "PREFECT_SERVER_API_HOST", "PREFECT_SERVER_API_PORT"
LOOPBACK, EVERYWHERE = "127.0.0.1", {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
#: Seconds that a process gets to end by itself: together less than the ten that supervisors allow.
GRACE_SECONDS = 4.0
START_SECONDS = 120
MAX_PORT = 65_535

Process = subprocess.Popen[bytes]


def main() -> None:
    """Start server and worker, and end both when either of them or the user ends it."""
    port = chosen_port()
    os.environ[PORT] = str(port)
    os.environ[HOST] = os.environ.get(HOST) or LOOPBACK
    host = EVERYWHERE.get(os.environ[HOST], os.environ[HOST])  # under which it is reached
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    set_environment(address, host)
    claim(host, port, address)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # not under nohup
            signal.signal(number, interrupt)
    processes: list[Process] = []
    try:
        say("Starting a Prefect server, which takes up to a minute or two; Ctrl-C ends everything")
        processes.append(start("server", "start"))
        wait_for_server(processes[0], host, port)
        deployed = deploy()
        processes.append(start("worker", "start", "--pool", "local"))
        say(deployed)
        say(f"data       {os.environ.get('RETRAIN_DATA') or ROOT / 'data'}")
        say("worker     runs them in this folder, scheduled or by hand")
        say(f"open       {address}")
        while all(process.poll() is None for process in processes):
            time.sleep(0.2)
        fail("The server ended." if processes[0].poll() is not None else "The worker ended.")
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        for process in reversed(processes):  # the worker first: it reports to the server
            end(process)


def set_environment(address: str, host: str) -> None:
    """Set what server, worker and runs take from the environment."""
    for name in ("RETRAIN_DATA", "RETRAIN_SOURCE"):  # its processes run in another folder
        if os.environ.get(name):
            os.environ[name] = str(Path(os.environ[name]).resolve())
    os.environ["PREFECT_API_URL"] = f"{address}/api"
    # The UI asks the server that it came from, so it works under each name, and through a tunnel.
    os.environ.setdefault("PREFECT_UI_API_URL", "/api")
    # What a worker says until the flow starts, which then says more (reporting/log.py).
    os.environ.setdefault("PREFECT_LOGGING_LOGGERS_PREFECT_FLOW_RUNS_LEVEL", "WARNING")
    # Else every web page that a browser here shows may start runs, and so commands of the worker.
    os.environ.setdefault("PREFECT_SERVER_CORS_ALLOWED_ORIGINS", address)
    if password := os.environ.get("PREFECT_SERVER_API_AUTH_STRING"):  # of the server that it starts
        if not password.isascii():
            fail("PREFECT_SERVER_API_AUTH_STRING is not ASCII: Prefect fails on such a password.")
        os.environ["PREFECT_API_AUTH_STRING"] = password
    for name in ("NO_PROXY", "no_proxy"):  # worker and runs ask this server
        known = [part for part in os.environ.get(name, "").split(",") if part]
        os.environ[name] = ",".join(dict.fromkeys([*known, "127.0.0.1", "localhost", host]))


def claim(host: str, port: int, address: str) -> None:
    """Take the port until this process ends, or leave with a sentence."""
    is_ours = lock(port)
    in_use = listens(host, port)
    if in_use and answers(host, port):
        fail(f"A Prefect server runs already: open {address}, or set {PORT} for another.")
    if in_use:
        fail(f"Port {port} is in use: end what listens there, or set {PORT}.")
    if not is_ours:
        fail(f"Another `./run ui` is starting: open {address} in a minute, or set {PORT}.")


def lock(port: int) -> bool:
    """Take this port among all `./run ui` of this user; False where another has it.

    A server listens only seconds after its start. The lock goes with this process.
    """
    path = Path(tempfile.gettempdir()) / f"image-retraining-{os.getuid()}-{port}.lock"
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        if os.fstat(file).st_uid != os.getuid():
            fail(f"{path} belongs to another user: set {PORT} to another number.")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        fail(f"{path} cannot be opened: {error.strerror}.")
    return True  # the file stays open


def chosen_port() -> int:
    """Return the port of PREFECT_SERVER_API_PORT, or Prefect's own."""
    named = os.environ.get(PORT) or "4200"
    if not named.isascii() or not named.isdigit() or not 0 < int(named) <= MAX_PORT:
        fail(f"{PORT} is {named!r}: give a number from 1 to {MAX_PORT}.")
    return int(named)


def command(*arguments: str) -> list[str]:
    """The command line of Prefect in this environment."""
    return [sys.executable, "-m", "prefect", "--no-prompt", *arguments]


def start(*arguments: str) -> Process:
    """Start Prefect in a session of its own, where Ctrl-C in the terminal does not reach it."""
    quiet = subprocess.DEVNULL  # its warnings and errors are shown
    return subprocess.Popen(command(*arguments), cwd=ROOT, stdout=quiet, start_new_session=True)


def deploy() -> str:
    """Run `./run deploy`, and return what it says; where it fails, that is shown."""
    command = [sys.executable, "-m", "flows", "deploy"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )
    try:
        out, errors = process.communicate()
    finally:
        with suppress(ProcessLookupError):  # it and what it started, where a signal came meanwhile
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode:
        say(out + errors)
        fail("`./run deploy` failed.")
    return out.rstrip("\n")


def listens(host: str, port: int) -> bool:
    """Whether anything listens there."""
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


def wait_for_server(server: Process, host: str, port: int) -> None:
    """Return when the server answers."""
    deadline = time.monotonic() + START_SECONDS
    while not answers(host, port):
        if server.poll() is not None:
            prefect = Path(sys.executable).with_name("prefect")
            fail(f"The server did not start: `{PORT}={port} {prefect} server start` says why.")
        if time.monotonic() > deadline:
            fail(f"The server did not answer within {START_SECONDS} s.")
        time.sleep(0.2)
    if server.poll() is not None:  # another one answers
        fail(f"Another server took port {port} meanwhile: end it, or set {PORT}.")


def answers(host: str, port: int) -> bool:
    """Whether a Prefect server is ready there."""
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", "/api/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def end(process: Process) -> None:
    """End a process and what it started: by TERM, and after a while by KILL."""
    process.terminate()
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        say("Killing what does not end")
    with suppress(ProcessLookupError):  # nothing is left of it
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    """Answer a signal: leave main() with the exit code that shells use for it."""
    say("Ending worker and server")
    sys.exit(128 + number)


def say(text: str) -> None:
    """Tell the user."""
    sys.stderr.write(f"{text}\n")


def fail(text: str) -> NoReturn:
    """Leave with one sentence and exit code 1."""
    sys.exit(text)


if __name__ == "__main__":
    main()
