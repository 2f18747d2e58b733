"""Preflight: what this machine can do, as figures and as a table in the UI."""

from dataclasses import asdict
from typing import Any

from prefect import task
from prefect.artifacts import create_table_artifact

from classifier.errors import InputError


class PreflightError(InputError):
    """A check failed; `found` is what all checks found."""

    def __init__(self, found: dict[str, Any]) -> None:
        failed = [check for check in found["checks"] if not check["passed"]]
        named = "; ".join(f"{check['name']} ({check['found']})" for check in failed)
        super().__init__(f"This machine is not fit to train. Failed checks: {named}.")
        self.found = found


@task(name="inspect", persist_result=False)
def inspect(device: str, timings: bool) -> dict[str, Any]:
    """Return the checks, the devices, and which one was chosen and why, JSON-ready.

    Args:
        device: auto, cpu, cuda or mps.
        timings: also time products and transfers on each device.
    """
    from classifier import devices, preflight

    place = devices.resolve_device(device)
    here = devices.present_devices()
    why = "requested" if device != "auto" else f"auto takes the first of {', '.join(here)}"
    each = [devices.resolve_device(name) for name in here] if timings else []
    return {
        "device": place.type,
        "why": why,
        "devices": devices.memory(),
        "checks": [asdict(check) for check in preflight.checks(place)],
        "timings": [asdict(one) for each_one in each for one in preflight.timings(each_one)],
    }


def publish(found: dict[str, Any]) -> None:
    """Show the checks as a table in the UI.

    Raises:
        PreflightError: a check failed.
    """
    create_table_artifact(rows(found), key="preflight", description="Is this machine fit to train?")
    if not all(check["passed"] for check in found["checks"]):
        raise PreflightError(found)


def rows(found: dict[str, Any]) -> list[dict[str, str]]:
    """Return what was found as a table of three columns."""
    table = [
        (one["name"], "passed" if one["passed"] else "FAILED", one["found"])
        for one in found["checks"]
    ]
    for name, memory in found["devices"].items():
        table.append((f"device {name}", "chosen" if name == found["device"] else "", memory))
    table.append(("chosen because", "", found["why"]))
    for one in found["timings"]:
        milliseconds = f"{1000 * one['seconds']:.2f} ms"
        table.append((f"{one['operation']} on {one['device']}", "", milliseconds))
    return [dict(zip(("check", "result", "found"), row, strict=True)) for row in table]
