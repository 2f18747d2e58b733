"""Trials: how their scores are ranked."""

import pytest

from artifacts.artifact import Artifact
from tasks.trials import Result, Trial, scores


def result(rate, seed, accuracy):
    """The result of a trial; one without an accuracy failed."""
    trial = Trial(values={"learning_rate": rate}, seed=seed, recipe=None, arguments=())
    if accuracy is None:
        return Result(trial=trial, why="it failed")
    made = Result(trial=trial, model=Artifact(kind="models", digest="0" * 64, size=0))
    made.__dict__["accuracy"] = accuracy
    return made


def test_the_best_mean_comes_first_with_its_spread():
    ranked = scores([result(0.1, 0, 0.8), result(0.1, 1, 0.9), result(0.2, 0, 0.9)])
    assert [one.values["learning_rate"] for one in ranked] == [0.2, 0.1]
    assert ranked[0].spread is None
    assert ranked[1].mean == pytest.approx(0.85)
    assert ranked[1].spread == pytest.approx(0.05 * 2**0.5)
    assert ranked[1].best.trial.seed == 1


def test_of_equal_means_the_first_one_given_comes_first():
    ranked = scores([result(rate, 0, 0.9) for rate in (0.3, 0.1, 0.2)])
    assert [one.values["learning_rate"] for one in ranked] == [0.3, 0.1, 0.2]


def test_a_recipe_of_which_a_trial_failed_comes_after_those_without_failures():
    lucky = [result(0.5, 0, 0.99), result(0.5, 1, None)]
    ranked = scores([result(0.9, 0, None), *lucky, result(0.1, 0, 0.5)])
    assert [one.values["learning_rate"] for one in ranked] == [0.1, 0.5, 0.9]
    assert [one.failed for one in ranked] == [0, 1, 1]
    assert ranked[-1].best is None
