"""Devices: where arrays lie and products are computed."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from classifier.errors import ArgumentError, InputError

if TYPE_CHECKING:
    import torch

NAMES = ("auto", "cpu", "cuda", "mps")


def present_devices() -> list[str]:
    """Return the kinds of device on this machine, the one that `auto` chooses first."""
    if not _may_have_gpu():
        return ["cpu"]
    import torch

    found = ["cpu"]
    if torch.backends.mps.is_available():
        found.insert(0, "mps")
    if torch.cuda.is_available():
        found.insert(0, "cuda")
    return found


def _may_have_gpu() -> bool:
    """Return whether torch could find a GPU here, without loading it: a cached run needs none."""
    if sys.platform != "linux":
        return True
    if metadata.version("torch").endswith("+cpu"):
        return False
    drivers = ("nvidia*", "kfd", "dxg")  # of NVIDIA, AMD, and Windows' Linux
    return any(path for pattern in drivers for path in Path("/dev").glob(pattern))


def resolve_device_name(name: str) -> str:
    """Return cpu, cuda or mps; `auto` is the first of cuda, mps and cpu that is here.

    Raises:
        ArgumentError: the device is not on this machine; the sentence names those that are.
    """
    here = present_devices()
    if name == "auto":
        return here[0]
    if name not in here:
        raise ArgumentError(
            f"There is no device {name!r} here: choose auto or {' or '.join(here)}."
        )
    return name


def resolve_device(name: str) -> "torch.device":
    """Return the device of that name, as `resolve_device_name`."""
    import torch

    return torch.device(resolve_device_name(name))


def check_count(count: int, name: str) -> None:
    """Check that there are so many devices of that kind; of a CPU, its cores count.

    Raises:
        ArgumentError: there are fewer.
    """
    if count == 1:
        return
    here, kind = _count(name)
    if count > here:
        raise ArgumentError(
            f"--devices is {count}, and {here} {kind}{'' if here == 1 else 's'} can be used here: "
            f"give at most {here}."
        )


def _count(name: str) -> tuple[int, str]:
    if name == "cuda":
        import torch

        return torch.cuda.device_count(), "CUDA device"
    if name == "mps":
        return 1, "MPS device"
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1, "core"


def memory() -> dict[str, str]:
    """Return the devices here, each with its memory in words."""
    import torch

    gib = 2.0**30
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / gib
    found = {"cpu": f"{total:.1f} GiB, {torch.get_num_threads()} threads"}
    for name in present_devices():
        if name == "cuda":
            free, most = (value / gib for value in torch.cuda.mem_get_info())
            label = torch.cuda.get_device_name()
            count = torch.cuda.device_count()
            label = label if count == 1 else f"{count} devices, the first: {label}"
            found[name] = f"{label}, {most:.1f} GiB, {free:.1f} GiB of it free"
        elif name == "mps":
            found[name] = f"{torch.mps.recommended_max_memory() / gib:.1f} GiB"
    return found


def synchronize(device: "torch.device") -> None:
    """Wait until the device has done all that it was asked for."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@contextmanager
def explain_out_of_memory(device: "torch.device") -> Iterator[None]:
    """Turn what torch raises when memory is short into one sentence with what it asked for.

    Raises:
        InputError: memory is short.
    """
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _out_of_memory(device, error) from error
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # how the CPU's allocator says it
            raise
        raise _out_of_memory(device, error) from error


def _out_of_memory(device: "torch.device", error: Exception) -> InputError:
    said = str(error).strip().splitlines()
    return InputError(
        f"Memory of {device.type} is short ({said[0] if said else 'no more'}); there is "
        f"{memory()[device.type]}. Give a smaller --batch or a --memory-budget."
    )
