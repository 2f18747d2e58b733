"""The ledger: which looks count together, and what each may spend."""

import itertools
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from classifier.evaluation.ledger import (
    Look,
    alpha,
    anchor_of,
    current_ledger,
    detectable_gain,
    new_rows_due,
    next_look,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
ROWS_OF = {"official": frozenset(range(100)), "other": frozenset(range(1_000, 1_100))} | {
    f"recent-{number}": frozenset(range(200, 200 + 10 * number)) for number in range(40)
}


@settings(deadline=None)
@given(st.integers(1, 10**6))
def test_the_levels_of_all_looks_stay_below_five_percent(looks):
    if looks <= 500:
        assert sum(map(alpha, range(1, looks + 1))) == pytest.approx(
            float(Fraction(1, 20) * (1 - Fraction(1, looks + 1)))  # the sum telescopes
        )
    assert 0 < alpha(looks) <= 0.025


def test_the_detectable_gain_is_found_with_a_power_of_80_percent():
    gain = detectable_gain(1, 900)
    assert gain == pytest.approx((1.959964 + 0.84) * 30, abs=1e-4)
    assert norm.sf(norm.isf(alpha(1)) - gain / 30) == pytest.approx(0.8, abs=0.001)
    assert new_rows_due(gain, 100)
    assert not new_rows_due(gain, 500)
    assert new_rows_due(20.1, 100)
    assert not new_rows_due(20, 100)


def looked(day, *, rule="better", challenger="a", champion="x", sets=("official",)):
    return Look(
        at=START + timedelta(days=day),
        rule=rule,
        challenger=challenger,
        champion=champion,
        test_sets=frozenset(sets),
        verdict={"promote": False},
    )


def ledger_on(day, looks, sets=("official",)):
    return current_ledger(looks, START + timedelta(days=day), frozenset(sets), ROWS_OF)


def test_a_ledger_lasts_365_days_from_its_first_look():
    looks = [looked(0), looked(200, challenger="b"), looked(364, challenger="c")]
    assert ledger_on(364.9, looks) == looks
    assert ledger_on(365, looks) == []
    assert ledger_on(0, []) == []
    later = [*looks, looked(365, challenger="d"), looked(400, challenger="e")]
    assert ledger_on(700, list(reversed(later))) == later[3:]


def test_a_ledger_restarts_early_only_when_half_of_the_rows_are_new():
    looks = [looked(0), looked(7, sets=("official", "recent-9"))]
    assert ledger_on(14, looks, ("official", "recent-9")) == looks
    assert ledger_on(14, looks, ("official", "recent-27")) == looks  # 180 of 370 are new
    assert ledger_on(14, looks, ("official", "recent-28")) == []  # 190 of 380
    assert ledger_on(14, looks, ("recent-17",)) == looks  # 80 of 170
    assert ledger_on(14, looks, ("recent-18",)) == []  # 90 of 180
    assert ledger_on(14, looks, ("other",)) == []
    moved = [*looks, looked(14, challenger="b", sets=("other",))]
    assert ledger_on(21, moved, ("other",)) == moved[2:]


def test_rows_that_an_earlier_ledger_saw_are_new_to_the_next():
    looks = [looked(0), looked(7, sets=("other",))]
    assert ledger_on(14, looks, ("official",)) == []


def test_only_better_spends_alpha_and_a_repeat_spends_none():
    looks = [
        looked(0),
        looked(1, rule="not-worse", challenger="b"),
        looked(2, rule="threshold", challenger="c"),
        looked(3),  # the question of day 0
        looked(4, champion="b"),
        looked(5, sets=("official", "recent-1")),
    ]
    assert [next_look(looks[:count]) for count in range(7)] == [1, 2, 2, 2, 2, 3, 4]


def test_the_anchor_is_the_champion_at_the_start_of_the_ledger_and_outlives_a_promotion():
    looks = [looked(0, champion=None), looked(1, champion="x"), looked(2, champion="y")]
    assert anchor_of(looks) == "x"
    assert anchor_of([]) is None


def test_over_two_years_of_weekly_looks_each_ledger_spends_at_most_five_percent():
    looks, spent = [], []
    for week in itertools.count():
        if week == 104:
            break
        ledger = ledger_on(7 * week, looks)
        if not ledger:
            spent.append(0.0)
        spent[-1] += alpha(next_look(ledger))
        looks.append(looked(7 * week, challenger=f"c{week}", champion=f"x{week // 20}"))
    assert len(spent) == 2
    assert max(spent) < 0.05
