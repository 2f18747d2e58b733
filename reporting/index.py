"""The index: one page of all runs that have a report, and how each dataset's accuracy went."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from artifacts import layout
from artifacts.files import write_atomically
from artifacts.locks import lock
from reporting import charts
from reporting.history import Entry, entries
from reporting.rendering import render

NAME = "index.html"
MOST_SHOWN = 1_000  # runs in the table


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A run in the chart of a dataset."""

    entry: Entry
    x: float
    y: float
    promoted: bool


@dataclass(frozen=True, kw_only=True)
class Course:
    """How the accuracy of a dataset went, on the test set of its last champion or run.

    Fields:
        dataset: its name.
        marks: the runs, the oldest first.
        champion: the line of the accuracy of the model in use, as SVG points.
        other: runs that were scored on other test rows, and are not shown.
        x_ticks, y_ticks: pairs of position and text.
    """

    dataset: str
    marks: Sequence[Mark]
    champion: str
    other: int
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]


def write() -> None:
    """Write the index anew. The last of several runs that end at once has all of them in it."""
    with lock("reports-index"):
        there = entries()
        text = render(
            NAME,
            entries=there[:MOST_SHOWN],
            left_out=len(there[MOST_SHOWN:]),
            courses=courses(there),
            chart=charts,
        )
        write_atomically(layout.reports() / NAME, text)


def courses(there: Sequence[Entry]) -> list[Course]:
    """Return the course of each dataset, that of the last run first.

    Args:
        there: the newest first.
    """
    by_dataset: dict[str, list[Entry]] = defaultdict(list)
    for entry in there:
        if entry.dataset is not None and entry.accuracy is not None:
            by_dataset[entry.dataset].append(entry)
    return [_course(dataset, found) for dataset, found in by_dataset.items()]


def _course(dataset: str, found: Sequence[Entry]) -> Course:
    last = next((one for one in found if one.outcome == "promoted"), found[0])
    shown = [one for one in reversed(found) if one.test_set == last.test_set]
    times = [one.started.timestamp() for one in shown]
    accuracies = [one.accuracy or 0.0 for one in shown]
    low, high = charts.shares(accuracies)
    x = charts.scale(min(times), max(times), charts.LEFT + 8, charts.RIGHT - 8)
    y = charts.scale(low, high, charts.BOTTOM, charts.TOP)
    marks = [
        Mark(entry=one, x=x(at), y=y(accuracy), promoted=one.outcome == "promoted")
        for one, at, accuracy in zip(shown, times, accuracies, strict=True)
    ]
    ends = [shown[0], shown[-1]] if max(times) > min(times) else [shown[0]]
    return Course(
        dataset=dataset,
        marks=marks,
        champion=_steps(marks),
        other=len(found) - len(shown),
        x_ticks=[(x(one.started.timestamp()), f"{one.started:%d %b %H:%M}") for one in ends],
        y_ticks=[(y(tick), f"{100 * tick:.4g} %") for tick in charts.ticks(low, high, 5)],
    )


def _steps(marks: Sequence[Mark]) -> str:
    """Return the line that keeps the height of a promotion until the next one."""
    points: list[tuple[float, float]] = []
    for mark in marks:
        if mark.promoted:
            points += [(mark.x, points[-1][1])] if points else []
            points.append((mark.x, mark.y))
    if points:
        points.append((charts.RIGHT, points[-1][1]))
    return " ".join(f"{x},{y}" for x, y in points)
