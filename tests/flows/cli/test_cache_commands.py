"""`python -m flows cache …`, on the cache of a real run."""

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pkgutil import iter_modules

import pytest

from tests.conftest import PROJECT
from tests.flows.running import STEPS, ran, run

pytestmark = pytest.mark.usefixtures("server", "root")


def found(done):
    assert done.code == 0, done.err
    return json.loads(done.out)


def next_second():
    """Wait until a new run differs from the last: the order of runs counts by the second."""
    time.sleep(1)


def test_list_names_every_artifact_its_step_and_the_runs_that_used_it(flows, trained):
    first, second = trained, run(seed=1)
    rows = found(flows("cache", "list", "--json"))
    assert len(rows) == 3 + 2 * 3
    of_model = {row["artifact"]: row for row in rows if row["made_by"] == ["train"]}
    assert set(of_model) == {r["model"].removeprefix("cache/") for r in (first, second)}
    (raw,) = (row for row in rows if row["made_by"] == ["download"])
    assert raw["used_by"] == [first["run_id"], second["run_id"]]
    assert raw["made_in"].replace("-", "").startswith(first["run_id"].rpartition("-")[2])
    assert raw["size"] == 784_000 + 800 + 200 + 2 * 16 + 2 * 8
    shown = flows("cache", "list").out
    for row in rows:
        kind, _, digest = row["artifact"].partition("/")
        assert f"{kind}/{digest[:8]} " in shown
    assert "9 artifacts, " in shown
    assert "The limit is 20 GB (RETRAIN_CACHE_LIMIT)" in shown


def test_the_next_run_computes_again_what_prune_removed(flows, root, trained):
    next_second()
    last = run(seed=1)
    gone = found(flows("cache", "prune", "--keep-runs", "1", "--dry-run", "--json"))
    assert sorted(row["made_by"][0] for row in gone) == ["evaluate", "plot", "train"]
    assert "would be removed" in flows("cache", "prune", "--keep-runs", "1", "--dry-run").out
    assert found(flows("cache", "prune", "--keep-runs", "1", "--json")) == gone
    assert ran(run(seed=1)) == set()
    assert (root / last["model"]).is_dir()
    assert ran(run()) == {"train", "evaluate", "plot"}
    assert len(found(flows("cache", "prune", "--older-than", "0s", "--json"))) == 9
    assert ran(run()) == set(STEPS)


def test_a_run_keeps_the_cache_to_its_limit(flows, root, trained, monkeypatch):
    monkeypatch.setenv("RETRAIN_CACHE_LIMIT", "100kB")
    next_second()
    second = run(seed=1)
    assert not (root / trained["model"]).exists()
    assert (root / second["model"]).is_dir()  # what the run itself uses stays, limit or not
    assert "Cache limit exceeded" in (root / second["report"] / "log.txt").read_text()
    assert ran(run(seed=1)) == set()


def test_verify_finds_no_damage_after_a_run(flows, trained):
    done = flows("cache", "verify")
    assert done.code == 0
    assert done.out == "Nothing is damaged.\n"
    assert found(flows("cache", "verify", "--json")) == []


def test_lineage_of_a_picture_goes_down_to_the_source(flows, root):
    result = run(limit=100, overrides={"learning_rate": 0.5})
    (picture,) = root.glob("cache/pictures/*/samples.png")
    origin = found(flows("cache", "lineage", picture, "--json"))
    assert origin["step"] == "plot"
    model = origin["inputs"]["model"]
    assert model["artifact"] == result["model"].removeprefix("cache/")
    assert model["parameters"]["recipe.learning_rate"] == 0.5
    assert model["metadata"]["device"] == result["device"]
    assert model["inputs"]["manifest"]["step"] == "manifest"
    table = model["inputs"]["parts[0]"]
    assert table["parameters"]["limit"] == 100
    raw = table["inputs"]["raw"]
    assert raw["step"] == "download"
    assert raw["metadata"]["source"]
    shown = flows("cache", "lineage", picture).out
    assert shown.count("by download") == 1 + shown.count("by download, as above")
    for text in (
        "recipe.learning_rate 0.5",
        "limit 100",
        "tasks/plot.py ",
        "torch ",
        "from its model:",
    ):
        assert text in shown


