"""Devices: where arrays are put and products are computed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from classifier.errors import BadArgument, BadInput


def present() -> list[str]:
    """The kinds of device on this machine, the one that `auto` picks first."""
    found = ["cpu"]
    if torch.backends.mps.is_available():
        found.insert(0, "mps")
    if torch.cuda.is_available():
        found.insert(0, "cuda")
    return found


def pick(name: str) -> torch.device:
    """The device of that name; `auto` is the first of cuda, mps and cpu that is there.

    Raises:
        BadArgument: it is not on this machine; the sentence names what is.
    """
    here = present()
    if name == "auto":
        return torch.device(here[0])
    if name not in here:
        raise BadArgument(f"There is no device {name!r} here: choose auto or {' or '.join(here)}.")
    return torch.device(name)


def memory() -> dict[str, str]:
    """Each device here with its memory in words."""
    gib = 2.0**30
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / gib
    found = {"cpu": f"{total:.1f} GiB, {torch.get_num_threads()} threads"}
    for name in present():
        if name == "cuda":
            free, most = (value / gib for value in torch.cuda.mem_get_info())
            label = torch.cuda.get_device_name()
            found[name] = f"{label}, {most:.1f} GiB, {free:.1f} GiB of it free"
        elif name == "mps":
            found[name] = f"{torch.mps.recommended_max_memory() / gib:.1f} GiB"
    return found


def wait(device: torch.device) -> None:
    """Until the device has done all that it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@contextmanager
def enough_memory(device: torch.device) -> Iterator[None]:
    """Turns what torch raises when memory is short into one sentence with what it asked for."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _short(device, error) from error
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # how the CPU's allocator says it
            raise
        raise _short(device, error) from error


def _short(device: torch.device, error: Exception) -> BadInput:
    said = str(error).strip().splitlines()
    return BadInput(
        f"Memory of {device.type} is short ({said[0] if said else 'no more'}); there is "
        f"{memory()[device.type]}. Give a smaller --batch or a --memory-budget."
    )
