"""Audit: what depends on more than its key holds is found."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import artifacts
from artifacts import audit, records
from artifacts.code import CodeRule
from artifacts.keys import KeyRule
from tests.artifacts.small_cache import write

TOYS = """
import json
import os
from dataclasses import dataclass
from pathlib import Path

from prefect import flow

from artifacts.artifact import Artifact
from artifacts.step import draft, step

ASIDE = Path(__file__).with_name("aside.txt")

@dataclass(frozen=True)
class Range:
    low: int = 0
    high: int = 3

def write(text, **metadata):
    with draft() as new:
        (new.folder / "content.txt").write_text(str(text))
        new.metadata |= metadata
    return new.artifact

@step(kind="numbers", ignored=("device",))
def draw(
    range_: Range,
    names: tuple[str, ...],
    device: str,
    limit: int | None = None,
    shape: tuple[int, ...] | None = None,
) -> Artifact:
    assert isinstance(range_, Range) and isinstance(names, tuple) and device == "cpu"
    return write([range_.low, range_.high, names, limit, shape])

@step(kind="sums")
def add(numbers: list[Artifact]) -> Artifact:
    return write("".join((each.path / "content.txt").read_text() for each in numbers))

@step(kind="secrets")
def read_variable() -> Artifact:
    return write(os.environ.get("PLANTED"))

@step(kind="copies")
def copy(secret: Artifact) -> Artifact:
    return write((secret.path / "content.txt").read_text())

@step(kind="declared", environment=("DECLARED",))
def read_declared() -> Artifact:
    return write(os.environ["DECLARED"])

@step(kind="files")
def read_aside() -> Artifact:
    return write(ASIDE.read_text())

def alike(old, new):
    a, b = (float((folder / "content.txt").read_text()) for folder in (old, new))
    return None if abs(a - b) < 1 else f"{a:g} is not {b:g}"

@step(kind="measures", alike=alike)
def measure() -> Artifact:
    return write(float(ASIDE.read_text()), exact=False)

@step(kind="answers", unavailable=(ConnectionError,))
def ask() -> Artifact:
    if not os.environ.get("PLANTED"):
        raise ConnectionRefusedError("nobody answers")
    return write("an answer")

@step(kind="mortals")
def die() -> Artifact:
    if not os.environ.get("PLANTED"):
        os.kill(os.getpid(), 9)
    return write("alive")

@flow
def everything():
    numbers = [draw(Range(high=high), ("a", "b"), "cpu", shape=(2, high)) for high in (3, 4)]
    add([*numbers, numbers[0]])  # the same input twice
    copy(read_variable())
    read_declared(), read_aside(), measure(), ask(), die()

if __name__ == "__main__":
    everything()
