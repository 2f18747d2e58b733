"""Gate: may the challenger replace the champion?

1. `auto_rule` says what the challenger must show: to be better, or to be no worse.
2. `look_again` of ledger.py finds the logged verdict of the same question; its `current_ledger`,
   `next_look` and `anchor_of` give the ledger, the number of this look and the anchor.
3. `verdict` decides. Champion, challenger and anchor are scored on the same rows, today.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from classifier.errors import ArgumentError, InputError
from classifier.evaluation import comparison
from classifier.evaluation.comparison import ONE_SIDED, Comparison, Integers
from classifier.evaluation.ledger import Rule, alpha, detectable_gain, new_rows_due

FEWEST_RECENT_ROWS, FEWEST_GROUPS = 500, 20
FEWEST_CLASS_ROWS = 100
MOST_CLASS_LOSS = 0.01
MOST_NEGATIVE_FLIPS = {"official": 0.005, "recent": 0.01}
CHANGES = ("recipe", "data", "code", "packages", "seed")


def auto_rule(changed: Collection[str]) -> tuple[Rule, str]:
    """Return the rule for what changed since the champion, and the sentence that says why.

    Only a recipe claims to be better. New data, code or packages must be no worse: a torch upgrade
    is no better recipe, and must not be refused for ever.

    Args:
        changed: of recipe, data, code, packages, seed.

    Raises:
        ArgumentError: another word.
    """
    if unknown := set(changed) - set(CHANGES):
        raise ArgumentError(f"{sorted(unknown)} cannot change: choose from {', '.join(CHANGES)}.")
    if set(changed) == {"recipe"}:
        return "better", "Only the recipe changed: the challenger must be better."
    what = " and ".join(name for name in CHANGES if name in changed) or "Nothing"
    return "not-worse", f"{what.capitalize()} changed: the challenger must be no worse."


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

    def shared_with(self, before: Integers | None, classes: int) -> tuple[Any, ...]:
        """Return the arguments of `compare` for the rows of the first `classes` classes."""
        rows = len(self.labels)
        if before is None or {len(before), len(self.challenger)} != {rows}:
            raise InputError(f"The {self.name} test: score every model on the same {rows} rows.")
        shared = self.labels < classes
        if not shared.any():
            raise InputError(f"The {self.name} test has no row of a class that both models know.")
        groups = None if self.groups is None else self.groups[shared]
        return self.labels[shared], before[shared], self.challenger[shared], groups

    @property
    def right(self) -> int:
        """Rows that the challenger has right."""
        return int((self.challenger == self.labels).sum())


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether to promote, and why; all but `promote`, `rule` and `why` is None without a champion.

    Fields:
        difference: accuracy of the challenger less the champion's, on the deciding rows together.
        interval: two-sided 95 % interval of that difference.
        p_value: exact one-sided, of "no better".
        negative_flips: deciding rows right before and wrong now.
        why: what refuses it; else what it showed. Notes come last.
        detectable_gain: smallest gain in rows that this look could find.
        new_rows_due: whether that is too much, so that new test rows are needed.
    """

    promote: bool
    rule: Rule
    why: list[str]
    difference: float | None = None
    interval: tuple[float, float] | None = None
    p_value: float | None = None
    negative_flips: int | None = None
    detectable_gain: float | None = None
    new_rows_due: bool | None = None

    def json(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self) | {"interval": self.interval and list(self.interval)}


Check = tuple[bool, str]


def verdict(
    official: Scored,
    recent: Scored | None = None,
    *,
    rule: Rule,
    classes: Sequence[str],
    look: int = 1,
    champion_classes: int | None = None,
    anchor_classes: int | None = None,
    threshold: float | None = None,
    reason: str = "",
) -> Verdict:
    """Decide whether the challenger replaces the champion.

    Rows of classes that a model does not know are left out of its comparison; a class that is new
    to the champion has a floor of its own: better than guessing.

    Args:
        official: always decides.
        recent: decides from 500 rows, and 20 groups where it has groups.
        rule: of `auto_rule`, or threshold; without a champion it is floor.
        classes: the challenger's; an older model knows the first of them.
        look: k of `next_look`.
        champion_classes: how many it knows; None for all.
        anchor_classes: the same of the anchor.
        threshold: least accuracy on each set, in 0..1, with the rule threshold.
        reason: why this rule; it opens `why`.

    Raises:
        ArgumentError: rule and threshold, or rule and champion, do not fit.
        InputError: models were not scored on the same rows, or there is none.
    """
    _check_arguments(official, rule, threshold)
    known = champion_classes or len(classes)
    sets, notes = _deciding(official, recent, known)
    checks = [_reaches(one, threshold) for one in sets if threshold is not None]
    if official.champion is None:
        checks += [_clears_floor(one) for one in sets]
        named: Rule = "threshold" if rule == "threshold" else "floor"
        return Verdict(promote=_passed(checks), rule=named, why=_why(checks, reason, notes))
    pooled = comparison.pool([_against_champion(one, known) for one in sets])
    p_value, gain = comparison.p_better(pooled), detectable_gain(look, pooled.flips)
    if rule == "better":
        checks.append(_is_better(pooled, p_value, look))
    for one in sets:
        if rule != "threshold":
            checks += _not_worse(one, known, anchor_classes or known)
        checks += [_few_negative_flips(one, known), _keeps_classes(one, known, classes)]
    every = [official] if recent is None else [official, recent]
    checks += [_learns(every, number, classes) for number in range(known, len(classes))]
    checks.append((pooled.flips > 0, f"{pooled.flips} rows flip; a tie keeps the champion."))
    return Verdict(
        promote=_passed(checks),
        rule=rule,
        why=_why(checks, reason, notes),
        difference=pooled.difference,
        interval=comparison.interval(pooled),
        p_value=p_value,
        negative_flips=pooled.negative_flips,
        detectable_gain=gain,
        new_rows_due=new_rows_due(gain, pooled.errors),
    )


