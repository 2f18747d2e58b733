"""Gate: how often it promotes what is no better, and how often it finds what is.

    python -m benchmarks.gate

Simulated years of a champion and 52 challengers on 10,000 fixed rows: the difficulties of the rows
are drawn once a year from the distribution fitted to ten seeds of `cnn` (difficulties.py), and each
model errs by chance, row by row. No image and no training, but for --fit, which trains the ten
seeds again. Prints Markdown tables.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest, norm

from benchmarks import clock, difficulties
from classifier.evaluation import checks, comparison, ledger

WEEKS, QUARTER = 52, 13
GAINS = (5, 10, 20, 40)
RESAMPLES = 1_000
GROUP_ROWS, GROUPS = 25, (20, 200)

Bar = Literal["the anchor", "no anchor", "the best earlier champion"]


class Line(NamedTuple):
    """A row of the table."""

    what: str
    found: str
    interval: str
    of: str


@dataclass(frozen=True, kw_only=True)
class Years:
    """Models 0 (the champion at the start) to 52 (the last challenger) of each year.

    Fields:
        rows: of the test set.
        errors: of each model, int64 [years, 53].
        negative: rows that the first model has right and the second wrong, int64 [years, 53, 53];
            the other way round, they are positive flips.
    """

    rows: int
    errors: np.ndarray
    negative: np.ndarray

    @property
    def first_looks(self) -> tuple[np.ndarray, np.ndarray]:
        """Negative and positive flips of each challenger against model 0, int64 [years, 52]."""
        return self.negative[:, 0, 1:], self.negative[:, 1:, 0]


Simulate = Callable[[ArrayLike], Years]


def main() -> None:
    """Simulate, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a hundredth: to see that it works")
    parser.add_argument("--fit", action="store_true", help="train the ten seeds again, first")
    options = parser.parse_args()
    if options.fit:
        difficulties.measure()
    measured = difficulties.read()
    scale, start = 100 if options.quick else 1, time.perf_counter()
    random = np.random.default_rng(0)
    simulate = partial(simulated, measured, 1_000 // scale, random)
    equal = simulate(0)
    lines = [
        *false_promotions(equal),
        *power(simulate),
        *refusals(equal),
        *losses(simulate, comparison.margin(round(measured.errors.mean()))),
        *groups(200 // min(scale, 10), random),
    ]
    flips = np.sum(equal.first_looks) / equal.negative[:, 0, 1:].size
    print(f"{clock.machine()}, {time.perf_counter() - start:.0f} s in all.\n\n{measured}\n")
    print(f"Simulated: {equal.errors.mean():.1f} errors, {flips:.1f} flips between two models.\n")
    print("| simulated | found | 95 % interval | of |")
    print("|---|---:|---:|---:|")
    for line in lines:
        print(f"| {' | '.join(line)} |")


def simulated(
    measured: difficulties.Measured, years: int, random: np.random.Generator, worse: ArrayLike
) -> Years:
    """Draw who has which rows wrong; challengers truly lose `worse` rows against model 0."""
    truly = np.concatenate([[0], np.broadcast_to(worse, WEEKS)])
    both = np.empty((years, WEEKS + 1, WEEKS + 1), int)  # rows that two models have wrong
    for year in range(years):
        chances = difficulties.of_worse(measured.draw(random), truly)
        wrong = (random.random(chances.shape) < chances).astype(np.float32)
        both[year] = wrong @ wrong.T
    errors = np.diagonal(both, axis1=1, axis2=2)
    return Years(rows=measured.rows, errors=errors, negative=errors[:, None, :] - both)


def false_promotions(equal: Years) -> Iterator[Line]:
    """Count the years in which one of 52 equal challengers is promoted.

    `better` is its test alone: what else it asks for could only refuse more.
    """
    negative, positive = equal.first_looks
    p_values = comparison.mcnemar(negative, positive)
    levels = np.array([ledger.alpha(look) for look in range(1, WEEKS + 1)])
    for rule, promoted in {
        "`better`": p_values <= levels,
        "a test at 5 % each week": p_values <= ledger.YEARLY_ALPHA,
        '"at least as many right"': positive >= negative,
    }.items():
        what = f"years of {WEEKS} equal challengers with a promotion by {rule}"
        yield counted(what, int(promoted.any(axis=1).sum()), len(promoted), " years")


def power(simulate: Simulate) -> Iterator[Line]:
    """Count the better challengers that a first look promotes."""
    for gain in GAINS:
        promoted = comparison.mcnemar(*simulate(-gain).first_looks) <= ledger.alpha(1)
        what = f"`better` finds a true gain of {gain} rows at the first look"
        yield over_years(what, np.mean, promoted.mean(axis=1), form=percent)


def refusals(equal: Years) -> Iterator[Line]:
    """Find how many equal challengers are refused early and late in a year of `not-worse`."""
    bars: tuple[Bar, ...] = ("the anchor", "the best earlier champion")
    for bar in bars:
        refused, _ = judged(equal, bar)
        early, late = refused[:, :QUARTER].sum(axis=1), refused[:, -QUARTER:].sum(axis=1)
        what = f"`not-worse` with {bar}: equal challengers refused"
        for when, count in {f"first {QUARTER} weeks": early, f"last {QUARTER} weeks": late}.items():
            yield over_years(f"{what}, {when}", np.mean, count / QUARTER, form=percent)
        yield over_years(f"{what}, last over first", ratio, late, early, form="{:.2f}".format)


def losses(simulate: Simulate, margin: int) -> Iterator[Line]:
    """Find how often a loss gets through, and how much many small ones add up to."""
    years = simulate(margin)
    passed = no_worse(*years.first_looks, years.rows, margins(years.errors[:, :1])).mean(axis=1)
    what = f"`not-worse`: a true loss of {margin} rows, the margin, passes at the first look"
    yield over_years(what, np.mean, passed, form=percent)
    years = simulate(np.arange(1, WEEKS + 1))
    bars: tuple[Bar, ...] = ("the anchor", "no anchor")
    for bar in bars:
        _, lost = judged(years, bar)
        what = f"`not-worse` with {bar}: rows lost after {WEEKS} challengers, each one row worse"
        yield over_years(f"{what}, median", np.median, lost, form="{:.0f}".format)
        high = partial(np.quantile, q=0.95, method="higher")
        yield over_years(f"{what}, 95 % quantile", high, lost, form="{:.0f}".format)


def judged(years: Years, kind: Bar) -> tuple[np.ndarray, np.ndarray]:
    """Judge the challengers of each year by `not-worse`; each that passes is the next champion.

    As `gate.verdict` does, but for classes: rows have none here.

    Args:
        years: of them.
        kind: what is a bar beside the champion, and gives the margin. Of two equally good earlier
            champions the first is the best.

    Returns:
        Who was refused, bool [years, 52], and the last champion, int64 [years].
    """
    every, negative = np.arange(len(years.errors)), years.negative
    most = checks.MOST_NEGATIVE_FLIPS["official"] * years.rows
    champion = bar = np.zeros(len(every), int)
    refused = np.empty((len(every), WEEKS), bool)
    for now in range(1, WEEKS + 1):
        b, c = negative[every, champion, now], negative[every, now, champion]
        of_bar = negative[every, bar, now], negative[every, now, bar]
        allowed = margins(years.errors[every, bar])
        passed = (b <= most) & (b + c > 0) & no_worse(b, c, years.rows, allowed)
        passed &= no_worse(*of_bar, years.rows, allowed)
        refused[:, now - 1] = ~passed
        champion = np.where(passed, now, champion)
        fewer = years.errors[every, champion] < years.errors[every, bar]
        next_bars = {
            "no anchor": champion,
            "the best earlier champion": np.where(fewer, champion, bar),
        }
        bar = next_bars.get(kind, bar)
    return refused, champion


def margins(errors: np.ndarray) -> np.ndarray:
    """Return the margin in rows for each number of errors."""
    return np.vectorize(comparison.margin, otypes=[int])(errors)  # type: ignore[no-any-return]


def no_worse(b: np.ndarray, c: np.ndarray, rows: int, allowed: np.ndarray) -> np.ndarray:
    """Return whether Tango's lower bound is above -allowed rows, without computing the bound."""
    score = comparison.tango_score(b, c, rows, -allowed / rows)
    return np.asarray(score > norm.isf(comparison.ONE_SIDED))


def counted(what: str, count: int, of: int, unit: str = "") -> Line:
    """Return the line of a share of independent draws, with its exact interval."""
    ends = binomtest(count, of).proportion_ci(0.95)
    between = f"{percent(ends.low)} to {percent(ends.high)}"
    return Line(what, percent(count / of), between, f"{of:,}{unit}")


def over_years(
    what: str, statistic: Callable[..., float], *of_year: np.ndarray, form: Callable[[float], str]
) -> Line:
    """Return the line of a statistic of arrays [years]; whole years are resampled."""
    years, random = len(of_year[0]), np.random.default_rng(0)
    drawn = [random.integers(0, years, years) for _ in range(RESAMPLES)]
    found = [statistic(*(column[rows] for column in of_year)) for rows in drawn]
    low, high = np.quantile(found, [0.025, 0.975])
    between = f"{form(low)} to {form(high)}"
    return Line(what, form(statistic(*of_year)), between, f"{years:,} years")


def ratio(late: np.ndarray, early: np.ndarray) -> float:
    """All late ones over all early ones, of which one is assumed where there is none."""
    return float(late.sum() / max(1, early.sum()))


def percent(share: float) -> str:
    """As text."""
    return f"{100 * share:.1f} %"


def groups(draws: int, random: np.random.Generator) -> Iterator[Line]:
    """Count lower bounds above the true difference, 0, where the rows of a group flip together."""
    for count in GROUPS:
        grouped, alone = 0, 0
        for seed in range(draws):
            nets = random.choice([-1, 1], count) * random.binomial(GROUP_ROWS, 0.1, count)
            positive, negative = (int(np.maximum(side, 0).sum()) for side in (nets, -nets))
            found = comparison.Comparison(
                rows=count * GROUP_ROWS,
                errors=positive,
                negative_flips=negative,
                positive_flips=positive,
                clusters=tuple(comparison.Cluster(int(net), GROUP_ROWS, 1) for net in nets),
            )
            tail = comparison.ONE_SIDED
            grouped += comparison.interval(found, tail=tail, seed=seed)[0] > 0
            alone += comparison.tango_interval(found, tail=tail)[0] > 0
        what = f"{count} groups of {GROUP_ROWS} rows that flip together: 95 % lower bound too high"
        yield counted(f"{what}, groups resampled", int(grouped), draws)
        yield counted(f"{what}, rows taken as independent", int(alone), draws)


if __name__ == "__main__":
    main()
