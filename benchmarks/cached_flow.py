"""A fully cached run of the train flow against an empty flow of five tasks."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.clock import Row, interleaved

EMPTY = """
from prefect import flow, task

def make(name):
    @task(name=name)
    def step(before=None):
        return name
    return step

steps = [make(name) for name in ("download", "normalise", "train", "evaluate", "plot")]

@flow(name="empty")
def empty():
    result = None
    for step in steps:
        result = step(result)

empty()
"""


def rows(folder: Path, *, quick: bool) -> Iterator[Row]:
    """Whole processes and flows alone, on one server that is already running."""
    with tempfile.TemporaryDirectory() as name:
        os.environ |= {"PREFECT_HOME": name, "RETRAIN_DATA": str(folder.parent / "data")}
        from prefect.testing.utilities import prefect_test_harness

        with prefect_test_harness(server_startup_timeout=120):
            yield from _rows(2 if quick else 9)


def _rows(repeats: int) -> Iterator[Row]:
    from prefect import flow, task
    from prefect.settings import PREFECT_API_URL

    from flows.parameters import Overrides
    from flows.train import train

    environment = os.environ | {"PREFECT_API_URL": str(PREFECT_API_URL.value())}
    ours = [sys.executable, "-m", "flows", "train", "--epochs", "1", "--json"]
    peer = [sys.executable, "-c", EMPTY]

    def process(command: list[str]) -> None:
        subprocess.run(command, env=environment, check=True, capture_output=True)

    candidates = {"ours": lambda: process(ours), "peer": lambda: process(peer)}
    seconds = interleaved(candidates, repeats)
    goal = "at most 1.2 times"
    yield Row(
        what="cached train flow, whole process",
        ours=seconds["ours"],
        peer=seconds["peer"],
        peer_is="empty five-task flow",
        unit="s",
        goal=goal,
        clock="from start to exit of python, server already running",
    )

    @task
    def nothing(before: object) -> object:
        return before

    @flow(name="empty")
    def empty() -> None:
        result: object = None
        for _ in range(5):
            result = nothing(result)

    overrides = Overrides(epochs=1)
    seconds = interleaved({"ours": lambda: train(overrides=overrides), "peer": empty}, repeats)
    yield Row(
        what="cached train flow, the flow alone",
        ours=seconds["ours"],
        peer=seconds["peer"],
        peer_is="empty five-task flow",
        unit="s",
        goal=goal,
        clock="one call in a warm process, server already running; ours writes its report",
    )
