"""Where an artifact came from, and for which code it counts."""

import pytest

from classifier.errors import BadArgument
from tasks import origins, records
from tests.tasks.small_cache import make

pytestmark = pytest.mark.usefixtures("root")


def test_the_lineage_goes_down_to_the_source():
    raw = make("raw", "raw")
    table = make("tables", "table", raw=raw, limit=5)
    model = make("models", "model", table=table)
    for asked in (model.digest[:10], model.name, str(model.path), str(model.path / "content")):
        origin = origins.trace(asked).row()
        assert origin["artifact"] == model.name
    assert origin["task"] == "train"
    assert "tasks/train.py" in origin["code"]
    assert origin["versions"].keys() >= {"torch", "python"}
    middle = origin["inputs"]["table"]
    assert middle["artifact"] == table.name
    assert middle["parameters"] == {"name": "table", "limit": 5}
    assert middle["inputs"]["raw"]["artifact"] == raw.name
    assert middle["inputs"]["raw"]["inputs"] == {}


def test_the_lineage_of_what_is_unknown_or_ambiguous_is_refused():
    make("models", "one")
    make("models", "two")
    with pytest.raises(BadArgument, match="No record"):
        origins.trace("f" * 64)
    with pytest.raises(BadArgument, match="may be any of"):
        origins.trace("models/")


def test_only_what_differs_in_code_alone_is_adopted(monkeypatch):
    model = make("models", "model")
    real = records.fingerprint
    monkeypatch.setattr(
        records, "fingerprint", lambda path: real(path) + "2" * path.endswith("training.py")
    )
    taken = origins.adopt()
    assert [row["artifact"] for row in taken] == [model.name]
    assert taken[0]["because"] == "classifier/training.py changed"
    assert origins.adopt() == []
    assert len(list(records.everything())) == 2
    monkeypatch.setattr(records, "fingerprint", lambda path: real(path) + "3")
    monkeypatch.setattr(records, "versions", lambda _: {"torch": "1.0"})
    assert origins.adopt() == []


def test_what_older_code_made_is_not_adopted(monkeypatch):
    """Two edits ago is not what the user vouches for."""
    real = records.fingerprint
    monkeypatch.setattr(records, "fingerprint", lambda path: real(path) + "old")
    make("models", "old", days=2)
    monkeypatch.setattr(records, "fingerprint", lambda path: real(path) + "last")
    last = make("models", "last", days=1)
    monkeypatch.setattr(records, "fingerprint", real)
    assert [row["artifact"] for row in origins.adopt()] == [last.name]


def test_a_damaged_artifact_is_not_adopted(monkeypatch):
    model = make("models", "model")
    (model.path / "content").write_bytes(b"another")
    real = records.fingerprint
    monkeypatch.setattr(records, "fingerprint", lambda path: real(path) + "2")
    assert origins.adopt() == []
