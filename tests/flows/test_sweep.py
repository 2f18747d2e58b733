"""The sweep flow on a thousand real images: what it trains, reuses, reports and refuses."""

import json
import re
import shlex
from statistics import mean, stdev

import pytest

from tests.flows.running import ran, run

pytestmark = pytest.mark.usefixtures("server", "root")

RATES = "learning_rate=0.5,0.8"
#: At a learning rate of 100, each step multiplies the weights by -999.
DIVERGES = ("--weight-decay", "10", "--epochs", "20")


def sweep(*choices, **options):
    """The flow's result: three epochs in this process, unless the options say otherwise."""
    from flows.parameters import Overrides
    from flows.sweep import sweep

    overrides = Overrides(**{"epochs": 3} | options.pop("overrides", {}))
    options = {"recipe": "post", "seeds": "0,1", "workers": 1} | options
    return sweep(dataset="folder", choices=list(choices), overrides=overrides, **options)


def history(root, trial):
    """What the training of a trial says of itself."""
    return json.loads((root / trial["model"] / "history.json").read_text())


def trained(result):
    """The trials that were not cached."""
    return {trial["name"] for trial in result["trials"] if not trial["cached"]}


def test_a_sweep_ranks_recipes_by_validation_rows_and_touches_no_test_rows(root):
    result = sweep(RATES)
    assert not [step for step in result["steps"] if "evaluate" in step]
    assert not (root / "cache" / "evaluations").exists()
    names = [f"learning_rate={rate} seed {seed}" for rate in (0.5, 0.8) for seed in (0, 1)]
    assert [trial["name"] for trial in result["trials"]] == names
    for trial in result["trials"]:
        told = history(root, trial)
        assert trial["validation_accuracy"] == told["validation_accuracy"][-1]
        assert trial["seconds"] > 0
        assert trial["why"] is None
    by_recipe = {
        rate: [t["validation_accuracy"] for t in result["trials"] if f"={rate}" in t["name"]]
        for rate in (0.5, 0.8)
    }
    best = max(by_recipe, key=lambda rate: mean(by_recipe[rate]))
    assert result["best"]["values"] == {"learning_rate": best}
    (first, second) = result["recipes"]
    assert first["mean"] == pytest.approx(mean(by_recipe[best]))
    assert first["spread"] == pytest.approx(stdev(by_recipe[best]))
    assert first["mean"] >= second["mean"]
    picture = root / result["report"] / "recipes.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    page = (root / result["report"] / "report.html").read_text()
    assert f"Best: learning_rate={best}" in page
    assert result["best"]["command"] in page
    log = (root / result["report"] / "log.txt").read_text()
    assert log.count("mean loss so far") == 4 * 3


def test_the_best_line_gives_the_best_model_from_the_cache(root, flows):
    best = sweep(RATES)["best"]
    door, *arguments = shlex.split(best["command"])
    assert door == "./run"
    done = flows(*arguments, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["model"] == best["model"]
    assert json.loads(done.out)["steps"]["train"] == "cached"


def test_a_recipe_without_validation_rows_gets_some_and_says_so(root):
    result = sweep(seeds="0")
    assert result["validation_rows"] == 5_000
    (note,) = result["notes"]
    assert "--validation-rows 5000" in note
    assert "--validation-rows 5000" in result["best"]["command"]
    assert note in (root / result["report"] / "log.txt").read_text()
    assert ran(run(overrides={"validation_rows": 5_000})) == {"evaluate", "plot"}


def test_a_wider_sweep_trains_what_is_missing_alone(root):
    assert len(trained(sweep(RATES, seeds="0"))) == 2
    wider = sweep("learning_rate=0.5,0.8,0.9", seeds="0..1")
    log = (root / wider["report"] / "log.txt").read_text()
    assert re.search(r"trial 1 of 6: learning_rate=0.5 seed 0: validation accuracy", log)
    assert trained(wider) == {
        "learning_rate=0.5 seed 1",
        "learning_rate=0.8 seed 1",
        "learning_rate=0.9 seed 0",
        "learning_rate=0.9 seed 1",
    }
    again = sweep("learning_rate=0.5,0.8,0.9", seeds="0..1")
    assert trained(again) == set()
    assert set(again["steps"].values()) == {"cached"}
    assert again["best"] == wider["best"]
    assert {trial["seconds"] for trial in again["trials"]} == {
        trial["seconds"] for trial in wider["trials"]
    }


def test_what_train_computed_is_not_computed_again():
    run(overrides={"validation_rows": 50, "learning_rate": 0.5})
    result = sweep(RATES, seeds="0", overrides={"validation_rows": 50})
    assert trained(result) == {"learning_rate=0.8 seed 0"}


def test_one_failed_trial_stops_no_other_and_the_table_says_why(root, flows):
    done = flows(
        *("sweep", "--dataset", "folder", "--recipe", "post", *DIVERGES),
        *("--set", "learning_rate=0.01,100", "--seeds", "0", "--workers", "1", "--json"),
    )
    assert done.code == 0, done.err
    result = json.loads(done.out)
    good, bad = result["trials"]
    assert good["model"]
    assert bad["model"] is None
    assert "smaller --learning-rate" in bad["why"]
    assert result["best"]["values"] == {"learning_rate": 0.01}
    assert [one["failed"] for one in result["recipes"]] == [0, 1]
    page = (root / result["report"] / "report.html").read_text()
    assert "What failed" in page


def test_a_sweep_of_which_no_trial_succeeds_fails_with_a_report(root, flows):
    done = flows(
        *("sweep", "--dataset", "folder", "--recipe", "post", *DIVERGES),
        *("--learning-rate", "100", "--seeds", "0..1", "--workers", "1", "--json"),
    )
    assert done.code == 1
    result = json.loads(done.out)
    assert result["best"] is None
    assert all(trial["why"] for trial in result["trials"])
    assert "All 2 trials failed. The first, seed 0: The loss is" in done.err
    page = (root / result["report"] / "report.html").read_text()
    assert "No trial succeeded" in page


def test_a_dry_run_names_each_trial_and_writes_nothing(root, flows):
    asked = ("sweep", "--dataset", "folder", "--recipe", "post", "--epochs", "3", "--set", RATES)
    done = flows(*asked, "--seeds", "0", "--dry-run", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["steps"] == {
        "download": "run",
        "normalise": "run",
        "manifest": "run",
        "train learning_rate=0.5 seed 0": "run",
        "train learning_rate=0.8 seed 0": "run",
    }
    assert not root.exists()
    sweep("learning_rate=0.5", seeds="0")
    told = json.loads(flows(*asked, "--seeds", "0", "--dry-run", "--json").out)
    assert told["steps"]["train learning_rate=0.5 seed 0"] == "cached"
    assert told["why"] == {"train learning_rate=0.8 seed 0": "recipe.learning_rate 0.5 -> 0.8"}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--set learnig_rate=0.1", "no field of a recipe"),
        ("--set learning_rate=fast", "give a number"),
        ("--set learning_rate=", "write a field and its values"),
        ("--seeds 9..0", "ends before it starts"),
        ("--seeds=", "write 0..9"),
        ("--random 3", "draws among the values of --set"),
        ("--random 0 --set epochs=1,2", "greater than or equal to 1"),
        ("--set network=magic", "magic"),
        ("--learning-rate 0.1 --set learning_rate=0.2", "contradict each other"),
        ("--set validation_rows=10,20", "--validation-rows"),
        ("--validation-rows 0", "give at least 1"),
        ("--set epochs=1..1000 --seeds 0..9", "more than 1,000 trials"),
        ("--challenge --limit 50", "leave out --limit"),
        ("--challenge --only-base", "leave out --limit"),
        ("--dask nowhere --workers 2", "leave one of them out"),
    ],
)
def test_bad_input_is_one_sentence_before_anything_is_fetched(root, flows, options, sentence):
    done = flows("sweep", "--dataset", "folder", "--recipe", "post", *shlex.split(options))
    assert done.code == 2, done.err
    assert sentence in done.sentence
    assert not root.exists()


