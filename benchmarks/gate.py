"""Gate: how often it promotes what is no better, and how often it finds what is.

    python -m benchmarks.gate

Simulated: 10,000 fixed rows, whose difficulty is the chance that a model has a row wrong; drawn
once a year from a beta distribution of which two equal models have 70 errors each and differ on
60 rows, on average. No image and no training. Prints a Markdown table.
"""

import argparse
import time
from collections.abc import Iterator

import numpy as np
from scipy.stats import binomtest, norm

from benchmarks import clock
from classifier.evaluation import comparison, ledger

ROWS, ERRORS, FLIPS, WEEKS = 10_000, 70, 60, 52
MARGIN = 25
GAINS = (5, 10, 20, 30)
SURELY_RIGHT = 1e-7  # chances below it add no error: 0.0005 in a year of 10,000 rows, at most
GROUP_ROWS, GROUPS = 25, (20, 200)

Line = tuple[str, int, int]  # what was counted, how often, of how many


def main() -> None:
    """Simulate, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a hundredth: to see that it works")
    options = parser.parse_args()
    scale, start = 100 if options.quick else 1, time.perf_counter()
    random = np.random.default_rng(0)
    lines = [
        *false_promotions(1_000 // scale, random),
        *power(200_000 // scale, random),
        *not_worse(200_000 // scale, random),
        *groups(200 // min(scale, 10), random),
    ]
    print(f"{clock.machine()}, {time.perf_counter() - start:.0f} s in all.\n")
    print("| simulated | share | 95 % interval | of |")
    print("|---|---:|---:|---:|")
    for what, count, of in lines:
        ends = binomtest(count, of).proportion_ci(0.95)
        print(f"| {what} | {count / of:.1%} | {ends.low:.1%} to {ends.high:.1%} | {of:,} |")


def difficulties(random: np.random.Generator) -> np.ndarray:
    """Draw the chance of an error for each row; float64 [rows that are ever wrong]."""
    mean = ERRORS / ROWS
    ratio = FLIPS / 2 / ROWS / (mean * (1 - mean))  # E[q (1 - q)] = mean (1 - mean) s / (s + 1)
    total = ratio / (1 - ratio)
    drawn = random.beta(mean * total, (1 - mean) * total, ROWS)
    return np.asarray(drawn[drawn > SURELY_RIGHT])


def false_promotions(years: int, random: np.random.Generator) -> Iterator[Line]:
    """Count the years in which one of 52 equal challengers is promoted."""
    levels = np.array([ledger.alpha(look) for look in range(1, WEEKS + 1)])
    alpha_k, weekly, at_least, flips = 0, 0, 0, 0
    for _ in range(years):
        chances = difficulties(random)
        wrong = random.random((WEEKS + 1, len(chances))) < chances
        champion, challengers = wrong[0], wrong[1:]
        negative = (~champion & challengers).sum(axis=1)
        positive = (champion & ~challengers).sum(axis=1)
        p_values = comparison.mcnemar(negative, positive)
        alpha_k += bool((p_values <= levels).any())
        weekly += bool((p_values <= ledger.YEARLY_ALPHA).any())
        at_least += bool((positive >= negative).any())
        flips += int((negative + positive).sum())
    print(f"Rows that flip between equal models: {flips / years / WEEKS:.1f} on average.\n")
    what = "years of 52 equal challengers with a promotion:"
    yield f"{what} `better`, alpha_k", alpha_k, years
    yield f"{what} 5 % each week", weekly, years
    yield f"{what} as many right, or more", at_least, years


def flips_of(gain: int, draws: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw negative and positive flips, int64 [draws] each, at a true gain in rows."""
    chances = np.array([FLIPS - gain, FLIPS + gain]) / 2 / ROWS
    negative, positive, _ = random.multinomial(ROWS, [*chances, 1 - chances.sum()], size=draws).T
    return negative, positive


def power(draws: int, random: np.random.Generator) -> Iterator[Line]:
    """Count the better challengers that a first look promotes."""
    for gain in GAINS:
        p_values = comparison.mcnemar(*flips_of(gain, draws, random))
        what = f"`better`, first look, true gain of {gain} rows, {FLIPS} flips: promoted"
        yield what, int((p_values <= ledger.alpha(1)).sum()), draws


def not_worse(draws: int, random: np.random.Generator) -> Iterator[Line]:
    """Count what passes `not-worse`: an equal model, and one that loses the margin."""
    for loss in (0, MARGIN):
        negative, positive = flips_of(-loss, draws, random)
        score = comparison.tango_score(negative, positive, ROWS, -MARGIN / ROWS)
        passed = score > norm.isf(comparison.ONE_SIDED)  # the same as: lower bound above -margin
        what = f"`not-worse`, margin of {MARGIN} rows, true loss of {loss}: passes"
        yield what, int(passed.sum()), draws


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
        yield f"{what}, groups resampled", grouped, draws
        yield f"{what}, rows taken as independent", alone, draws


if __name__ == "__main__":
    main()
