"""Charts: marks lie where their values say, and axes have round numbers."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reporting import charts
from reporting.details import Score

finite = st.floats(-1e6, 1e6)


@given(finite, finite)
def test_ticks_are_few_even_and_within_the_range(one, other):
    low, high = sorted((one, other))
    if high - low < 1e-6 * max(1, abs(low), abs(high)):
        return
    found = charts.ticks(low, high)
    step = 10 ** math.floor(math.log10(high - low))
    assert len(found) <= 5
    assert all(low - 1e-6 * step <= tick <= high + 1e-6 * step for tick in found)
    gaps = [after - before for before, after in itertools.pairwise(found)]
    assert gaps == pytest.approx([gaps[0]] * len(gaps)) if gaps else True


def test_a_higher_value_is_drawn_higher_and_a_later_one_further_right():
    chart = charts.curves("Accuracy", {"train": [0.5, 0.75, 1.0], "validation": [0.5, 0.6, 0.7]})
    train, validation = (
        [tuple(map(float, point.split(","))) for point in line.points.split()]
        for line in chart.lines
    )
    assert [x for x, _ in train] == sorted(x for x, _ in train)
    assert train[0] == validation[0]
    assert train[2][1] < validation[2][1] < validation[0][1]
    assert chart.lines[0].last == "100 %"


def test_a_long_training_keeps_its_first_and_its_last_epoch():
    losses = [10.0 / epoch for epoch in range(1, 10_001)]
    (line,) = charts.curves("Loss", {"train": losses}).lines
    points = line.points.split()
    assert len(points) <= charts.MOST_POINTS + 1
    assert points[0].startswith(f"{charts.LEFT}")
    assert points[-1].startswith(f"{charts.RIGHT}")


@pytest.mark.parametrize("losses", [[float("nan")] * 3, [0.0], [], [float("inf"), 1.0]])
def test_odd_curves_are_drawn_without_what_is_not_finite(losses):
    chart = charts.curves("Loss", {"train": losses})
    assert "nan" not in repr(chart)
    assert "inf" not in repr(chart)


def test_a_whisker_reaches_from_end_to_end_of_its_interval():
    scores = [
        Score(label="a", accuracy=0.5, interval=(0.4, 0.6), errors=5, rows=10),
        Score(label="b", accuracy=0.9, interval=None, errors=1, rows=10),
    ]
    (first, second), ticks = charts.bars(scores)
    places = {text: at for at, text in ticks}
    assert first.low == pytest.approx(places["40 %"], abs=0.02)
    assert first.low + first.width == pytest.approx(places["60 %"], abs=0.02)
    assert second.width == 0
    assert 0 <= first.low < first.at < second.at <= 100
