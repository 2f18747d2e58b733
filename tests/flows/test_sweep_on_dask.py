"""Sweeps on real Dask workers: local ones of which one is killed, and ones that are not fit."""

import json
import os
import re
import shutil
import threading
import time
from uuid import UUID

import distributed
import psutil
import pytest

from tests.conftest import PROJECT, project_copy
from tests.fixtures import dask_processes
from tests.flows.test_sweep import RATES, sweep, trained

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("server", "root"),
    pytest.mark.timeout(900),
    # Dask's own, when its worker process is killed or its loop ends.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    """Trainings on workers have as many threads as here."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def log_of(root):
    """The log of the only run, so far."""
    logs = list(root.glob("reports/*/log.txt"))
    return logs[0].read_text() if logs else ""


def worker_processes():
    """The processes of local Dask workers."""
    there = psutil.Process().children(recursive=True)
    return [one for one in there if "spawn_main" in " ".join(one.cmdline())]


def test_a_killed_worker_costs_no_trial_and_nothing_is_computed_twice(root):
    """The worker dies while it trains; the others' results are there already."""
    killed = []

    def kill():
        while not re.search(r"trial 2 of 6.*epoch +30:", log_of(root), re.DOTALL):
            time.sleep(0.05)
        victim = worker_processes()[0]
        killed.append(victim.pid)
        victim.kill()

    threading.Thread(target=kill, daemon=True).start()
    long = {"epochs": 300, "validation_rows": 50}
    result = sweep("learning_rate=0.1,0.2,0.3", workers=2, overrides=long)
    assert killed
    assert [trial["why"] for trial in result["trials"]] == [None] * 6
    assert len(trained(result)) == 6
    log = log_of(root)
    assert log.count("train           ran ") == 6  # each line came from a worker
    for trial in result["trials"]:
        assert f"train {trial['name']}: train           ran " in log
        assert f"train {trial['name']}: epoch 300: mean loss so far" in log
    in_turn = sweep("learning_rate=0.1", seeds="5", overrides=long)  # here: the cache is the same
    assert trained(in_turn) == {"learning_rate=0.1 seed 5"}
    seen_in_the_ui(result)
    again = sweep("learning_rate=0.1,0.2,0.3", workers=2, overrides=long)
    assert trained(again) == set()


def seen_in_the_ui(result):
    """Each trial is a finished task run under its own name, with its own log."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import LogFilter, LogFilterTaskRunId, TaskRunFilter

    report = report_of(result)
    run, told = UUID(report["flow_run_id"]), 0
    with get_client(sync_client=True) as client:
        wanted = TaskRunFilter.model_validate({"flow_run_id": {"any_": [run]}})
        runs = {one.name: one for one in client.read_task_runs(task_run_filter=wanted)}
        for trial in result["trials"]:
            one = runs[f"train {trial['name']}"]
            deadline = time.monotonic() + 30
            while client.read_task_run(one.id).state_name != "Completed":
                assert time.monotonic() < deadline, client.read_task_run(one.id).state_name
                time.sleep(0.5)
            of_it = LogFilter(task_run_id=LogFilterTaskRunId(any_=[one.id]))
            said = [line.message for line in client.read_logs(of_it)]
            told += any(line.startswith("train           ran ") for line in said)
    assert told >= len(result["trials"]) - 2  # but for what the killed worker had not sent yet


def report_of(result):
    """The report of a run, as it was written."""
    from artifacts import layout

    return json.loads((layout.root() / result["report"] / "report.json").read_text())


def test_a_worker_trains_what_this_process_would_to_the_same_bytes(root, tmp_path, monkeypatch):
    result = sweep("learning_rate=0.1,0.2", seeds="0", workers=2)
    monkeypatch.setenv("RETRAIN_DATA", str(tmp_path / "other"))
    here = sweep("learning_rate=0.1,0.2", seeds="0", workers=1)
    assert [trial["model"] for trial in here["trials"]] == [
        trial["model"] for trial in result["trials"]
    ]


DEADLY = """
import os, signal
from classifier.datasets import Dataset
from classifier.training import networks

def deadly(shape, classes):
    os.kill(os.getpid(), signal.SIGKILL)

DATASET = Dataset(name="deadly", shape=(28, 28), classes=tuple("0123456789"),
                  networks={"deadly": deadly})
