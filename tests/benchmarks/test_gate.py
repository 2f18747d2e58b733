"""The simulation of the gate judges as the gate does, and its models err as they should."""

import sys

import numpy as np
import pytest

from benchmarks import difficulties, gate
from classifier.evaluation.gate import Scored, verdict

MEASURED = difficulties.read()
ROWS, MODELS = MEASURED.rows, gate.WEEKS + 1
LABELS = np.random.default_rng(0).permutation(ROWS) % 10


def wrong_rows():
    """A year of ever worse models, a tie and one that differs in too many rows; [53, rows]."""
    random = np.random.default_rng(1)
    chances = difficulties.of_worse(MEASURED.draw(random), 0.5 * np.arange(MODELS))
    wrong = np.zeros((MODELS, ROWS), bool)
    wrong[:, : chances.shape[1]] = random.random(chances.shape) < chances
    wrong[1] = wrong[0]
    wrong[2] = False
    wrong[2, -60:] = True
    return wrong


def judged_by_the_gate(wrong, kind):
    predicted = np.where(wrong, (LABELS + 1) % 10, LABELS)
    refused, champion, bar = [], 0, 0
    for now in range(1, MODELS):
        official = Scored(
            name="official",
            labels=LABELS,
            challenger=predicted[now],
            champion=predicted[champion],
            anchor=None if kind == "no anchor" else predicted[bar],
        )
        found = verdict(official, rule="not-worse", classes=tuple("0123456789"))
        refused.append(not found.promote)
        champion = now if found.promote else champion
        if kind == "the best earlier champion" and wrong[champion].sum() < wrong[bar].sum():
            bar = champion
    return refused, champion


@pytest.mark.parametrize("kind", ["the anchor", "no anchor", "the best earlier champion"])
def test_a_year_is_judged_as_the_gate_does(kind):
    wrong = wrong_rows()
    negative = np.array([[(~before & now).sum() for now in wrong] for before in wrong])
    years = gate.Years(rows=ROWS, errors=wrong.sum(axis=1)[None], negative=negative[None])
    refused, champion = gate.judged(years, kind)
    assert (refused[0].tolist(), champion[0]) == judged_by_the_gate(wrong, kind)
    assert refused[0, :2].all()
    assert 2 < refused.sum() < gate.WEEKS


def test_models_err_and_flip_as_measured_and_lose_what_is_asked():
    losses = np.arange(1, MODELS)
    random = np.random.default_rng(0)
    equal = gate.simulated(MEASURED, 100, random, 0)
    negative, positive = equal.first_looks
    assert equal.errors.mean() == pytest.approx(MEASURED.errors.mean(), rel=0.03)
    assert (negative + positive).mean() == pytest.approx(MEASURED.flips, rel=0.03)
    worse = gate.simulated(MEASURED, 100, random, losses)
    negative, positive = worse.first_looks
    assert (negative - positive).mean(axis=0) == pytest.approx(losses, abs=4)


def test_the_interval_over_years_is_that_of_a_mean():
    shares = np.random.default_rng(0).normal(10, 2, 400)
    line = gate.over_years("what", np.mean, shares, form=str)
    low, high = map(float, line.interval.split(" to "))
    assert (low, high) == pytest.approx((shares.mean() - 0.196, shares.mean() + 0.196), abs=0.04)
    assert line[::3] == ("what", "400 years")


def test_quick_prints_every_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gate", "--quick"])
    gate.main()
    table = capsys.readouterr().out.partition("| simulated |")[2].splitlines()
    assert [line.count("|") for line in table[1:]] == [5] * 23
    assert sum("10 years" in line for line in table) == 18
