"""The command line: what it takes, what it refuses in one sentence, and what it leaves behind."""

import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields

import pytest

from tests.conftest import FIXTURE, PROJECT, CommandLine, Done

pytestmark = pytest.mark.usefixtures("server", "root")

SMALL = ("--grid.rows", "1", "--grid.columns", "2")
QUICK = ("train", "--dataset", "folder", "--recipe", "post", "--epochs", "2", "--json", *SMALL)
STEPS = ("download", "normalise", "manifest", "train", "evaluate", "plot")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, server):
    """A data root after one run; not to be changed."""
    from flows.parameters import Overrides
    from flows.train import train
    from tasks.plot import Grid

    folder = tmp_path_factory.mktemp("trained") / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETRAIN_DATA", str(folder))
        patch.setenv("RETRAIN_SOURCE", str(FIXTURE))
        train(
            dataset="folder",
            recipe="post",
            overrides=Overrides(epochs=2),
            grid=Grid(rows=1, columns=2),
        )
    return folder


@pytest.fixture
def client_of_server(server):
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        yield client


def files(root):
    """The content of every file below the root, but for what each run writes.

    That is its log, the index of the reports, and what was last hashed when.

    Of a record, which every use writes again, it is the result.
    """
    found = {path for path in root.rglob("*") if path.is_file()}
    found -= {path for path in found if path.name in {"log.txt", "index.html"}}
    found -= set(root.glob("cache/*/*.json"))
    content = {path.relative_to(root).as_posix(): path.read_bytes() for path in found}
    for name in (name for name in content if name.startswith("cache/records/")):
        if "." not in name:
            content[name] = json.loads(content[name])["result"].encode()
    return content


# Help


@pytest.mark.parametrize("arguments", [(), ("--help",)], ids=["no arguments", "--help"])
def test_help_lists_the_commands(flows, arguments):
    done = flows(*arguments)
    assert done.code == 0
    assert "train" in done.out
    assert "--json" in done.out
    assert done.err == ""


def test_help_of_train_lists_every_parameter_and_every_recipe_field(flows):
    from classifier.training.recipe import Recipe

    done = flows("train", "--help")
    assert done.code == 0
    own = ["dataset", "recipe", "seed", "device", "limit", "refresh", "grid.rows"]
    for name in [*own, *(item.name for item in fields(Recipe))]:
        assert f"--{name.replace('_', '-')}" in done.out
    for session in ("--data", "--source", "--json", "--debug"):
        assert session in done.out


# Bad arguments: exit code 2, before anything is written


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--dataset", "nope"), ("--dataset", '"nope"', '"folder"', '"mnist"')),
        (("--recipe", "nope"), ("--recipe", '"nope"', '"post"', '"cnn"')),
        (("--device", "tpu"), ("--device", '"tpu"', '"cpu"', '"cuda"')),
        (("--epochs", "-1"), ("--epochs", "-1", "greater than or equal to 1")),
        (("--epochs", "1000000000"), ("--epochs", "1000000000", "less than or equal to 100000")),
        (("--epochs", "many"), ("--epochs", "'many'", "integer")),
        (("--epochs", "2.5"), ("--epochs", "'2.5'", "integer")),
        (("--epochs", ""), ("--epochs", "''", "integer")),
        (("--epochs",), ("--epochs", "requires an argument")),
        (("--learning-rate", "nan"), ("--learning-rate", "nan", "less than or equal to 100")),
        (("--learning-rate", "inf"), ("--learning-rate", "inf", "less than or equal to 100")),
        (("--learning-rate", "-0.1"), ("--learning-rate", "-0.1", "greater than 0")),
        (("--beta-1", "1"), ("--beta-1", "less than 1")),
        (("--batch", "-3"), ("--batch", "greater than or equal to 0")),
        (("--optimiser", "newton"), ("--optimiser", "'newton'", "'adam'")),
        (("--network", "bogus"), ("'bogus'", "folder", "post, cnn")),
        (("--limit", "0"), ("--limit", "0", "greater than or equal to 1")),
        (("--limit", "1.5"), ("--limit", "'1.5'", "integer")),
        (("--seed", "-1"), ("--seed", "-1", "greater than or equal to 0")),
        (("--seed", "1.5"), ("--seed", "'1.5'", "integer")),
        (("--seed", "99999999999999999999"), ("--seed", "less than 4294967296")),
        (("--devices", "0"), ("--devices", "0", "greater than or equal to 1")),
        (("--devices", "65"), ("--devices", "65", "less than or equal to 64")),
        (("--grid.rows", "0"), ("--grid.rows", "0", ">= 1")),
        (("--bogus", "1"), ("--bogus",)),
        (("mnist",), ("'mnist'",)),
    ],
    ids=" ".join,
)
def test_a_bad_argument_is_refused_in_a_sentence(flows, root, arguments, expected):
    dataset = () if "--dataset" in arguments else ("--dataset", "folder")
    done = flows("train", "--json", *dataset, *arguments)
    assert done.code == 2
    for part in expected:
        assert part in done.sentence
    assert not root.exists()


