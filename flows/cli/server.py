"""Which Prefect server a run from the terminal reports to.

Run as a module, it is the temporary one: python -m flows.cli.server PORT. Prefect would start one
by itself, but importing it into the client costs seconds, and Ctrl-C in a terminal would end it
before the flow has reported its end.
"""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx
import prefect
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_SERVER_API_AUTH_STRING,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    temporary_settings,
)

from artifacts.errors import InputError
from flows.cli.address import is_loopback, shown

PROJECT = Path(__file__).resolve().parents[2]
LOCAL = "http://127.0.0.1:4200"  # where `prefect server start` listens
#: The temporary servers, whose standard input must stay open. Without a reference it is closed when
#: the garbage collector finds the process in a cycle, such as that of an exception's traceback.
_started: list[subprocess.Popen[bytes]] = []


@contextmanager
def choose() -> Iterator[str | None]:
    """Use the configured server, else a local one that answers, else a temporary one.

    Yields the address of the web UI, or None with a temporary server, which has none. Where the
    local one wants a password, which may be that of someone else, this says so.

    Raises:
        InputError: the configured one does not answer, or wants another password.
    """
    configured = PREFECT_API_URL.value()
    _pass_by_proxies(configured)
    if configured:
        with _explain_unreachable(configured):
            yield shown(configured).rstrip("/").removesuffix("/api")
    elif (answer := _ask_local()) == "fits":
        with temporary_settings({PREFECT_API_URL: f"{LOCAL}/api"}):
            yield LOCAL
    else:
        if answer == "closed":
            from flows.cli.terminal import say

            say(f"{_wants_password(LOCAL)} This run does not report to it.")
        own: dict[Any, Any] = {
            PREFECT_API_URL: _start_temporary(),
            # Nothing watches heartbeats there, and stopping them takes a second.
            PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
        }
        if password := PREFECT_SERVER_API_AUTH_STRING.value():  # which it wants as any server does
            own[PREFECT_API_AUTH_STRING] = os.environ["PREFECT_API_AUTH_STRING"] = str(password)
        with temporary_settings(own):
            yield None


@contextmanager
def present() -> Iterator[SyncPrefectClient]:
    """Use the configured server, else a local one; yields its client.

    Raises:
        InputError: it does not answer, or wants another password.
    """
    configured = PREFECT_API_URL.value()
    _pass_by_proxies(configured)
    address = configured or f"{LOCAL}/api"
    with (
        _explain_unreachable(address),
        temporary_settings({PREFECT_API_URL: address}),
        get_client(sync_client=True) as client,
    ):
        if client.api_healthcheck() is not None:
            raise InputError(
                f"No Prefect server answers at {shown(address)}: start it, as with `./run ui`, or "
                "name another by PREFECT_API_URL."
            )
        yield client


@contextmanager
def _explain_unreachable(configured: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith(
            "Failed to reach API"
        ):  # Prefect has no type of its own for it
            raise
        raise InputError(
            f"No Prefect server answers at {shown(configured)}, which PREFECT_API_URL names: start "
            "it, or unset PREFECT_API_URL to run without one."
        ) from error
    except PrefectHTTPStatusError as error:
        if error.response.status_code != HTTPStatus.UNAUTHORIZED:
            raise
        raise InputError(_wants_password(configured)) from error


def _wants_password(address: str) -> str:
    return (
        f"The Prefect server at {shown(address)} wants another user and password: set "
        "PREFECT_API_AUTH_STRING to the USER:PASSWORD that its PREFECT_SERVER_API_AUTH_STRING "
        "holds."
    )


def _pass_by_proxies(configured: str | None) -> None:
    """Let neither this process nor its children ask a proxy for this machine."""
    hosts = ["127.0.0.1", "localhost"]
    if configured and is_loopback(configured):
        hosts.append(urlsplit(configured).hostname or "")
    for name in ("NO_PROXY", "no_proxy"):
        known = [part for part in os.environ.get(name, "").split(",") if part]
        os.environ[name] = ",".join(dict.fromkeys([*known, *hosts]))


def _ask_local() -> Literal["fits", "closed", "none"]:
    """Ask for a server of this release line at the usual local address; closed: to this user."""
    user, _, password = str(PREFECT_API_AUTH_STRING.value() or "").partition(":")
    auth = (user, password) if user else None
    try:
        answer = httpx.get(f"{LOCAL}/api/admin/version", timeout=1.0, auth=auth)
        if answer.status_code == HTTPStatus.UNAUTHORIZED:
            health = httpx.get(f"{LOCAL}/api/health", timeout=1.0)  # which is open to all
            return "closed" if health.is_success and health.json() is True else "none"
        version = str(answer.raise_for_status().json())
    except (httpx.HTTPError, ValueError):
        return "none"
    return "fits" if version.split(".")[:2] == prefect.__version__.split(".")[:2] else "none"


def _start_temporary() -> str:
    """Start a server of our own, on the user's Prefect database, and return its address.

    It ends when this process has ended, however that happens, because its standard input closes
    then. Until then it takes what Prefect still has to tell it.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # As Prefect's own temporary server has it: no UI, and only the services that record runs.
    flags = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli.server", str(port)],
        cwd=PROJECT,  # where -m looks first: not in the caller's folder
        env=os.environ | flags,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C in the terminal is for us alone
    )
    _started.append(process)
    _wait_for(address := f"http://127.0.0.1:{port}/api", process)
    return address


def _wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    limit = float(PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value())
    deadline = time.monotonic() + limit
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            if httpx.get(f"{address}/health").is_success:
                return
        time.sleep(0.05)
    prefect_command = Path(sys.executable).with_name("prefect")
    raise RuntimeError(
        f"The temporary Prefect server did not start: type `{prefect_command} server start` to see "
        "why, or to use that one instead."
    )


def _serve(port: int) -> None:
    """Serve until standard input closes."""
    import uvicorn

    def watch() -> None:
        sys.stdin.read()
        server.should_exit = True

    create = "prefect.server.api.server:create_app"
    server = uvicorn.Server(uvicorn.Config(create, factory=True, port=port, log_level="critical"))
    threading.Thread(target=watch, daemon=True).start()
    server.run()


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
