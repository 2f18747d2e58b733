"""Comparison: counts and tests agree with SciPy, published values, brute force and simulation."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest, norm, t

from classifier.errors import InputError
from classifier.evaluation.comparison import (
    Comparison,
    accuracy_bound,
    compare,
    compare_classes,
    holm,
    interval,
    mcnemar,
    p_better,
    p_worse,
    pool,
    tango_interval,
    tango_score,
)


def counted(negative, positive, rows):
    return Comparison(rows=rows, errors=positive, negative_flips=negative, positive_flips=positive)


def grouped(nets, size=3):
    """A comparison of groups of `size` rows with these net changes."""
    change = [[np.sign(net)] * abs(net) + [0] * (size - abs(net)) for net in nets]
    flat = np.array(change).ravel()
    groups = np.repeat(np.arange(len(nets)), size)
    labels = np.zeros(len(flat), np.uint8)
    return compare(labels, (flat > 0).astype(np.uint8), (flat < 0).astype(np.uint8), groups)


@st.composite
def tables(draw, most=60):
    """Negative flips, positive flips and rows."""
    rows = draw(st.integers(1, most))
    flips = draw(st.integers(0, rows))
    negative = draw(st.integers(0, flips))
    return negative, flips - negative, rows


predictions = st.lists(st.tuples(*(st.integers(0, 3),) * 4), min_size=1, max_size=60)


@settings(deadline=None)
@given(predictions)
def test_counts_agree_with_counting_row_by_row(rows):
    labels, before, now, groups = np.array(rows).T
    found = compare(labels, before, now, groups)
    assert found.negative_flips == sum(b == label != n for label, b, n, _ in rows)
    assert found.positive_flips == sum(n == label != b for label, b, n, _ in rows)
    assert found.errors == sum(b != label for label, b, _, _ in rows)
    assert found.difference == pytest.approx(np.mean(now == labels) - np.mean(before == labels))
    assert found.groups == len(set(groups.tolist()))
    expected = sorted(
        (sum((n == label) - (b == label) for label, b, n, g in rows if g == group), count)
        for group in set(groups.tolist())
        for count in [int((groups == group).sum())]
    )
    listed = [(one.net, one.rows) for one in found.clusters for _ in range(one.groups)]
    assert sorted(listed) == expected


@settings(deadline=None)
@given(predictions)
def test_the_classes_add_up_to_the_whole(rows):
    labels, before, now, _ = np.array(rows).T
    classes = compare_classes(labels, before, now)
    assert set(classes) == set(labels.tolist())
    assert pool(list(classes.values())) == compare(labels, before, now)


def test_predictions_of_other_rows_are_refused():
    with pytest.raises(InputError, match="score both on the same"):
        compare(np.zeros(3, int), np.zeros(3, int), np.zeros(2, int))


@settings(deadline=None)
@given(st.integers(0, 200), st.integers(0, 200))
def test_mcnemar_agrees_with_scipys_exact_binomial_test(b, c):
    expected = binomtest(c, b + c, alternative="greater").pvalue if b + c else 1.0
    assert float(mcnemar(b, c)) == pytest.approx(expected, rel=1e-9)
    assert p_worse(counted(c, b, 500)) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_of_arrays_is_that_of_their_elements():
    assert mcnemar([0, 0, 3], [0, 5, 3]) == pytest.approx([1, 1 / 32, 42 / 64])


@settings(deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=9))
def test_the_test_of_groups_agrees_with_all_choices_of_signs(nets):
    reached = [
        sum(sign * net for sign, net in zip(signs, nets, strict=True)) >= sum(nets)
        for signs in itertools.product((-1, 1), repeat=len(nets))
    ]
    assert p_better(grouped(nets)) == pytest.approx(float(Fraction(sum(reached), len(reached))))
    assert p_worse(grouped([-net for net in nets])) == pytest.approx(p_better(grouped(nets)))


@settings(deadline=None)
@given(tables())
def test_groups_of_one_row_give_mcnemars_p_value(table):
    b, c, rows = table
    change = np.repeat([-1, 1, 0], [b, c, rows - b - c])
    labels = np.zeros(rows, int)
    found = compare(labels, (change > 0) * 1, (change < 0) * 1, np.arange(rows))
    assert (found.negative_flips, found.positive_flips, found.groups) == table
    assert p_better(found) == pytest.approx(float(mcnemar(b, c)), rel=1e-9)


def test_beside_groups_independent_rows_are_groups_of_their_own():
    independent, of_groups = counted(4, 9, 100), grouped([2, -1, 0, 3])
    found = pool([independent, of_groups])
    assert (found.rows, found.negative_flips, found.positive_flips) == (112, 5, 14)
    assert found.groups == 104
    nets = [2, -1, 3, *[-1] * 4, *[1] * 9]
    sums = np.zeros(1, int)
    for net in nets:
        sums = np.concatenate([sums + net, sums - net])
    assert p_better(found) == pytest.approx(np.mean(sums >= sum(nets)))


def test_the_interval_is_that_of_published_examples():
    """Tango 1998, section 6.1: 44 pairs, of which one is right in the standard alone."""
    lenses = counted(1, 0, 44)
    assert tango_score(1, 0, 44, -0.1) == pytest.approx(1.709, abs=5e-4)
    assert tango_interval(lenses, tail=0.05)[0] == pytest.approx(-0.096, abs=5e-4)
    # R's PropCIs::scoreci.mp(25, 28, 618, 0.90), as a public test of another project gives it
    assert tango_interval(counted(25, 28, 618), tail=0.05) == pytest.approx(
        (-0.0148, 0.0247), abs=5e-5
    )


def log_likelihood(q, table, difference):
    b, c, rows = table
    chances = (q, q + difference, 1 - 2 * q - difference)
    return sum(
        count * math.log(max(chance, 1e-300))
        for count, chance in zip((b, c, rows - b - c), chances, strict=True)
    )


def brute_force_score(table, difference):
    """The score with the constrained likelihood maximised numerically, and not in closed form."""
    b, c, rows = table
    low, high = max(0.0, -difference), (1 - difference) / 2
    bounds = (low, high)
    q = minimize_scalar(
        lambda q: -log_likelihood(q, table, difference),
        bounds=bounds,
        method="bounded",
        options={"xatol": 1e-12},
    ).x
    return (c - b - rows * difference) / math.sqrt(rows * (2 * q + difference - difference**2))


@settings(deadline=None)
@given(tables(), st.floats(-0.95, 0.95).filter(lambda d: abs(d) > 0.01))
def test_the_score_agrees_with_a_numerical_maximum_of_the_likelihood(table, difference):
    b, c, rows = table
    expected = brute_force_score(table, difference)
    assert float(tango_score(b, c, rows, difference)) == pytest.approx(expected, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize(
    "table",
    [(0, 0, 1), (0, 0, 30), (0, 4, 30), (4, 0, 30), (2, 3, 5), (3, 0, 3), (1, 0, 2), (12, 5, 90)],
)
@pytest.mark.parametrize("tail", [0.05, 0.025])
def test_the_interval_agrees_with_a_grid_of_brute_force_scores(table, tail):
    grid = np.linspace(-0.999, 0.999, 334)
    scores = np.array([brute_force_score(table, difference) for difference in grid])
    inside = grid[np.abs(scores) <= norm.isf(tail)]
    low, high = tango_interval(counted(*table), tail=tail)
    assert low == pytest.approx(inside.min(), abs=0.0061)  # one step of the grid
    assert high == pytest.approx(inside.max(), abs=0.0061)


@settings(deadline=None)
@given(tables(most=10_000))
def test_the_ends_of_the_interval_solve_the_score_and_mirror_the_swapped_models(table):
    b, c, rows = table
    low, high = tango_interval(counted(b, c, rows))
    assert -1 <= low <= (c - b) / rows <= high <= 1
    assert tango_interval(counted(c, b, rows)) == pytest.approx((-high, -low), abs=1e-12)
    for end, critical in ((low, norm.isf(0.025)), (high, -norm.isf(0.025))):
        if abs(end) < 1:
            assert float(tango_score(b, c, rows, end)) == pytest.approx(critical, abs=1e-5)


def test_the_score_at_no_difference_is_mcnemars_z():
    assert float(tango_score(9, 21, 500, 0)) == pytest.approx(12 / math.sqrt(30))


def test_without_flips_the_interval_is_wilsons_of_no_flip_in_as_many_rows():
    z = norm.isf(0.05)
    low, high = tango_interval(counted(0, 0, 500), tail=0.05)
    assert (low, high) == pytest.approx((-(z**2) / (500 + z**2), z**2 / (500 + z**2)))


def test_without_groups_the_interval_is_tangos_and_the_seed_is_idle():
    found = counted(9, 12, 700)
    assert interval(found, seed=1) == interval(found, seed=2) == tango_interval(found)


def test_rows_that_flip_in_groups_widen_the_interval():
    alone = counted(30, 30, 3_000)
    in_groups = grouped([-3] * 10 + [3] * 10 + [0] * 980)
    assert (in_groups.rows, in_groups.flips) == (alone.rows, alone.flips)
    low, high = interval(in_groups)
    width = 2 * norm.isf(0.025) * math.sqrt(20 * 3**2) / 3_000  # of twenty nets of 3, by normality
    assert high - low == pytest.approx(width, rel=0.06)
    assert low < interval(alone)[0] - 0.003
    assert interval(in_groups) == (low, high)


def test_the_interval_of_few_groups_agrees_with_all_draws_at_the_level_of_hesterberg():
    nets = [-5, -2, 0, 3, 6]
    totals = [sum(draw) for draw in itertools.product(nets, repeat=5)]
    level = norm.cdf(-math.sqrt(5 / 4) * t.isf(0.05, 4))
    low, high = interval(grouped(nets, size=8), tail=0.05)
    expected = np.quantile(totals, [level, 1 - level])
    assert [low * 40, high * 40] == pytest.approx(expected.tolist(), abs=1.01)  # 10,000 draws
    assert low * 40 < np.quantile(totals, 0.05) - 4


def test_groups_without_a_flip_leave_tangos_interval_and_one_group_says_nothing():
    assert interval(grouped([0] * 25)) == tango_interval(counted(0, 0, 75))
    assert interval(grouped([1])) == (-1.0, 1.0)


def test_the_bound_of_groups_keeps_its_level_where_tangos_does_not():
    """Groups of 25 rows whose flips have one direction: the true difference is zero."""
    random = np.random.default_rng(0)
    missed, missed_by_tango = 0, 0
    for _ in range(100):
        nets = random.choice([-1, 1], 20) * random.binomial(25, 0.1, 20)
        found = grouped(nets.tolist(), size=25)
        missed += interval(found, tail=0.05)[0] > 0
        missed_by_tango += tango_interval(found, tail=0.05)[0] > 0
    assert missed <= 10  # of 5 expected; more by chance in 1.2 % of all seeds
    assert missed_by_tango > 12


def test_a_comparison_without_rows_has_no_interval():
    with pytest.raises(InputError, match="no row to compare"):
        interval(counted(0, 0, 0))


@settings(deadline=None)
@given(st.integers(1, 300).flatmap(lambda rows: st.tuples(st.integers(0, rows), st.just(rows))))
def test_the_bound_of_an_accuracy_is_scipys_exact_one(case):
    right, rows = case
    expected = binomtest(right, rows).proportion_ci(0.9, method="exact").low
    assert accuracy_bound(right, rows) == pytest.approx(expected, abs=1e-9)


def test_wilsons_bound_of_an_accuracy_near_one_holds_too_seldom_and_ours_does_not():
    """Why the floor takes Clopper-Pearson: at 100 rows, the exact chance that a bound holds."""
    true, rows = 0.973, 100
    chances = [math.comb(rows, k) * true**k * (1 - true) ** (rows - k) for k in range(rows + 1)]
    wilson = [
        binomtest(k, rows).proportion_ci(0.9, method="wilson").low <= true for k in range(rows + 1)
    ]
    ours = [accuracy_bound(k, rows) <= true for k in range(rows + 1)]
    assert np.dot(ours, chances) >= 0.95
    assert np.dot(wilson, chances) < 0.94


def test_holm_rejects_as_in_a_worked_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == [True, False, False, True]
    assert holm([0.01, 0.02, 0.5]) == [True, True, False]  # 0.05 / 3, then 0.05 / 2
    assert holm([0.04]) == [True]
    assert holm([]) == []


@settings(deadline=None)
@given(st.lists(st.floats(0, 0.06), min_size=1, max_size=8))
def test_holm_is_the_closed_test_of_bonferroni(p_values):
    """The closure principle: a hypothesis goes when each set that holds it goes by Bonferroni."""
    count = len(p_values)
    sets = [s for r in range(1, count + 1) for s in itertools.combinations(range(count), r)]
    goes = {s: min(p_values[i] for i in s) <= 0.05 / len(s) for s in sets}
    assert holm(p_values) == [all(goes[s] for s in sets if i in s) for i in range(count)]
