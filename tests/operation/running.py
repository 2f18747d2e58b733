"""Prefect as a team runs it: a server, a worker and the deployments of a copy of the project."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx

from tests.conftest import FIXTURE, PROJECT

#: A training of about ten seconds on a quiet machine, on which kills and outages can fall.
LONG = {
    "dataset": "folder",
    "recipe": "cnn",
    "device": "cpu",
    "overrides": {"epochs": 100},
}
#: Prefect's services look round every second or two, and not every minute.
QUICK = {
    "PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": "1",
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
    "PREFECT_SERVER_SERVICES_TRIGGERS_PG_NOTIFY_HEARTBEAT_INTERVAL_SECONDS": "5",
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",  # the least that Prefect accepts
    "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_CANCELLING_TIMEOUT_SECONDS": "20",
}
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@dataclass
class Operation:
    """A server and a worker in processes of their own, which `end` ends."""

    folder: Path
    port: int = 0
    server: "subprocess.Popen[bytes] | None" = None
    worker: "subprocess.Popen[bytes] | None" = None
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = self.port or probe.getsockname()[1]
        self.copy, self.root = self.folder / "project", self.folder / "data"
        for package in ("artifacts", "classifier", "flows", "registry", "reporting", "tasks"):
            ignored = shutil.ignore_patterns("__pycache__", ".*")
            shutil.copytree(PROJECT / package, self.copy / package, ignore=ignored)
        for name in ("prefect.yaml", "pyproject.toml", "automations.yaml"):
            shutil.copy(PROJECT / name, self.copy)
        self.edit("classifier/training/checkpoints.py", "SECONDS = 30.0", "SECONDS = 0.3")
        self.edit("automations.yaml", "within: 900", "within: 70")  # heartbeats come every 30 s
        self.edit("automations.yaml", "within: 30 ", "within: 15 ")
        if without := os.environ.get("REHEARSAL_WITHOUT"):  # to see that the tests notice
            self.without(without)
        self.environment = {
            **{name: value for name, value in os.environ.items() if "PREFECT" not in name},
            **QUICK,
            "PREFECT_HOME": str(self.folder / "prefect"),
            "PREFECT_API_URL": self.api,
            "PREFECT_SERVER_API_PORT": str(self.port),
            "RETRAIN_DATA": str(self.root),
            "RETRAIN_SOURCE": str(FIXTURE),
            "OMP_NUM_THREADS": "1",
            **self.environment,
        }

    @property
    def api(self) -> str:
        """Address of the server's API."""
        return f"http://127.0.0.1:{self.port}/api"

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace a piece of the copy's code."""
        path = self.copy / file
        text = path.read_text()
        assert old in text, f"{file} has no {old!r}"
        path.write_text(text.replace(old, new))

    def without(self, name: str) -> None:
        """Switch a repair off: an automation, by a piece of its name, or the client's retries."""
        if name == "retries":
            self.environment["PREFECT_CLIENT_MAX_RETRIES"] = "0"
            return
        head, *each = (self.copy / "automations.yaml").read_text().split("\n  - name: ")
        kept = [one for one in each if name not in one.splitlines()[0]]
        assert len(kept) < len(each), f"there is no automation {name!r}"
        (self.copy / "automations.yaml").write_text("\n  - name: ".join([head, *kept]))

    # Processes

    def start_server(self) -> None:
        """Start the server, and wait until it answers."""
        self.server = self._start("server", "start", "--host", "127.0.0.1")
        wait(self.answers, 120, "the server does not answer")

    def start_worker(self) -> None:
        """Start a worker of the pool."""
        self.worker = self._start("worker", "start", "--pool", "local")

    def deploy(self) -> None:
        """Make the pool, deploy prefect.yaml, and apply the automations."""
        done = subprocess.run(
            [sys.executable, "-m", "flows", "deploy"],
            cwd=self.copy,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def answers(self) -> bool:
        """Whether the server answers."""
        with suppress(httpx.HTTPError):
            return httpx.get(f"{self.api}/health", timeout=5).is_success
        return False

    def kill_server(self) -> None:
        """End the server without any notice."""
        assert self.server is not None
        kill_group(self.server)

    def kill_worker(self) -> None:
        """End the worker without any notice; runs that it started go on."""
        assert self.worker is not None
        self.worker.kill()
        self.worker.wait()

    def run_processes(self) -> list[int]:
        """Processes that execute a flow run of this operation."""
        found = []
        mine = f"RETRAIN_DATA={self.root}\0".encode()
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                flow = b"prefect.flow_engine" in words or b"prefect.engine" in words
                if flow and mine in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
        return found

    def kill_runs(self) -> None:
        """End the processes of flow runs without any notice."""
        for number in self.run_processes():
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)

    def end(self) -> None:
        """End everything."""
        for process in (self.worker, self.server):
            if process is not None:
                kill_group(process)
        self.kill_runs()

    def _start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        with (self.folder / f"{arguments[0]}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
                cwd=self.copy,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    # Questions and requests

    def ask(self, method: str, path: str, **body: Any) -> Any:
        """Send a request to the server, and return its answer."""
        deadline = time.monotonic() + 60
        while True:
            # It waits for SQLite for up to 60 s, and then says that it is busy: clients repeat.
            answer = httpx.request(method, f"{self.api}/{path}", timeout=90, json=body or None)
            busy = answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
            if not busy or time.monotonic() > deadline:
                break
            time.sleep(1)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def asked(self, deployment: str, **parameters: Any) -> UUID:
        """Ask for a run, and return its number."""
        found = self.ask("GET", f"deployments/name/{deployment}")
        state = {"type": "SCHEDULED"}
        path = f"deployments/{found['id']}/create_flow_run"
        return UUID(self.ask("POST", path, parameters=parameters, state=state)["id"])

    def run(self, number: UUID) -> dict[str, Any]:
        """The flow run of that number."""
        found: dict[str, Any] = self.ask("GET", f"flow_runs/{number}")
        return found

    def state(self, number: UUID) -> str:
        """Name of its state."""
        return str(self.run(number)["state_name"])

    def running(self) -> list[str]:
        """Names of the runs that the server takes for running, or about to run."""
        states = {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}
        found = self.ask("POST", "flow_runs/filter", flow_runs={"state": states})
        return [f"{run['name']}: {run['state_name']}" for run in found]

    def slots(self) -> int:
        """Slots of concurrency limits that are taken."""
        limits = self.ask("POST", "v2/concurrency_limits/filter", limit=100)
        return sum(limit["active_slots"] for limit in limits)

    def history(self, number: UUID) -> list[str]:
        """Names of its states, the first one first."""
        found = self.ask("GET", f"flow_run_states/?flow_run_id={number}")
        return [state["name"] for state in sorted(found, key=lambda state: state["timestamp"])]

    def wait_for(self, number: UUID, *names: str, seconds: float = 240) -> str:
        """Wait until the run is in one of these states, and return which."""
        wait(lambda: self.state(number) in names, seconds, lambda: f"{self.history(number)}")
        return self.state(number)

    def wait_for_training(self) -> None:
        """Wait until a training has written its first checkpoint."""
        wait(lambda: any(self.checkpoints()), 180, "no checkpoint came")

    def checkpoints(self) -> list[Path]:
        """Checkpoint files."""
        there = self.root.glob("cache/checkpoints/*/*/*")
        return [path for path in there if not path.name.endswith(".tmp")]

    def report(self, number: UUID) -> dict[str, Any]:
        """What the run's report says."""
        for path in self.root.glob("reports/*/report.json"):
            found: dict[str, Any] = json.loads(path.read_text())
            if found["flow_run_id"] == str(number):
                return found
        raise AssertionError(f"no report of {number}")


def wait(holds: Callable[[], bool], seconds: float, else_say: str | Callable[[], str]) -> None:
    """Wait until it holds; an answer that does not come counts as no."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(httpx.HTTPError):
            if holds():
                return
        assert time.monotonic() < deadline, else_say if isinstance(else_say, str) else else_say()
        time.sleep(0.2)


def kill_group(process: "subprocess.Popen[bytes]") -> None:
    """End a process, and what it started in its session, without any notice."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
