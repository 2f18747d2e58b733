"""Deploy: the work pool, the deployments and the automations of this project on a server."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterTags,
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.settings import PREFECT_API_URL
from prefect.states import Crashed, Failed, Scheduled
from prefect.workers.process import ProcessWorker

from artifacts import runs
from artifacts.errors import ArgumentError, InputError
from flows.cli import automations, server
from flows.cli.address import shown
from flows.cli.answer import Answer

PROJECT = Path(__file__).resolve().parents[2]
POOL, QUEUE = "local", "training"  # as prefect.yaml has them
IN_IMAGE = "/app"  # where the Dockerfile puts this folder
AT_A_TIME = 1  # runs of the queue, unless another limit was set
ENDED = "Its process ended with its worker, and did not say why."
MOST_ENDS = 20  # after which such a run does not start again
MISSED = timedelta(days=1)  # in which a run crashed that starts again
NOT_IN_NAMES = frozenset("/%&<>?#\\")  # of work pools: Prefect refuses most, or reads an address
DEPLOYED = re.compile(r"Deployment '([^']+)' successfully")
REMEDY = f"off until there is a notification block named {automations.BLOCK} (docs/operation.md)"


def deploy(*, pool: str = POOL) -> Answer:
    """Put the deployments and automations of this folder on a Prefect server, as often as you like.

    It is the one that Prefect is configured for, else one that answers at 127.0.0.1:4200.

    Args:
        pool: Work pool of the deployments, whose worker runs them; `local` is made if missing
    """
    with server.present() as client:
        kind = _kind_of_pool(client, pool)
        _make_queue(client, pool)
        with _paused_ones_stay(client):
            deployed = _deploy(pool, IN_IMAGE if kind != ProcessWorker.type else None)
        applied = automations.apply(client)
        restarted = [*go_on(client), *start_again(client)]
        blocks = [str(block.block_type_name) for block in automations.blocks(client)]
        address = shown(str(client.api_url)).rstrip("/")
    alarms = f"go to the block {automations.BLOCK}: {', '.join(blocks)}" if blocks else REMEDY
    lines = [f"deployed   {', '.join(deployed)}", f"alarms     {alarms}"]
    if restarted:
        lines.append(f"restarted  {', '.join(restarted)}")
    found = {
        "server": address,
        "deployed": deployed,
        "automations": applied,
        "alarms": blocks,
        "restarted": restarted,
    }
    return Answer(found, "\n".join(lines))


def go_on(client: SyncPrefectClient) -> list[str]:
    """Start again what ended with its worker on this machine, and nobody told the server.

    Such are the runs of `./run ui`, which ends both. Their crash is no fault of the run, so it has
    more tries. Returns the names.
    """
    again = _again()
    ours = FlowRunFilter(
        tags=FlowRunFilterTags(all_=[automations.TAG]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING])),
    )
    found = []
    for run in client.read_flow_runs(flow_run_filter=ours):
        began = run.state.timestamp.timestamp() if run.state else float("inf")
        if not _is_dead(run.infrastructure_pid) or not runs.is_over(run.id.hex[:8], began):
            continue
        states = client.read_flow_run_states(run.id)
        if client.read_flow_run(run.id).state_id != run.state_id:  # it has told its end meanwhile
            continue
        state: State[None]
        if again is None:
            state = Crashed(message=ENDED)
        elif sum(state.message == ENDED for state in states) < MOST_ENDS:
            state = Scheduled(name=again["name"], message=ENDED)
            found.append(run.name)
        else:
            state = Failed(message=f"{ENDED} It has been started again {MOST_ENDS} times.")
        client.set_flow_run_state(run.id, state)
    return found


def _again() -> dict[str, Any] | None:
    """Return the state of runs that start again; None where automations.yaml has none."""
    wanted = automations.restart()
    return wanted["actions"][0] if wanted else None


def _is_dead(process: str | None) -> bool:
    """Return whether the process of a worker's run has ended, if it was one of this machine."""
    if not process or not process.isdecimal():  # of another kind of worker, or of a terminal
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


