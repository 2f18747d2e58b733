"""Judge: the terms of a dataset count beside the gate's verdict."""

from classifier.evaluation.gate import Verdict
from tasks.judge import _with_terms

GOOD = Verdict(promote=True, rule="better", why=["It is better."])
BAD = Verdict(promote=False, rule="better", why=["It is worse."])
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