def test_lineage_of_a_run_shows_every_step_cached_ones_included(flows, trained):
    result = run(seed=1)
    answer = found(flows("cache", "lineage", result["run_id"], "--json"))
    assert answer["run"] == result["run_id"]
    outcomes = {step: row["outcome"] for step, row in answer["steps"].items()}
    assert outcomes == result["steps"]
    assert answer["steps"]["train"]["artifact"] == result["model"].removeprefix("cache/")
    shown = flows("cache", "lineage", result["run_id"]).out
    for step, outcome in result["steps"].items():
        assert f"{step}, {outcome}\n" in shown


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_audit_gives_the_bytes_of_a_run_again(flows, root):
    run(limit=100)
    weights = next(root.glob("cache/models/*/weights.safetensors"))
    answer = found(flows("cache", "audit", "--json"))
    assert {row["step"]: row["outcome"] for row in answer["audited"]} == dict.fromkeys(
        STEPS, "same"
    )
    assert answer["different"] == []
    assert weights.exists()
    assert ran(run(limit=100)) == set()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("lineage", "nothing"), "No record of the cache names an artifact 'nothing'."),
        (("explain", "never"), "There is no report of run never in "),
        (("prune", "--max-size", "much"), "--max-size is 'much': write a size as 500MB, 2GB"),
        (("prune", "--older-than", "long"), "--older-than"),
        (("prune", "--keep-runs", "-1"), "--keep-runs"),
        (("prune", "everything"), "'everything'"),
        (("bake",), "bake"),
    ],
    ids=" ".join,
)
def test_a_bad_argument_is_refused_in_a_sentence(flows, arguments, expected):
    done = flows("cache", *arguments)
    assert done.code == 2
    assert expected in done.sentence


def test_help_lists_the_commands(flows):
    done = flows("cache", "--help")
    assert done.code == 0
    for name in ("list", "verify", "prune", "adopt", "explain", "lineage"):
        assert name in done.out


def test_the_commands_load_neither_prefect_nor_torch(root, trained):
    script = (
        "import sys\n"
        "from flows.cli.app import main\n"
        "for command in ('list', 'verify', 'prune', 'explain', 'lineage raw'):\n"
        "    assert main(['cache', *command.split(), '--json']) == 0\n"
        "heavy = {'prefect', 'torch', 'numpy', 'sklearn', 'fastapi'}\n"
        "sys.stderr.write(f'loaded: {sorted(heavy & set(sys.modules))}')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=PROJECT,
        env=os.environ | {"RETRAIN_DATA": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith("loaded: []")


def test_every_step_of_the_project_can_be_audited():
    from artifacts.step import Step
    from flows.cli.cache import _rules

    names = [found.name for found in iter_modules([str(PROJECT / "tasks")])]
    modules = [importlib.import_module(f"tasks.{name}") for name in names]
    steps = [value for module in modules for value in vars(module).values()]
    names = {value.rule.step for value in steps if isinstance(value, Step)}
    assert names == set(_rules())


def test_an_audit_that_term_ends_clears_up(tmp_path):
    from flows.cli.signals import ended_by_term

    before = signal.getsignal(signal.SIGTERM)
    with (
        pytest.raises(SystemExit) as caught,
        ended_by_term(),
        tempfile.TemporaryDirectory(dir=tmp_path),
    ):
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.code == 143
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == before


def test_an_audit_of_nothing_says_so(flows, root):
    done = flows("cache", "audit")
    assert done.code == 0
    assert done.err == f"There is nothing cached below {root}.\n"