def start_again(client: SyncPrefectClient) -> list[str]:
    """Start again what crashed, as automations.yaml says; returns the names.

    A server that is just starting sees no event, so a run that crashed then would stay as it is.
    """
    wanted = automations.restart()
    if wanted is None:
        return []
    most = int(wanted["trigger"]["match"]["prefect.run-count"][-1])
    action = wanted["actions"][0]
    ours = FlowRunFilter(
        tags=FlowRunFilterTags(all_=[automations.TAG]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.CRASHED])),
        end_time=FlowRunFilterEndTime.model_validate({"after_": datetime.now(UTC) - MISSED}),
    )
    found = []
    for run in client.read_flow_runs(flow_run_filter=ours):
        if not run.deployment_id:
            continue
        # Not its run_count, which stays 0 where a run crashes before it begins.
        states = client.read_flow_run_states(run.id)
        again = [state for state in states if state.name == action["name"]]
        more = sum(state.message != ENDED for state in again) < most
        if more and client.read_flow_run(run.id).state_id == run.state_id:  # nobody else did it
            state: State[None] = Scheduled(name=action["name"], message=action["message"])
            client.set_flow_run_state(run.id, state)
            found.append(run.name)
    return found


def _kind_of_pool(client: SyncPrefectClient, name: str) -> str:
    """Return the type of the work pool; what was set on it stays. Makes `local` if missing."""
    if not name.strip(" .") or not name.isprintable() or set(name) & NOT_IN_NAMES:
        raise ArgumentError(f"--pool is {name!r}: give the name of a work pool.")
    try:
        pool = client.read_work_pool(name)
    except ObjectNotFound:
        if name != POOL:
            raise InputError(
                f"This server has no work pool {name!r}: make it first (docs/cluster.md)."
            ) from None
        template = ProcessWorker.get_default_base_job_template()
        new = WorkPoolCreate(name=POOL, type=ProcessWorker.type, base_job_template=template)
        try:
            pool = client.create_work_pool(new)
        except ObjectAlreadyExists:  # another `./run deploy` has just made it
            pool = client.read_work_pool(name)
    if name == POOL and pool.type != ProcessWorker.type:
        raise InputError(
            f"The work pool {POOL!r} of this server is of type {pool.type!r}, and not "
            f"{ProcessWorker.type!r}: name another one with --pool."
        )
    return pool.type


def _make_queue(client: SyncPrefectClient, pool: str) -> None:
    """Make the work queue of the trainings unless it is there; what was set on it stays."""
    try:
        client.create_work_queue(
            name=QUEUE,
            work_pool_name=pool,
            concurrency_limit=AT_A_TIME,
            description="Trainings of this project: one at a time.",
        )
    except ObjectAlreadyExists:
        return


@contextmanager
def _paused_ones_stay(client: SyncPrefectClient) -> Iterator[None]:
    """Pause our deployments again that the block resumes, as Prefect's own command does."""
    ours = DeploymentFilter(tags=DeploymentFilterTags(all_=[automations.TAG]))
    paused = [one.id for one in client.read_deployments(deployment_filter=ours) if one.paused]
    try:
        yield
    finally:
        for number in paused:
            client.pause_deployment(number)


def _deploy(pool: str, folder: str | None) -> list[str]:
    """Deploy all of prefect.yaml, and return the names.

    Args:
        pool: the work pool to deploy to.
        folder: where its runs find the project; None for this folder.
    """
    wanted = yaml.safe_load((PROJECT / "prefect.yaml").read_text(encoding="utf-8"))
    for deployment in wanted["deployments"]:
        deployment["work_pool"] = deployment["work_pool"] | {"name": pool}
    if folder:
        step = "prefect.deployments.steps.set_working_directory"
        wanted["pull"] = [{step: {"directory": folder}}]
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".yaml") as file:
        yaml.safe_dump(wanted, file)
        file.flush()
        command = ["prefect", "--no-prompt", "deploy", "--all", "--prefect-file", file.name]
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=PROJECT,
            env=os.environ | {"PREFECT_API_URL": str(PREFECT_API_URL.value()), "COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise InputError(f"{done.stdout}{done.stderr}\n`prefect deploy --all` failed.")
    return re.findall(DEPLOYED, done.stdout)
