"""Toy steps. They import nothing of the tests, so that all their code counts."""

import json
from dataclasses import dataclass
from pathlib import Path

from prefect import flow
from prefect.runtime import flow_run

from artifacts.artifact import Artifact
from artifacts.outcomes import Outcome, outcomes
from artifacts.step import draft, refreshing, scratch, step


@dataclass(frozen=True)
class Range:
    """From where to where numbers are drawn."""

    low: int = 0
    high: int = 3


@step(kind="numbers", ignored=("device",), group_by="name")
def draw(name: str, range_: Range, seed: int = 0, *, device: object = "cpu") -> Artifact:
    """Write numbers."""
    values = [seed + value for value in range(range_.low, range_.high)]
    with draft() as new:
        (new.folder / "numbers.json").write_text(json.dumps({"values": values}))
        new.metadata["device"] = str(device)
    return new.artifact


@step(kind="sums", name="total")
def add(numbers: Artifact, offset: int = 0, *, odd: object = None) -> Artifact:
    """Write the sum."""
    total = offset + sum(numbers.read_json("numbers.json")["values"])
    with draft() as new:
        (new.folder / "sum.json").write_text(json.dumps({"sum": total, "odd": str(odd)}))
    return new.artifact


@step(kind="counts")
def resume() -> Artifact:
    """Fail when it starts afresh, and finish what it finds unfinished."""
    _, file = scratch()
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("half")
        raise RuntimeError("interrupted")
    with draft() as new:
        (new.folder / "count.txt").write_text(file.read_text() + " and half")
    return new.artifact


@step(kind="outer")
def outer(numbers: Artifact) -> Artifact:
    """Call a step within a step, and then publish."""
    inner = add(numbers, 7)
    with draft() as new:
        (new.folder / "inner.txt").write_text(inner.name)
        (new.folder / "scratch.txt").write_text(str(scratch()[1]))
    return new.artifact


@flow
def direct(
    seed: int = 0, offset: int = 0, device: str = "cpu", *, refresh: bool = False
) -> list[Outcome]:
    """Draw and add."""
    with refreshing(refresh=refresh):
        numbers = draw("toys", Range(), seed, device=device)
        total = add(numbers, offset)
    return outcomes({"draw": numbers, "total": total}, flow_run.id)


@flow
def submitted(seed: int = 0) -> list[Outcome]:
    """Draw and add in other threads."""
    numbers = draw.submit("toys", Range(), seed)
    total = add.submit(numbers, 0)
    return outcomes({"draw": numbers.result(), "total": total.result()}, flow_run.id)


@flow
def mapped() -> list[Outcome]:
    """Draw with several seeds."""
    drawn = draw.map("toys", Range(), [0, 1, 2]).result()
    return outcomes({str(number): artifact for number, artifact in enumerate(drawn)}, flow_run.id)


@flow
def twice() -> list[Outcome]:
    """Draw the same twice."""
    found = {"first": draw("toys", Range()), "second": draw("toys", Range())}
    return outcomes(found, flow_run.id)


@flow
def odd(*, submit: bool) -> Artifact:
    """Pass what has no JSON form."""
    numbers = draw("toys", Range())
    return add.submit(numbers, odd={1}).result() if submit else add(numbers, odd={1})


@flow
def unusual_device() -> Artifact:
    """Pass to an ignored argument what has no JSON form."""
    return draw("toys", Range(), device=object())


@flow
def resuming() -> Artifact:
    """Call the step that is interrupted once."""
    return resume()


@flow
def nesting() -> Artifact:
    """Call the step that calls a step."""
    return outer(draw("toys", Range()))


@flow
def moving(roots: list[Path]) -> list[Outcome]:
    """Draw the same below one data root after another."""
    import os

    found = {}
    for number, root in enumerate(roots):
        os.environ["RETRAIN_DATA"] = str(root)
        found[str(number)] = draw("toys", Range())
    return outcomes(found, flow_run.id)
