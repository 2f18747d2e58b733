"""Champions, former ones and those that are blocked, folded from events and the pointer."""

import json
from datetime import UTC, datetime

import pytest

from artifacts.errors import ArgumentError, InputError
from registry import decisions, log, models, pointer
from registry.log import Event
from registry.models import BLOCKED, CHAMPION, FORMER, REFUSED
from registry.pointer import Pointer

A, B, C = (f"models/{letter * 64}" for letter in "abc")
KEPT = {
    "card": "cards/1",
    "export": "exports/1",
    "manifest": "manifests/1",
    "summary": {},
    "train_key": "k",
    "forced": False,
}


def events(*pairs):
    """Events of (kind, what it says), numbered from 1, a day apart."""
    return [
        Event(number=n, kind=kind, dataset="toys", at=f"2026-11-{n:02}T05:00:00Z", about=about)
        for n, (kind, about) in enumerate(pairs, 1)
    ]


def promote(model, previous=None, **about):
    return "promote", {"model": model, "previous": previous, "why": "better", **KEPT, **about}


def rollback(model, left, previous):
    about = {"model": model, "left": left, "previous": previous, "why": "it was wrong"}
    return "rollback", KEPT | about


def look(model, champion=None, key="k"):
    about = {"challenger": model, "champion": champion}
    about |= {"train_key": key, "verdict": {"promote": False}, "summary": {}}
    about |= {"asked": ["auto", None], "test_sets": [], "changed": []}
    return "look", {"judged_against": champion} | about


def fold(*pairs, at):
    found = events(*pairs)
    model = found[at - 1].about["model"] if at else None
    return models.fold(found, Pointer(event=at, model=model) if at else None, "toys")


def test_without_a_pointer_there_is_no_champion():
    known = fold(promote(A), at=None)
    assert known.champion is None
    assert known.previous is None
    assert known.history == ()


def test_the_pointer_decides_and_an_event_that_it_did_not_reach_did_not_happen():
    known = fold(promote(A), promote(B, 1), at=1)
    assert known.champion.model == A
    assert known.status(A) == CHAMPION
    assert known.status(B) == REFUSED


def test_a_rollback_goes_to_the_champion_of_before_and_blocks_the_one_that_it_leaves():
    told = (promote(A), promote(B, 1), look(C, B))
    assert fold(*told, at=2).previous.model == A  # not the newest that was refused
    known = fold(*told, rollback(A, B, 2), at=4)
    assert known.champion.model == A
    assert known.champion.rolled_back
    assert known.blocked == {B: "it was wrong"}
    assert [known.status(model) for model in (A, B, C)] == [CHAMPION, BLOCKED, REFUSED]
    assert known.previous is None


def test_rollbacks_go_back_step_by_step():
    known = fold(promote(A), promote(B, 1), promote(C, 2), rollback(B, C, 3), at=4)
    assert known.previous.model == A
    known = fold(
        promote(A), promote(B, 1), promote(C, 2), rollback(B, C, 3), rollback(A, B, 4), at=5
    )
    assert known.champion.model == A
    assert known.previous is None
    assert set(known.blocked) == {B, C}


def test_a_rollback_passes_over_a_blocked_champion():
    block = ("block", {"model": B, "why": "bad"})
    known = fold(promote(A), promote(B, 1), promote(C, 2), block, at=3)
    assert known.previous.model == A


def test_a_forced_promotion_lifts_the_block():
    known = fold(
        promote(A), ("block", {"model": B, "why": "bad"}), promote(B, 1, forced=True), at=3
    )
    assert known.blocked == {}
    assert known.status(A) == FORMER


def test_freeze_and_thaw():
    frozen = ("freeze", {"why": "holidays"})
    assert fold(promote(A), frozen, at=1).frozen == "holidays"
    assert fold(promote(A), frozen, ("thaw", {"why": "back"}), at=1).frozen is None


def test_which_model_was_live_when_also_where_the_clock_went_back():
    found = events(promote(A), promote(B, 1), promote(C, 2))
    back = Event(**vars(found[2]) | {"at": "2026-10-01T00:00:00Z"})
    known = models.fold([*found[:2], back], Pointer(event=3, model=C), "toys")

    def live(day):
        one = known.live_at(datetime(2026, 11, day, 12, tzinfo=UTC))
        return one and one.model

    assert live(1) == A
    assert live(2) == C  # not before the event in front of it
    assert known.live_at(datetime(2026, 10, 31, tzinfo=UTC)) is None


@pytest.mark.parametrize(
    ("number", "model"), [(7, A), (2, A), (1, B), (3, C)], ids=["none", "look", "model", "loop"]
)
def test_a_pointer_or_log_that_does_not_fit_is_a_sentence(number, model):
    told = events(promote(A), look(B), promote(C, 3))
    with pytest.raises(InputError, match="is no promotion of toys"):
        models.fold(told, Pointer(event=number, model=model), "toys")


def test_a_model_is_found_by_the_start_of_its_digest():
    known = fold(promote(A), look(B, A), at=1)
    assert known.find("aaaa") == A
    assert known.find(B) == B
    assert known.find("models/bb") == B
    with pytest.raises(ArgumentError, match=r"choose one of models/aaaaaaaa, models/bbbbbbbb"):
        known.find("c")
    with pytest.raises(ArgumentError, match="none was judged"):
        models.Models().find("c")
    with pytest.raises(ArgumentError, match="Several models begin"):
        fold(promote("models/aab"), look("models/aac"), at=1).find("aa")
    with pytest.raises(ArgumentError):
        known.find("")


