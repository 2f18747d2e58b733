"""Comparison: two models scored on the same rows; which is better, and how sure is that?

A row *flips* when one model is right and the other wrong. Rows that come in groups (a writer, a
session) are not independent of each other: then groups are resampled, and not rows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta, binom, norm, t

from classifier.errors import InputError

Integers = NDArray[np.integer]
Floats = NDArray[np.float64]

ONE_SIDED = 0.05  # tail of a bound that decides
TWO_SIDED = 0.025  # tail at either end of an interval that is shown
RESAMPLES, AT_ONCE = 10_000, 500  # so that memory stays small with many kinds of groups
PARTS, SECTIONINGS = 64, 10  # divide an interval of at most 2 to less than 2e-18


class Cluster(NamedTuple):
    """`groups` groups of `rows` rows each, of which `net` more are right now than before."""

    net: int
    rows: int
    groups: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Counts over the rows on which both models are scored.

    Fields:
        rows: all of them.
        errors: of the model before.
        negative_flips: right before, wrong now (b).
        positive_flips: wrong before, right now (c).
        clusters: of all groups; empty when the rows are independent.
    """

    rows: int
    errors: int
    negative_flips: int
    positive_flips: int
    clusters: tuple[Cluster, ...] = ()

    @property
    def difference(self) -> float:
        """Accuracy now less accuracy before; 0 without rows."""
        return (self.positive_flips - self.negative_flips) / max(1, self.rows)

    @property
    def flips(self) -> int:
        """Rows that flip, either way."""
        return self.negative_flips + self.positive_flips

    @property
    def groups(self) -> int | None:
        """Their number, or None when the rows are independent."""
        return sum(cluster.groups for cluster in self.clusters) or None


def compare(
    labels: Integers, before: Integers, now: Integers, groups: NDArray[np.generic] | None = None
) -> Comparison:
    """Count what flips between two predictions of the same rows.

    Args:
        labels: integers [N].
        before: predictions of the model in use, integers [N].
        now: predictions of its challenger, integers [N].
        groups: anything that sorts, [N]; None when the rows are independent.

    Raises:
        InputError: the lengths differ.
    """
    lengths = [len(rows) for rows in (labels, before, now, groups) if rows is not None]
    if len(set(lengths)) > 1:
        raise InputError(f"Labels and predictions have {lengths} rows: score both on the same.")
    was, is_now = before == labels, now == labels
    return Comparison(
        rows=len(labels),
        errors=int((~was).sum()),
        negative_flips=int((was & ~is_now).sum()),
        positive_flips=int((~was & is_now).sum()),
        clusters=() if groups is None else _clusters(is_now.astype(int) - was, groups),
    )


def _clusters(change: NDArray[np.int_], groups: NDArray[np.generic]) -> tuple[Cluster, ...]:
    _, group, rows = np.unique(groups, return_inverse=True, return_counts=True)
    net = np.bincount(group, weights=change, minlength=len(rows)).astype(int)
    kinds, counts = np.unique(np.stack([net, rows]), axis=1, return_counts=True)
    return tuple(map(Cluster, *kinds.tolist(), counts.tolist()))


def compare_classes(
    labels: Integers, before: Integers, now: Integers, groups: NDArray[np.generic] | None = None
) -> dict[int, Comparison]:
    """Return the comparison over the rows of each class that has some; arguments as `compare`."""
    found = {}
    for label in np.unique(labels).tolist():
        own = labels == label
        some = None if groups is None else groups[own]
        found[label] = compare(labels[own], before[own], now[own], some)
    return found


def pool(comparisons: Sequence[Comparison]) -> Comparison:
    """Return the comparison over all rows; beside groups, an independent row is its own group."""
    grouped = any(one.clusters for one in comparisons)
    return Comparison(
        rows=sum(one.rows for one in comparisons),
        errors=sum(one.errors for one in comparisons),
        negative_flips=sum(one.negative_flips for one in comparisons),
        positive_flips=sum(one.positive_flips for one in comparisons),
        clusters=tuple(c for one in comparisons for c in _as_groups(one)) if grouped else (),
    )


