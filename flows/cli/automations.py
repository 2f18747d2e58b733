"""Automations: bring those on a Prefect server into line with automations.yaml."""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import BlockDocument
from prefect.events.filters import AutomationFilter, AutomationFilterTags
from prefect.events.schemas.automations import Automation, AutomationCore
from prefect.exceptions import ObjectNotFound

from artifacts.errors import InputError

FILE = Path(__file__).resolve().parents[2] / "automations.yaml"
TAG = "image-retraining"  # of our automations, flow runs and deployments
BLOCK = "alarms"  # name of the notification block that gets the alarms
RESTART = f"{TAG}: start crashed runs again"
NOTIFY, RUN = "send-notification", "run-deployment"
MOST = 200  # of ours on one server


def blocks(client: SyncPrefectClient) -> list[BlockDocument]:
    """Return the notification blocks that are called `alarms`: at most one of each type."""
    wanted = {
        "block_documents": {"name": {"any_": [BLOCK]}},
        "block_schemas": {"block_capabilities": {"all_": ["notify"]}},
    }
    answer = client.request("POST", "/block_documents/filter", json=wanted)
    return BlockDocument.model_validate_list(answer.json())


def restart() -> dict[str, Any] | None:
    """Return what automations.yaml says of starting crashed runs again; None where it does not."""
    return next((one for one in _of(FILE) if one["name"] == RESTART), None)


def _of(file: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(file.read_text(encoding="utf-8"))["automations"]
    return found


def apply(client: SyncPrefectClient, file: Path = FILE) -> list[str]:
    """Create, update and delete automations until the server has those of the file, each once.

    One that is as it should be stays untouched: an update would start its clock anew. Whether one
    is paused is left as it is. Those that notify are left out where there is no block to do it.

    Returns the names of those that the server has now.

    Raises:
        InputError: a deployment that the file names is not on the server.
    """
    wanted = {one["name"]: one for one in _wanted(client, file)}
    present: dict[str, Automation] = {}
    for automation in _ours(client):
        if automation.name in wanted and automation.name not in present:
            present[automation.name] = automation
        else:  # of an older file, without a block, or a double
            client.delete_automation(automation.id)
    for name, one in wanted.items():
        new = AutomationCore.model_validate(deepcopy(one))
        if name not in present:
            client.create_automation(new)
        elif not _same(new, present[name]):
            client.update_automation(present[name].id, new)
    return list(wanted)


def _wanted(client: SyncPrefectClient, file: Path) -> Iterator[dict[str, Any]]:
    """Yield the automations of the file, with what the server has for its names."""
    block_ids = [str(block.id) for block in blocks(client)]
    for one in _of(file):
        actions = []
        for action in one["actions"]:
            if action["type"] == NOTIFY:
                actions += [action | {"block_document_id": block} for block in block_ids]
            elif action["type"] == RUN:
                found = _deployment_id(client, action["deployment_id"])
                actions.append(action | {"deployment_id": found})
            else:
                actions.append(action)
        if actions:
            yield one | {"actions": actions}


def _deployment_id(client: SyncPrefectClient, name: str) -> str:
    try:
        return str(client.read_deployment_by_name(name).id)
    except ObjectNotFound as error:
        raise InputError(
            f"{FILE.name} runs the deployment {name}, which is not on this server: put it into "
            "prefect.yaml, or take the automation out."
        ) from error


def _ours(client: SyncPrefectClient) -> list[Automation]:
    ours = AutomationFilter(tags=AutomationFilterTags(all_=[TAG]))
    return client.read_automations(automations=ours, limit=MOST)


def _same(new: AutomationCore, old: Automation) -> bool:
    """Return whether what the file says is what the server has, which adds all defaults to it."""
    said = new.model_fields_set
    there = AutomationCore.model_validate(old.model_dump())
    return new.model_dump(include=said) == there.model_dump(include=said)
