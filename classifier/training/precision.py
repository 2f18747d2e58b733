"""Precision: bf16 where the hardware multiplies it fast, and a word where it does not."""

import os
import sys
from functools import cache
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: Flags of processors that multiply bf16 in hardware, and oneDNN's levels that allow it.
CPU_FLAGS = {"amx_bf16", "avx512_bf16"}
ONEDNN_LEVELS = {"", "ALL", "DEFAULT", "AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX10_1_512"}
TOO_SLOW = 1.5  # times float32: from here on an explicit bf16 earns a warning
_REPEATS = 5


def resolve_precision(precision: str, device: str) -> str:
    """Return float32 or bf16; `auto` becomes bf16 where `device` multiplies it fast.

    The answer follows from the hardware and not from a timing, so that it never changes between
    two runs on one machine.
    """
    if precision != "auto":
        return precision
    return "bf16" if has_fast_bf16(device) else "float32"


@cache
def has_fast_bf16(device: str) -> bool:
    """Return whether the device multiplies bf16 in hardware. On a CPU this loads no torch."""
    if device == "cpu":
        return _cpu_has_fast_bf16()
    if device == "cuda":
        import torch

        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return False


def _cpu_has_fast_bf16() -> bool:
    if sys.platform != "linux" or not Path("/proc/cpuinfo").exists():
        return False
    level = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or ""
    allowed = level.upper() in ONEDNN_LEVELS or "AMX" in level.upper()
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    flags = next((set(line.split()) for line in lines if line.startswith("flags")), set())
    return allowed and not CPU_FLAGS.isdisjoint(flags)


def slow_bf16_warning(precision: str, device: "torch.device") -> str | None:
    """Return a sentence with an estimate, if bf16 is asked for where it is slow."""
    if precision != "bf16" or has_fast_bf16(device.type):
        return None
    slowdown = bf16_slowdown(device)
    if slowdown < TOO_SLOW:
        return None
    return (
        f"This {device.type} has no fast bf16: products take about {slowdown:.0f} times as long as "
        "in float32. --precision auto avoids that."
    )


def bf16_slowdown(device: "torch.device") -> float:
    """Time one product in both precisions: seconds in bf16 over seconds in float32."""
    import torch

    from classifier.devices import synchronize

    random = torch.Generator().manual_seed(0)
    pair = [torch.rand(*shape, generator=random) for shape in ((500, 784), (784, 100))]
    seconds: dict[torch.dtype, float] = {}
    for dtype in (torch.float32, torch.bfloat16):
        x, w = (value.to(device, dtype) for value in pair)
        runs = []
        for _ in range(_REPEATS):
            start = perf_counter()
            torch.mm(x, w)
            synchronize(device)
            runs.append(perf_counter() - start)
        seconds[dtype] = median(runs)
    return seconds[torch.bfloat16] / seconds[torch.float32]
