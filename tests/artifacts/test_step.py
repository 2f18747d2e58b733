"""Steps within Prefect: what runs, what is cached, and what is recorded."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import artifacts
from artifacts import inventory, layout, records, step
from artifacts.errors import ArgumentError
from tests.artifacts.small_cache import write

pytestmark = pytest.mark.usefixtures("server", "root")


@pytest.fixture(scope="module")
def toys(server):
    """The toy steps, which import Prefect."""
    from tests.artifacts import toy_steps

    return toy_steps


def said(outcomes):
    """What became of each step."""
    return {outcome.step: outcome.outcome for outcome in outcomes}


def reasons(outcomes):
    return {outcome.step: outcome.why for outcome in outcomes}


RAN, CACHED = {"draw": "ran", "total": "ran"}, {"draw": "cached", "total": "cached"}
NEVER = {"draw": None, "total": None}


def test_the_second_run_is_all_cached(toys):
    first = toys.direct()
    assert said(first) == RAN
    assert reasons(first) == NEVER
    second = toys.direct()
    assert said(second) == CACHED
    assert reasons(second) == NEVER
    assert [outcome.artifact for outcome in first] == [outcome.artifact for outcome in second]
    assert [outcome.seconds for outcome in first] == [outcome.seconds for outcome in second]
    assert first[1].artifact.read_json("sum.json")["sum"] == 0 + 1 + 2


def test_a_change_runs_what_depends_on_it_and_says_why(toys):
    old = toys.direct()[0].artifact.digest[:8]
    changed = toys.direct(seed=1)
    new = changed[0].artifact.digest[:8]
    assert said(changed) == RAN
    assert reasons(changed) == {
        "draw": "seed 0 -> 1",
        "total": f"its numbers changed ({old}… -> {new}…)",
    }
    later = toys.direct(seed=1, offset=5)
    assert said(later) == {"draw": "cached", "total": "ran"}
    assert reasons(later) == {"draw": None, "total": "offset 0 -> 5"}


def test_outcomes_are_the_same_when_steps_are_submitted(toys):
    first = toys.submitted()
    assert (said(first), reasons(first)) == (RAN, NEVER)
    assert said(toys.submitted()) == CACHED
    assert said(toys.direct()) == CACHED
    assert reasons(toys.submitted(seed=1))["draw"] == "seed 0 -> 1"


def test_mapped_steps_are_cached_one_by_one(toys):
    toys.direct(seed=1)
    assert said(toys.mapped()) == {"0": "ran", "1": "cached", "2": "ran"}
    assert set(said(toys.mapped()).values()) == {"cached"}


def test_the_same_step_twice_in_one_flow_is_cached_the_second_time(toys):
    assert said(toys.twice()) == {"first": "ran", "second": "cached"}


def test_a_record_says_who_made_the_artifact_when_and_for_which_group(toys):
    toys.direct()
    by_step = {record.step: record for record in records.everything()}
    assert by_step.keys() == {"draw", "total"}  # one function has another name than its step
    assert [record.place for record in by_step.values()].count("draw/toys") == 1
    about = by_step["draw"].artifact.metadata
    assert about["device"] == "cpu"
    assert about.keys() == {*records._METADATA, "machine", "ignored", "device"}
    assert (about["step"], about["group"], about["why"]) == ("draw", "toys", None)
    assert by_step["total"].place == "total/toys"
    components = by_step["draw"].components()
    assert components["range_.high"] == 3
    assert "device" not in components
    code = [name for name in components if name.startswith("code ")]
    assert code == ["code tests/artifacts/toy_steps.py"]


def test_ignored_arguments_change_nothing_and_need_no_json_form(toys):
    toys.direct()
    assert said(toys.direct(device="cuda")) == CACHED
    assert toys.unusual_device().metadata["device"] == "cpu"  # of the run that made it
    made = [record.artifact.metadata for record in records.everything() if record.step == "draw"]
    assert [about["ignored"] for about in made] == [{}] * len(made)  # an audit takes the default


@pytest.mark.parametrize("submit", [False, True])
def test_an_argument_without_json_form_fails_the_step(toys, submit):
    with pytest.raises(ArgumentError) as refused:
        toys.odd(submit=submit)
    assert str(refused.value) == (
        "total cannot be cached: its argument odd is set, which has no JSON form. Pass an "
        "artifact, a dataclass or plain values."
    )
    assert [record.step for record in records.everything()] == ["draw"]
    assert layout.kinds() == ["numbers"]


def test_refreshing_runs_everything_and_says_so(toys):
    toys.direct()
    refreshed = toys.direct(refresh=True)
    assert said(refreshed) == RAN
    assert set(reasons(refreshed).values()) == {"a refresh was requested"}
    assert said(toys.direct()) == CACHED


def test_a_damaged_artifact_is_made_again(toys):
    numbers = toys.direct()[0].artifact
    (numbers.path / "numbers.json").write_text("[]")
    again = toys.direct()
    assert said(again) == {"draw": "ran", "total": "cached"}
    assert reasons(again)["draw"] == "numbers.json has changed"
    assert inventory.verify() == []


def test_a_hostile_record_is_evicted_and_its_step_runs(toys):
    toys.direct()
    for record in list(records.everything()):
        path = records.path_of(record.key)
        content = json.loads(path.read_text())
        content["metadata"]["serializer"] = {"type": "pickle"}
        path.write_text(json.dumps(content))
    again = toys.direct()
    assert said(again) == RAN
    assert set(reasons(again).values()) == {"its record names another serialiser"}


def test_unfinished_work_stays_after_a_failure_and_goes_when_the_step_is_recorded(toys, root):
    with pytest.raises(RuntimeError, match="interrupted"):
        toys.resuming()
    (unfinished,) = inventory.entries()
    assert (root / "cache" / unfinished.name).read_text() == "half"
    assert unfinished.row()["made_by"] == ["resume"]
    made = toys.resuming()
    assert (made.path / "count.txt").read_text() == "half and half"
    assert [entry.name for entry in inventory.entries()] == [made.name]
    (record,) = records.everything()
    assert record.key == unfinished.name.removeprefix("checkpoints/")


def test_a_step_within_a_step_publishes_as_its_own_kind(toys):
    made = toys.nesting()
    assert made.kind == "outer"
    assert (made.path / "inner.txt").read_text().startswith("sums/")
    assert "/outer/" in (made.path / "scratch.txt").read_text()


def test_records_lie_below_the_data_root_of_the_call(toys, tmp_path, monkeypatch):
    monkeypatch.setenv("RETRAIN_DATA", "")
    roots = [tmp_path / "one", tmp_path / "two", tmp_path / "one"]
    assert said(toys.moving(roots)) == {"0": "ran", "1": "ran", "2": "cached"}
    assert len(list(tmp_path.glob("*/cache/records/draw/toys/*.json"))) == 2


def test_no_lock_and_nothing_staged_is_left(toys, root):
    toys.submitted()
    assert list(root.glob("cache/locks/**/*.lock")) == []
    assert list(root.glob("cache/staging/*")) == []


def test_a_coroutine_function_is_no_step():
    async def draw():
        pass

    with pytest.raises(TypeError, match="draw is a coroutine function: a step is synchronous"):
        step.step(kind="numbers")(draw)


@pytest.mark.parametrize("call", [step.scratch, step.draft])
def test_only_a_running_step_has_scratch_and_a_draft_of_its_kind(toys, call):
    toys.direct()
    with pytest.raises(RuntimeError, match="No step is running here"):
        call()


@pytest.mark.parametrize("options", [{"kind": "Numbers"}, {"kind": "locks"}, {"name": "a/b"}])
def test_a_kind_or_name_that_cannot_be_a_folder_is_refused_at_once(options):
    with pytest.raises(ArgumentError):
        step.step(**{"kind": "numbers"} | options)(lambda: None)


EDITED = """
from pathlib import Path
from prefect import flow
from artifacts.step import draft, step

