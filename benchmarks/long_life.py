"""Many cached runs in a row on one server: time, memory, database, and what went wrong.

    python -m benchmarks.long_life [--runs 300] [--folder FOLDER] [--quick]

Server and worker are those of `./run ui`. Of ten runs one is asked of the deployment
`train/on-demand`, so that the worker starts a process for it; meanwhile this process calls the flow
nine times, one call after another. All runs train on the fixture of the tests; after the first one
every step is cached.
"""

import argparse
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FIXTURE = ROOT / "tests" / "fixtures" / "mnist"
RUNS, QUICK_RUNS, BLOCK = 300, 5, 10
#: After so many runs nothing should grow by more than a tenth.
SETTLED, GROWTH = 50, 1.1
START_SECONDS, RUN_SECONDS = 180.0, 300.0
LOCKED = "database is locked"
TICKS = os.sysconf("SC_CLK_TCK")
HEADER = (
    "| runs | cached run | its CPU | server CPU a run | worker run | server | worker "
    "| this process | database | WAL | events |"
)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What was seen in ten runs, and after them.

    Fields:
        runs: so far.
        seconds, cpu: wall clock and processor time of a call of the flow, the median.
        server_cpu: processor time of the server for each of the ten.
        worker_seconds: of the run that the worker started, from Running to its end.
        server, worker, client: resident memory in MiB.
        database, wal: size in MB.
        events: rows of the table of events.
    """

    runs: int
    seconds: float
    cpu: float
    server_cpu: float
    worker_seconds: float
    server: float
    worker: float
    client: float
    database: float
    wal: float
    events: int

    def __str__(self) -> str:
        """A row of a Markdown table."""
        return (
            f"| {self.runs} | {self.seconds:.2f} s | {self.cpu:.2f} s | {self.server_cpu:.2f} s "
            f"| {self.worker_seconds:.1f} s | {self.server:.0f} MiB | {self.worker:.0f} MiB "
            f"| {self.client:.0f} MiB | {self.database:.1f} MB | {self.wal:.1f} MB "
            f"| {self.events:,} |"
        )


@dataclass(frozen=True, kw_only=True)
class Ui:
    """The processes of `./run ui`, their files, and the database of the server."""

    server: int
    worker: int
    output: Path
    database: Path


@contextmanager
def serving(folder: Path) -> Iterator[Ui]:
    """Start `./run ui` with a Prefect home of its own, and end it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ |= {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "RETRAIN_DATA": str(folder / "data"),
        "RETRAIN_SOURCE": str(FIXTURE),
    }
    output = folder / "ui.log"
    with output.open("wb") as file:
        command = [sys.executable, str(ROOT / "scripts" / "ui.py")]
        ui = subprocess.Popen(command, stderr=file, start_new_session=True)
        try:
            database = folder / "prefect" / "prefect.db"
            yield Ui(**_children(ui, output), output=output, database=database)
        finally:
            ui.send_signal(signal.SIGTERM)
            ui.wait(60)


def _children(ui: subprocess.Popen[bytes], output: Path) -> dict[str, int]:
    """Return the process ids of server and worker, once both run."""
    deadline = time.monotonic() + START_SECONDS
    while "\nopen " not in output.read_text():
        if ui.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"./run ui did not start: {output.read_text()}")
        time.sleep(0.2)
    found: dict[str, int] = {}
    for pid in _child_ids(ui.pid):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        found |= {name: pid for name in ("server", "worker") if name in words}
    return found


def _child_ids(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for thread in threads for child in thread.read_text().split()]


def _tree(pid: int) -> list[int]:
    """Return the process and all below it."""
    return [pid, *(below for child in _child_ids(pid) for below in _tree(child))]


def resident(*pids: int) -> float:
    """Return the resident memory of processes in MiB."""
    page = os.sysconf("SC_PAGE_SIZE")
    return (
        sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids) * page / 2**20
    )


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process and all below it have used."""
    stats = (Path(f"/proc/{each}/stat").read_text().rsplit(")", 1)[1] for each in _tree(pid))
    return sum(sum(map(int, stat.split()[11:13])) for stat in stats) / TICKS


def megabytes(path: Path) -> float:
    """Return the size of a file; 0 where there is none."""
    return path.stat().st_size / 1e6 if path.exists() else 0.0


def counted(database: Path, query: str) -> int:
    """Return the one number of a query."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=60)) as connection:
        return int(connection.execute(query).fetchone()[0])


