"""Forecast: what would run, and why, and nothing does."""

import pytest

from artifacts.forecast import forecasting

pytestmark = pytest.mark.usefixtures("server", "root")


@pytest.fixture(scope="module")
def toys(server):
    from tests.artifacts import toy_steps

    return toy_steps


def expected(toys, seed=0, *, refresh=False):
    """What each toy step would do, and why."""
    with forecasting(refresh=refresh) as forecast:
        toys.add(toys.draw("toys", toys.Range(), seed))
    return {each.step: (each.outcome, each.why) for each in forecast.steps}


def test_what_waits_for_a_step_that_would_run_depends_on_it(toys, root):
    assert expected(toys) == {"draw": ("run", "first run"), "total": ("run", "depends on draw")}
    assert not root.exists()


def test_after_a_run_all_is_cached_and_a_change_is_named(toys):
    toys.direct()
    assert expected(toys) == {"draw": ("cached", None), "total": ("cached", None)}
    assert expected(toys, seed=1)["draw"] == ("run", "seed 0 -> 1")
    refreshed = expected(toys, refresh=True)
    assert refreshed["draw"] == ("run", "a refresh was requested")


def test_a_damaged_artifact_would_be_computed_again(toys, root):
    toys.direct()
    next(root.glob("cache/sums/*/sum.json")).unlink()
    assert expected(toys)["total"] == ("run", "sum.json is missing")


def test_the_forecast_agrees_with_the_run_that_follows(toys):
    for seed in (0, 0, 1):
        before = expected(toys, seed)
        after = toys.direct(seed)
        assert {o.step: o.outcome for o in after} == {
            step: {"run": "ran"}.get(outcome, outcome) for step, (outcome, _) in before.items()
        }