def _as_groups(one: Comparison) -> tuple[Cluster, ...]:
    same = one.rows - one.flips
    rows = ((-1, one.negative_flips), (0, same), (1, one.positive_flips))
    single = tuple(Cluster(net=net, rows=1, groups=count) for net, count in rows if count)
    return one.clusters or single


def mcnemar(negative_flips: ArrayLike, positive_flips: ArrayLike) -> Floats:
    """Return one-sided p-values of McNemar's exact test: is the model now better?

    The same as `binomtest(c, b + c, alternative="greater")`, element by element; 1 without flips.
    """
    b, c = np.asarray(negative_flips), np.asarray(positive_flips)
    return np.asarray(binom.sf(c - 1, b + c, 0.5), dtype=np.float64)


def p_better(found: Comparison) -> float:
    """Return the exact one-sided p-value of "no better than before".

    Groups swap sides as a whole: the sum of their net changes is compared with all 2^G choices of
    their signs. With groups of one row, this is McNemar's test.
    """
    if not found.clusters:
        return float(mcnemar(found.negative_flips, found.positive_flips))
    return _sign_flip(found.clusters)


def p_worse(found: Comparison) -> float:
    """Return the exact one-sided p-value of "no worse than before"."""
    if not found.clusters:
        return float(mcnemar(found.positive_flips, found.negative_flips))
    return _sign_flip(tuple(one._replace(net=-one.net) for one in found.clusters))


def _sign_flip(clusters: Sequence[Cluster]) -> float:
    net, _, counts = np.array(clusters).T
    return sign_flip(net, counts)


