"""The page of a run: one file with everything in it, without a script or an address elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from artifacts.outcomes import Outcome
from reporting import charts
from reporting.contents import Contents
from reporting.details import Details, Score
from reporting.history import Entry, entries
from reporting.pictures import data_uri
from reporting.rendering import render

EARLIER = 5  # runs beside which this one is shown
OFFICIAL = "Official test set"


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step with the width of its bar, in per cent of the longest one."""

    outcome: Outcome
    width: float


def html(contents: Contents) -> str:
    """Return the page."""
    summary, outcomes, details = contents.summary, contents.outcomes, contents.details
    scores = with_earlier(details, summary, earlier(summary))
    pictures = contents.pictures.items()
    shown = {title: path for title, path in pictures if path.stem not in details.drawn}
    return render(
        f"{contents.kind}.html",
        run=summary,
        steps=steps(outcomes),
        total=sum(step.seconds for step in outcomes if step.outcome == "ran"),
        saved=sum(step.seconds for step in outcomes if step.outcome == "cached"),
        pictures={title: data_uri(path.read_bytes()) for title, path in shown.items()},
        on_white={title for title, path in shown.items() if path.stem in details.on_white},
        details=details,
        scores={name: charts.bars(there) for name, there in scores.items() if there},
        curves=[charts.curves(title, series) for title, series in details.curves.items()],
        chart=charts,
    )


def steps(outcomes: Sequence[Outcome]) -> list[Step]:
    """Return the steps with their bars."""
    longest = max((one.seconds for one in outcomes), default=0.0) or 1.0
    return [Step(outcome=one, width=round(100 * one.seconds / longest, 1)) for one in outcomes]


def earlier(summary: Mapping[str, Any]) -> list[Entry]:
    """Return the last runs before this one that were scored on the same test rows.

    A run that found nothing new says nothing of its own.
    """
    found = (
        entry
        for entry in (entries() if summary.get("test_set") else ())
        if entry.dataset == summary["dataset"]
        and entry.test_set == summary["test_set"]
        and entry.run != summary["run_id"]
        and entry.outcome != "unchanged"
        and entry.accuracy is not None
    )
    return [entry for entry, _ in zip(found, range(EARLIER), strict=False)]


def with_earlier(
    details: Details, summary: Mapping[str, Any], runs: Sequence[Entry]
) -> dict[str, list[Score]]:
    """Return the scores by test set, with those of earlier runs on the official one."""
    found = {name: list(there) for name, there in details.scores.items()}
    shown = {one.model for one in found.get(OFFICIAL, ())} - {None}
    if OFFICIAL in found:
        found[OFFICIAL] += [
            Score(
                label=_label(entry),
                accuracy=entry.accuracy,
                interval=entry.interval,
                errors=entry.errors or 0,
                rows=entry.rows or summary["test_rows"],
            )
            for entry in runs
            if entry.accuracy is not None and entry.model not in shown
        ]
    return found


def _label(entry: Entry) -> str:
    what = entry.outcome if entry.outcome != "trained" else "train"
    return f"{entry.started:%d %b %H:%M} {entry.recipe or ''}, {what}"