"""


def test_a_trial_that_kills_every_worker_fails_alone(project):
    """As for want of memory: after four deaths Dask gives it up."""
    (project.folder / "classifier" / "datasets" / "deadly.py").write_text(DEADLY)
    done = project(
        *("sweep", "--dataset", "deadly", "--recipe", "post", "--epochs", "3", "--seeds", "0"),
        *("--set", "network=post,deadly", "--workers", "2", "--json"),
    )
    assert done.returncode == 0, done.stderr
    good, bad = json.loads(done.stdout)["trials"]
    assert good["why"] is None
    assert "four workers" in bad["why"]


def arrived(address, workers):
    """Wait for the workers: processes start slowly on a busy machine."""
    with distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(workers, timeout=120)


def connect(address, device="cpu", *, workers=1):
    """The workers that a sweep would use; the sentence where it would not."""
    from tasks import cluster
    from tasks.train import train

    if workers:
        arrived(address, workers)
    with cluster.remote(address, train, "folder", device) as there:
        return there.workers, there.resources


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    with dask_processes.scheduler(tmp_path_factory.mktemp("scheduler")) as address:
        yield address


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_scheduler_that_is_away_is_one_sentence(root, flows, more):
    done = flows("sweep", "--dataset", "folder", "--dask", "tcp://127.0.0.1:9", *more)
    assert done.code == 1
    assert "No Dask scheduler answers at tcp://127.0.0.1:9: start it" in done.sentence
    assert not root.exists()


def test_an_address_that_is_none_is_a_bad_argument(root, flows):
    done = flows("sweep", "--dataset", "folder", "--dask", "localhost")
    assert done.code == 2
    assert "tcp://host:8786" in done.sentence


def test_a_scheduler_of_another_version_is_named(tmp_path):
    from classifier.errors import InputError

    with (
        dask_processes.scheduler(tmp_path, other_version=True) as address,
        pytest.raises(InputError, match=r"has distributed 2020.1.0 and not .* requirements-scale"),
    ):
        connect(address, workers=0)


def test_a_scheduler_without_the_project_is_named(tmp_path):
    from classifier.errors import InputError

    with (
        dask_processes.scheduler(tmp_path, project=None) as address,
        pytest.raises(InputError, match="cannot import this project: start it with PYTHONPATH"),
    ):
        connect(address, workers=0)


def test_a_scheduler_without_workers_is_named(scheduler):
    from classifier.errors import InputError

    with pytest.raises(InputError, match="has no workers: start some"):
        connect(scheduler, workers=0)


NO_TORCH = "import sys; sys.modules['torch'] = None"


@pytest.mark.parametrize(
    ("unfit", "sentence"),
    [
        ("no project", "cannot import this project: start it with PYTHONPATH"),
        ("no torch", "cannot import torch: install requirements-scale.txt"),
        ("two threads", "runs 2 trainings at a time.*--nthreads 1"),
        ("other code", "has other code or packages .*loop.py changed.*update it"),
    ],
)
def test_a_worker_that_is_not_fit_is_named_with_the_remedy(scheduler, tmp_path, unfit, sentence):
    from classifier.errors import InputError

    options, project = (), PROJECT
    if unfit == "no project":
        project = None
    elif unfit == "two threads":
        options = ("--nthreads", "2")
    elif unfit == "no torch":
        (tmp_path / "no_torch.py").write_text(NO_TORCH)
        options = ("--preload", tmp_path / "no_torch.py")
    else:
        project = project_copy(tmp_path / "project", None).folder
        loop = project / "classifier" / "training" / "loop.py"
        loop.write_text(loop.read_text() + "\nANOTHER = 1\n")
    with (
        dask_processes.worker(scheduler, tmp_path, *options, project=project),
        pytest.raises(InputError, match=sentence),
    ):
        connect(scheduler)


def test_workers_of_another_data_root_are_named(scheduler, root, tmp_path):
    from classifier.errors import InputError

    other = str(tmp_path / "elsewhere")
    with dask_processes.worker(scheduler, tmp_path, RETRAIN_DATA=other):
        arrived(scheduler, 1)
        with pytest.raises(InputError, match="RETRAIN_DATA naming the folder"):
            sweep(RATES, seeds="0", workers=0, dask=scheduler)
    assert not list(root.glob("cache/models/*"))


def test_a_sweep_on_workers_elsewhere_uses_those_with_a_gpu_alone(scheduler, root, tmp_path):
    """None is here; what counts is which workers declare one."""
    gpu = ("--resources", "GPU=1")
    with (
        dask_processes.worker(scheduler, tmp_path, name="without"),
        dask_processes.worker(scheduler, tmp_path, *gpu, name="with"),
    ):
        assert len(connect(scheduler, workers=2)[0]) == 2
        chosen, resources = connect(scheduler, "auto")
        assert (len(chosen), resources) == (1, {"GPU": 1})
        result = sweep(RATES, seeds="0", workers=0, dask=scheduler, device="auto")
    assert trained(result) == {"learning_rate=0.5 seed 0", "learning_rate=0.8 seed 0"}
    log = log_of(root)
    for trial in result["trials"]:
        assert f"train {trial['name']}: train           ran " in log
    assert sweep(RATES, seeds="0")["best"] == result["best"]


def test_a_local_worker_has_one_gpu_of_those_that_are_visible(monkeypatch):
    """No GPU is needed to see which one a worker would take."""
    from tasks import cluster

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,7,9")
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    with cluster.local(2, "cuda") as there:
        assert there.resources == {"GPU": 1}
        seen = there.ask(os.getenv, "CUDA_VISIBLE_DEVICES").values()
        assert sorted(seen) == ["3", "7"]
        assert set(there.ask(os.getenv, "OMP_NUM_THREADS").values()) == {"4"}
        assert set(there.ask(os.getenv, "MALLOC_TRIM_THRESHOLD_").values()) == {None}
        workers = there.runner.client.scheduler_info(n_workers=-1)["workers"].values()
        assert [one["resources"] for one in workers] == [{"GPU": 1}] * 2
        assert all(one["nthreads"] == 1 for one in workers)


def test_local_workers_are_reached_on_loopback_and_with_their_certificate_alone():
    from tasks import cluster

    with cluster.local(1, "cpu") as there:
        address = there.runner.client.scheduler.address
        assert address.startswith("tls://127.0.0.1:")
        with pytest.raises(OSError, match=r"TCP|Timed out"):
            distributed.Client(address.replace("tls", "tcp"), timeout=2, set_as_default=False)
        listening = [
            one.laddr.ip
            for process in [psutil.Process(), *worker_processes()]
            for one in process.net_connections("inet")
            if one.status == psutil.CONN_LISTEN
        ]
        assert set(listening) == {"127.0.0.1"}


def test_workers_with_another_data_root_share_a_bucket(scheduler, root, tmp_path, bucket):
    """What they need they bring from there, and what they train is read from there."""
    other = tmp_path / "elsewhere"
    with dask_processes.worker(scheduler, tmp_path, RETRAIN_DATA=str(other)):
        arrived(scheduler, 1)
        result = sweep(RATES, seeds="0", workers=0, dask=scheduler)
    assert [trial["why"] for trial in result["trials"]] == [None, None]
    assert not list(root.glob("cache/models/*/weights.safetensors"))
    assert len(list(other.glob("cache/models/*/weights.safetensors"))) == 2
    again = sweep(RATES, seeds="0", workers=1)
    assert trained(again) == set()
    assert again["best"] == result["best"]


def test_workers_with_the_same_data_in_another_root_are_named(scheduler, root, tmp_path):
    """As where both machines trained before, each for itself."""
    from classifier.errors import InputError

    sweep(RATES, seeds="0")
    other = tmp_path / "elsewhere"
    shutil.copytree(root, other)
    with dask_processes.worker(scheduler, tmp_path, RETRAIN_DATA=str(other)):
        arrived(scheduler, 1)
        with pytest.raises(InputError, match="RETRAIN_DATA naming the folder"):
            sweep(RATES, seeds="1", workers=0, dask=scheduler)


def test_workers_that_do_not_train_need_nothing_of_this_project(scheduler, root, tmp_path):
    gpu = ("--resources", "GPU=1")
    with (
        dask_processes.worker(scheduler, tmp_path, name="without", project=None),
        dask_processes.worker(scheduler, tmp_path, *gpu, name="with"),
    ):
        assert len(connect(scheduler, "auto", workers=2)[0]) == 1


def test_an_address_with_a_certificate_that_is_not_there_is_one_sentence(root, flows):
    done = flows("sweep", "--dataset", "folder", "--dask", "tls://127.0.0.1:9")
    assert done.code == 1
    assert "tls://127.0.0.1:9 needs a certificate" in done.sentence


def test_a_sweep_says_that_it_waits_for_what_the_workers_do(scheduler, root, tmp_path):
    with (
        dask_processes.worker(scheduler, tmp_path),
        distributed.Client(scheduler, set_as_default=False) as other,
    ):
        arrived(scheduler, 1)
        task = other.submit(time.sleep, 15, pure=False)
        result = sweep(RATES, seeds="0", workers=0, dask=scheduler)
        task.result()
    assert "The workers are busy with other trainings (1)" in log_of(root)
    assert [trial["why"] for trial in result["trials"]] == [None, None]