def _check_arguments(official: Scored, rule: Rule, threshold: float | None) -> None:
    if (rule == "threshold") != (threshold is not None):
        raise ArgumentError("The rule threshold needs a threshold, and no other rule takes one.")
    if threshold is not None and not 0 <= threshold <= 1:
        raise ArgumentError(f"The threshold is an accuracy in 0..1, and not {threshold}.")
    if official.champion is None and official.anchor is not None:
        raise ArgumentError("There is an anchor without a champion: give the best clean model.")
    if rule == "floor" and official.champion is not None:
        raise ArgumentError("There is a champion: the rule is better, not-worse or threshold.")
    if not len(official.labels):
        raise InputError("The official test has no rows: add labelled rows.")


def _deciding(
    official: Scored, recent: Scored | None, classes: int
) -> tuple[list[Scored], list[str]]:
    """Return the sets that decide, and a sentence about a recent one that does not."""
    if recent is None:
        return [official], []
    rows = int((recent.labels < classes).sum())
    if rows < FEWEST_RECENT_ROWS:
        note = f"The recent test decides from {FEWEST_RECENT_ROWS} rows, and has {rows}."
        return [official], [note]
    if recent.groups is not None:
        groups = len(np.unique(recent.groups[recent.labels < classes]))
        if groups < FEWEST_GROUPS:
            note = f"The recent test decides from {FEWEST_GROUPS} groups, and has {groups}."
            return [official], [note]
    return [official, recent], []


def _passed(checks: Sequence[Check]) -> bool:
    return all(passed for passed, _ in checks)


def _why(checks: Sequence[Check], reason: str, notes: Sequence[str]) -> list[str]:
    told = _passed(checks)
    sentences = [sentence for passed, sentence in checks if passed == told]
    return [*([reason] if reason else []), *sentences, *notes]


def _against_champion(one: Scored, classes: int) -> Comparison:
    return comparison.compare(*one.shared_with(one.champion, classes))


def _is_better(pooled: Comparison, p_value: float, look: int) -> Check:
    level = alpha(look)
    return p_value <= level, (
        f"{pooled.positive_flips} rows are newly right and {pooled.negative_flips} newly wrong: "
        f"p {p_value:.2g} against {level:.2g} at look {look}."
    )


def _not_worse(one: Scored, champion_classes: int, anchor_classes: int) -> list[Check]:
    """Bound the loss on a set by the anchor's margin, against champion and anchor."""
    compared = {"champion": _against_champion(one, champion_classes)}
    bar = compared["champion"]
    if one.anchor is not None:
        bar = comparison.compare(*one.shared_with(one.anchor, anchor_classes))
        compared["anchor"] = bar
    allowed, checks = comparison.margin(bar.errors), []
    for name, found in compared.items():
        low = comparison.interval(found, tail=ONE_SIDED)[0] * found.rows
        sentence = (
            f"The {one.name} test, against the {name}: {found.difference * found.rows:+.0f} of "
            f"{found.rows} rows, lower bound {low:+.1f} against a margin of -{allowed}."
        )
        checks.append((low > -allowed, sentence))
    return checks


def _few_negative_flips(one: Scored, classes: int) -> Check:
    found, most = _against_champion(one, classes), MOST_NEGATIVE_FLIPS[one.name]
    return found.negative_flips / found.rows <= most, (
        f"The {one.name} test: {found.negative_flips} of {found.rows} rows are newly wrong, against"
        f" {most:.1%} at most."
    )


def _keeps_classes(one: Scored, known: int, classes: Sequence[str]) -> Check:
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


def _learns(sets: Sequence[Scored], label: int, classes: Sequence[str]) -> Check:
    """Ask of a new class that it is recognised more often than guessing would."""
    rows = sum(int((one.labels == label).sum()) for one in sets)
    right = sum(int(((one.labels == label) & (one.challenger == label)).sum()) for one in sets)
    low, least = comparison.accuracy_bound(right, rows), 1 / len(classes)
    return low > least, (
        f"Class {classes[label]} is new: {right} of {rows} test rows are right, lower bound "
        f"{low:.1%} against {least:.1%} by guessing."
    )


def _clears_floor(one: Scored) -> Check:
    """Ask of a first model that it beats the answer that is always the largest class."""
    rows = len(one.labels)
    largest = float(np.unique(one.labels, return_counts=True)[1].max()) / rows
    low = comparison.accuracy_bound(one.right, rows)
    return low > largest, (
        f"The {one.name} test: {one.right} of {rows} rows are right, lower bound {low:.1%} "
        f"against {largest:.1%} for always the largest class."
    )


def _reaches(one: Scored, threshold: float) -> Check:
    accuracy = one.right / len(one.labels)
    return accuracy >= threshold, (
        f"The {one.name} test: accuracy {accuracy:.2%} against a threshold of {threshold:.2%}."
    )
