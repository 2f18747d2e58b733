"""The gate's budget: looks used, the gain that the next one can find, and whether rows are due."""

from datetime import UTC, datetime
from typing import Any

from registry import models
from tasks import champion
from tasks.looks import kept_rows, looks_of
from tasks.test_sets import rows_in


def budget(dataset: str) -> dict[str, Any]:
    """Return the state of the ledger, JSON-ready.

    `detectable_gain` is in rows, at a power of 80 % and with as many flips as the last look had;
    None before a look that compared.

    Raises:
        InputError: there is no champion, or the log or a test set is damaged.
    """
    from classifier.evaluation import ledger

    known = models.current(dataset)
    if known.champion is None:
        raise champion.no_champion(dataset)
    looks = looks_of(known)
    current: list[ledger.Look] = []
    if looks:
        rows_of = {digest: rows_in(name) for digest, name in kept_rows(known).items()}
        current = ledger.current_ledger(looks, datetime.now(UTC), looks[-1].test_sets, rows_of)
    number = ledger.next_look(current)
    compared = [look for look in current if look.verdict.get("detectable_gain") is not None]
    gain = None
    if compared:
        last = compared[-1]
        then = ledger.next_look(current[: current.index(last)])
        scale = ledger.detectable_gain(number, 1) / ledger.detectable_gain(then, 1)
        gain = float(last.verdict["detectable_gain"]) * scale
    summary = known.champion.about["summary"]
    score = champion.score(dataset, known.champion)
    errors = round((1 - score) * summary["test_rows"])  # with macro recall, rows of mean weight
    return {
        "dataset": dataset,
        "champion": known.champion.model,
        "since": current[0].at.isoformat(timespec="seconds") if current else None,
        "verdicts": len(current),
        "looks_used": number - 1,
        "next_alpha": ledger.alpha(number),
        "detectable_gain": gain,
        "champion_errors": errors,
        "new_rows_due": gain is not None and ledger.new_rows_due(gain, errors),
    }
