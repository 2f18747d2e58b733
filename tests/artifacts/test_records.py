"""What a record may say, and what is done with one that says anything else."""

import json
import os
from pathlib import Path

import pytest

from artifacts import inventory, lineage, records
from artifacts.artifact import Artifact
from artifacts.outcomes import Outcome
from tests.artifacts.small_cache import DAY, NOW, make, metadata, there

pytestmark = pytest.mark.usefixtures("root")

DEEP = "[" * 100_000
SERIALISER = "its record names another serialiser"
KEY = "its record belongs to another key"
DAMAGED = "its record is damaged"


@pytest.fixture
def numbers():
    """An artifact that lies intact in the cache, whatever its record says."""
    return make("numbers", "numbers", days=3)


@pytest.fixture
def key(numbers):
    (record,) = records.everything()
    return record.key


def content_of(key):
    return json.loads(records.path_of(key).read_text())


def with_metadata(**changes):
    """The record with other metadata of its own."""
    return lambda content: content | {"metadata": content["metadata"] | changes}


def with_result(**changes):
    """The record of an artifact with other fields."""
    return lambda content: content | {"result": json.dumps(json.loads(content["result"]) | changes)}


def with_about(**changes):
    """The record of an artifact whose metadata says something else."""
    return with_result(metadata=metadata("draw") | changes)


PICKLE = {"type": "pickle", "picklelib": "cloudpickle", "picklelib_version": None}
HOSTILE = {
    "another serialiser": (with_metadata(serializer=PICKLE), SERIALISER),
    "another decoder": (
        with_metadata(serializer=records.SERIALISER | {"object_decoder": "os.system"}),
        SERIALISER,
    ),
    "no serialiser": (lambda content: content | {"metadata": {"storage_key": "x"}}, DAMAGED),
    "another key": (with_metadata(storage_key="draw/toy/" + "0" * 64), KEY),
    "the end of a key": (with_metadata(storage_key="0" * 64), KEY),
    "a key that is no text": (with_metadata(storage_key=["draw"]), KEY),
    "no metadata": (lambda content: {"result": content["result"]}, DAMAGED),
    "no result": (lambda content: {"metadata": content["metadata"]}, DAMAGED),
    "a result that is an object": (lambda content: content | {"result": {}}, DAMAGED),
    "a result that is nested without end": (lambda content: content | {"result": DEEP}, DAMAGED),
    "a kind out of the root": (with_result(kind="../store"), DAMAGED),
    "a kind that is absolute": (with_result(kind="/etc"), DAMAGED),
    "a kind that holds no artifacts": (with_result(kind="records"), DAMAGED),
    "a kind that is no text": (with_result(kind=5), DAMAGED),
    "a kind and a line": (with_result(kind="numbers\n"), DAMAGED),
    "a digest out of the root": (with_result(digest="../../../elsewhere"), DAMAGED),
    "a digest that is short": (with_result(digest="0" * 63), DAMAGED),
    "a digest that is no text": (with_result(digest=5), DAMAGED),
    "a size below zero": (with_result(size=-1), DAMAGED),
    "a size that is no number": (with_result(size="1000"), DAMAGED),
    "a size that is a truth value": (with_result(size=True), DAMAGED),
    "a size beyond any disk": (with_result(size=10**400), DAMAGED),
    "another field": (with_result(path="/etc"), DAMAGED),
    "metadata that is text": (with_result(metadata="much"), DAMAGED),
    "metadata of nothing": (with_result(metadata={}), DAMAGED),
    "a group out of the root": (with_about(group="../.."), DAMAGED),
    "a group that is no text": (with_about(group=5), DAMAGED),
    "a step that is no text": (with_about(step=None), DAMAGED),
    "seconds that are no number": (with_about(seconds="1"), DAMAGED),
    "seconds beyond any number": (with_about(seconds=10**400), DAMAGED),
    "a reason that is no text": (with_about(why=[]), DAMAGED),
    "an adoption that is text": (with_about(adopted="yes"), DAMAGED),
    "an adoption without a reason": (with_about(adopted={"at": "today"}), DAMAGED),
}
TEXTS = {
    "nothing": "",
    "half": '{"metadata": {',
    "null": "null",
    "a list": "[]",
    "a number": "5",
    "no JSON": "\x80\x04",
    "nested without end": DEEP,
    "a number of many digits": '{"metadata": ' + "1" * 5000 + "}",
}


