"""Macro: the mean over strata of the share of rows right, for one model and between two.

With a stratum for each class that has rows, this is macro recall. With all rows in one stratum it
is accuracy: then the interval is Tango's, the test McNemar's, and the margin that of comparison.py.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from classifier.declaration import Metric
from classifier.evaluation import comparison
from classifier.evaluation.comparison import TWO_SIDED, Comparison, Floats, Integers

STEPS = 50_000  # of the grid on which the test adds up flips that weigh differently


def name_of(metric: Metric) -> str:
    """Return the metric as sentences name it."""
    return metric.replace("-", " ")


def _strata(metric: Metric, labels: Integers) -> Integers:
    """Return the stratum of each row, 0..k-1, [N]."""
    if metric == "accuracy":
        return np.zeros(len(labels), dtype=np.int64)
    return np.unique(labels, return_inverse=True)[1]


def _lower_end(means: Floats, lows: Floats) -> float:
    """Return the lower end of the mean of independent estimates [k] with these lower ends [k].

    MOVER: Zou and Donner, Statistics in Medicine 27 (2008) 1693-1702.
    """
    return float(means.mean()) - math.hypot(*(means - lows)) / len(means)


@dataclass(frozen=True, kw_only=True, eq=False)
class Score:
    """How good one model is on a set.

    Fields:
        metric: that counts.
        right, rows: of each stratum, integers [k].
        constant: the metric of a model whose answer is always the largest class.
    """

    metric: Metric
    right: Integers
    rows: Integers
    constant: float

    @classmethod
    def of(cls, metric: Metric, labels: Integers, predictions: Integers) -> "Score":
        """Score predictions [N], N at least 1, of rows with these labels [N]."""
        stratum = _strata(metric, labels)
        rows = np.bincount(stratum)
        right = np.bincount(stratum[predictions == labels], minlength=len(rows))
        classes, sizes = np.unique(labels, return_counts=True)
        largest = np.bincount(stratum[labels == classes[sizes.argmax()]], minlength=len(rows))
        constant = float((largest / rows).mean())
        return cls(metric=metric, right=right, rows=rows, constant=constant)

    @property
    def value(self) -> float:
        """Of the metric, in 0..1."""
        return float((self.right / self.rows).mean())

    @property
    def bound(self) -> float:
        """Lower one-sided 95 % bound: MOVER over those of Clopper and Pearson."""
        pairs = zip(self.right.tolist(), self.rows.tolist(), strict=True)
        lows = np.array([comparison.accuracy_bound(right, rows) for right, rows in pairs])
        return _lower_end(self.right / self.rows, lows)

    def __str__(self) -> str:
        if self.metric == "accuracy":
            return f"{self.right.sum()} of {self.rows.sum()} rows are right"
        return f"{name_of(self.metric)} is {self.value:.1%}"


def compare(
    metric: Metric,
    labels: Integers,
    before: Integers,
    now: Integers,
    groups: NDArray[np.generic] | None = None,
) -> "MacroComparison":
    """Compare two predictions of the same rows; arguments as `comparison.compare`, N at least 1.

    Raises:
        InputError: the lengths differ.
    """
    whole = comparison.compare(labels, before, now)
    stratum = _strata(metric, labels)
    count = int(stratum.max()) + 1
    each = [stratum == number for number in range(count)]
    strata = tuple(comparison.compare(labels[own], before[own], now[own]) for own in each)
    clusters = None
    if groups is not None:
        cell = np.unique(groups, return_inverse=True)[1] * count + stratum
        rows = np.bincount(cell, minlength=(cell.max() // count + 1) * count)
        change = (now == labels).astype(int) - (before == labels)
        net = np.bincount(cell, weights=change, minlength=len(rows)).astype(int)
        both = np.hstack([net.reshape(-1, count), rows.reshape(-1, count)])
        kinds, counts = np.unique(both, axis=0, return_counts=True)
        clusters = Clusters(net=kinds[:, :count], rows=kinds[:, count:], counts=counts)
    return MacroComparison(metric=metric, strata=strata, whole=whole, clusters=clusters)


Rows = tuple[Integers, Integers, Integers, NDArray[np.generic] | None]


def pool(sets: Sequence[Rows]) -> Rows:
    """Return labels, before, now and groups of all sets together.

    Groups of two sets are different ones; beside groups, an independent row is its own group.
    """
    labels, before, now = (np.concatenate([one[part] for one in sets]) for part in range(3))
    if all(one[3] is None for one in sets):
        return labels, before, now, None
    groups, total = [], 0
    for of_labels, _, _, named in sets:
        names = np.arange(len(of_labels)) if named is None else named
        own = np.unique(names, return_inverse=True)[1]
        groups.append(own + total)
        total += own.max() + 1
    return labels, before, now, np.concatenate(groups)


@dataclass(frozen=True, kw_only=True, eq=False)
class Clusters:
    """Kinds of groups of rows.

    Fields:
        net: rows newly right less newly wrong, of each kind and stratum, integers [J, k].
        rows: all of them, the same.
        counts: groups of each kind, integers [J].
    """

    net: Integers
    rows: Integers
    counts: Integers


@dataclass(frozen=True, kw_only=True, eq=False)
class MacroComparison:
    """How two models differ in a metric on the same rows; shares are in -1..1.

    Fields:
        metric: that counts.
        strata: the comparison within each, without groups.
        whole: the comparison over all rows, without groups.
        clusters: None when the rows are independent.
    """

    metric: Metric
    strata: tuple[Comparison, ...]
    whole: Comparison
    clusters: Clusters | None = None

    @cached_property
    def _weights(self) -> Floats:
        """What a row of each stratum adds to the metric, [k]."""
        return np.array([1 / one.rows for one in self.strata]) / len(self.strata)

    @cached_property
    def _flips(self) -> Integers:
        return np.array([one.flips for one in self.strata])

    @property
    def weighs_alike(self) -> bool:
        """Whether all rows count the same, as in accuracy."""
        return len({one.rows for one in self.strata}) == 1

    @property
    def difference(self) -> float:
        """Metric now less metric before."""
        return float(np.mean([one.difference for one in self.strata]))

    def interval(self, *, tail: float = TWO_SIDED) -> tuple[float, float]:
        """Return the interval of the difference; `tail` is the error at either end.

        MOVER over the strata's Tango intervals. With groups, the percentiles of resampled groups,
        which carry all their strata along; never inside MOVER's, which takes rows as independent.
        """
        means = np.array([one.difference for one in self.strata])
        lows, highs = np.array([comparison.tango_interval(one, tail=tail) for one in self.strata]).T
        low, high = _lower_end(means, lows), -_lower_end(-means, -highs)
        if self.clusters is None:
            return low, high
        net, rows, counts = self.clusters.net, self.clusters.rows, self.clusters.counts
        ends = comparison.resampled_interval(net, rows, counts, tail=tail)
        return min(low, ends[0]), max(high, ends[1])

    def p_better(self) -> float:
        """Return the exact one-sided p-value of "no better than before in any class".

        Then each flip, given that its row flips, goes either way with the same chance. The
        statistic is the sum of the weights of positive flips less that of negative ones; groups
        swap sides as a whole. The weights are those of the metric, rounded to integers on a grid
        that depends on no direction: so the test is exact, whatever the rounding.
        """
        scale = STEPS / max(float(self._flips @ self._weights), self._weights.min())
        weights = np.maximum(1, np.rint(scale * self._weights)).astype(int)
        if self.clusters is not None:
            return comparison.sign_flip(self.clusters.net @ weights, self.clusters.counts)
        negative = [one.negative_flips for one in self.strata]
        positive = [one.positive_flips for one in self.strata]
        nets = np.concatenate([-weights, weights])
        return comparison.sign_flip(nets, np.array(negative + positive))

    def margin(self, anchor: "MacroComparison") -> float:
        """Return the loss that is allowed, given the comparison with the anchor on the same set.

        The margins of the strata's rows, at most all of them, are added up as the interval's ends
        are: an equal model that would pass in each stratum passes. A class that is new to the
        anchor has a margin of the champion's errors.
        """
        strata = (*anchor.strata, *self.strata[len(anchor.strata) :])
        rows = [min(comparison.margin(one.errors), one.rows) for one in strata]
        pairs = zip(rows, self._weights.tolist(), strict=False)  # an anchor may know more classes
        return math.hypot(*(count * weight for count, weight in pairs))

    @property
    def weighted_flips(self) -> float:
        """Flips in rows of mean weight: what they add to the variance of the difference."""
        return self.whole.rows**2 * float(self._flips @ self._weights**2)

    @property
    def weighted_errors(self) -> float:
        """Errors of the model before, in rows of mean weight: what they cost in the metric."""
        errors = np.array([one.errors for one in self.strata])
        return self.whole.rows * float(errors @ self._weights)

    def __str__(self) -> str:
        flips = (
            f"{self.whole.positive_flips} rows are newly right and "
            f"{self.whole.negative_flips} newly wrong"
        )
        if self.metric == "accuracy":
            return flips
        return f"{self.told(self.difference)} {self.unit}, as {flips}"

    def told(self, share: float, digits: int = 0) -> str:
        """Return a difference as sentences give it, in `unit`; digits count for rows alone."""
        if self.metric == "accuracy":
            return f"{share * self.whole.rows:+.{digits}f}"
        return f"{100 * share:+.2f}"

    @property
    def unit(self) -> str:
        """What `told` counts."""
        if self.metric == "accuracy":
            return f"of {self.whole.rows} rows"
        return f"points of {name_of(self.metric)}"