def test_promotions_on_disk_and_back(root):
    first = decisions.promote("toys", A, expected=None, why="first", **KEPT)
    assert models.current("toys").champion.model == A
    second = decisions.promote("toys", B, expected=first.number, why="better", **KEPT)
    decisions.undo("toys", second)
    assert models.current("toys").champion.model == A
    decisions.undo("toys", second)  # nothing more
    assert models.current("toys").champion.model == A
    decisions.undo("toys", first)
    assert models.current("toys").champion is None
    assert models.current("others").champion is None


def test_of_two_promotions_over_one_champion_the_second_is_refused(root):
    first = decisions.promote("toys", A, expected=None, why="first", **KEPT)
    decisions.promote("toys", B, expected=first.number, why="b", **KEPT)
    with pytest.raises(decisions.ChampionChangedError, match="promoted meanwhile"):
        decisions.promote("toys", C, expected=first.number, why="c", **KEPT)
    assert models.current("toys").champion.model == B
    with pytest.raises(decisions.ChampionChangedError):
        decisions.promote("toys", C, expected=None, why="c", **KEPT)


def test_a_lost_pointer_is_not_taken_for_none(root):
    decisions.promote("toys", A, expected=None, why="first", **KEPT)
    pointer.path_of("toys").unlink()
    with pytest.raises(InputError, match="is missing, and models were promoted"):
        models.current("toys")
    with pytest.raises(InputError, match="is missing, and models were promoted"):
        decisions.promote("toys", B, expected=None, why="b", **KEPT)


def test_a_first_promotion_that_was_killed_before_its_pointer_did_not_happen(root, monkeypatch):
    real = pointer.write

    def killed(dataset, to):
        if to is not None:
            raise SystemExit
        real(dataset, to)

    with monkeypatch.context() as patch:
        patch.setattr(pointer, "write", killed)
        with pytest.raises(SystemExit):
            decisions.promote("toys", A, expected=None, why="first", **KEPT)
    assert models.current("toys").champion is None
    decisions.promote("toys", B, expected=None, why="b", **KEPT)
    assert models.current("toys").champion.model == B


@pytest.mark.parametrize("kind", ["block", "freeze"])
def test_what_was_decided_meanwhile_stops_a_promotion_unless_it_is_forced(root, kind):
    decisions.decide(kind, "toys", "stop", model=A)
    with pytest.raises(InputError, match="The champion stays"):
        decisions.promote("toys", A, expected=None, why="x", **KEPT)
    assert models.current("toys").champion is None
    decisions.promote("toys", A, expected=None, why="x", **KEPT | {"forced": True})
    assert models.current("toys").champion.model == A


@pytest.mark.parametrize(
    "change", [{"summary": None}, {"card": None}, {"at": "yesterday"}, {"at": "2026-11-01"}]
)
def test_a_damaged_promotion_is_a_sentence(change):
    (event,) = events(promote(A))
    about = {n: v for n, v in event.about.items() if change.get(n, "") is not None}
    damaged = Event(**vars(event) | {"about": about, "at": change.get("at", event.at)})
    with pytest.raises(InputError, match="Event 1 of the log is damaged"):
        models.fold([damaged], Pointer(event=1, model=A), "toys")


def test_undo_leaves_a_promotion_that_came_since(root):
    first = decisions.promote("toys", A, expected=None, why="first", **KEPT)
    decisions.promote("toys", B, expected=first.number, why="b", **KEPT)
    decisions.undo("toys", first)
    assert models.current("toys").champion.model == B


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"format": 1, "event": 1, "model": "models/x"}',
        '{"format": "2", "event": 1, "model": "models/x"}',
        json.dumps({"format": 1, "event": True, "model": A}),
        json.dumps({"format": 1, "event": 1, "model": f"models/{'a' * 64}/../../x"}),
        json.dumps({"format": 1, "event": 1}),
        "[" * 100_000,
    ],
)
def test_a_damaged_pointer_is_a_sentence_and_is_left_alone(root, text):
    first = decisions.promote("toys", A, expected=None, why="first", **KEPT)
    path = pointer.path_of("toys")
    path.write_text(text)
    with pytest.raises(InputError, match="does not say which model is in use"):
        models.current("toys")
    with pytest.raises(InputError, match="does not say which model is in use"):
        decisions.promote("toys", B, expected=first.number, why="b", **KEPT)
    assert path.read_text() == text
    assert len(log.events("toys")) == 1


def test_a_pointer_of_a_newer_format_says_so(root):
    decisions.promote("toys", A, expected=None, why="first", **KEPT)
    pointer.path_of("toys").write_text(json.dumps({"format": 2, "event": 1, "champion": A}))
    with pytest.raises(InputError, match=r"champion\.json was written by a newer version"):
        models.current("toys")


def test_decisions_need_a_reason(root):
    with pytest.raises(ArgumentError, match="say why"):
        decisions.decide("freeze", "toys", " ")
    assert log.events("toys") == []


@pytest.mark.parametrize("event", [look(A), promote(A), ("block", {"model": A, "why": "x"})])
def test_an_event_that_lost_a_field_is_named_and_so_is_one_that_is_of_another_form(event):
    kind, about = event
    for name in about:
        less = {n: v for n, v in about.items() if n != name}
        with pytest.raises(InputError, match=f"Event 1 of the log is damaged .it has no {name}"):
            fold((kind, less), at=None)
    if "summary" in about:
        with pytest.raises(InputError, match="its summary is no object"):
            fold((kind, about | {"summary": "x"}), at=None)
