"""Judge: the terms of a dataset count beside the gate's verdict."""

from dataclasses import replace

from classifier import datasets
from classifier.evaluation.gate import Verdict
from registry.models import Models, Promotion
from tasks import judge
from tasks.judge import _with_terms

GOOD = Verdict(promote=True, rule="better", metric="accuracy", why=["It is better."])
BAD = Verdict(promote=False, rule="better", metric="accuracy", why=["It is worse."])
HOLDS, FAILS = (True, "It is fast."), (False, "It is slow.")


def test_without_terms_a_verdict_stays():
    assert _with_terms(GOOD, []) == GOOD
    assert _with_terms(BAD, []) == BAD


def test_a_term_that_fails_refuses_the_best_model_and_alone_is_named():
    found = _with_terms(GOOD, [HOLDS, FAILS])
    assert not found.promote
    assert found.why == ["It is slow."]


def test_a_term_that_holds_is_named_with_what_the_model_showed():
    found = _with_terms(GOOD, [HOLDS])
    assert found.promote
    assert found.why == ["It is better.", "It is fast."]


def test_a_refusal_names_every_reason_and_no_other():
    assert _with_terms(BAD, [HOLDS]).why == ["It is worse."]
    assert _with_terms(BAD, [FAILS]).why == ["It is worse.", "It is slow."]


def promotion(model, accuracy):
    about = {"summary": {"test_accuracy": accuracy, "macro_recall": 1 - accuracy}}
    return Promotion(number=1, at="", model=model, rolled_back=False, about=about)


def test_an_anchor_on_a_retracted_batch_gives_way_to_the_best_clean_model(monkeypatch):
    history = (
        promotion("a", 0.91),
        promotion("b", 0.99),
        promotion("c", 0.93),
        promotion("d", 0.9),
    )
    known = Models(history=history, blocked={"d": "x"})
    monkeypatch.setattr(judge.champion, "clean", lambda _, one: one.model != "b")
    assert judge._anchor("mnist", known, "a").model == "a"
    assert judge._anchor("mnist", known, "b").model == "c"
    assert judge._anchor("mnist", known, None) is None
    declared, path = datasets.declared()["mnist"]
    by_recall = replace(declared, metric="macro-recall")
    monkeypatch.setitem(datasets.declared(), "mnist", (by_recall, path))
    assert judge._anchor("mnist", known, "b").model == "a"
