"""Gate: may the challenger replace the champion?

1. `auto_rule` says what the challenger must show: to be better, or to be no worse.
2. `current_ledger`, `next_look` and `anchor_of` of ledger.py give the ledger, the number of this
   look and the anchor. A question that was asked before is not asked again: tasks/judge.py.
3. `verdict` decides, by the checks of checks.py. Champion, challenger and anchor are scored on the
   same rows, today.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from classifier.declaration import Metric
from classifier.errors import ArgumentError, InputError
from classifier.evaluation import checks, macro
from classifier.evaluation.checks import Check, Scored
from classifier.evaluation.ledger import Rule, detectable_gain, new_rows_due
from classifier.evaluation.macro import Score

__all__ = ["Scored", "Verdict", "auto_rule", "verdict"]

FEWEST_RECENT_ROWS, FEWEST_GROUPS = 500, 20
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
class Verdict:
    """Whether to promote, and why; without a champion, nothing is compared and all else is None.

    Fields:
        metric: of which the difference is.
        difference: the challenger's less the champion's, on the deciding rows together.
        interval: two-sided 95 % interval of that difference.
        p_value: exact one-sided, of "no better".
        negative_flips: deciding rows right before and wrong now.
        why: what refuses it; else what it showed. Notes come last.
        detectable_gain: smallest gain that this look could find, in rows; where rows weigh
            differently, in rows of mean weight.
        new_rows_due: whether that is too much, so that new test rows are needed.
    """

    promote: bool
    rule: Rule
    why: list[str]
    metric: Metric
    difference: float | None = None
    interval: tuple[float, float] | None = None
    p_value: float | None = None
    negative_flips: int | None = None
    detectable_gain: float | None = None
    new_rows_due: bool | None = None

    def json(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self) | {"interval": self.interval and list(self.interval)}


def verdict(
    official: Scored,
    recent: Scored | None = None,
    *,
    rule: Rule,
    classes: Sequence[str],
    metric: Metric = "accuracy",
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
        metric: what the rules compare: the share of rows right, or its mean over the classes that
            have rows. With macro recall, every rule asks that no constant answer is as good.
        look: k of `next_look`.
        champion_classes: how many it knows; None for all.
        anchor_classes: the same of the anchor.
        threshold: least value of the metric on each set, in 0..1, with the rule threshold.
        reason: why this rule; it opens `why`.

    Raises:
        ArgumentError: rule and threshold, or rule and champion, do not fit.
        InputError: models were not scored on the same rows, or there is none.
    """
    _check_arguments(official, rule, threshold)
    known = champion_classes or len(classes)
    sets, notes = _deciding(official, recent, known)
    found: list[Check] = []
    if threshold is not None:
        found += [checks.reaches(*_scored(metric, one), threshold) for one in sets]
    if official.champion is None:
        found += [checks.clears_floor(*_scored(metric, one)) for one in sets]
        named: Rule = "threshold" if rule == "threshold" else "floor"
        why = _why(found, reason, notes)
        return Verdict(promote=_passed(found), rule=named, why=why, metric=metric)
    rows = macro.pool([one.shared_with(one.champion, known) for one in sets])
    pooled = macro.compare(metric, *rows)
    p_value, gain = pooled.p_better(), detectable_gain(look, pooled.weighted_flips)
    if rule == "better":
        found.append(checks.is_better(pooled, p_value, look))
    for one in sets:
        if rule != "threshold":
            found += checks.not_worse(one, metric, known, anchor_classes or known)
        found += [checks.few_negative_flips(one, known), checks.keeps_classes(one, known, classes)]
    if metric == "macro-recall":
        found += [checks.keeps_half(one, known, classes) for one in sets]
        found.append(checks.clears_floor(*_scored(metric, *sets)))
    every = [official] if recent is None else [official, recent]
    found += [checks.learns(every, number, classes) for number in range(known, len(classes))]
    flips = pooled.whole.flips
    tie = "No row flips, and a tie keeps the champion."
    found.append((flips > 0, f"{flips} rows flip." if flips else tie))
    return Verdict(
        promote=_passed(found),
        rule=rule,
        why=_why(found, reason, notes),
        metric=metric,
        difference=pooled.difference,
        interval=pooled.interval(),
        p_value=p_value,
        negative_flips=pooled.whole.negative_flips,
        detectable_gain=gain,
        new_rows_due=new_rows_due(gain, pooled.weighted_errors),
    )


def _scored(metric: Metric, *sets: Scored) -> tuple[str, Score]:
    name = f"The {sets[0].name} test" if len(sets) == 1 else "All test rows"
    labels = np.concatenate([one.labels for one in sets])
    return name, Score.of(metric, labels, np.concatenate([one.challenger for one in sets]))


def _check_arguments(official: Scored, rule: Rule, threshold: float | None) -> None:
    if (rule == "threshold") != (threshold is not None):
        raise ArgumentError("The rule threshold needs a threshold, and no other rule takes one.")
    if threshold is not None and not 0 <= threshold <= 1:
        raise ArgumentError(f"The threshold is in 0..1, and not {threshold}.")
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


def _passed(found: Sequence[Check]) -> bool:
    return all(passed for passed, _ in found)


def _why(found: Sequence[Check], reason: str, notes: Sequence[str]) -> list[str]:
    told = _passed(found)
    sentences = [sentence for passed, sentence in found if passed == told]
    return [*([reason] if reason else []), *sentences, *notes]