def test_a_run_of_a_deployment_takes_only_the_scheduler_that_its_worker_allows(monkeypatch):
    from classifier.errors import InputError

    def refused(sentence):
        with pytest.raises(InputError, match=sentence):
            sweep(RATES, workers=0, dask="tcp://127.0.0.1:9")

    refused("No Dask scheduler answers")
    monkeypatch.setattr("prefect.runtime.deployment.id", "one", raising=False)
    refused("Set RETRAIN_DASK where the worker starts")
    monkeypatch.setenv("RETRAIN_DASK", "tcp://127.0.0.1:10")
    refused("Set RETRAIN_DASK where the worker starts")
    monkeypatch.setenv("RETRAIN_DASK", "tcp://127.0.0.1:9")
    refused("No Dask scheduler answers")


def test_the_best_model_can_challenge_the_champion(root, flows):
    asked = ("sweep", "--dataset", "folder", "--recipe", "cnn", "--epochs", "3", "--seeds", "0..1")
    done = flows(*asked, "--workers", "1", "--challenge", "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["challenge"]["outcome"] == "promoted"
    assert f"cache/{result['challenge']['champion']}" == result["best"]["model"]
    assert result["challenge"]["steps"]["train"] == "cached"
    (listed,) = json.loads(flows("models", "list", "--dataset", "folder", "--json").out)
    assert f"cache/{listed['model']}" == result["best"]["model"]
    again = json.loads(flows(*asked, "--workers", "1", "--challenge", "--json").out)
    assert again["challenge"]["outcome"] == "unchanged"


def test_the_command_names_a_precision_that_train_would_not_take_here():
    """As of workers with a GPU, where this machine has none."""
    from flows.parameters import Overrides
    from flows.sweeping import Sweep
    from tasks.trials import Trial

    about = {"dataset": "folder", "recipe": "cnn", "image_size": None, "limit": None}
    asked = Sweep.of(Overrides(epochs=3), [], None, "0", only_base=False, **about)
    (plan,) = asked.plans("auto")

    def command(precision):
        recipe = plan.recipe.override({"precision": precision})
        return asked.command(Trial(values={}, seed=0, recipe=recipe, arguments=()))

    here = plan.recipe.precision
    elsewhere = "float32" if here == "bf16" else "bf16"
    assert command(here) == "./run train --dataset folder --recipe cnn --epochs 3"
    assert command(elsewhere) == f"{command(here)} --precision {elsewhere}"


def test_a_model_that_cannot_be_read_fails_its_trial_alone(root, monkeypatch):
    """As where the machine that trained it could not write it to the bucket."""
    from artifacts.artifact import Artifact

    read, lost = Artifact.read_json, []

    def read_json(self, name):
        if name == "history.json" and lost in ([], [self]):
            lost[:] = [self]
            raise FileNotFoundError(name)
        return read(self, name)

    monkeypatch.setattr(Artifact, "read_json", read_json)
    result = sweep(RATES, seeds="0")
    assert [trial["why"] for trial in result["trials"]] == ["history.json", None]
