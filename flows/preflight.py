"""The preflight flow: is this machine fit to train?"""

from typing import Any

from prefect import flow

from classifier import devices
from flows.parameters import Device
from tasks.preflight import inspect, publish


@flow(name="preflight", flow_run_name="preflight {device}", timeout_seconds=600)
def preflight(*, device: Device = "auto", timings: bool = False) -> dict[str, Any]:
    """Check this machine: NumPy and torch, gradients, devices.

    Args:
        device: Device to check; auto takes a GPU if there is one
        timings: Also time two products on each device, and the transfer to it
    """
    found = inspect(device, timings)
    publish(found)
    return found


def check(*, device: Device, **_: Any) -> None:
    """Check that there is such a device; raises as `resolve_device_name`."""
    devices.resolve_device_name(device)