def assert_evicted(key, numbers, why):
    """It is named, nothing raises, and then it is gone."""
    assert records.read(key) == why
    assert list(records.everything()) == []
    assert list(records.all_keys()) == [key]
    assert {"what": f"records/{key}", "problem": why} in inventory.verify()
    components = records.components_of(key)
    assert records.validate_or_evict(key) == why
    assert not records.path_of(key).exists()
    assert records.reason(key, components) == why
    assert numbers.path.is_dir()
    assert there() == {numbers.name}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_record_is_evicted(numbers, key, name):
    change, why = HOSTILE[name]
    records.path_of(key).write_text(json.dumps(change(content_of(key))))
    assert_evicted(key, numbers, why)


@pytest.mark.parametrize("name", TEXTS)
def test_a_damaged_record_is_evicted(numbers, key, name):
    records.path_of(key).write_bytes(TEXTS[name].encode("latin-1"))
    assert_evicted(key, numbers, DAMAGED)


def test_a_folder_in_place_of_a_record_is_damaged(numbers, key):
    records.path_of(key).unlink()
    records.path_of(key).mkdir()
    assert records.read(key) == DAMAGED
    assert list(records.everything()) == []


def test_every_change_above_is_one(numbers, key):
    """Without it the record serves, so that each of these tests can fail."""
    for change, _ in HOSTILE.values():
        assert change(content_of(key)) != content_of(key)
    records.path_of(key).write_text(json.dumps(with_about(seconds=1.5)(content_of(key))))
    assert records.validate_or_evict(key) is None


DAMAGED_COMPONENTS = [
    "",
    "5",
    "[[1, 2]]",
    DEEP,
    "{}",
    '{"adopted": "yes"}',
    '{"adopted": {"at": 5}}',
    '{"input numbers": ["1"]}',
    '{"input numbers": {}}',
]


@pytest.mark.parametrize("text", DAMAGED_COMPONENTS, ids=range(len(DAMAGED_COMPONENTS)))
def test_damaged_components_stop_nothing(numbers, key, text):
    components = records.components_of(key)
    records.components_path(key).write_text(text)
    assert json.dumps(lineage.trace(numbers.name).row())
    assert inventory.verify() == []
    assert lineage.adopt({}) == []
    (entry,) = inventory.entries()
    assert entry.row()["made_by"] == ["draw"]
    other = key[:-64] + "0" * 64
    assert isinstance(records.reason(other, components), str | None)
    assert records.validate_or_evict(key) is None


# Validation


def test_a_record_that_serves_is_rewritten_from_what_was_validated(numbers, key):
    """So that Prefect, which reads it next, reads nothing else."""
    content = content_of(key)
    content["metadata"] |= {
        "storage_key": f"/moved/from/elsewhere/{key}",
        "expiration": "1999-01-01T00:00:00Z",
        "prefect_version": "0.0.1",
    }
    records.path_of(key).write_text(json.dumps(content | {"more": "x"}))
    assert records.validate_or_evict(key) is None
    assert content_of(key) == {
        "metadata": {"storage_key": key, "expiration": None, "serializer": records.SERIALISER},
        "result": content["result"],
    }


def test_a_record_that_serves_counts_as_used_now(numbers, key):
    assert records.read(key).last_used == pytest.approx(NOW - 3 * DAY)
    assert records.validate_or_evict(key) is None
    assert records.read(key).last_used > NOW - 1


