"""The train flow on a thousand real images, and what its cache reuses."""

import base64
import json
import shutil

import pytest

from tests.flows.running import STEPS, ran, run

pytestmark = pytest.mark.usefixtures("server")


def the_file(root, pattern):
    (found,) = root.glob(f"cache/{pattern}")
    return found


def test_the_first_run_runs_every_step(root):
    result = run()
    assert ran(result) == set(STEPS)
    assert result["dataset"] == "folder"
    assert result["recipe"] == "post"
    assert result["seed"] == 0
    assert result["device"] in {"cpu", "cuda", "mps"}
    assert 0 <= result["test_accuracy"] <= 1
    assert result["train_seconds"] > 0
    assert (root / result["model"] / "weights.safetensors").is_file()
    report = root / result["report"]
    written = json.loads((report / "report.json").read_text())
    assert written.items() >= result.items()
    page = (report / "report.html").read_text()
    for name in ("samples", "predictions", "mistakes", "confusion", "curves"):
        picture = (report / f"{name}.png").read_bytes()
        assert picture.startswith(b"\x89PNG")
        # the page draws confusion and curves itself
        assert (base64.b64encode(picture).decode() in page) == (name not in {"confusion", "curves"})
    assert "mean loss so far" in (report / "log.txt").read_text()


def test_a_second_run_reuses_every_artifact(root, trained):
    first, second = trained, run()
    assert ran(second) == set()
    assert second["train_seconds"] is None
    differing = {name for name in first if first[name] != second[name]}
    assert differing == {"run_id", "steps", "train_seconds", "report"}
    assert first.keys() == second.keys()


def test_without_its_parquet_only_normalise_runs(root, trained):
    shutil.rmtree(the_file(root, "tables/*/train").parent)
    assert ran(run()) == {"normalise"}
    assert ran(run()) == set()


def test_with_one_byte_of_the_model_flipped_only_train_runs(root, trained):
    weights = root / trained["model"] / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    second = run()
    assert ran(second) == {"train"}
    assert second["model"] == trained["model"]
    assert ran(run()) == set()


def test_another_learning_rate_trains_evaluates_and_plots(root, trained):
    assert ran(run(overrides={"learning_rate": 0.5})) == {"train", "evaluate", "plot"}


def test_another_seed_trains_evaluates_and_plots(root, trained):
    assert ran(run(seed=1)) == {"train", "evaluate", "plot"}


def test_another_grid_only_plots(root, trained):
    from tasks.plot import Grid

    assert ran(run(grid=Grid(seed=1))) == {"plot"}


def test_another_device_runs_nothing(root):
    run(device="auto")
    assert ran(run(device="cpu")) == set()


def test_a_moved_data_root_runs_nothing(root, trained, tmp_path, monkeypatch):
    root.rename(tmp_path / "elsewhere")
    monkeypatch.setenv("RETRAIN_DATA", str(tmp_path / "elsewhere"))
    assert ran(run()) == set()
    assert not root.exists()


def test_a_moved_source_runs_nothing(root, trained, tmp_path, monkeypatch):
    from tests.conftest import FIXTURE

    shutil.copytree(FIXTURE, tmp_path / "copy")
    monkeypatch.setenv("RETRAIN_SOURCE", str(tmp_path / "copy"))
    assert ran(run()) == set()


def test_refresh_runs_everything_and_gives_the_same_artifacts(root, trained):
    first, second = trained, run(refresh=True)
    assert ran(second) == set(STEPS)
    assert second["model"] == first["model"]


def test_a_dry_run_says_what_would_run_and_why_and_writes_nothing(root, flows):
    def expected(*options):
        done = flows("train", "--dataset", "folder", "--recipe", "post", "--dry-run", *options)
        assert done.code == 0, done.err
        return dict(line.split(maxsplit=1) for line in done.out.splitlines())

    epochs = ("--epochs", "3")
    assert expected(*epochs) == {
        "download": "would run   first run",
        "normalise": "would run   depends on download",
        "manifest": "would run   depends on normalise",
        "train": "would run   depends on manifest",
        "evaluate": "would run   depends on train",
        "plot": "would run   depends on manifest",
    }
    assert not root.exists()
    run()
    before = sorted(path for path in root.rglob("*"))
    assert set(expected(*epochs, "--grid.rows", "1", "--grid.columns", "2").values()) == {"cached"}
    told = expected(*epochs, "--seed", "1")
    assert told["normalise"] == "cached"
    assert told["train"] == "would run   seed 0 -> 1"
    assert told["plot"] == "would run   depends on train"
    refreshed = flows("train", "--dataset", "folder", "--dry-run", "--refresh", "--json")
    assert set(json.loads(refreshed.out)["steps"].values()) == {"run"}
    assert sorted(path for path in root.rglob("*")) == before


def test_limit_takes_the_first_rows(root):
    import pyarrow.parquet as pq

    result = run(limit=50)
    rows = [pq.read_metadata(path).num_rows for path in root.glob("cache/tables/*/*/*.parquet")]
    assert rows == [50, 50]
    assert result["test_rows"] == 50


@pytest.mark.slow
def test_a_second_run_loads_neither_torch_nor_numpy(project):
    """Unless `auto` has to look for a GPU."""
    asked = "train --dataset folder --recipe post --epochs 2 --device cpu --json"
    assert project(*asked.split()).returncode == 0
    (project.folder / "watched.py").write_text(
        "import sys\n"
        "from flows.cli.app import main\n"
        f"code = main({asked!r}.split())\n"
        "heavy = {'torch', 'sklearn', 'numpy'}\n"
        "sys.stderr.write(f'loaded: {sorted(heavy & set(sys.modules))}')\n"
        "sys.exit(code)\n"
    )
    done = project.python("watched.py")
    assert done.returncode == 0
    assert set(json.loads(done.stdout)["steps"].values()) == {"cached"}
    assert "loaded: []" in done.stderr


@pytest.mark.slow
def test_code_counts_but_comments_and_docstrings_do_not(project):
    def steps():
        done = project(
            "train", "--dataset", "folder", "--recipe", "post", "--epochs", "2", "--json"
        )
        assert done.returncode == 0, done.stderr
        return ran(json.loads(done.stdout))

    assert steps() == set(STEPS)
    schedules = project.folder / "classifier" / "training" / "schedules.py"
    text = schedules.read_text()
    schedules.write_text(text.replace('"""', '"""Another docstring: ', 1) + "\n# more\n")
    assert steps() == set()
    schedules.write_text(text.replace("return peak", "return 1 * peak", 1))
    assert steps() == {"train"}
