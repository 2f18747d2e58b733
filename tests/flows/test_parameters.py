"""What changes a result is resolved before any key is made, and is in key, answer and report."""

import json

import pytest

from tests.flows.running import STEPS, ran, run

pytestmark = pytest.mark.usefixtures("server", "root")

FLAGS = ["float32", "bf16"]


@pytest.fixture(params=FLAGS)
def resolved(request, monkeypatch):
    """What `auto` becomes, whatever the processor of this machine has."""
    from classifier.training import precision

    monkeypatch.setattr(precision, "has_fast_bf16", lambda _: request.param == "bf16")
    return request.param


def test_auto_and_what_it_becomes_share_their_cache_keys(resolved, root):
    auto = run(overrides={"precision": "auto"})
    assert ran(auto) == set(STEPS)
    explicit = run(overrides={"precision": resolved})
    assert ran(explicit) == set()
    assert explicit["model"] == auto["model"]
    assert explicit["precision"] == auto["precision"] == resolved
    recipe = json.loads((root / auto["model"] / "model.json").read_text())["recipe"]
    assert recipe["precision"] == resolved
    (other,) = set(FLAGS) - {resolved}
    assert ran(run(overrides={"precision": other})) >= {"train", "evaluate"}


def test_the_precision_is_in_the_answer_and_in_the_report(flows, root, resolved):
    done = flows(
        *("train", "--dataset", "folder", "--recipe", "post", "--epochs", "2", "--json"),
        *("--precision", "auto", "--grid.rows", "1", "--grid.columns", "2"),
    )
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["precision"] == resolved
    report = root / result["report"]
    assert json.loads((report / "report.json").read_text())["precision"] == resolved
    assert resolved in (report / "report.html").read_text()


def test_a_limit_or_epochs_leave_out_the_least_number_of_steps_unless_it_is_asked_for():
    from flows.parameters import Overrides, resolve

    def min_steps(limit, **overrides):
        plan = resolve("folder", "mlp", Overrides(**overrides), "cpu", limit=limit)
        return plan.recipe.min_steps

    assert min_steps(None) > 0
    assert min_steps(100) == 0
    assert min_steps(100, min_steps=7) == 7
    assert min_steps(None, epochs=3) == 0
    assert min_steps(None, epochs=3, min_steps=7) == 7


def test_the_recipe_called_default_is_that_of_the_dataset():
    from flows.parameters import resolve

    assert resolve("mnist", "default", None, "cpu").recipe_name == "post"
    assert resolve("folder", "default", None, "cpu").recipe_name == "mlp"
