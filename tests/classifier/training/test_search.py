"""Search: which seeds and recipe values short texts name."""

import pytest

from classifier.errors import ArgumentError
from classifier.training.search import MOST, combine, read_choices, read_seeds


def test_a_range_of_seeds_includes_its_end():
    assert read_seeds("0..9") == list(range(10))


def test_too_many_seeds_are_refused_as_too_many():
    for text in ("0..99999999999", "99999999999"):
        with pytest.raises(ArgumentError, match=r"are the most|give seeds below"):
            read_seeds(text)


def test_seeds_count_once_in_the_order_in_which_they_are_named():
    assert read_seeds("7, 0..2,1") == [7, 0, 1, 2]


@pytest.mark.parametrize("text", ["", "a", "1,", "0..", "9..0", "-1", "1.5", "0..4294967296"])
def test_malformed_seeds_are_refused(text):
    with pytest.raises(ArgumentError, match="--seeds is"):
        read_seeds(text)


def test_all_combinations_are_tried_in_the_order_of_the_values():
    choices = read_choices(["learning-rate=0.01,0.005,0.01", "epochs=1..2"])
    assert combine(choices, None) == [
        {"learning_rate": 0.01, "epochs": 1},
        {"learning_rate": 0.01, "epochs": 2},
        {"learning_rate": 0.005, "epochs": 1},
        {"learning_rate": 0.005, "epochs": 2},
    ]


def test_without_choices_there_is_the_recipe_itself():
    assert combine([], None) == [{}]


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (["learnig_rate=1"], "no field of a recipe"),
        (["learning_rate"], "write a field and its values"),
        (["learning_rate="], "write a field and its values"),
        (["learning_rate=fast"], "give a number"),
        (["learning_rate=900"], "give a value <= 100"),
        (["learning_rate=nan"], "give a value > 0"),
        (["learning_rate=0.1..0.01"], "lower end"),
        (["epochs=1.5"], "give a whole number"),
        (["epochs=3..1"], "ends before it starts"),
        (["optimiser=sgd,magic"], "choose one of sgd, adam, adamw"),
        (["epochs=1", "epochs=2"], "names epochs twice"),
    ],
)
def test_choices_that_are_none_are_refused(texts, sentence):
    with pytest.raises(ArgumentError, match=sentence):
        read_choices(texts)


def test_a_range_without_draws_is_refused():
    with pytest.raises(ArgumentError, match="--random"):
        combine(read_choices(["learning_rate=0.001..0.1"]), None)


def test_more_draws_begin_with_those_of_fewer():
    choices = read_choices(["learning_rate=0.001..0.1", "epochs=1..4", "optimiser=sgd,adam"])
    many = combine(choices, 40)
    assert many[:10] == combine(choices, 10)
    assert len({tuple(one.items()) for one in many}) == 40


def test_draws_lie_in_their_range_on_a_logarithmic_scale():
    rates = [
        one["learning_rate"] for one in combine(read_choices(["learning_rate=0.001..10"]), 400)
    ]
    assert 0.001 <= min(rates) < 0.002
    assert 5 < max(rates) <= 10
    assert 0.4 < sum(rate < 0.1 for rate in rates) / len(rates) < 0.6
    assert all(float(f"{rate:.3g}") == rate for rate in rates)


def test_a_range_from_zero_is_drawn_evenly():
    decays = [one["weight_decay"] for one in combine(read_choices(["weight_decay=0..1"]), 300)]
    assert 0.4 < sum(decays) / len(decays) < 0.6


@pytest.mark.parametrize(
    ("texts", "draws", "sentence"),
    [
        ([], 3, "draws among the values"),
        (["epochs=1,2"], 3, "leave --random out"),
        (["learning_rate=0.1..0.101"], 100, "widen them"),
        (["epochs=1,2"], MOST + 1, "are the most"),
    ],
)
def test_draws_that_cannot_be_had_are_refused(texts, draws, sentence):
    with pytest.raises(ArgumentError, match=sentence):
        combine(read_choices(texts), draws)


def test_too_many_combinations_are_refused():
    with pytest.raises(ArgumentError, match="draw some with --random"):
        combine(read_choices(["epochs=1..100", "batch=1..100"]), None)
