"""Two compute the same after all, as after a freeze: both end well, with one result."""

import os
import re
import signal

import pytest

from artifacts import inventory, layout, records
from tests.artifacts.lock_processes import PATH, wait_until
from tests.artifacts.small_cache import write

pytestmark = pytest.mark.slow

STEPS = """
import json, os, time
from pathlib import Path

from prefect import flow

from artifacts.artifact import Artifact
from artifacts.step import draft, step


@step(kind="sums")
def add(one: int) -> Artifact:
    signs = Path(os.environ["SIGNS"])
    (signs / str(os.getpid())).touch()
    while not (signs / "go").exists():
        time.sleep(0.01)
    with draft() as new:
        (new.folder / "sum.json").write_text(json.dumps({"sum": one + 1}))
    return new.artifact


@flow
def sum_up() -> str:
    return add(1).name
"""
RUN = "import steps; print(steps.sum_up())"
PAUSE = """
import os, time
from pathlib import Path

from artifacts import policy

settle, signs = policy._settle, Path(os.environ["SIGNS"])

def settle_and_pause(*args, **options):
    why = settle(*args, **options)
    (signs / "settled").touch()
    while not (signs / "go on").exists():
        time.sleep(0.01)
    return why

policy._settle = settle_and_pause
"""


@pytest.fixture(scope="module")
def database(postgres):
    postgres.create("twice")


@pytest.fixture
def start(postgres, database, server, elsewhere, tmp_path):
    """Start a run on another machine, in a data root of its own or this one."""
    project = write(tmp_path / "project", {"steps.py": STEPS})
    (tmp_path / "signs").mkdir()
    environment = {
        "PYTHONPATH": f"{PATH}:{project}",
        "PREFECT_API_URL": server,
        "RETRAIN_LOCKS": postgres.address("twice"),
        "SIGNS": str(tmp_path / "signs"),
    }
    return lambda script=RUN, **more: elsewhere(script, **environment | more)


def end_session(postgres, process):
    query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE "
    assert postgres.query("twice", f"{query} 'process {process.pid} on %'") == [(True,)]


def read_until(process, pattern):
    said = []
    while line := process.stderr.readline():
        said.append(line)
        if re.search(pattern, line):
            return
    pytest.fail(f"nothing said {pattern}: {''.join(said)}")


def freeze_first_and_let_second_compute(postgres, start, signs, *, free=lambda: None, **where):
    first = start(**where)
    wait_until((signs / str(first.pid)).exists, seconds=120)
    os.kill(first.pid, signal.SIGSTOP)
    second = start(**where)
    read_until(second, rf"add: waiting for process {first.pid} ")
    free()
    end_session(postgres, first)
    wait_until((signs / str(second.pid)).exists)
    (signs / "go").touch()
    said = [second.communicate(timeout=120)]
    assert second.returncode == 0
    os.kill(first.pid, signal.SIGCONT)
    said.append(first.communicate(timeout=120))
    assert first.returncode == 0
    assert "is lost, and with it a lock between machines" in said[1][1]
    (other, _), (mine, _) = said
    assert mine == other
    return mine.strip()


def test_a_frozen_holder_and_who_took_its_place_have_the_same_result(
    postgres, start, tmp_path, monkeypatch
):
    name = freeze_first_and_let_second_compute(postgres, start, tmp_path / "signs")
    keys = []
    for machine in ("0", "1"):
        monkeypatch.setenv("RETRAIN_DATA", str(tmp_path / "machines" / machine))
        keys += [(record.key, record.artifact.name) for record in records.everything()]
        assert_whole()
    assert keys == [(keys[0][0], name)] * 2


def test_they_may_even_do_so_in_one_folder(postgres, start, root, tmp_path):
    def free():
        (file,) = root.glob("cache/locks/add/*/*.lock")
        file.unlink()

    where = {"RETRAIN_DATA": str(root)}
    name = freeze_first_and_let_second_compute(
        postgres, start, tmp_path / "signs", free=free, **where
    )
    (record,) = records.everything()
    assert record.artifact.name == name
    assert_whole()
    third = start(**where)
    assert third.communicate(timeout=120)[0].strip() == name
    assert not (tmp_path / "signs" / str(third.pid)).exists()


@pytest.mark.usefixtures("bucket")
def test_whoever_finds_nothing_and_then_waits_takes_what_the_other_computed(start, tmp_path):
    signs = tmp_path / "signs"
    late = start(PAUSE + RUN)
    wait_until((signs / "settled").exists, seconds=120)
    first = start()
    wait_until((signs / str(first.pid)).exists, seconds=120)
    (signs / "go on").touch()
    read_until(late, rf"add: waiting for process {first.pid} on ")
    (signs / "go").touch()
    name, _ = first.communicate(timeout=120)
    assert late.communicate(timeout=120)[0] == name
    assert not (signs / str(late.pid)).exists()


def assert_whole():
    """That nothing is damaged, half written or locked."""
    assert inventory.verify() == []
    left = [*layout.staging().glob("*"), *layout.locks().rglob("*.lock")]
    assert [*left, *layout.cache().rglob("*.tmp")] == []
