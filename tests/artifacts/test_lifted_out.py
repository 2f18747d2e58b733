"""The package alone, in a project of another's: the example of docs/artifacts.md."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import artifacts

PACKAGE = Path(artifacts.__file__).parent
PAGE = PACKAGE.parent / "docs" / "artifacts.md"
FOREIGN = {"benchmarks", "classifier", "flows", "reporting", "tasks", "tests", "torch", "numpy"}
RUN = """
import json, runpy, sys
runpy.run_module("numbers_flow", run_name="__main__", alter_sys=True)
modules = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
json.dump(modules, open("modules.json", "w"))
"""
CHANGED = """
import numbers_flow
numbers_flow.draw_and_add(seed=1)
"""


@pytest.fixture
def example():
    """The one Python block of the page."""
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return block


@pytest.fixture
def lifted(tmp_path, server, example):
    """A folder with the package and the example; calling it runs Python there."""
    folder = tmp_path / "lifted"
    shutil.copytree(PACKAGE, folder / "artifacts", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "numbers_flow.py").write_text(example)
    environment = {name: value for name, value in os.environ.items() if "RETRAIN" not in name} | {
        "PYTHONPATH": str(folder),
        "PREFECT_API_URL": server,
        "RETRAIN_DATA": str(tmp_path / "data"),
    }

    def python(script):
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done

    python.folder = folder
    return python


def said(done):
    return {row["step"]: row["outcome"] for row in json.loads(done.stdout)}


LOOK = """
import json, sys
from artifacts import inventory, lineage, pruning
made = [entry.row() for entry in inventory.entries()]
total = next(row["artifact"] for row in made if row["made_by"] == ["add"])
print(json.dumps({
    "made": made,
    "verified": inventory.verify(repair=True),
    "traced": lineage.trace(total[:7]).row(),
    "pruned": [e.name for e in pruning.prune(max_size=10**9, older_than=30 * 86400, dry_run=True)],
    "all": [entry.name for entry in pruning.prune(max_size=0, dry_run=True)],
    "prefect": "prefect" in sys.modules,
}))
"""


def test_the_package_serves_a_flow_of_another_project(lifted, example):
    first = lifted(RUN)
    assert said(first) == {"draw": "ran", "add": "ran"}
    second = lifted(RUN + CHANGED)
    assert said(second) == {"draw": "cached", "add": "cached"}
    assert "draw runs: seed 0 -> 1" in second.stderr
    modules = json.loads((lifted.folder / "modules.json").read_text())
    assert FOREIGN.isdisjoint(name.partition(".")[0] for name in modules)
    assert Path(modules["artifacts.step"]).is_relative_to(lifted.folder)

    looked = json.loads(lifted(LOOK).stdout)
    makers = sorted(maker for row in looked["made"] for maker in row["made_by"])
    assert makers == ["add", "add", "draw", "draw"]
    assert looked["verified"] == looked["pruned"] == []
    assert len(looked["all"]) == 4
    assert looked["traced"]["code"].keys() == {"numbers_flow.py"}
    assert looked["traced"]["versions"].keys() == {"python"}
    assert looked["traced"]["inputs"]["numbers"]["parameters"] == {"count": 5, "seed": 0}
    assert looked["prefect"] is False

    edited = example.replace("range(100)", "range(101)")
    assert edited != example
    (lifted.folder / "numbers_flow.py").write_text(edited)
    third = lifted(RUN)
    assert said(third)["draw"] == "ran"
    assert "draw runs: seed 1 -> 0; numbers_flow.py changed" in third.stderr