def sign_flip(net: Integers, counts: Integers) -> float:
    """Return the chance that a sum of net changes with random signs is at least the one found.

    Exact: over all 2^G signs, given the sizes of the changes.

    Args:
        net: changes, integers [J]; time and memory grow with their sum.
        counts: groups that have each, integers [J], G in all.
    """
    moved = (net != 0) & (counts > 0)
    net, counts = net[moved] // np.gcd.reduce(net[moved]), counts[moved]
    sizes = np.abs(net)
    chances = np.ones(1)  # of the sums -top, -top + 1, ..., top
    for size in np.unique(sizes).tolist():
        count = int(counts[sizes == size].sum())
        wider = np.zeros(len(chances) + 2 * size * count)
        for up, chance in enumerate(binom.pmf(np.arange(count + 1), count, 0.5).tolist()):
            wider[2 * size * up :][: len(chances)] += chance * chances
        chances = wider
    return min(1.0, float(chances[len(chances) // 2 + int(net @ counts) :].sum()))


def tango_score(
    negative_flips: ArrayLike, positive_flips: ArrayLike, rows: ArrayLike, difference: ArrayLike
) -> Floats:
    """Return the score statistic of a difference of paired proportions, element by element.

    Standard normal when the true difference is `difference`; it falls as that grows. Tango,
    Statistics in Medicine 17 (1998) 891-908, equations 24 to 26; McNemar's z at difference 0.

    Args:
        negative_flips: b.
        positive_flips: c.
        rows: n, at least b + c and 1.
        difference: accuracy now less accuracy before, in -1..1.
    """
    b, c, n, signed = np.broadcast_arrays(negative_flips, positive_flips, rows, difference)
    # A negative difference is that of swapped models: then no term of the root cancels another.
    b, c, d = np.where(signed < 0, c, b), np.where(signed < 0, b, c), np.abs(signed)
    linear = (2 * n - c + b) * d - (b + c)
    constant = b * d * (1 - d)
    root = np.sqrt(linear**2 + 8 * n * constant)
    with np.errstate(divide="ignore", invalid="ignore"):
        q = np.where(linear > 0, 2 * constant / (linear + root), (root - linear) / (4 * n))
        gap = c - b - n * d
        score = np.where(gap == 0, 0.0, gap / np.sqrt(n * (2 * q + d * (1 - d))))
    return np.asarray(np.where(signed < 0, -score, score), dtype=np.float64)


def tango_interval(found: Comparison, *, tail: float = TWO_SIDED) -> tuple[float, float]:
    """Return Tango's score interval of the difference; `tail` is the error at either end."""
    b, c = found.negative_flips, found.positive_flips
    return _tango_lower(b, c, found.rows, tail), -_tango_lower(c, b, found.rows, tail)


def _tango_lower(b: int, c: int, rows: int, tail: float) -> float:
    critical = norm.isf(tail)
    ends = np.array([-1.0, (c - b) / rows])
    for _ in range(SECTIONINGS):  # as bisection, but with fewer calls
        points = np.linspace(ends[0], ends[1], PARTS + 1)
        outside = int((tango_score(b, c, rows, points[1:-1]) > critical).sum())
        ends = points[outside : outside + 2]
    return float(ends[1])


def interval(found: Comparison, *, tail: float = TWO_SIDED, seed: int = 0) -> tuple[float, float]:
    """Return the interval of the difference; `tail` is the error at either end.

    Tango's for independent rows. With groups, the percentiles of resampled groups, at a level that
    makes up for few groups (Hesterberg, The American Statistician 69, 2015, 371-386), and never
    inside Tango's: groups without a flip would give an interval of no width.

    Raises:
        InputError: there are no rows.
    """
    if not found.rows:
        raise InputError("There is no row to compare: the test set needs labelled rows.")
    low, high = tango_interval(found, tail=tail)
    if not found.clusters:
        return low, high
    net, rows, counts = np.array(found.clusters).T
    ends = resampled_interval(net[:, None], rows[:, None], counts, tail=tail, seed=seed)
    return min(low, ends[0]), max(high, ends[1])


def resampled_interval(
    net: Integers, rows: Integers, counts: Integers, *, tail: float = TWO_SIDED, seed: int = 0
) -> tuple[float, float]:
    """Return percentiles of the mean over strata of net change / rows, when groups are resampled.

    Args:
        net: of each kind of group and stratum, integers [J, k].
        rows: the same; a stratum that is not drawn is not in the mean.
        counts: groups of each kind, integers [J].
        tail: error at either end.
        seed: of the draws.
    """
    count = int(counts.sum())
    if count == 1:  # which says nothing of the spread between groups
        return -1.0, 1.0
    random = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, AT_ONCE):
        drawn = random.multinomial(count, counts / count, size=AT_ONCE).astype(np.float64)
        with np.errstate(invalid="ignore"):
            shares = (drawn @ net) / (drawn @ rows)
        means[start : start + AT_ONCE] = np.nanmean(shares, axis=1)
    level = norm.cdf(math.sqrt(count / (count - 1)) * t.ppf(tail, count - 1))
    low, high = np.quantile(means, [level, 1 - level]).tolist()
    return low, high


def accuracy_bound(right: int, rows: int, *, tail: float = ONE_SIDED) -> float:
    """Return the lower Clopper-Pearson bound of an accuracy; 0 when nothing is right.

    Exact at any number of rows. Wilson's is not: near 1, as accuracies are, it promises too much.
    """
    return float(beta.ppf(tail, right, rows - right + 1)) if right else 0.0


def accuracy_interval(right: int, rows: int) -> tuple[float, float]:
    """Return the two-sided 95 % Clopper-Pearson interval of an accuracy."""
    low = accuracy_bound(right, rows, tail=TWO_SIDED)
    return low, 1 - accuracy_bound(rows - right, rows, tail=TWO_SIDED)


def holm(p_values: Sequence[float], *, level: float = ONE_SIDED) -> list[bool]:
    """Return which hypotheses Holm's step-down procedure rejects; any false one at `level`."""
    rejected = [False] * len(p_values)
    for step, index in enumerate(np.argsort(p_values, kind="stable").tolist()):
        if p_values[index] > level / (len(p_values) - step):
            break
        rejected[index] = True
    return rejected


def margin(errors: int) -> int:
    """Return the rows that a challenger may lose, given the anchor's errors on the set."""
    return max(5, math.ceil(3 * math.sqrt(errors)))
