"""A Prefect server with all of its services, such as the one that acts on automations."""

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import httpx

from tests.fixtures.postgres import cluster, programs

#: How long a server waits for late events before it acts on silence: Prefect has 60 s.
BUFFER = "PT5S"


@contextmanager
def database():
    """The settings of an empty PostgreSQL, where there is one; else SQLite is used.

    A lock of SQLite delays what automations do, or has them do it twice: docs/operation.md.
    """
    if programs() is None:
        yield {}
        return
    with cluster() as there:
        yield {"PREFECT_SERVER_DATABASE_CONNECTION_URL": there.create("prefect")}


@contextmanager
def with_automations(folder, **more):
    """Start a server whose automations act on each event once, and use it; yields its address."""
    with database() as settings, running(folder, **settings, **more) as address:
        yield address


@contextmanager
def running(folder, **more):
    """Start a server with an empty database in the folder, and use it; yields its address."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "PREFECT_HOME": str(folder),
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_UI_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_EVENTS_EXPIRED_BUCKET_BUFFER": BUFFER,
        **more,
    }
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "--no-prompt", "server", "start"],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}/api"
        until(lambda: process.poll() is not None or answers(address), 120)
        assert process.poll() is None
        with temporary_settings({PREFECT_API_URL: address}):
            yield address
    finally:
        process.terminate()
        process.wait(30)


def answers(address):
    with suppress(httpx.TransportError):
        return httpx.get(f"{address}/health").is_success
    return False


def until(holds, seconds):
    """Wait until something holds, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, "it did not come in time"
        time.sleep(0.2)
    return found
