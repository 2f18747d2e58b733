"""Gate: each rule promotes what it should and refuses what it must, and says why in one place."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from classifier.errors import ArgumentError, InputError
from classifier.evaluation.comparison import margin
from classifier.evaluation.gate import (
    Scored,
    auto_rule,
    verdict,
)
from classifier.evaluation.ledger import (
    alpha,
)

TEN = tuple("0123456789")


def scored(
    name="official",
    *,
    rows=10_000,
    errors=70,
    negative=0,
    positive=0,
    anchor_errors=None,
    groups=None,
    champion=True,
    classes=10,
):
    """A set of balanced classes, on which the champion has its first rows wrong.

    Of those rows, the challenger has `positive` right; it has the last `negative` rows wrong. The
    anchor has its last rows wrong, so that none of its errors is the champion's.
    """
    labels = (np.arange(rows) % classes).astype(np.uint8)
    wrong = (labels + 1) % classes
    before = np.where(np.arange(rows) < errors, wrong, labels)
    now = np.where(np.arange(rows) < positive, labels, before)
    now = np.where(np.arange(rows) >= rows - negative, wrong, now)
    anchor = None
    if anchor_errors is not None:
        anchor = np.where(np.arange(rows) >= rows - anchor_errors, wrong, labels)
    return Scored(
        name=name,
        labels=labels,
        challenger=now,
        champion=before if champion else None,
        anchor=anchor,
        groups=groups,
    )


def judged(official, recent=None, *, rule="not-worse", classes=TEN, **options):
    found = verdict(official, recent, rule=rule, classes=classes, **options)
    assert found.why  # each verdict says something
    assert json.loads(json.dumps(found.json())) == found.json()
    return found


@pytest.mark.parametrize(
    ("changed", "rule", "said"),
    [
        ({"recipe"}, "better", "recipe changed"),
        ({"recipe", "data"}, "not-worse", "Recipe and data changed"),
        ({"data"}, "not-worse", "Data changed"),
        ({"code", "packages"}, "not-worse", "Code and packages changed"),
        ({"packages", "recipe"}, "not-worse", "Recipe and packages changed"),
        (set(), "not-worse", "Nothing changed"),
    ],
)
def test_only_a_recipe_that_changes_alone_must_be_better(changed, rule, said):
    found, reason = auto_rule(changed)
    assert found == rule
    assert said in reason


def test_an_unknown_change_is_refused():
    with pytest.raises(ArgumentError, match="'weather'"):
        auto_rule({"recipe", "weather"})


@pytest.mark.parametrize(
    ("errors", "rows"), [(0, 5), (2, 5), (3, 6), (64, 24), (70, 26), (100, 30)]
)
def test_the_margin_is_three_deviations_of_the_anchors_errors_and_at_least_five(errors, rows):
    assert margin(errors) == rows


def test_a_better_recipe_is_promoted_at_a_first_look_and_refused_at_a_later_one():
    official = scored(positive=40, negative=20)
    first, later = (judged(official, rule="better", look=look) for look in (1, 10))
    expected = binomtest(40, 60, alternative="greater").pvalue
    assert expected < alpha(1)
    assert expected > alpha(10)
    assert first.p_value == later.p_value == pytest.approx(expected)
    assert (first.promote, later.promote) == (True, False)
    assert (first.difference, first.negative_flips) == (pytest.approx(0.002), 20)
    assert first.interval[0] < 0.002 < first.interval[1]
    (sentence,) = later.why
    assert "40 rows are newly right and 20 newly wrong" in sentence
    assert "look 10" in sentence


def test_better_pools_official_and_recent_rows():
    official, recent = scored(positive=15, negative=7), scored("recent", rows=2_000, positive=9)
    found = judged(official, recent, rule="better")
    assert found.p_value == pytest.approx(binomtest(24, 31, alternative="greater").pvalue)
    assert found.promote
    assert not judged(official, rule="better").promote
    assert found.difference == pytest.approx(17 / 12_000)


def test_better_must_be_no_worse_on_each_set():
    found = judged(
        scored(positive=60), scored("recent", rows=2_000, errors=9, negative=19), rule="better"
    )
    assert found.p_value < alpha(1)
    assert not found.promote
    (sentence,) = found.why
    assert sentence.startswith("The recent test, against the champion: -19 of 2000 rows")


def test_an_equal_model_passes_not_worse_and_one_that_loses_the_margin_does_not():
    assert margin(70) == 26
    assert judged(scored(positive=30, negative=30)).promote
    assert judged(scored(positive=20, negative=28)).promote
    lost = judged(scored(positive=15, negative=41))
    assert not lost.promote
    assert "lower bound" in lost.why[0]
    assert not judged(scored(positive=30, negative=30), rule="better").promote


def test_small_losses_against_the_champion_add_up_against_the_anchor():
    official = scored(positive=10, negative=14, anchor_errors=30)
    found = judged(official)
    assert not found.promote
    (sentence,) = found.why
    assert "against the anchor: -44 of 10000 rows" in sentence
    assert "margin of -17" in sentence
    assert judged(scored(positive=10, negative=14)).promote


def test_the_anchors_errors_set_the_margin_of_both_comparisons():
    narrow = judged(scored(rows=50_000, errors=100, positive=20, negative=20, anchor_errors=10))
    assert sum("margin of -10" in sentence for sentence in narrow.why) == 2


@pytest.mark.parametrize(("negative", "promoted"), [(50, True), (51, False)])
def test_at_most_half_a_percent_of_the_official_rows_turn_wrong(negative, promoted):
    found = judged(scored(errors=70, positive=60, negative=negative))
    assert found.promote == promoted
    assert promoted or "51 of 10000 rows are newly wrong, against 50 at most" in found.why[0]


@pytest.mark.parametrize(("negative", "promoted"), [(10, True), (11, False)])
def test_at_most_one_percent_of_the_recent_rows_turn_wrong(negative, promoted):
    recent = scored("recent", rows=1_000, errors=50, positive=20, negative=negative)
    assert judged(scored(positive=10, negative=5), recent).promote == promoted


def class_loss(rows_of_class, lost):
    """A class 0 that loses rows while class 1 wins as many."""
    labels = np.repeat([0, 1], [rows_of_class, 20_000]).astype(np.uint8)
    champion, challenger = labels.copy(), labels.copy()
    champion[-lost:] = 0
    challenger[:lost] = 1
    return Scored(name="official", labels=labels, challenger=challenger, champion=champion)


@pytest.mark.parametrize(
    ("rows_of_class", "lost", "promoted"),
    [
        (100, 7, False),  # 7 points, p 1 / 128, below 0.05 / 2
        (99, 7, True),  # too few rows of the class
        (100, 5, True),  # 5 points, but p 1 / 32 is above 0.05 / 2
        (1_000, 10, True),  # one point, and no more
        (1_000, 11, False),
    ],
)
def test_a_class_must_not_lose_more_than_a_point_significantly(rows_of_class, lost, promoted):
    found = judged(class_loss(rows_of_class, lost), classes=("cat", "dog"))
    assert found.promote == promoted
    assert promoted or f"cat (-{lost / rows_of_class:.1%})" in found.why[0]


def test_a_tie_keeps_the_champion():
    official = scored()
    for rule, options in (("not-worse", {}), ("better", {}), ("threshold", {"threshold": 0.9})):
        found = judged(official, rule=rule, **options)
        assert not found.promote
        assert "a tie keeps the champion" in found.why[-1]
        assert found.p_value == 1


def test_the_threshold_rule_asks_for_an_accuracy_and_not_for_a_comparison():
    official = scored(positive=10, negative=45)  # 105 errors
    assert judged(official, rule="threshold", threshold=0.9895).promote
    refused = judged(official, rule="threshold", threshold=0.9896)
    assert not refused.promote
    assert "98.95% against a threshold of 98.96%" in refused.why[0]
    assert not judged(official).promote


def test_a_first_model_must_beat_the_largest_class():
    labels = np.repeat([0, 1], [144, 56]).astype(np.uint8)
    constant = Scored(name="official", labels=labels, challenger=np.zeros(200, np.uint8))
    refused = judged(constant, classes=("cat", "dog"))
    assert (refused.promote, refused.rule) == (False, "floor")
    assert refused.p_value is refused.difference is refused.interval is None
    for found_of_one, promoted in ((8, False), (30, True)):  # 76 and 87 % right, 72 % by one class
        guess = np.where(np.cumsum(labels) <= found_of_one, labels, 0)
        some = Scored(name="official", labels=labels, challenger=guess)
        low = binomtest(144 + found_of_one, 200).proportion_ci(0.9, method="exact").low
        assert (low > 0.72) == promoted
        assert judged(some, classes=("cat", "dog")).promote == promoted
    perfect = Scored(name="official", labels=labels, challenger=labels)
    assert judged(perfect, rule="better", classes=("cat", "dog")).promote
    both = judged(perfect, rule="threshold", threshold=1.0, classes=("cat", "dog"))
    assert (both.promote, both.rule, len(both.why)) == (True, "threshold", 2)


def groups_of(rows, count):
    return np.arange(rows) % count


@pytest.mark.parametrize(
    ("rows", "groups", "decides"),
    [(499, None, False), (500, None, True), (600, 19, False), (600, 20, True)],
)
def test_a_recent_set_decides_from_500_rows_and_20_groups(rows, groups, decides):
    members = None if groups is None else groups_of(rows, groups)
    recent = scored("recent", rows=rows, errors=9, negative=60, groups=members)
    found = judged(scored(positive=10, negative=5), recent)
    assert found.promote is not decides
    assert found.negative_flips == (65 if decides else 5)
    assert any("recent test decides from" in sentence for sentence in found.why) is not decides


def test_a_loss_of_one_writer_bounds_less_than_the_same_loss_spread_over_many():
    """A group of the last 100 rows, which hold all 14 flips, or 50 groups of which 14 flip once."""
    official, rows = scored(positive=10, negative=5), 5_000
    spread, together = (
        judged(official, scored("recent", rows=rows, errors=60, negative=14, groups=groups))
        for groups in (groups_of(rows, 50), np.arange(rows) // 100)
    )
    assert spread.promote
    assert not together.promote
    assert together.why[0].startswith("The recent test, against the champion: -14 of 5000 rows")
    assert together.negative_flips == spread.negative_flips == 19


def test_groups_that_win_as_a_whole_prove_less_than_rows():
    rows, net = 2_000, 40
    official = scored(errors=0, negative=0)
    alone = scored("recent", rows=rows, errors=net, positive=net)
    one_writer = scored("recent", rows=rows, errors=net, positive=net, groups=np.arange(rows) // 40)
    assert judged(official, alone, rule="better").promote
    found = judged(official, one_writer, rule="better")
    assert found.p_value == 0.5
    assert not found.promote


def new_class(right, rows, *, worse=0):
    """Nine shared classes, and `rows` rows of a tenth that the champion does not know."""
    base = scored(positive=10, negative=10 + worse, classes=9)
    labels = np.concatenate([base.labels, np.full(rows, 9, np.uint8)])
    challenger = np.concatenate([base.challenger, np.repeat([9, 0], [right, rows - right])])
    champion = np.concatenate([base.champion, np.zeros(rows, np.uint8)])
    return Scored(name="official", labels=labels, challenger=challenger, champion=champion)


def test_a_new_class_has_a_floor_and_only_shared_classes_are_compared():
    found = judged(new_class(60, 100), champion_classes=9)
    assert found.promote
    assert found.difference == 0
    assert found.negative_flips == 10
    assert judged(new_class(18, 100), champion_classes=9).promote  # from 11.9 %: above a tenth
    refused = judged(new_class(14, 100), champion_classes=9)
    assert not refused.promote
    assert "Class 9 is new: 14 of 100 test rows are right" in refused.why[0]
    assert not judged(new_class(0, 0), champion_classes=9).promote
    assert not judged(new_class(100, 100, worse=30), champion_classes=9).promote


def test_a_new_class_is_looked_at_in_a_recent_set_that_does_not_decide():
    recent = Scored(
        name="recent",
        labels=np.full(50, 9, np.uint8),
        challenger=np.full(50, 9, np.uint8),
        champion=np.zeros(50, np.uint8),
    )
    found = judged(scored(positive=10, negative=10, classes=9), recent, champion_classes=9)
    assert found.promote
    assert found.why[-1] == "The recent test decides from 500 rows, and has 0."


def test_the_reason_for_the_rule_opens_why():
    rule, reason = auto_rule({"data"})
    assert judged(scored(positive=9), rule=rule, reason=reason).why[0] == reason


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"rule": "threshold"}, ArgumentError, "needs a threshold"),
        ({"rule": "better", "threshold": 0.9}, ArgumentError, "no other rule takes one"),
        ({"rule": "threshold", "threshold": 98.0}, ArgumentError, r"in 0\.\.1, and not 98"),
        ({"rule": "floor"}, ArgumentError, "There is a champion"),
        ({"official": scored(champion=False, anchor_errors=9)}, ArgumentError, "best clean model"),
        ({"official": scored(rows=0)}, InputError, "no rows"),
        ({"official": scored(rows=1), "champion_classes": -1}, InputError, "no row of a class"),
        (
            {"recent": scored("recent", champion=False)},
            InputError,
            "recent test: score every model",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(options, error, sentence):
    options = {"official": scored(), "rule": "not-worse", "classes": TEN} | options
    with pytest.raises(error, match=sentence):
        verdict(options.pop("official"), options.pop("recent", None), **options)


def test_predictions_of_other_rows_name_the_set():
    official = Scored(
        name="official",
        labels=np.zeros(5, int),
        challenger=np.zeros(4, int),
        champion=np.zeros(5, int),
    )
    with pytest.raises(InputError, match="official test: score every model on the same 5 rows"):
        verdict(official, rule="not-worse", classes=TEN)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 20))
def test_one_more_row_right_never_turns_a_promotion_into_a_refusal(negative, positive, look):
    for rule in ("better", "not-worse"):
        options = {"rule": rule, "classes": TEN, "look": look}
        less = verdict(scored(negative=negative, positive=positive), **options)
        more = verdict(scored(negative=negative, positive=positive + 1), **options)
        assert more.promote >= less.promote
        assert more.p_value <= less.p_value


def rare(rows=10_000, *, right, common_wrong=10, answers=None, name="official", champion=True):
    """Rows of 99:1, of which the champion has some wrong; the challenger answers as told.

    `right` rows of the rare class, and all but `common_wrong` of the other one, are the champion's.
    """
    labels = (np.arange(rows) >= rows * 0.99).astype(np.uint8)
    before = np.zeros(rows, np.uint8)
    before[rows - right :] = 1
    before[:common_wrong] = 1
    now = np.zeros(rows, np.uint8) if answers is None else answers(labels, before.copy())
    return Scored(name=name, labels=labels, challenger=now, champion=before if champion else None)


RULES = [("better", {}), ("not-worse", {}), ("threshold", {"threshold": 0.6})]


@pytest.mark.parametrize(("rule", "options"), RULES)
@pytest.mark.parametrize("rows", [500, 1_000, 10_000])
def test_always_the_largest_class_never_passes_by_macro_recall(rule, options, rows):
    """Nor does it where the champion has a single row of the rare class right."""
    pair, macro = ("cat", "dog"), {"metric": "macro-recall"}
    for right in {1, rows // 250, rows // 125}:
        recent = rare(1_000, right=5, name="recent")
        for sets in ((rare(rows, right=right),), (rare(rows, right=right), recent)):
            found = judged(*sets, rule=rule, classes=pair, **options, **macro)
            assert not found.promote
            assert found.why[-1].startswith(f"{'All' if len(sets) > 1 else 'The official'} test")
            assert found.why[-1].endswith("against 50.0% for always the largest class.")
    first = rare(rows, right=1, champion=False)
    assert not judged(first, rule=rule, classes=pair, **options, **macro).promote


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 500), st.integers(0, 500), st.sampled_from(["accuracy", "macro-recall"]))
def test_always_the_largest_class_is_no_first_model(larger, smaller, metric):
    labels = np.repeat([0, 1], [larger, min(larger, smaller)]).astype(np.uint8)
    first = Scored(name="official", labels=labels, challenger=np.zeros(len(labels), np.uint8))
    assert not judged(first, classes=("cat", "dog"), metric=metric).promote


@pytest.mark.parametrize(("rule", "options"), RULES)
def test_by_accuracy_a_class_of_100_rows_is_what_stops_always_the_largest_class(rule, options):
    """With fewer rows of it nothing does: this is what macro recall is for."""
    pair = ("cat", "dog")
    large, small = rare(right=40, common_wrong=60), rare(5_000, right=20, common_wrong=30)
    refused = judged(large, rule=rule, classes=pair, **options)
    assert not refused.promote
    assert any("these classes lose too much: dog (-40.0%)" in sentence for sentence in refused.why)
    assert judged(small, rule=rule, classes=pair, **options).promote == (rule != "better")
    by_recall = judged(small, rule=rule, classes=pair, metric="macro-recall", **options)
    assert not by_recall.promote


def finds_more(wins, losses):
    """Answers with so many more rare rows right, and so many common ones newly wrong."""

    def answers(labels, before):
        missed = np.flatnonzero((labels == 1) & (before == 0))
        before[missed[:wins]] = 1
        before[100 : 100 + losses] = 1
        return before

    return answers


@pytest.mark.parametrize(("rule", "options"), RULES)
def test_a_gain_of_the_rare_class_passes_by_macro_recall(rule, options):
    official = rare(right=60, answers=finds_more(wins=20, losses=30))
    found = judged(official, rule=rule, classes=("cat", "dog"), metric="macro-recall", **options)
    assert found.promote
    assert found.metric == found.json()["metric"] == "macro-recall"
    assert found.difference == pytest.approx((20 / 100 - 30 / 9_900) / 2)
    assert found.interval[0] > 0.05
    by_accuracy = judged(official, rule="better", classes=("cat", "dog"))
    assert not by_accuracy.promote
    assert (by_accuracy.metric, by_accuracy.difference) == ("accuracy", pytest.approx(-0.001))


@pytest.mark.parametrize("few", [1, 2, 5, 20])
@pytest.mark.parametrize(("rule", "options"), RULES)
def test_a_small_class_that_is_lost_is_refused_by_name_and_one_that_stays_is_not(
    few, rule, options
):
    """Too few rows for the class rule, and for the interval of the whole to see it."""
    labels = np.repeat([0, 1, 2], [1_000, 1_000, few]).astype(np.uint8)
    before = labels.copy()
    before[:60] = 1
    now = before.copy()
    now[:40] = 0
    three, macro = ("cat", "dog", "emu"), {"metric": "macro-recall"}

    def judge(answers):
        official = Scored(name="official", labels=labels, challenger=answers, champion=before)
        return judged(official, rule=rule, classes=three, **options, **macro)

    lost = np.where(labels == 2, 0, now).astype(np.uint8)
    assert not judge(lost).promote
    assert "The official test: over half is lost of: emu." in judge(lost).why
    if rule != "better":  # which sees too little of so small a class
        assert judge(now).promote


def test_gains_of_a_large_class_do_not_outweigh_a_small_one_of_which_no_row_flips():
    """One row of the rare class is half a point, and so are 99 of the other."""

    def wins(labels, before):
        before[:99] = 0
        return before

    official = rare(right=60, common_wrong=150, answers=wins)
    pair = {"rule": "better", "classes": ("cat", "dog")}
    found = judged(official, metric="macro-recall", **pair)
    assert found.p_value < 1e-20
    assert found.difference == pytest.approx(0.005)
    assert not found.promote
    assert "with a lower bound of -" in found.why[0]
    assert judged(official, **pair).promote


def test_why_says_macro_recall_in_points():
    official = rare(right=60, answers=finds_more(wins=20, losses=30))
    asked = {"classes": ("cat", "dog"), "metric": "macro-recall"}
    better, threshold = (
        judged(official, rule=rule, **options, **asked).why
        for rule, options in (("better", {}), ("threshold", {"threshold": 0.6}))
    )
    assert better[0].startswith(
        "+9.85 points of macro recall, as 20 rows are newly right and 30 newly wrong: p "
    )
    assert "at look 1, with a lower bound of +6." in better[0]
    assert "against the champion: +9.85 points of macro recall, lower bound +6." in better[1]
    assert "against a margin of -9.5" in better[1]  # 19 of 100 rows, and next to nothing
    assert threshold[0].endswith("macro recall 89.80% against a threshold of 60.00%.")


def test_macro_recall_pools_class_by_class_and_leaves_out_classes_without_rows():
    official = rare(right=60, answers=finds_more(wins=9, losses=5))
    recent = rare(1_000, right=4, answers=finds_more(wins=3, losses=2), name="recent")
    found = judged(official, recent, classes=("cat", "dog", "eel"), metric="macro-recall")
    assert found.difference == pytest.approx((12 / 110 - 7 / 10_890) / 2)
    assert found.promote


def test_macro_recall_of_even_classes_decides_as_accuracy_does():
    official = scored(positive=40, negative=20)
    found, expected = (
        judged(official, rule="better", metric=metric) for metric in ("macro-recall", "accuracy")
    )
    assert found.promote
    assert found.p_value == pytest.approx(expected.p_value)
    assert found.difference == pytest.approx(expected.difference)
    assert found.detectable_gain == pytest.approx(expected.detectable_gain)
    assert found.new_rows_due == expected.new_rows_due
    assert found.interval == pytest.approx(expected.interval, abs=0.001)
    assert not judged(official, rule="better", metric="macro-recall", look=10).promote
    assert not judged(scored(positive=5, negative=45), metric="macro-recall").promote
