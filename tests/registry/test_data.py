"""The data of a dataset, folded from its events in any order."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifacts.errors import ArgumentError
from registry import data, log
from registry.log import Event

NAMES = ("a", "b", "c", "d")


def events(*pairs):
    """Events of (kind, what it says), numbered from 1."""
    return [
        Event(number=number, kind=kind, dataset="toys", at=f"day {number}", about=about)
        for number, (kind, about) in enumerate(pairs, 1)
    ]


def ingest(name, digest=None):
    about = {"name": name, "batch": digest or f"batch {name}", "content": f"rows {name}", "size": 7}
    return "ingest", about | {"train": 8, "recent": 2, "refused": 1}


def retract(name, why="wrong"):
    return "retract", {"batch": f"batch {name}", "why": why}


def restore(name):
    return "restore", {"batch": f"batch {name}"}


def check(name, outcome="sound"):
    return "check", {"batch": f"batch {name}", "outcome": outcome, "why": []}


def accept(name, why="I looked"):
    return "accept", {"batch": f"batch {name}", "why": why}


def correct(patch):
    return "correct", {"patch": patch}


def erase(rows, **renewed):
    about = {"train": 5, "recent": 1, "refused": 0}
    new = {
        f"batch {old}": {"batch": digest, "content": f"rows of {digest}", "about": about}
        for old, digest in renewed.items()
    }
    return "erase", {"rows": list(rows), "batches": new}


def fold(*pairs):
    return data.fold(events(*pairs))


def live(*pairs):
    return [batch.name for batch in fold(*pairs).live]


def test_without_events_there_is_no_data():
    assert data.fold([]) == data.Data()
    assert data.Data().live == ()


def test_a_batch_says_what_its_event_said():
    (batch,) = fold(ingest("a")).batches
    assert (batch.name, batch.digest, batch.content) == ("a", "batch a", "rows a")
    assert (batch.number, batch.at) == (1, "day 1")
    assert (batch.retracted, batch.check, batch.accepted, batch.broken) == (None, None, None, False)
    assert batch.about["train"] == 8
    assert (batch.artifact.kind, batch.artifact.digest, batch.artifact.size) == (
        "batches",
        "batch a",
        7,
    )


def test_retracted_batches_are_known_but_do_not_count():
    found = fold(ingest("a"), ingest("b"), retract("a", why="wrong labels"))
    assert [batch.name for batch in found.batches] == ["a", "b"]
    assert [batch.name for batch in found.live] == ["b"]
    assert found.batch("a").retracted == "wrong labels"


def test_an_empty_reason_retracts_too():
    assert live(ingest("a"), retract("a", why="")) == []


def test_a_restored_batch_returns_to_its_place():
    pairs = [ingest("a"), ingest("b"), ingest("c")]
    assert live(*pairs, retract("b"), restore("b")) == ["a", "b", "c"]
    assert live(*pairs, retract("b"), ingest("d"), restore("b")) == ["a", "b", "c", "d"]
    assert live(*pairs, restore("b")) == ["a", "b", "c"]


@pytest.mark.parametrize("kind", ["retract", "restore", "check", "accept"])
def test_what_is_said_of_an_unknown_batch_changes_nothing(kind):
    event = (kind, {"batch": "batch z", "why": "x", "outcome": "broken"})
    assert fold(event, ingest("a"), event) == data.fold(
        [Event(number=2, kind="ingest", dataset="toys", at="day 2", about=ingest("a")[1])]
    )


def test_events_of_other_kinds_change_nothing():
    assert fold(ingest("a"), ("promote", {"model": "m"}), ("look", {})) == fold(ingest("a"))


def test_the_last_check_counts():
    found = fold(ingest("a"), check("a", "broken"), check("a", "drift"))
    assert found.batch("a").check["outcome"] == "drift"
    assert not found.batch("a").broken


@pytest.mark.parametrize(
    ("outcome", "broken"), [("sound", False), ("drift", False), ("broken", True)]
)
def test_a_broken_batch_counts_until_it_is_accepted(outcome, broken):
    pairs = [ingest("a"), check("a", outcome)]
    assert fold(*pairs).batch("a").broken == broken
    assert live(*pairs) == ["a"]
    accepted = fold(*pairs, accept("a")).batch("a")
    assert (accepted.broken, accepted.accepted) == (False, "I looked")
    assert not fold(ingest("a"), accept("a", why=""), check("a", outcome)).batch("a").broken


def test_corrections_stay_in_order_and_the_same_one_counts_once():
    assert fold(correct("p"), ingest("a"), correct("q"), correct("p")).patches == ("q", "p")


def test_an_erasure_puts_the_new_batch_in_the_place_of_the_old():
    found = fold(
        ingest("a"), ingest("b"), ingest("c"), check("b", "broken"), erase({"d1", "d2"}, b="new")
    )
    assert found.erased == {"d1", "d2"}
    assert [batch.digest for batch in found.batches] == ["batch a", "new", "batch c"]
    renewed = found.batch("b")
    assert (renewed.content, renewed.number, renewed.at) == ("rows of new", 2, "day 2")
    assert (renewed.about["train"], renewed.about["name"]) == (5, "b")
    assert renewed.broken
    with pytest.raises(ArgumentError):
        found.batch("batch b")


def test_after_an_erasure_events_speak_of_the_new_batch():
    pairs = [ingest("a"), ingest("b"), erase({"d1"}, a="new")]
    assert live(*pairs, ("retract", {"batch": "new", "why": "x"})) == ["b"]
    again = (
        "erase",
        {"rows": ["d2"], "batches": {"new": erase((), x="newer")[1]["batches"]["batch x"]}},
    )
    found = fold(*pairs, again)
    assert [batch.digest for batch in found.batches] == ["newer", "batch b"]
    assert found.erased == {"d1", "d2"}


def test_a_retracted_batch_stays_retracted_when_rows_of_it_are_erased():
    found = fold(ingest("a"), retract("a"), erase({"d"}, a="new"))
    assert found.live == ()
    assert found.batch("a").digest == "new"


def test_of_two_batches_that_became_equal_the_live_one_keeps_its_place():
    pairs = [ingest("a"), ingest("b"), ingest("c")]
    assert live(*pairs, retract("a"), erase({"d"}, a="batch c")) == ["b", "c"]
    assert live(*pairs, retract("c"), erase({"d"}, a="batch c")) == ["a", "b"]
    assert live(*pairs, erase({"d"}, a="batch c")) == ["a", "b"]


def test_an_erasure_without_batches_only_adds_rows():
    assert fold(erase({"d"}), ingest("a")).erased == {"d"}


@pytest.mark.parametrize("gone", ["a", "b", "neither"])
@pytest.mark.parametrize("renewed", ["a", "b"])
def test_a_batch_that_an_erasure_makes_equal_to_another_counts_where_either_does(gone, renewed):
    """Rows that only one of the two had are erased, so both are one artifact now."""
    other = "b" if renewed == "a" else "a"
    pairs = [ingest("a"), ingest("b"), ingest("c")]
    pairs += [] if gone == "neither" else [retract(gone)]
    found = fold(*pairs, erase({"d"}, **{renewed: f"batch {other}"}))
    assert [batch.digest for batch in found.live if batch.digest == f"batch {other}"] == [
        f"batch {other}"
    ]
    assert [batch.number for batch in found.live] == sorted(batch.number for batch in found.live)


def test_unknown_names_list_those_that_there_are():
    with pytest.raises(ArgumentError, match="choose one of a, b"):
        fold(ingest("a"), ingest("b")).batch("z")
    with pytest.raises(ArgumentError, match="no data has come in yet"):
        data.Data().batch("z")


def test_a_batch_is_found_by_name_or_digest():
    found = fold(ingest("a"), ingest("b"))
    assert found.batch("b") == found.batch("batch b")


@dataclass
class Naive:
    """The same state, kept step by step as plain sets and lists."""

    order: list = field(default_factory=list)
    retracted: dict = field(default_factory=dict)
    outcome: dict = field(default_factory=dict)
    accepted: set = field(default_factory=set)
    patches: list = field(default_factory=list)
    erased: set = field(default_factory=set)

    def tell(self, kind, name):
        if kind == "ingest" and name not in self.order:
            self.order.append(name)
        elif kind == "correct":
            self.patches = [each for each in self.patches if each != name] + [name]
        elif kind == "erase":
            self.erased.add(name)
        elif name in self.order:
            if kind == "retract":
                self.retracted[name] = True
            elif kind == "restore":
                self.retracted.pop(name, None)
            elif kind in {"sound", "broken"}:
                self.outcome[name] = kind
            elif kind == "accept":
                self.accepted.add(name)


KINDS = ("ingest", "retract", "restore", "sound", "broken", "accept", "correct", "erase")
STEPS = st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from(NAMES)), max_size=40)


def told(steps):
    """Events of these steps, those of a batch under the digest that it has then."""
    naive, digests, pairs = Naive(), {}, []
    for number, (kind, name) in enumerate(steps):
        if kind == "ingest" and name in naive.order:
            continue  # a batch comes in once
        digest = digests.setdefault(name, f"batch {name}")
        match kind:
            case "ingest":
                pairs.append(ingest(name, digest))
            case "sound" | "broken":
                pairs.append(("check", {"batch": digest, "outcome": kind}))
            case "correct":
                pairs.append(correct(name))
            case "erase" if name in naive.order:
                digests[name] = f"{name} after {number}"
                _, about = erase({name}, x=digests[name])
                pairs.append(("erase", about | {"batches": {digest: about["batches"]["batch x"]}}))
            case "erase":
                pairs.append(erase({name}))
            case _:
                pairs.append((kind, {"batch": digest, "why": "x"}))
        naive.tell(kind, name)
    return naive, digests, pairs


@given(steps=STEPS)
def test_events_in_any_order_give_the_state_that_each_step_gives(steps):
    naive, digests, pairs = told(steps)
    found = fold(*pairs)
    assert [batch.name for batch in found.batches] == naive.order
    assert [batch.digest for batch in found.batches] == [digests[n] for n in naive.order]
    assert [b.name for b in found.live] == [n for n in naive.order if n not in naive.retracted]
    broken = {n for n in naive.order if naive.outcome.get(n) == "broken"} - naive.accepted
    assert {batch.name for batch in found.batches if batch.broken} == broken
    assert found.patches == tuple(naive.patches)
    assert found.erased == naive.erased


@given(steps=STEPS, name=st.sampled_from(NAMES))
def test_retracting_and_restoring_changes_nothing_of_what_is_live(steps, name):
    naive, digests, pairs = told(steps)
    before = fold(*pairs)
    if name in naive.order and name not in naive.retracted:
        digest = digests[name]
        retracted = [*pairs, ("retract", {"batch": digest, "why": "x"})]
        assert [b.name for b in fold(*retracted).live] == [
            b.name for b in before.live if b.name != name
        ]
        assert fold(*retracted, ("restore", {"batch": digest})) == before


def test_current_folds_the_events_of_the_dataset_alone(root):
    for kind, about in (ingest("a"), ingest("b"), retract("a")):
        log.append(kind, "toys", **about)
    log.append("ingest", "digits", **ingest("c")[1])
    assert [batch.name for batch in data.current("toys").live] == ["b"]
    assert [batch.name for batch in data.current("digits").live] == ["c"]
    assert data.current("none") == data.Data()


@pytest.mark.parametrize("name", ["a", "2026-01.b_c", "A" * 80, "0"])
def test_names_of_batches(name):
    assert data.NAME.fullmatch(name)


@pytest.mark.parametrize("name", ["", ".a", "-a", "a/b", "a b", "A" * 81, "ä", "a\n"])
def test_names_that_no_batch_has(name):
    assert not data.NAME.fullmatch(name)
