"""Training on several devices: one process each, started by torch.distributed.run.

The processes are those of `worker`. No port but the loopback interface's is opened: they find each
other through a file, and so does the launcher, whose --standalone listens to the whole network.
"""

import json
import logging
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as serialised
from torch import nn

from classifier.data.parts import Table
from classifier.datasets import PROJECT
from classifier.errors import ArgumentError, BudgetSpentError, InputError, RankError
from classifier.training.checkpoints import Checkpoint, storable
from classifier.training.loop import PROGRESS_INTERVAL
from classifier.training.recipe import Recipe
from classifier.training.state import History
from classifier.training.worker import Job

log = logging.getLogger(__name__)

LOOK = 0.5  # seconds between two looks at whether the launcher lives, and time-outs can strike
END = 10.0  # seconds in which all processes end
Message = dict[str, Any]


def fit(
    network: nn.Module,
    table: Table,
    recipe: Recipe,
    *,
    size: int,
    dataset: str,
    seed: int,
    device: torch.device,
    on_epoch: Callable[[History], None] = lambda _: None,
    on_progress: Callable[[float], None] = lambda _: None,
    progress_interval: float = PROGRESS_INTERVAL,
    checkpoint: Checkpoint | None = None,
    max_seconds: float | None = None,
) -> History:
    """Train the network in place, as `loop.fit`, in `size` processes with a device each.

    A checkpoint of another number of processes, one included, is gone on from. The processes end
    with this one, however it ends.

    Args:
        network: on the CPU, with its initial weights.
        table: all train rows, validation rows included; every process holds them, or what its
            `memory_budget` allows.
        recipe: its precision is resolved.
        size: number of processes.
        dataset: whose networks may be meant.
        seed: of the order of the rows, and of augmentation.
        device: of which kind the devices are.
        on_epoch: as `loop.fit`.
        on_progress: the same.
        progress_interval: the same.
        checkpoint: the same.
        max_seconds: the same; starting the processes does not count.

    Raises:
        BudgetSpentError: it stopped after `max_seconds`.
        InputError: as `loop.fit`, or memory is short.
        RankError: a process ended early; another try goes on from the checkpoint.
    """
    job = Job(
        dataset=dataset,
        parts=table.parts,
        classes=table.classes,
        recipe=recipe,
        seed=seed,
        device=device.type,
        checkpoint=(str(checkpoint.path.absolute()), checkpoint.key, checkpoint.seconds)
        if checkpoint
        else None,
        max_seconds=max_seconds,
        progress_interval=progress_interval,
    )
    history, failed = History(), None
    with tempfile.TemporaryDirectory(prefix="training-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        job.write(folder)
        (folder / "initial.safetensors").write_bytes(serialised(storable(network.state_dict())))
        with _launched(folder, size, checkpoint) as launcher:
            for message in _messages(launcher):
                if "loss" in message:
                    _add(history, message)
                elif "epoch" in message:
                    on_epoch(history)
                elif "progress" in message:
                    on_progress(message["progress"])
                elif "log" in message:
                    log.log(message["level"], "%s", message["log"])
                elif "spent" in message or "error" in message:
                    failed = failed or message
            code = launcher.poll()
        if failed or code != 0:
            said = (folder / "stderr").read_text(encoding="utf-8", errors="replace")
            raise _error(failed, said, size) from RuntimeError(said[-10_000:])
        network.load_state_dict(load_file(folder / "trained.safetensors"))
    return history


@contextmanager
def _launched(
    folder: Path, size: int, checkpoint: Checkpoint | None
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run the processes for the block, in sessions of their own; none of them outlives it."""
    loopback = next((n for _, n in socket.if_nameindex() if n.startswith("lo")), "lo")
    environment = os.environ | {
        "OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // size)),
        "GLOO_SOCKET_IFNAME": loopback,
        "NCCL_SOCKET_IFNAME": loopback,
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",  # a port that is open to all
    }
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={size}"]
    command += ["--rdzv-backend=c10d", "--rdzv-conf=store_type=file"]
    command += [f"--rdzv-endpoint={folder / 'launcher'}", "--local-addr=127.0.0.1"]
    command += [f"--log-dir={folder / 'logs'}"]
    command += ["-m", "classifier.training.worker", str(folder)]
    with (folder / "stderr").open("wb") as errors:
        launcher = subprocess.Popen(
            command,
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.PIPE,  # its end tells the processes that this one is gone
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    try:
        yield launcher
    finally:
        _end(launcher)
        if checkpoint:
            checkpoint.remove_unfinished()


def _end(launcher: "subprocess.Popen[bytes]") -> None:
    """End what still runs, and wait for it: all hold the pipe of the messages."""
    assert launcher.stdin is not None  # noqa: S101 - for the type checker
    assert launcher.stdout is not None  # noqa: S101
    launcher.stdin.close()
    if launcher.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(launcher.pid, signal.SIGKILL)
    launcher.wait()
    with selectors.DefaultSelector() as selector:
        selector.register(launcher.stdout, selectors.EVENT_READ)
        while selector.select(END) and os.read(launcher.stdout.fileno(), 65536):
            pass
    launcher.stdout.close()


def _messages(launcher: "subprocess.Popen[bytes]") -> Iterator[Message]:
    """Yield what the processes say, until all of them have ended."""
    assert launcher.stdout is not None  # noqa: S101 - for the type checker
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(launcher.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(LOOK):
                if launcher.poll() is not None:
                    return
                continue
            if not (read := os.read(launcher.stdout.fileno(), 65536)):
                launcher.wait(END)
                return
            *lines, rest = (rest + read).split(b"\n")
            yield from map(json.loads, lines)


def _add(history: History, message: Message) -> None:
    history.loss.append(message["loss"])
    history.train_accuracy.append(message["train_accuracy"])
    if message["validation_accuracy"] is not None:
        accuracy = message["validation_accuracy"]
        history.validation_accuracy = [*(history.validation_accuracy or []), accuracy]


def _error(failed: Message | None, said: str, size: int) -> Exception:
    """Return the error in one sentence.

    Args:
        failed: the first message about one.
        said: standard error; its end is the launcher's table of what failed.
        size: number of processes.
    """
    if failed and "spent" in failed:
        return BudgetSpentError(*failed["spent"])
    if failed and failed["kind"] in {"ArgumentError", "InputError"}:
        return (ArgumentError if failed["kind"] == "ArgumentError" else InputError)(failed["error"])
    if failed:
        return RankError(failed["rank"], size, f"failed ({failed['error']})")
    _, _, root = said.rpartition("Root Cause")
    rank, code = (re.search(rf"{what}\s*: (-?\d+)", root) for what in ("rank", "exitcode"))
    if not rank or not code:
        return RankError(None, size, "ended early")
    return RankError(int(rank[1]), size, _how(int(code[1])))


def _how(code: int) -> str:
    """Say how a process ended, given its exit code."""
    if code == -signal.SIGKILL:
        return "was ended by SIGKILL, most likely for lack of memory"
    names = {-each.value: each.name for each in signal.Signals}
    return f"was ended by {names[code]}" if code in names else f"ended with code {code}"
