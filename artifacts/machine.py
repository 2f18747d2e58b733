"""The machine: what kind of processor this is, and how many threads a step may use."""

import os
import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any


def describe() -> dict[str, Any]:
    """Return processor kind and number of threads, on which the bytes of a result may depend."""
    return {"processor": processor(), "threads": threads()}


@cache
def processor() -> str:
    """Return the processor's model name, or its architecture where no name is known."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def threads() -> int:
    """Return OMP_NUM_THREADS, else the number of cores that this process may use."""
    named = os.environ.get("OMP_NUM_THREADS", "")
    if named.isdigit() and int(named):
        return int(named)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def is_like(described: Mapping[str, Any]) -> bool:
    """Return whether this is a machine of that kind, with as many threads."""
    return described.get("processor") == processor() and described.get("threads") == threads()
