"""A step that runs although it ran before says why: in the log, the report, and when asked."""

import json
import re
import shutil

import pytest

from tests.flows.running import STEPS, ran, reasons, run

pytestmark = pytest.mark.usefixtures("server")


def test_the_first_run_has_nothing_to_explain(root, flows):
    run()
    assert reasons() == dict.fromkeys(STEPS)
    assert flows("cache", "explain").out.count("first run") == len(STEPS)


def test_a_parameter_is_named_with_both_values_wherever_one_looks(root, trained, flows):
    result = run(overrides={"learning_rate": 0.5})
    assert ran(result) == {"train", "evaluate", "plot"}
    why = "recipe.learning_rate 0.8 -> 0.5"
    assert reasons()["train"] == why
    report = root / result["report"]
    assert f"train runs: {why}\n" in (report / "log.txt").read_text()
    assert why.replace(">", "&gt;") in (report / "report.html").read_text()
    done = flows("cache", "explain", result["run_id"])
    (line,) = [line for line in done.out.splitlines() if line.startswith("train ")]
    assert line.endswith(why)
    asked = json.loads(flows("cache", "explain", "--json").out)
    assert asked["run"] == result["run_id"]
    assert {step["step"]: step["why"] for step in asked["steps"]}["train"] == why


def test_the_terminal_and_the_artifact_in_the_ui_say_it_too(root, trained, flows):
    from prefect.client.orchestration import get_client

    done = flows("train", "--dataset", "folder", "--recipe", "post", "--epochs", "3", "--seed", "4")
    assert done.code == 0
    assert "train runs: seed 0 -> 4" in done.err
    assert re.search(r"^train +ran +\d+\.\d\d s +models/", done.err, re.MULTILINE)
    with get_client(sync_client=True) as client:
        found = client.request("POST", "/artifacts/latest/filter", json={}).json()
    (report,) = [item for item in found if item["key"] == "folder-report"]
    assert "| seed 0 -> 4 |" in report["data"]


def test_an_input_that_is_another_is_named_with_both_digests(root, trained):
    first, second = trained, run(seed=1)
    old, new = (result["model"].rpartition("/")[2][:8] for result in (first, second))
    assert reasons()["evaluate"] == f"its model changed ({old}… -> {new}…)"


def test_it_is_compared_with_the_record_that_was_used_last(root, trained):
    run(seed=1)
    assert ran(run()) == set()
    run(seed=2)
    assert reasons()["train"] == "seed 0 -> 2"


def test_what_is_missing_or_refreshed_is_named(root, trained):
    next(root.glob("cache/pictures/*/samples.png")).unlink()
    run()
    assert reasons() == {"plot": "samples.png is missing"}
    shutil.rmtree(root / trained["model"])
    run()
    assert reasons() == {"train": f"models/{trained['model'].rpartition('/')[2][:8]} is missing"}
    for record in root.glob("cache/records/evaluate/*/*"):
        if "." not in record.name:
            record.unlink()
    run()
    assert reasons() == {"evaluate": "its record is missing"}
    run(refresh=True)
    assert set(reasons().values()) == {"a refresh was requested"}


def test_a_package_is_named_with_both_versions(root, trained, monkeypatch):
    from importlib import metadata

    real = metadata.version
    with monkeypatch.context() as patch:
        patch.setattr(metadata, "version", lambda name: "2.99.0" if name == "torch" else real(name))
        forget_code()
        run()
    forget_code()
    now = real("torch").partition("+")[0]
    assert reasons()["train"] == f"torch {now} -> 2.99.0"
    assert not {"download", "normalise"} & reasons().keys()  # they do without torch


def forget_code():
    """Look at code and versions anew, as another process does."""
    from artifacts import code

    code._version.cache_clear()
    code._components.cache_clear()


def test_several_changes_are_counted():
    from artifacts.keys import SHOWN, shorten

    sentences = [f"seed {n} -> 9" for n in range(SHOWN + 2)]
    assert shorten(sentences) == "; ".join([*sentences[:SHOWN], "2 more"])
    assert shorten(sentences[: SHOWN + 1]) == "; ".join(sentences[: SHOWN + 1])


@pytest.mark.slow
def test_code_that_changed_is_named_and_can_be_adopted(project):
    """An edit, adopted, runs nothing; the next one, not adopted, runs what it touches."""

    def flow(*arguments):
        done = project(*arguments)
        assert done.returncode == 0, done.stderr
        return done

    def trained():
        return json.loads(
            flow(
                "train", "--dataset", "folder", "--recipe", "post", "--epochs", "2", "--json"
            ).stdout
        )

    first = trained()
    schedules = project.folder / "classifier" / "training" / "schedules.py"
    text = schedules.read_text()
    schedules.write_text(text.replace("return peak", "return 1 * peak", 1))
    assert "train/folder: models/" in flow("cache", "adopt", "--dry-run").stdout
    (adopted,) = json.loads(flow("cache", "adopt", "--json").stdout)
    assert adopted == {
        "artifact": first["model"].removeprefix("cache/"),
        "step": "train/folder",
        "because": "classifier/training/schedules.py changed",
    }
    assert json.loads(flow("cache", "adopt", "--json").stdout) == []
    second = trained()
    assert ran(second) == set()
    assert second["model"] == first["model"]
    log = (project.folder.parent / "data" / second["report"] / "log.txt").read_text()
    assert "after classifier/training/schedules.py changed" in log
    explained = flow("cache", "explain").stdout
    assert "after classifier/training/schedules.py changed" in explained
    assert "adopted on " in explained
    assert "adopted on " in flow("cache", "lineage", first["model"]).stdout
    schedules.write_text(text.replace("return peak", "return 2 * peak / 2", 1))
    done = project("train", "--dataset", "folder", "--recipe", "post", "--epochs", "2", "--json")
    assert ran(json.loads(done.stdout)) == {"train"}
    assert "train runs: classifier/training/schedules.py changed" in done.stderr
