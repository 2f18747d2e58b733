"""Checks: what a challenger must show, each as a pass or failure and the sentence that says so."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from classifier.declaration import Metric
from classifier.errors import InputError
from classifier.evaluation import comparison, macro
from classifier.evaluation.comparison import ONE_SIDED, Integers
from classifier.evaluation.ledger import alpha
from classifier.evaluation.macro import MacroComparison, Score

FEWEST_CLASS_ROWS = 100
MOST_CLASS_LOSS = 0.01
MOST_NEGATIVE_FLIPS = {"official": 0.005, "recent": 0.01}

Check = tuple[bool, str]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A test set, and what each model says of its rows today.

    Fields:
        name: official or recent.
        labels, challenger: integers [N].
        champion: predictions [N]; None when no clean model is there, and a floor is the bar.
        anchor: predictions [N]; None when it is the champion, or rests on a retracted batch.
        groups: of the rows, [N]; None when the rows are independent.
    """

    name: Literal["official", "recent"]
    labels: Integers
    challenger: Integers
    champion: Integers | None = None
    anchor: Integers | None = None
    groups: np.ndarray | None = None

    def shared_with(self, before: Integers | None, classes: int) -> macro.Rows:
        """Return the arguments of `compare` for the rows of the first `classes` classes."""
        rows = len(self.labels)
        if before is None or {len(before), len(self.challenger)} != {rows}:
            raise InputError(f"The {self.name} test: score every model on the same {rows} rows.")
        shared = self.labels < classes
        if not shared.any():
            raise InputError(f"The {self.name} test has no row of a class that both models know.")
        groups = None if self.groups is None else self.groups[shared]
        return self.labels[shared], before[shared], self.challenger[shared], groups


def is_better(pooled: MacroComparison, p_value: float, look: int) -> Check:
    """Ask of the pooled sets that they show a gain, at the level of this look.

    Where rows weigh differently, the interval must say so too: a loss of a small class, of which no
    row happens to flip, may outweigh gains of the others, and the p-value does not know of it.
    """
    level = alpha(look)
    told = f"{pooled}: p {p_value:.2g} against {level:.2g} at look {look}"
    if pooled.weighs_alike:
        return p_value <= level, f"{told}."
    low = pooled.interval(tail=level)[0]
    return p_value <= level and low > 0, f"{told}, with a lower bound of {pooled.told(low)}."


def not_worse(
    one: Scored, metric: Metric, champion_classes: int, anchor_classes: int
) -> list[Check]:
    """Bound the loss on a set by the anchor's margin, against champion and anchor."""
    compared = {"champion": macro.compare(metric, *one.shared_with(one.champion, champion_classes))}
    bar = compared["champion"]
    if one.anchor is not None:
        bar = macro.compare(metric, *one.shared_with(one.anchor, anchor_classes))
        compared["anchor"] = bar
    checks = []
    for name, found in compared.items():
        low, allowed = found.interval(tail=ONE_SIDED)[0], found.margin(bar)
        sentence = (
            f"The {one.name} test, against the {name}: {found.told(found.difference)} {found.unit},"
            f" lower bound {found.told(low, 1)} against a margin of {found.told(-allowed)}."
        )
        checks.append((low > -allowed, sentence))
    return checks


def few_negative_flips(one: Scored, classes: int) -> Check:
    """Ask of a set that few of its rows turn wrong."""
    found = comparison.compare(*one.shared_with(one.champion, classes))
    most = MOST_NEGATIVE_FLIPS[one.name]
    return found.negative_flips / found.rows <= most, (
        f"The {one.name} test: {found.negative_flips} of {found.rows} rows are newly wrong, against"
        f" {math.floor(most * found.rows)} at most."
    )


def keeps_classes(one: Scored, known: int, classes: Sequence[str]) -> Check:
    """Find classes of enough rows that lose more than a point, significantly so (exact, Holm)."""
    every = comparison.compare_classes(*one.shared_with(one.champion, known))
    found = {label: some for label, some in every.items() if some.rows >= FEWEST_CLASS_ROWS}
    worse = comparison.holm([comparison.p_worse(of_class) for of_class in found.values()])
    lost = [
        f"{classes[label]} ({of_class.difference:+.1%})"
        for (label, of_class), is_worse in zip(found.items(), worse, strict=True)
        if is_worse and of_class.difference < -MOST_CLASS_LOSS
    ]
    what = f"these classes lose too much: {', '.join(lost)}" if lost else "no class loses too much"
    return not lost, f"The {one.name} test: {what}."


def keeps_half(one: Scored, known: int, classes: Sequence[str]) -> Check:
    """Find classes, of any number of rows, that lose over half of the rows that were right.

    With macro recall a class counts however few its rows are, and too few to say more.
    """
    every = comparison.compare_classes(*one.shared_with(one.champion, known))
    lost = [
        classes[label]
        for label, found in every.items()
        if 2 * (found.negative_flips - found.positive_flips) > found.rows - found.errors
    ]
    what = f"over half is lost of: {', '.join(lost)}" if lost else "no class loses half of its rows"
    return not lost, f"The {one.name} test: {what}."


def learns(sets: Sequence[Scored], label: int, classes: Sequence[str]) -> Check:
    """Ask of a new class that it is recognised more often than guessing would."""
    rows = sum(int((one.labels == label).sum()) for one in sets)
    right = sum(int(((one.labels == label) & (one.challenger == label)).sum()) for one in sets)
    low, least = comparison.accuracy_bound(right, rows), 1 / len(classes)
    return low > least, (
        f"Class {classes[label]} is new: {right} of {rows} test rows are right, lower bound "
        f"{low:.1%} against {least:.1%} by guessing."
    )


def clears_floor(name: str, score: Score) -> Check:
    """Ask of a model that it beats the answer that is always the largest class."""
    return score.bound > score.constant, (
        f"{name}: {score}, lower bound {score.bound:.1%} "
        f"against {score.constant:.1%} for always the largest class."
    )


def reaches(name: str, score: Score, threshold: float) -> Check:
    """Ask of a model that the metric reaches a threshold."""
    return score.value >= threshold, (
        f"{name}: {macro.name_of(score.metric)} {score.value:.2%} against a threshold of "
        f"{threshold:.2%}."
    )