VALUE = 1

@step(kind="numbers")
def draw(seed: int):
    with draft() as new:
        (new.folder / "number.txt").write_text(f"{VALUE} {seed}")
    return new.artifact

@flow
def drawing(seed: int):
    return draw(seed)

print(drawing(1).digest)
file = Path(__file__)
file.write_text(file.read_text().replace("VALUE = 1", "VALUE = 2"))
print(drawing(2).digest)
"""


def test_what_code_made_that_was_edited_meanwhile_is_used_and_not_recorded(tmp_path, root, server):
    write(tmp_path, {"edited.py": EDITED})
    done = subprocess.run(
        [sys.executable, "edited.py"],
        cwd=tmp_path,
        env=os.environ
        | {"PREFECT_API_URL": server, "PYTHONPATH": str(Path(artifacts.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made = [root / "cache" / "numbers" / digest for digest in done.stdout.split()]
    assert [(path / "number.txt").read_text() for path in made] == ["1 1", "1 2"]
    warning = "draw is not cached: edited.py was edited while this process was running"
    assert done.stderr.count(warning) == 1
    (record,) = records.everything()
    assert record.artifact.path == made[0]


KILLED = """
import os
from prefect.transactions import Transaction
from tests.artifacts.toy_steps import direct

Transaction.commit = lambda self: os._exit(9)
direct()
"""


def test_a_step_that_is_killed_between_its_end_and_prefects_commit_is_recorded(toys, server):
    project = Path(artifacts.__file__).parents[1]
    environment = os.environ | {"PREFECT_API_URL": server, "PYTHONPATH": str(project)}
    done = subprocess.run([sys.executable, "-c", KILLED], env=environment, check=False)
    assert done.returncode == 9
    assert said(toys.direct()) == {"draw": "cached", "total": "ran"}


def test_a_step_with_other_options_is_a_step_below_the_present_data_root(
    toys, tmp_path, monkeypatch
):
    from prefect import flow

    other = toys.draw.with_options(retries=1)
    assert isinstance(other, step.Step)
    assert other.rule == toys.draw.rule
    monkeypatch.setenv("RETRAIN_DATA", str(tmp_path / "later"))
    made = flow(lambda: other("toys", toys.Range()), name="other")()
    assert (tmp_path / "later" / "cache" / made.name).is_dir()
    assert len(list(records.everything())) == 1


def test_a_step_travels_by_name_and_takes_the_data_root_of_where_it_arrives(
    toys, tmp_path, monkeypatch
):
    """As to a Dask worker, which has its own copy of the code."""
    from cloudpickle import dumps, loads

    sent = dumps(toys.add.with_options(task_run_name="another name").here())
    monkeypatch.setenv("RETRAIN_DATA", str(tmp_path / "elsewhere"))
    arrived = loads(sent)
    assert arrived.fn is toys.add.fn
    assert arrived.task_run_name == "another name"
    assert arrived.result_storage == layout.records()
    assert layout.records().is_relative_to(tmp_path / "elsewhere")
    dumps(toys.add.fn)  # the function alone, as prefect-dask sends it too