def test_a_limit_of_the_cache_that_is_no_size_is_refused_before_any_work(flows, root, monkeypatch):
    monkeypatch.setenv("RETRAIN_CACHE_LIMIT", "much")
    done = flows(*QUICK)
    assert done.code == 2
    assert done.sentence.startswith("RETRAIN_CACHE_LIMIT is 'much'")
    assert not root.exists()


def test_an_unknown_command_is_refused_in_a_sentence(flows):
    done = flows("bake")
    assert done.code == 2
    assert "train" in done.sentence


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_here_is_refused_with_those_that_are(flows, root, device):
    import torch

    if getattr(torch, device).is_available():
        pytest.skip(f"{device} is here")
    done = flows(*QUICK, "--device", device)
    assert done.code == 2
    assert done.sentence.startswith(f"There is no device {device!r} here: choose auto or ")
    assert "cpu" in done.sentence
    assert not list(root.glob("cache/staging/*"))
    assert not list(root.glob("cache/models/*"))
    assert not list(root.glob("cache/records/train/*/*"))


def test_more_devices_than_there_are_are_refused_with_the_remedy(flows, root, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    done = flows(*QUICK, "--device", "cpu", "--devices", "3", "--dry-run")
    assert done.code == 2
    assert done.sentence == "--devices is 3, and 2 cores can be used here: give at most 2."
    assert not root.exists()


def test_the_process_itself_ends_with_the_exit_code_of_its_error(tmp_path):
    done = CommandLine(PROJECT, server=None)(
        "train", "--dataset", "nope", RETRAIN_DATA=tmp_path / "d"
    )
    assert done.returncode == 2
    assert Done(2, done.stdout, done.stderr).sentence.startswith("Invalid value")
    assert not (tmp_path / "d").exists()


# Bad files: exit code 1, and what was there before stays


def replaced(name, content):
    """A way to spoil a folder of IDX files."""

    def spoil(folder):
        (path,) = folder.glob(f"{name}*")
        path.write_bytes(content(gzip.decompress(path.read_bytes())))

    return spoil


def another_count(unpacked):
    """Labels with a header and values for one row less."""
    return gzip.compress(unpacked[:4] + (799).to_bytes(4, "big") + unpacked[8:-1])


BAD_FOLDERS = {
    "missing": (shutil.rmtree, ("cannot be read",)),
    "empty": (lambda folder: [path.unlink() for path in folder.iterdir()], ("no file", "--source")),
    "truncated": (
        replaced("train-images", lambda values: gzip.compress(values[:-9])),
        ("train-images-idx3-ubyte.gz", "truncated"),
    ),
    "disagreeing": (replaced("train-labels", another_count), ("800", "799")),
    "rubbish": (replaced("t10k-images", lambda _: b"rubbish"), ("t10k-images", "not an IDX file")),
    "damaged gzip": (
        replaced("t10k-labels", lambda values: gzip.compress(values)[:20] + b"\0" * 40),
        ("t10k-labels-idx1-ubyte.gz", "gzip"),
    ),
}


@pytest.mark.parametrize("bad", BAD_FOLDERS)
def test_a_bad_source_is_refused_in_a_sentence_that_names_it(flows, tmp_path, trained, bad):
    spoil, expected = BAD_FOLDERS[bad]
    folder = tmp_path / "source"
    shutil.copytree(FIXTURE, folder)
    (folder / "README.md").unlink()
    spoil(folder)
    root = tmp_path / "kept"
    shutil.copytree(trained, root)
    done = flows(*QUICK, "--source", folder, "--data", root)
    assert done.code == 1
    assert str(folder) in done.sentence
    for part in expected:
        assert part in done.sentence
    assert files(root) == files(trained)
    assert not list(root.glob("cache/staging/*"))


def test_a_source_that_is_a_file_is_refused_in_a_sentence(flows, root, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    done = flows(*QUICK, "--source", tmp_path / "file")
    assert done.code == 1
    assert f"{tmp_path / 'file'} cannot be read" in done.sentence
    assert files(root) == {}


def test_other_files_than_those_of_a_named_dataset_are_refused_with_the_remedy(flows, root):
    done = flows("train", "--dataset", "mnist", "--json")
    assert done.code == 1
    assert "--dataset folder" in done.sentence
    assert files(root) == {}


@pytest.mark.parametrize("below", [".", "data"])
def test_a_data_root_at_or_below_a_file_is_refused_and_the_file_kept(flows, tmp_path, below):
    file = tmp_path / "file"
    file.write_text("mine")
    done = flows(*QUICK, "--data", file / below)
    assert done.code == 1
    assert str(file) in done.sentence
    assert "--data" in done.sentence
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    "typed",
    [
        ("train", "--learning-rate", "fast"),
        ("train", "--grid.rows", "0"),
        ("train", "--dataset", "folder", "--image-size", "big"),
        ("retrain", "--rule", "threshold"),
        ("sweep", "--set", "learning_rat=1"),
        ("sweep", "--seeds", "9..0"),
        ("sweep", "--challenge", "--limit", "100"),
        ("sweep", "--set", "network=vgg"),
        ("sweep", "--dask", "somewhere"),
        ("ingest", "--batch", "mine"),
        ("ingest", str(FIXTURE), "--batch", ""),
        ("ingest", "there-is-none"),
    ],
)
def test_a_slip_of_the_keyboard_is_no_run(flows, root, client_of_server, typed):
    before = {run.id for run in client_of_server.read_flow_runs()}
    done = flows(*typed)
    assert done.code in {1, 2}
    assert done.sentence
    assert {run.id for run in client_of_server.read_flow_runs()} == before
    assert not (root / "reports").exists()


@pytest.mark.parametrize(
    "typed",
    [
        ("predict", ""),
        ("predict", "a.png", ""),
        ("store", "backup", ""),
        ("store", "restore", ""),
        ("data", "correct", "", "--why", "x"),
        ("train", "--data", ""),
        ("cache", "prune", "--older-than", "soon"),
        ("cache", "prune", "--older-than", "6M"),  # months or minutes?
        ("cache", "prune", "--older-than", "999999999999999w"),
        ("health", "--within", "inf"),
        ("train", "--dataset", "folder", "--image-size", "64"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_words(flows, typed):
    done = flows(*typed)
    assert done.code == 2
    told = r"empty name|write a time|nothing is that old|Must be <=|write height x width"
    assert re.search(told, done.sentence), done.sentence


def test_tasks_carry_no_tag_for_which_prefect_would_ask_the_server(flows, client_of_server):
    done = flows(*QUICK)
    assert done.code == 0
    found = [run.tags for run in client_of_server.read_task_runs() if run.flow_run_id]
    assert found
    assert not any(found)


def test_a_data_root_with_too_long_a_name_is_refused(flows, tmp_path):
    done = flows(*QUICK, "--data", tmp_path / ("a" * 300))
    assert done.code == 1
    assert done.sentence.startswith("Cannot write to ")
    assert "--data" in done.sentence


# A full disk


FULL = {
    "download": "cache/raw",
    "normalise": "cache/tables",
    "train": "cache/models",
    "evaluate": "cache/evaluations",
    "plot": "cache/pictures",
    "report": "reports",
}


@pytest.fixture(scope="module")
def full_disk(trained, tmp_path_factory, server):
    """For each step the data root in which it ran on a full disk, and what came of it."""
    roots = {step: tmp_path_factory.mktemp("full") / step for step in FULL}
    for step, folder in FULL.items():
        shutil.copytree(trained, roots[step])
        shutil.rmtree(roots[step] / folder)
    project = CommandLine(PROJECT, server)
    script = PROJECT / "tests" / "fixtures" / "full_disk.py"
    done = project.python(script, *roots.values(), PYTHONPATH=str(PROJECT))
    assert done.returncode == 0, done.stderr
    results = zip(roots.items(), json.loads(done.stdout), strict=True)
    return {step: (root, Done(**result)) for (step, root), result in results}


@pytest.mark.parametrize("step", FULL)
def test_a_full_disk_is_one_sentence_and_nothing_incomplete_stays(full_disk, trained, step):
    root, done = full_disk[step]
    assert done.code == 1
    assert done.sentence.startswith(f"Cannot write to {root}")
    assert "File too large" in done.sentence
    assert "--data" in done.sentence
    assert not list(root.glob("cache/staging/*"))
    before, after = files(trained), files(root)
    own = (FULL[step], f"cache/records/{step}/")  # where its record says why it was evicted
    others = {name for name in before if not name.startswith(own)}
    assert {name: after.get(name) for name in others} == {name: before[name] for name in others}
    assert {name for name in after if not name.startswith(own)} == others
    assert not [name for name in after if name.startswith(FULL[step])]


# What comes out


def test_json_is_one_object_and_nothing_else_on_standard_output(flows):
    done = flows(*QUICK, "--seed", "3")
    assert done.code == 0
    result = json.loads(done.out)
    assert result.keys() >= {"run_id", "report"}
    assert result["dataset"] == "folder"
    assert result["recipe"] == "post"
    assert result["seed"] == 3
    assert isinstance(result["device"], str)
    assert 0 <= result["test_accuracy"] <= 1
    assert result["train_seconds"] > 0
    assert result["steps"] == dict.fromkeys(STEPS, "ran")
    assert result["model"].startswith("cache/models/")
    assert result["report"] == f"reports/{result['run_id']}"


def test_with_debug_prefect_logs_but_not_on_standard_output(server, tmp_path, trained):
    shutil.copytree(trained, tmp_path / "data")
    done = CommandLine(PROJECT, server)(*QUICK, "--debug", RETRAIN_DATA=str(tmp_path / "data"))
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["steps"].values()) == {"cached"}
    assert "| INFO    | Task run 'plot folder post seed 0' - plot            cached" in done.stderr


def test_without_json_the_summary_says_where_to_look(flows, root):
    done = flows(*(word for word in QUICK if word != "--json"))
    assert done.code == 0
    assert "accuracy" in done.out
    (page,) = root.glob("reports/*/report.html")
    assert str(page) in done.out
    assert "next       ./run train --dataset folder --recipe mlp\n" in done.out


def test_relative_folders_are_those_of_the_caller(flows, tmp_path, monkeypatch):
    caller = tmp_path / "caller"
    shutil.copytree(FIXTURE, caller / "mine")
    monkeypatch.chdir(caller)
    monkeypatch.setenv("RETRAIN_DATA", str(tmp_path / "not this"))
    monkeypatch.setenv("RETRAIN_SOURCE", str(tmp_path / "nor this"))
    done = flows(*QUICK, "--data", "results", "--source", "mine", "--limit", "20")
    assert done.code == 0
    result = json.loads(done.out)
    assert (caller / "results" / result["report"] / "report.html").is_file()
    assert not (tmp_path / "not this").exists()


# Interruption


@pytest.mark.slow
def test_ctrl_c_ends_a_training_and_the_next_run_completes(server, tmp_path):
    """The training alone would take hours; ending it takes about a second."""
    project = CommandLine(PROJECT, server)
    root = tmp_path / "data"
    project.environment["RETRAIN_DATA"] = str(root)
    with subprocess.Popen(
        [sys.executable, "-m", "flows", "train", "--dataset", "folder", "--epochs", "100000"],
        cwd=PROJECT,
        env=project.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group of its own, as a terminal makes
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    ) as long:
        while long.poll() is None and not list(root.glob("cache/staging/models-*")):
            time.sleep(0.05)
        time.sleep(2)  # the loop is under way
        os.killpg(long.pid, signal.SIGINT)
        try:
            out, err = long.communicate(timeout=30)
        finally:
            long.kill()
    assert long.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    assert err.endswith("the same command resumes from there.\n")
    assert not list(root.glob("cache/staging/*"))
    assert not list(root.glob("cache/models/*"))
    assert {path.name for path in root.glob("reports/*/*")} == {"log.txt"}

    again = project(*QUICK)
    assert again.returncode == 0, again.stderr
    ran = json.loads(again.stdout)["steps"]
    assert ran == dict.fromkeys(STEPS, "ran") | dict.fromkeys(STEPS[:3], "cached")


def test_ctrl_c_while_a_dataclass_is_made_exits_with_130(tmp_path):
    (tmp_path / "interrupted.py").write_text(
        "import sys\n"
        "from flows.cli import app\n"
        "app._launch = lambda _: exec('raise KeyboardInterrupt')\n"
        "sys.exit(app.main(['train']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "interrupted"],
        cwd=PROJECT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 130
    assert done.stderr.endswith("the same command resumes from there.\n")
