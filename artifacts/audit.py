"""Audit: compute cached steps again in clean processes, and compare.

A step that depends on something that its key does not hold, such as an environment variable or a
file read on the side, gives another result there. Each step runs in a process of its own, with a
data root of its own that holds its inputs alone: python -m artifacts.audit, which reads what to do
from standard input.
"""

import errno
import importlib
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from inspect import Parameter, signature, unwrap
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from artifacts import inventory, keys, lineage, machine, records
from artifacts.artifact import Artifact, describe_difference, find_damage
from artifacts.keys import KeyRule
from artifacts.locks import lock
from artifacts.records import Record

#: What every process needs; a step declares what it needs besides.
KEPT = ("PATH", "HOME", "TMPDIR", "LANG", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE")
SECONDS = 6 * 3600  # for one step
_MISSING = object()
_ANSWER = "audit answers: "  # begins the line that the process writes; a step may print too
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_PARENT = Path(__file__).resolve().parent.parent  # of this package

OutcomeName = Literal["same", "different", "skipped"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What an audit found of one record.

    Fields:
        artifact: `<kind>/<digest>`.
        step: that made it.
        outcome: whether the step gives the same again.
        why: what differs, or why nothing could be compared.
    """

    artifact: str
    step: str
    outcome: OutcomeName
    why: str | None = None


def audit(
    rules: Mapping[str, KeyRule], *, sample: int | None = None, server: str | None = None
) -> Iterator[Finding]:
    """Audit cached steps; evict the records of those that differ, and of all made from them.

    Args:
        rules: the key rule of each step, by its name.
        sample: how many records, drawn at random; all by default.
        server: address of the Prefect API to which the processes report.
    """
    there = [record for record in records.everything() if find_damage(record.artifact) is None]
    if sample is not None:
        there = random.sample(there, min(sample, len(there)))
    for record in there:
        skipped = _why_not(record, rules)
        outcome, why = ("skipped", skipped) if skipped else _compute(record, rules, server)
        if outcome == "different":
            _evict_with_descendants(record, f"an audit found: {why}")
        yield Finding(artifact=record.artifact.name, step=record.step, outcome=outcome, why=why)


def _why_not(record: Record, rules: Mapping[str, KeyRule]) -> str | None:
    if record.step not in rules:
        return "there is no such step"
    old = record.components()
    new = lineage.with_present_code(old, rules[record.step])
    if new is None or keys.differences(old, new):
        return "its code has changed since"
    return None


def _compute(
    record: Record, rules: Mapping[str, KeyRule], server: str | None
) -> tuple[OutcomeName, str | None]:
    """Compute the step again in a process of its own, and compare."""
    rule = rules[record.step]
    inputs = [_find(digest) for digest in keys.inputs(record.components()).values()]
    threads = record.artifact.metadata.get("machine", {}).get("threads")
    with tempfile.TemporaryDirectory(prefix="audit-") as folder:
        environment = {
            name: value
            for name, value in os.environ.items()
            if name in {*KEPT, *rule.environment} or name.startswith("PREFECT_")
        }
        installed = os.environ.get("PYTHONPATH", "").split(os.pathsep)  # libraries, as packages are
        parents = [str(rule.rule.root), str(_PARENT), *filter(None, installed)]
        environment["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, parents))
        environment["RETRAIN_DATA"] = str(Path(folder, "data"))
        environment |= {"PREFECT_API_URL": server} if server else {}
        environment |= {"OMP_NUM_THREADS": str(threads)} if threads else {}
        for artifact in {each.name: each for each in inputs if each}.values():
            link = Path(folder, "data", "cache", artifact.name)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(artifact.path)
        asked = {
            "module": ".".join(rule.file.relative_to(rule.rule.root).with_suffix("").parts),
            "step": record.step,
            "components": record.components(),
            "artifact": asdict(record.artifact),
            "folder": str(record.artifact.path),
            "inputs": [asdict(artifact) for artifact in filter(None, inputs)],
        }
        try:
            done = subprocess.run(
                [sys.executable, "-m", "artifacts.audit"],
                input=json.dumps(asked),
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return "skipped", f"it took over {SECONDS / 3600:g} hours"
    lines = [line for line in done.stdout.splitlines() if line.startswith(_ANSWER)]
    if done.returncode < 0:
        return "skipped", f"its process was ended by signal {-done.returncode}"
    if not lines:
        said = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        return "skipped", f"its process failed: {said}"
    answer = json.loads(lines[-1].removeprefix(_ANSWER))
    return answer["outcome"], answer["why"]


def _find(digest: str) -> Artifact | None:
    made = (r.artifact for r in records.everything() if r.artifact.digest == digest)
    stay = (artifact for artifact in inventory.permanent() if artifact.digest == digest)
    found = itertools.chain(made, stay)
    return next((artifact for artifact in found if find_damage(artifact) is None), None)


def _evict_with_descendants(record: Record, why: str) -> None:
    for bad in (record, *lineage.descendants([record.artifact.digest])):
        with lock(bad.key):
            records.evict(bad.key, why)


def _answer(asked: dict[str, Any]) -> tuple[OutcomeName, str | None]:
    """Run the step that is asked for, and compare; in a process of its own.

    A step whose own code fails here depends on something that is not here. That Prefect does not
    answer, or that the disk or memory is full, says nothing of the step.
    """
    importlib.import_module("prefect")  # if it is not there, this process fails, not the step
    try:
        return _compared(asked)
    except Exception as error:  # noqa: BLE001 - of whatever the step's code raises
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        if _is_from_outside(error):
            return "skipped", f"it could not be computed: {said}"
        return "different", f"it cannot be computed again: {said}"


def _is_from_outside(error: BaseException | None) -> bool:
    while error is not None:
        package = type(error).__module__.partition(".")[0]
        full = isinstance(error, OSError) and error.errno in _FULL
        if full or isinstance(error, MemoryError) or package in {"prefect", "httpx", "httpcore"}:
            return True
        error = error.__cause__
    return False


def _compared(asked: dict[str, Any]) -> tuple[OutcomeName, str | None]:
    from prefect import flow

    from artifacts.step import Step

    module = importlib.import_module(asked["module"])
    steps = (value for value in vars(module).values() if isinstance(value, Step))
    step = next(each for each in steps if each.rule.step == asked["step"])
    old = Artifact(**asked["artifact"])
    try:
        arguments = _Arguments(asked).of(unwrap(step.fn))
    except LookupError as error:
        return "skipped", str(error.args[0])

    @flow(name="audit")
    def again() -> Artifact:
        made: Artifact = step(**arguments)
        return made

    try:
        new = again()
    except step.unavailable as error:
        return "skipped", f"an input from outside is not there: {error}"
    if new.digest == old.digest:
        return "same", None
    if new.metadata.get("exact", True) and machine.is_like(old.metadata.get("machine", {})):
        return "different", describe_difference(Path(asked["folder"]), new.path)
    if step.alike is None:
        return "skipped", "it was made on another kind of processor, or with other threads"
    why = step.alike(Path(asked["folder"]), new.path)
    return ("different", why) if why else ("same", None)


class _Arguments:
    """Arguments of a call, from its key components and what its record says of ignored ones."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self.components = asked["components"]
        self.ignored = asked["artifact"]["metadata"].get("ignored", {})
        self.inputs = {each["digest"]: Artifact(**each) for each in asked["inputs"]}

    def of(self, function: Callable[..., object]) -> dict[str, Any]:
        """Return the arguments by name.

        Raises:
            LookupError: one is not known.
        """
        found, hints = {}, get_type_hints(function)
        for name, parameter in signature(function).parameters.items():
            value = self._value(name, hints.get(name))
            if value is not _MISSING:
                found[name] = value
            elif parameter.default is Parameter.empty:
                raise LookupError(f"its argument {name} is not known any more")
        return found

    def _value(self, name: str, hint: Any) -> Any:
        if (digest := self.components.get(f"input {name}")) is not None:
            if digest not in self.inputs:
                raise LookupError(f"its {name} is not in the cache any more")
            return self.inputs[digest]
        if f"input {name}[0]" in self.components or f"{name}[0]" in self.components:
            found: list[Any] = []
            while (value := self._value(f"{name}[{len(found)}]", None)) is not _MISSING:
                found.append(value)
            return found
        value = self.components.get(name, self.ignored.get(name, _MISSING))
        for kind in (hint, *get_args(hint)):
            if is_dataclass(kind) and isinstance(kind, type) and value == kind.__name__:
                hints = get_type_hints(kind)
                values = {
                    f.name: self._value(f"{name}.{f.name}", hints[f.name]) for f in fields(kind)
                }
                return kind(**{n: v for n, v in values.items() if v is not _MISSING})
        is_tuple = any(get_origin(kind) is tuple for kind in (hint, *get_args(hint)))
        return tuple(value) if is_tuple and isinstance(value, list) else value


if __name__ == "__main__":
    outcome, why = _answer(json.load(sys.stdin))
    sys.stdout.write(f"\n{_ANSWER}" + json.dumps({"outcome": outcome, "why": why}) + "\n")