def ask_worker() -> Any:
    """Ask the deployment for a run, and return its id."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("train/on-demand")
        asked = {"dataset": "folder", "recipe": "post", "overrides": {"epochs": 1}}
        return client.create_flow_run_from_deployment(deployment.id, parameters=asked).id


def wait_for(run_id: Any) -> float:
    """Return the seconds of a run of the worker, once it has ended."""
    from prefect.client.orchestration import get_client

    deadline = time.monotonic() + RUN_SECONDS
    with get_client(sync_client=True) as client:
        while time.monotonic() < deadline:
            run = client.read_flow_run(run_id)
            if run.state and run.state.is_final():
                return run.total_run_time.total_seconds()
            time.sleep(0.5)
    raise RuntimeError(f"The worker did not end run {run_id} within {RUN_SECONDS:.0f} s.")


def call() -> tuple[float, float]:
    """Run the flow here; return seconds and processor seconds."""
    from flows.parameters import Overrides
    from flows.train import train

    start, before = time.perf_counter(), time.process_time()
    train(dataset="folder", recipe="post", overrides=Overrides(epochs=1))
    return time.perf_counter() - start, time.process_time() - before


def measure(ui: Ui, runs: int) -> Iterator[Sample]:
    """Run, and yield what was seen after each ten."""
    call()  # trains; all others find every step cached
    for before in range(0, runs, BLOCK):
        size = min(BLOCK, runs - before)
        used = cpu_seconds(ui.server)
        asked = ask_worker()
        calls = [call() for _ in range(size - 1)]
        worker_seconds = wait_for(asked)
        time.sleep(2)  # the process of the worker ends, and events are written
        yield Sample(
            runs=before + size,
            seconds=median(seconds for seconds, _ in calls),
            cpu=median(cpu for _, cpu in calls),
            server_cpu=(cpu_seconds(ui.server) - used) / size,
            worker_seconds=worker_seconds,
            server=resident(*_tree(ui.server)),
            worker=resident(*_tree(ui.worker)),
            client=resident(os.getpid()),
            database=megabytes(ui.database),
            wal=megabytes(ui.database.with_name("prefect.db-wal")),
            events=counted(ui.database, "SELECT count(*) FROM events"),
        )


def faults(ui: Ui) -> dict[str, int]:
    """Count what a person would see: runs that did not complete, and locked databases."""
    like = f"LIKE '%{LOCKED}%'"
    return {
        "runs not Completed": counted(
            ui.database,
            "SELECT count(*) FROM flow_run WHERE state_type != 'COMPLETED' AND NOT auto_scheduled",
        ),
        f"`{LOCKED}` in the output of server and worker": ui.output.read_text().count(LOCKED),
        f"`{LOCKED}` in logs of runs": counted(
            ui.database,
            f"SELECT count(*) FROM log WHERE message {like}",  # noqa: S608
        ),
        f"`{LOCKED}` in states of runs": sum(
            counted(ui.database, f"SELECT count(*) FROM {table} WHERE message {like}")  # noqa: S608
            for table in ("flow_run_state", "task_run_state")
        ),
    }


def growth(samples: list[Sample]) -> dict[str, float]:
    """Return how the last fifty runs compare with the fifty after the first fifty."""
    early = [s for s in samples if SETTLED < s.runs <= 2 * SETTLED]
    late = samples[-len(early) :]
    names = ("seconds", "cpu", "server_cpu", "worker_seconds", "server", "worker", "client")
    return {
        name: median(getattr(s, name) for s in late) / median(getattr(s, name) for s in early)
        for name in names
        if early
    }


def main() -> None:
    """Print the table; the exit code is 1 where a run failed or a database was locked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--folder", type=Path, help="empty; keeps the database, logs and samples")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_RUNS} runs")
    asked = parser.parse_args()
    from benchmarks import clock

    print(f"{clock.machine()}\n\n{HEADER}\n|{'---:|' * (HEADER.count('|') - 1)}")
    with tempfile.TemporaryDirectory() as name:
        folder = asked.folder or Path(name)
        samples = []
        with serving(folder) as ui:
            for sample in measure(ui, QUICK_RUNS if asked.quick else asked.runs):
                samples.append(sample)
                print(sample, flush=True)
            found = faults(ui)
        (folder / "samples.json").write_text(json.dumps([vars(each) for each in samples]))
    print(f"\n{clock.machine()}\n")
    for name, ratio in growth(samples).items():
        print(f"{name:<15} {ratio:.2f} of runs {SETTLED + 1} to {2 * SETTLED}; at most {GROWTH}")
    for what, count in found.items():
        print(f"{what}: {count}")
    sys.exit(any(found.values()))


if __name__ == "__main__":
    main()
