"""Whatever strikes a run, and whenever: the next one completes, and nothing incomplete stays."""

import json
import re
import signal
import subprocess
import sys

import pytest

from tests.conftest import PROJECT, CommandLine

STEPS = ("download", "normalise", "manifest", "train", "evaluate", "plot")
MOMENTS = {"kill": 18, "full": 10, "read-only": 10}
LANES = 2
LASTING = re.compile(
    r"cache/(raw|tables|manifests|models|evaluations|pictures)/[0-9a-f]{64}(\.json|/.+)"
    r"|cache/records/\w+/folder/[0-9a-f]{64}(\.components\.json)?"
    r"|reports/index\.html|reports/[^/]+/(log\.txt|report\.json|report\.html|\w+\.png)"
)


@pytest.fixture(scope="module", params=MOMENTS)
def struck(request, tmp_path_factory, server):
    """The name of a fault, and what came of it at each of its moments."""
    fault = request.param
    project = CommandLine(PROJECT, server)
    environment = project.environment | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    script = PROJECT / "tests" / "fixtures" / "faults.py"
    folder = tmp_path_factory.mktemp(fault)
    lanes = [
        subprocess.Popen(
            [sys.executable, script, folder, fault, str(lane), str(LANES), str(MOMENTS[fault])],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for lane in range(LANES)
    ]
    found = []
    for lane in lanes:
        out, err = lane.communicate()
        assert lane.returncode == 0, err
        found += json.loads(out)
    return fault, found


pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_the_moments_are_spread_over_all_steps(struck):
    fault, attempts = struck
    assert len({attempt["moment"] for attempt in attempts}) == MOMENTS[fault]
    done = {len(attempt["finished"]) for attempt in attempts}
    assert done == set(range(len(STEPS) + 1))


def test_the_fault_struck_and_is_one_sentence(struck):
    fault, attempts = struck
    for attempt in attempts:
        if fault == "kill":
            assert attempt["code"] == -signal.SIGKILL
        elif attempt["code"] == 0:  # all that was left to do was to remove locks
            assert len(attempt["finished"]) == len(STEPS)
        else:
            assert attempt["code"] == 1, attempt
            assert "Error: Cannot write to " in attempt["error"]
            assert "--data" in attempt["error"]


def test_the_next_run_completes_and_reuses_what_was_finished(struck):
    _, attempts = struck
    for attempt in attempts:
        code, out, err = attempt["again"]
        assert code == 0, err
        steps = json.loads(out)["steps"]
        cached = {step for step, outcome in steps.items() if outcome == "cached"}
        assert tuple(steps) == STEPS
        assert cached == set(attempt["finished"]), attempt["moment"]


def test_every_artifact_verifies_and_nothing_temporary_stays_after_prune(struck):
    _, attempts = struck
    for attempt in attempts:
        assert attempt["damaged"] == []
        assert [path for path in attempt["left"] if not LASTING.fullmatch(path)] == []