"""
STEPS = (
    *("draw", "add", "read_variable", "copy", "read_declared", "read_aside", "measure", "ask"),
    "die",
)


@dataclass
class Toys:
    """The toy project, the key rules of its steps, and the server that it reports to."""

    folder: Path
    rules: dict[str, KeyRule]
    server: str

    def audit(self, *steps):
        """The findings by step; steps that are not named are unknown to the audit."""
        rules = {step: self.rules[step] for step in steps}
        return {f.step: f for f in audit.audit(rules, server=self.server)}


@pytest.fixture
def toys(tmp_path, root, server, monkeypatch):
    """A cache that the toy flow filled with two variables set."""
    folder = write(tmp_path / "toys", {"toys.py": TOYS, "aside.txt": "1.0"})
    monkeypatch.setenv("PLANTED", "x")
    monkeypatch.setenv("DECLARED", "y")
    path = os.pathsep.join([str(folder), str(Path(artifacts.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-m", "toys"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path, "PREFECT_API_URL": server},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    file, code = folder / "toys.py", CodeRule(root=folder)
    rules = {
        step: KeyRule(
            step=step,
            file=file,
            rule=code,
            ignored=frozenset({"device"}),
            environment=("DECLARED",) if step == "read_declared" else (),
        )
        for step in STEPS
    }

    return Toys(folder=folder, rules=rules, server=server)


def steps_there():
    return {record.step for record in records.everything()}


@pytest.mark.slow
def test_each_planted_input_is_found_and_goes_with_all_that_was_made_from_it(toys):
    (toys.folder / "aside.txt").write_text("1.5")
    found = toys.audit(*STEPS)
    outcomes = {step: finding.outcome for step, finding in found.items()}
    assert outcomes["draw"] == outcomes["read_declared"] == outcomes["measure"] == "same"
    assert outcomes["read_variable"] == outcomes["read_aside"] == "different"
    assert outcomes["ask"] == outcomes["die"] == "skipped"
    assert found["die"].why == "its process was ended by signal 9"
    assert found["read_variable"].why == "content.txt has changed"
    assert steps_there() == {"draw", "add", "read_declared", "measure", "ask", "die"}
    evicted = [
        json.loads(path.read_text()).get("evicted")
        for step in ("read_variable", "copy", "read_aside")
        for path in records.layout.records().glob(f"{step}/*/*.components.json")
    ]
    assert evicted == ["an audit found: content.txt has changed"] * 3


def test_a_step_that_fails_in_a_clean_process_is_a_difference(toys):
    (toys.folder / "aside.txt").unlink()
    finding = toys.audit("read_aside")["read_aside"]
    assert finding.outcome == "different"
    assert "it cannot be computed again: FileNotFoundError" in finding.why


def test_a_process_without_prefect_says_nothing_of_the_step(toys, tmp_path, monkeypatch):
    shadow = write(tmp_path / "shadow", {"prefect.py": "raise ImportError('not here')\n"})
    monkeypatch.setenv("PYTHONPATH", str(shadow))  # which the process keeps
    finding = toys.audit("draw")["draw"]
    assert finding.outcome == "skipped"
    assert "its process failed: ImportError: not here" in finding.why
    assert "draw" in steps_there()


def test_what_cannot_be_equal_goes_by_the_rule_of_its_step(toys):
    (toys.folder / "aside.txt").write_text("2.5")
    finding = toys.audit("measure")["measure"]
    assert (finding.outcome, finding.why) == ("different", "1 is not 2.5")


def test_bytes_of_another_processor_are_not_compared(toys):
    (toys.folder / "aside.txt").write_text("2.5")
    for record in list(records.everything()):
        other = record.artifact.metadata | {"machine": {"processor": "abacus", "threads": 1}}
        records.write(record.key, replace(record.artifact, metadata=other))
    found = toys.audit("draw", "read_aside", "measure")
    assert found["draw"].outcome == "same"
    assert found["read_aside"].outcome == "skipped"
    assert "another kind of processor" in found["read_aside"].why
    assert found["measure"].outcome == "different"


def test_other_code_and_unknown_steps_are_skipped_and_a_sample_is_as_large_as_asked(toys):
    rules = dict(toys.rules)
    del rules["draw"]
    code = (toys.folder / "toys.py").read_text()
    (toys.folder / "toys.py").write_text(code + "\nMORE = 1\n")
    for function in ("_components", "_fingerprint", "_parse"):
        getattr(audit.keys.code, function).cache_clear()
    found = list(audit.audit(rules, sample=4, server=toys.server))
    assert len(found) == 4
    assert {f.outcome for f in found} == {"skipped"}
    assert {f.why for f in found} <= {"there is no such step", "its code has changed since"}


def test_what_fails_around_a_step_says_nothing_of_it(toys, monkeypatch):
    """Prefect that does not answer, and memory or disk that are full."""
    assert audit._is_from_outside(MemoryError())
    assert audit._is_from_outside(OSError(28, "No space left on device"))
    assert not audit._is_from_outside(FileNotFoundError(2, "No such file"))
    monkeypatch.setattr(toys, "server", "http://127.0.0.1:9/api")
    monkeypatch.setenv("PREFECT_CLIENT_MAX_RETRIES", "0")
    finding = toys.audit("draw")["draw"]
    assert finding.outcome == "skipped"
    assert "draw" in steps_there()
