"""Timing: candidates take turns, so that a machine that drifts drifts for all of them."""

import gc
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch

from classifier.training.precision import has_fast_bf16


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: what ours and a peer took in the same run.

    `clock` says in words what the seconds include.
    """

    what: str
    ours: float
    peer: float
    peer_is: str
    unit: str
    goal: str
    clock: str

    @property
    def ratio(self) -> float:
        """Ours over the peer's; below one is better."""
        return self.ours / self.peer

    def __str__(self) -> str:
        """A row of a Markdown table."""
        return (
            f"| {self.what} | {self.ours:.3g} {self.unit} | {self.peer:.3g} {self.unit}, "
            f"{self.peer_is} | {self.ratio:.2f} | {self.goal} | {self.clock} |"
        )

    def json(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self) | {"ratio": self.ratio}


def interleaved(
    candidates: Mapping[str, Callable[[], object]], repeats: int, *, warm_up: bool = True
) -> dict[str, float]:
    """Median wall-clock seconds of each candidate, over repeats in which all take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(repeats + warm_up):
        for name, run in candidates.items():
            gc.collect()
            start = time.perf_counter()
            run()
            elapsed = time.perf_counter() - start
            if turn >= warm_up:
                seconds[name].append(elapsed)
    return {name: median(values) for name, values in seconds.items()}


def machine() -> str:
    """Return cores, instructions and load, which explain a strange figure."""
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    fast = "bf16 in hardware" if has_fast_bf16("cpu") else "no bf16 in hardware"
    return f"{processor()}, {fast}, load average {load}"


def processor() -> str:
    """Return cores and the widest instructions, on which the last bits of a training depend."""
    amx = torch.cpu.get_capabilities().get("amx_tile", False)
    kind = "AMX" if amx else torch.backends.cpu.get_cpu_capability()
    return f"{os.cpu_count()} cores, {kind}"