def test_what_prefect_would_read_is_what_was_written(numbers, key):
    """The names in the serialiser are those of functions that turn the one into the other."""
    from artifacts.artifact import from_json, to_json

    (record,) = records.everything()
    assert record.artifact == numbers
    assert record.artifact.metadata == numbers.metadata
    for name, function in (("object_encoder", to_json), ("object_decoder", from_json)):
        assert records.SERIALISER[name] == f"{function.__module__}.{function.__name__}"
    result = json.loads(content_of(key)["result"], object_hook=from_json)
    assert result == numbers
    assert result.metadata == numbers.metadata
    with pytest.raises(TypeError, match="A step returns an Artifact, not set"):
        json.dumps({1}, default=to_json)


def test_a_record_of_a_damaged_artifact_is_evicted_and_the_damage_is_the_reason(numbers, key):
    components = records.components_of(key)
    (numbers.path / "content").write_bytes(b"another")
    assert records.validate_or_evict(key) == "content has changed"
    assert list(records.all_keys()) == []
    assert records.reason(key, components) == "content has changed"


def test_a_record_that_is_missing_is_only_named(root):
    key = "draw/toy/" + "0" * 64
    assert records.validate_or_evict(key) == "its record is missing"
    assert not root.exists()


def test_eviction_without_a_reason_leaves_nothing(numbers, key):
    records.evict(key)
    assert not records.path_of(key).exists()
    assert not records.components_path(key).exists()


# Reasons


def test_a_step_that_never_ran_has_no_reason(root):
    assert records.reason("draw/toy/" + "0" * 64, {"step": "draw"}) is None


def test_a_lost_record_is_the_reason(numbers, key):
    components = records.components_of(key)
    records.path_of(key).unlink()
    assert records.reason(key, components) == "its record is missing"


def test_the_reason_is_the_difference_from_the_record_that_was_used_last():
    make("numbers", "one", days=1, seed=1)
    make("numbers", "two", days=2, seed=2)
    (one,) = (r for r in records.everything() if r.components()["seed"] == 1)
    components = one.components() | {"seed": 3}
    assert records.reason("draw/toy/" + "0" * 64, components) == "seed 1 -> 3"
    os.utime(records.path_of(one.key), (NOW - 3 * DAY,) * 2)
    components = one.components() | {"seed": 3, "name": "two"}
    assert records.reason("draw/toy/" + "0" * 64, components) == "seed 2 -> 3"
    assert records.reason("draw/other/" + "0" * 64, components) is None
    assert records.reason("add/toy/" + "0" * 64, components) is None


def test_where_no_record_is_left_the_reason_is_why_the_last_one_was_evicted():
    for seed, age in ((1, 3), (2, 1), (3, 2)):
        make("numbers", str(seed), days=1, seed=seed)
        (key,) = records.all_keys()
        components = records.components_of(key)
        records.evict(key, f"an audit found fault {seed}")
        os.utime(records.components_path(key), (NOW - age * DAY,) * 2)
    place = key.rpartition("/")[0]
    why = records.reason(f"{place}/" + "0" * 64, components)
    assert why == "seed 2 -> 3; name 2 -> 3; an audit found fault 2"
    assert records.reason("draw/other/" + "0" * 64, components) is None


def test_an_outcome_of_a_record_says_what_the_record_says(numbers, key):
    outcome = Outcome.of(records.read(key).artifact, cached=True)
    assert str(outcome).split() == ["draw", "cached", str(numbers)]
    assert outcome.row() == {
        "step": "draw",
        "outcome": "cached",
        "seconds": None,
        "saved_seconds": 0.5,
        "artifact": numbers.name,
        "why": None,
    }


def test_an_artifact_is_named_by_kind_and_digest(root):
    artifact = Artifact(kind="numbers", digest="0" * 64, size=1)
    assert artifact.path == Path(root) / "cache" / "numbers" / ("0" * 64)
    assert str(artifact) == "numbers/00000000"
