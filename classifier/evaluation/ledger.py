"""The ledger of looks at test rows, from which the level of the next look follows."""

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from scipy.stats import norm

Rule = Literal["better", "not-worse", "threshold", "floor"]

LEDGER_LIFE = timedelta(days=365)
POWER_Z = 0.84  # power 80 %
YEARLY_ALPHA = 0.05


@dataclass(frozen=True, kw_only=True)
class Look:
    """A verdict that could promote, as logged.

    Fields:
        at: when, with a time zone.
        rule: which it took.
        challenger, champion: digests; the champion is None for a first model.
        test_sets: digests of the sets that were scored.
        verdict: as `Verdict.json` gives it.
    """

    at: datetime
    rule: Rule
    challenger: str
    champion: str | None
    test_sets: frozenset[str]
    verdict: Mapping[str, Any] = field(default_factory=dict)

    @property
    def question(self) -> tuple[str, str | None, frozenset[str], str]:
        """What was asked; the same question is not asked twice."""
        metric = str(self.verdict.get("metric", "accuracy"))
        return self.challenger, self.champion, self.test_sets, metric


def current_ledger(
    looks: Sequence[Look],
    at: datetime,
    test_sets: AbstractSet[str],
    rows_of: Mapping[str, AbstractSet[Any]],
) -> list[Look]:
    """Return the looks of the ledger that a look of today joins; none when it opens a new one.

    A ledger lasts 365 days from its first look. It ends early only when at least half of the rows
    were in none of its looks. A promotion does not end it. A simulation passes looks of its own.

    Args:
        looks: all that were logged, in any order.
        at: the time of today's look.
        test_sets: digests of the sets that it scores.
        rows_of: the identities of the rows of each set, by its digest.
    """
    ledger: list[Look] = []
    seen: set[Any] = set()

    def ends(time: datetime, rows: AbstractSet[Any]) -> bool:
        return time - ledger[0].at >= LEDGER_LIFE or 2 * len(rows - seen) >= len(rows)

    for look in sorted(looks, key=lambda one: one.at):
        rows = _rows(look.test_sets, rows_of)
        if ledger and ends(look.at, rows):
            ledger, seen = [], set()
        ledger.append(look)
        seen |= rows
    return [] if ledger and ends(at, _rows(test_sets, rows_of)) else ledger


def _rows(sets: AbstractSet[str], rows_of: Mapping[str, AbstractSet[Any]]) -> set[Any]:
    return {row for one in sets for row in rows_of[one]}


def next_look(ledger: Sequence[Look]) -> int:
    """Return k of the next `better` test: only that rule spends alpha, once for each question."""
    return 1 + len({look.question for look in ledger if look.rule == "better"})


def anchor_of(ledger: Sequence[Look]) -> str | None:
    """Return the champion at the start of the ledger, fixed until it ends; None before a look."""
    return next((look.champion for look in ledger if look.champion), None)


def alpha(look: int) -> float:
    """Return the level of the look-th test, from 1; over all looks the levels add up to 0.05."""
    return YEARLY_ALPHA / (look * (look + 1))


def detectable_gain(look: int, flips: float) -> float:
    """Return the smallest true gain, in rows, that the look-th test finds with a power of 80 %."""
    return float(norm.isf(alpha(look)) + POWER_Z) * math.sqrt(flips)


def new_rows_due(gain: float, errors: float) -> bool:
    """Return whether the detectable gain exceeds a fifth of the champion's errors."""
    return gain > errors / 5
