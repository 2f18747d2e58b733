"""Charts: where the marks of a line chart or of intervals lie. The templates draw them as SVG."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from reporting.details import Score

WIDTH, HEIGHT = 360, 190  # of a line chart, in SVG units
LEFT, RIGHT, TOP, BOTTOM = 50, 348, 10, 164  # of its plot area
MOST_POINTS = 300  # of a line: more cannot be seen

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a chart: its points as SVG wants them, and its last value as text."""

    name: str
    points: str
    end: Point
    last: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A line chart; ticks are pairs of position and text."""

    title: str
    lines: Sequence[Line]
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A score on the scale of all of them; positions in per cent of the width."""

    score: Score
    at: float
    low: float
    width: float


def scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Return the function that maps low..high to start..end."""
    span = (high - low) or 1.0
    return lambda value: round(start + (value - low) / span * (end - start), 2)


def ticks(low: float, high: float, most: int = 4) -> list[float]:
    """Return at most `most` + 1 round numbers in low..high, evenly spaced."""
    span = max(high - low, 1e-9)
    step = 10 ** math.floor(math.log10(span / most))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (factor * step) <= most)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def shares(values: Sequence[float]) -> tuple[float, float]:
    """Return the range of an axis that shows these shares: padded, and within 0..1."""
    low, high = min(values), max(values)
    pad = max(0.15 * (high - low), 0.0005)
    return max(0.0, low - pad), min(1.0, high + pad)


def curves(title: str, series: Mapping[str, Sequence[float]]) -> Chart:
    """Return the chart of values by epoch, finite ones only; a loss is shown from zero."""
    known = {
        name: [(epoch, value) for epoch, value in enumerate(values, 1) if math.isfinite(value)]
        for name, values in series.items()
    }
    thinned = {name: _thinned(points) for name, points in known.items() if points}
    values = [value for points in thinned.values() for _, value in points] or [0.0]
    in_percent = "accuracy" in title.lower()
    low, high = shares(values) if in_percent else (0.0, max(values) or 1.0)
    epochs = max((points[-1][0] for points in thinned.values()), default=1)
    x = scale(1, epochs, LEFT, RIGHT) if epochs > 1 else scale(0, 2, LEFT, RIGHT)
    y = scale(low, high, BOTTOM, TOP)

    def text(value: float) -> str:
        return f"{100 * value:.4g} %" if in_percent else f"{value:.3g}"

    return Chart(
        title=title,
        lines=[
            Line(
                name=name,
                points=" ".join(f"{x(epoch)},{y(value)}" for epoch, value in points),
                end=(x(points[-1][0]), y(points[-1][1])),
                last=text(points[-1][1]),
            )
            for name, points in thinned.items()
        ],
        x_ticks=[(x(tick), f"{tick:.0f}") for tick in ticks(1, epochs) if tick == round(tick)]
        or [(x(1), "1")],
        y_ticks=[(y(tick), text(tick)) for tick in ticks(low, high)],
    )


def _thinned(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    every = math.ceil(len(points) / MOST_POINTS)
    return [*points[:-1:every], points[-1]]


def bars(scores: Sequence[Score]) -> tuple[list[Bar], list[tuple[float, str]]]:
    """Return scores with their intervals on one scale, and the ticks of that scale."""
    ends = [end for one in scores for end in (one.accuracy, *(one.interval or ()))]
    low, high = shares(ends)
    x = scale(low, high, 0, 100)
    found = []
    for one in scores:
        left, right = one.interval or (one.accuracy, one.accuracy)
        width = round(x(right) - x(left), 2)
        found.append(Bar(score=one, at=x(one.accuracy), low=x(left), width=width))
    return found, [(x(tick), f"{100 * tick:.4g} %") for tick in ticks(low, high, 5)]
