"""Precision: `auto` follows from the hardware, and slow bf16 earns one line."""

import math
from pathlib import Path

import pytest
import torch

from classifier.training import precision

CPU = torch.device("cpu")
CPUINFO = Path("/proc/cpuinfo")
PLAIN = "fpu sse2 avx avx2 avx512f avx512bw avx512vl avx512_vnni"


@pytest.fixture
def processor(monkeypatch):
    """Give this machine a Linux processor with these flags; None: without /proc/cpuinfo."""
    read_text, exists = Path.read_text, Path.exists
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")

    def give(flags):
        lines = ("processor\t: 0", "model name\t: fake", f"flags\t\t: {flags}", "bugs\t\t:", "")
        text = "\n".join(2 * lines)
        monkeypatch.setattr(
            Path, "exists", lambda path: bool(flags) if path == CPUINFO else exists(path)
        )
        monkeypatch.setattr(
            Path, "read_text", lambda path, **o: text if path == CPUINFO else read_text(path, **o)
        )
        precision.has_fast_bf16.cache_clear()

    yield give
    precision.has_fast_bf16.cache_clear()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (PLAIN, "float32"),
        (f"{PLAIN} avx512_bf16", "bf16"),
        (f"{PLAIN} amx_bf16 amx_tile amx_int8", "bf16"),
        (f"{PLAIN} amx_tile amx_int8", "float32"),
        (f"{PLAIN} avx512_bf16_of_another_name", "float32"),
        (None, "float32"),
    ],
)
def test_auto_on_a_cpu_follows_from_the_flags_of_the_processor(processor, flags, expected):
    processor(flags)
    assert precision.resolve_precision("auto", "cpu") == expected


@pytest.mark.parametrize("name", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("ALL", "bf16"),
        ("default", "bf16"),
        ("AVX512_CORE_BF16", "bf16"),
        ("avx512_core_amx", "bf16"),
        ("", "bf16"),
        ("AVX2", "float32"),
        ("AVX512_CORE", "float32"),
        ("AVX512_CORE_VNNI", "float32"),
    ],
)
def test_auto_is_float32_where_onednn_may_not_use_the_instructions(
    processor, monkeypatch, name, level, expected
):
    processor(f"{PLAIN} avx512_bf16 amx_bf16")
    monkeypatch.setenv(name, level)
    assert precision.resolve_precision("auto", "cpu") == expected


def test_auto_on_a_cpu_of_another_system_is_float32(processor, monkeypatch):
    processor(f"{PLAIN} avx512_bf16")
    monkeypatch.setattr("sys.platform", "darwin")
    assert precision.resolve_precision("auto", "cpu") == "float32"


def test_auto_on_mps_is_float32(processor):
    processor(f"{PLAIN} avx512_bf16")
    assert precision.resolve_precision("auto", "mps") == "float32"


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16"), (False, "float32")])
def test_auto_on_cuda_asks_for_bf16_without_emulation(processor, monkeypatch, native, expected):
    processor(PLAIN)
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: including_emulation or native,
    )
    assert precision.resolve_precision("auto", "cuda") == expected


@pytest.mark.parametrize("chosen", ["float32", "bf16"])
@pytest.mark.parametrize("flags", [PLAIN, f"{PLAIN} avx512_bf16"])
def test_an_explicit_precision_stays(processor, flags, chosen):
    processor(flags)
    assert precision.resolve_precision(chosen, "cpu") == chosen


def test_slow_bf16_earns_one_line_with_an_estimate(processor, monkeypatch):
    processor(PLAIN)
    monkeypatch.setattr(precision, "bf16_slowdown", lambda _: 7.2)
    warning = precision.slow_bf16_warning("bf16", CPU)
    assert len(warning.splitlines()) == 1
    assert "This cpu has no fast bf16" in warning
    assert "about 7 times as long" in warning
    assert "--precision auto" in warning


@pytest.mark.parametrize(
    ("chosen", "flags", "slowdown"),
    [
        ("float32", PLAIN, 7.0),
        ("bf16", f"{PLAIN} avx512_bf16", 7.0),
        ("bf16", PLAIN, 1.1),
    ],
    ids=["not asked for", "fast by its flags", "fast by the clock"],
)
def test_nothing_else_earns_a_warning(processor, monkeypatch, chosen, flags, slowdown):
    processor(flags)
    monkeypatch.setattr(precision, "bf16_slowdown", lambda _: slowdown)
    assert precision.slow_bf16_warning(chosen, CPU) is None


def test_the_slowdown_is_a_ratio_of_two_times():
    slowdown = precision.bf16_slowdown(CPU)
    assert math.isfinite(slowdown)
    assert slowdown > 0
