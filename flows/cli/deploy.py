"""Deploy: the work pool, the deployments and the automations of this project on a server."""

import os
import re
import subprocess
import sys
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.settings import PREFECT_API_URL
from prefect.workers.process import ProcessWorker

from artifacts.errors import InputError
from flows.cli import automations, server
from flows.cli.answer import Answer

PROJECT = Path(__file__).resolve().parents[2]
POOL, QUEUE = "local", "training"  # as prefect.yaml has them
AT_A_TIME = 1  # runs of the queue, unless another limit was set
DEPLOYED = re.compile(r"Deployment '([^']+)' successfully")


REMEDY = f"off until there is a notification block named {automations.BLOCK} (docs/operation.md)"


def deploy() -> Answer:
    """Put the deployments and automations of this folder on a Prefect server, as often as you like.

    It is the one that Prefect is configured for, else one that answers at 127.0.0.1:4200.
    """
    with server.present() as client:
        _make_pool(client)
        _make_queue(client)
        deployed = _deploy()
        applied = automations.apply(client)
        blocks = [str(block.block_type_name) for block in automations.blocks(client)]
        address = str(client.api_url).rstrip("/")
    alarms = f"go to the block {automations.BLOCK}: {', '.join(blocks)}" if blocks else REMEDY
    lines = [f"deployed   {', '.join(deployed)}", f"alarms     {alarms}"]
    found = {"server": address, "deployed": deployed, "automations": applied, "alarms": blocks}
    return Answer(found, "\n".join(lines))


def _make_pool(client: SyncPrefectClient) -> None:
    """Make the work pool unless it is there; what was set on it stays."""
    try:
        pool = client.read_work_pool(POOL)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        new = WorkPoolCreate(name=POOL, type=ProcessWorker.type, base_job_template=template)
        client.create_work_pool(new)
        return
    if pool.type != ProcessWorker.type:
        raise InputError(
            f"The work pool {POOL!r} of this server is of type {pool.type!r}, and not "
            f"{ProcessWorker.type!r}: name another one in prefect.yaml."
        )


def _make_queue(client: SyncPrefectClient) -> None:
    """Make the work queue of the trainings unless it is there; what was set on it stays."""
    try:
        client.create_work_queue(
            name=QUEUE,
            work_pool_name=POOL,
            concurrency_limit=AT_A_TIME,
            description="Trainings of this project: one at a time.",
        )
    except ObjectAlreadyExists:
        return


def _deploy() -> list[str]:
    """Deploy all of prefect.yaml, and return the names."""
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        cwd=PROJECT,
        env=os.environ | {"PREFECT_API_URL": str(PREFECT_API_URL.value()), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise InputError(f"{done.stdout}{done.stderr}\n`prefect deploy --all` failed.")
    return re.findall(DEPLOYED, done.stdout)
