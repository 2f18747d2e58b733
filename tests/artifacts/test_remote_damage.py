"""What is damaged or gone in the remote, on a real S3 server: found, told and mended."""

import json

import pytest

from artifacts import artifact, remote, shared, upkeep
from artifacts.errors import InputError
from tests.artifacts.machines import (
    CACHED,
    RAN,
    address,
    change,
    files_here,
    objects,
    said,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("server")]


def test_a_damaged_file_is_found_as_it_arrives_and_computed_again(toys, machines, bucket):
    machines.on("a")
    numbers = toys.direct()[0].artifact
    change(address(), f"artifacts/{numbers.name}/numbers.json", b'{"values": [9]}')
    machines.on("b")
    brought = toys.direct()[0].artifact
    with pytest.raises(InputError, match=r"numbers\.json of numbers/\w{8} is damaged"):
        _ = brought.path
    assert files_here() == []
    assert said(toys.direct()) == {"draw": "ran", "total": "cached"}
    machines.on("c")
    assert toys.direct()[0].artifact.read_json("numbers.json")["values"] == [0, 1, 2]


def test_one_damaged_file_that_is_read_alone_is_found_too(toys, machines, bucket):
    machines.on("a")
    total = toys.direct()[1].artifact
    change(address(), f"artifacts/{total.name}/sum.json", b'{"sum": 9}')
    machines.on("b")
    with pytest.raises(InputError, match=r"sum\.json of sums/\w{8} is damaged"):
        toys.direct()[1].artifact.read_json("sum.json")


def test_a_machine_that_has_it_mends_the_remote(toys, machines, bucket):
    machines.on("a")
    numbers, total = (each.artifact for each in toys.direct())
    change(address(), f"artifacts/{numbers.name}/numbers.json", b"")
    change(address(), f"artifacts/{total.name}.json", b"{}")
    found = upkeep.verify()
    assert {row["what"]: row["problem"] for row in found} == {
        f"artifacts/{numbers.name}": "numbers.json is damaged",
        f"artifacts/{total.name}": "its index is damaged",
    }
    assert len(upkeep.verify(repair=True)) == 2
    assert upkeep.verify() == []
    machines.on("b")
    assert toys.direct()[0].artifact.read_json("numbers.json")["values"] == [0, 1, 2]


def test_a_record_that_leads_to_nothing_is_found_and_mended(toys, machines):
    machines.on("a")
    numbers, total = (each.artifact for each in toys.direct())
    remote.current().delete([f"artifacts/{numbers.name}.json", f"artifacts/{total.name}.json"])
    found = upkeep.verify()
    assert [row["what"].split("/")[1] for row in found] == ["draw", "total"]
    assert found[0]["problem"] == f"{numbers} is not there"
    artifact.delete(total)
    assert upkeep.verify(repair=True) == found
    assert upkeep.verify() == []
    left = [each.split("/")[1] for each in objects(address()) if each.startswith("records/")]
    assert left == ["draw"]
    machines.on("b")
    done = toys.direct()
    assert said(done) == {"draw": "cached", "total": "ran"}
    assert done[0].artifact.read_json("numbers.json")["values"] == [0, 1, 2]


def test_no_record_counts_of_what_is_damaged_and_intact_nowhere(toys, machines):
    machines.on("a")
    numbers, _ = (each.artifact for each in toys.direct())
    change(address(), f"artifacts/{numbers.name}/numbers.json", b"")
    machines.on("b")
    (found,) = upkeep.verify(repair=True)
    assert found["what"] == f"artifacts/{numbers.name}"
    assert upkeep.verify() == []
    assert said(toys.direct())["draw"] == "ran"


@pytest.mark.parametrize(
    "change_to",
    [
        lambda record: record | {"artifact": record["artifact"] | {"kind": "../../etc"}},
        lambda record: record | {"artifact": record["artifact"] | {"digest": "0" * 64}},
        lambda record: record | {"files": {"../../../evil": ["0" * 64, 1]}},
        lambda record: record | {"files": {}},
        lambda record: record | {"components": record["components"] | {"seed": 7}},
        lambda record: record | {"components": []},
        lambda record: record | {"format": 2},
        lambda _: [],
    ],
    ids=["kind", "digest", "path", "no files", "another key", "components", "format", "no object"],
)
def test_a_record_that_does_not_fit_is_not_believed(toys, machines, bucket, caplog, change_to):
    machines.on("a")
    toys.direct()
    (name,) = [each for each in objects(address()) if each.startswith("records/draw/")]
    record = json.loads(remote.current().get(name))
    change(address(), name, json.dumps(change_to(record)).encode())
    machines.on("b")
    assert said(toys.direct())["draw"] == "ran"
    assert "is damaged. It does not count." in " ".join(caplog.messages)
    assert sorted(path.name for path in machines.top.iterdir()) == ["a", "b"]


@pytest.mark.parametrize("name", ["/etc/passwd", "../up", "a/../../b", "a\\b", "new\nline", ""])
def test_an_index_that_leads_out_of_the_artifact_is_refused(name):
    from artifacts.files import FileStats, content_digest

    digest = content_digest({name: FileStats(1, 0, 0, "0" * 64)})
    with pytest.raises(shared.RemoteDamageError):
        shared.parse_index(f"numbers/{digest}", {name: ["0" * 64, 1]})


def test_a_folder_that_vanishes_here_is_no_damage_there(toys, machines, bucket):
    machines.on("a")
    numbers = toys.direct()[0].artifact
    there = remote.current()
    with pytest.raises(FileNotFoundError):
        there.download(f"artifacts/{numbers.name}/numbers.json", machines.top / "gone" / "x")
    assert there.download(f"artifacts/{numbers.name}/other", machines.top / "x") is None


def test_files_that_are_gone_there_are_written_again_with_a_new_record(toys, machines):
    """As after `cache prune --remote`, or an erasure, on another machine."""
    machines.on("a")
    toys.direct()
    upkeep.clear()
    assert said(toys.direct(refresh=True)) == RAN
    machines.on("b")
    done = toys.direct()
    assert said(done) == CACHED
    assert (done[0].artifact.path / "numbers.json").exists()


def test_what_is_gone_there_costs_other_machines_one_run_and_is_not_called_damaged(toys, machines):
    machines.on("a")
    toys.direct()
    machines.on("b")
    numbers, total = (each.artifact for each in toys.direct())
    machines.on("a")
    upkeep.clear()
    machines.on("b")
    with pytest.raises(InputError, match=r"numbers/\w{8} is no longer in s3://.*: run the same"):
        _ = numbers.path
    assert said(toys.direct()) == RAN
    assert total.read_json("sum.json")["sum"] == 3


def test_what_another_machine_mended_counts_again(toys, machines, bucket):
    machines.on("a")
    numbers = toys.direct()[0].artifact
    change(address(), f"artifacts/{numbers.name}/numbers.json", b"")
    machines.on("b")
    with pytest.raises(InputError, match="is damaged"):
        _ = toys.direct()[0].artifact.path
    machines.on("a")
    assert upkeep.push() == (0, 1)
    machines.on("b")
    assert said(toys.direct()) == CACHED
    assert (numbers.path / "numbers.json").exists()


def test_after_a_repair_no_machine_takes_what_was_lost(toys, machines, bucket):
    machines.on("a")
    numbers = toys.direct()[0].artifact
    change(address(), f"artifacts/{numbers.name}/numbers.json", b"")
    machines.on("b")
    assert len(upkeep.verify(repair=True)) == 1
    machines.on("c")
    assert said(toys.direct()) == {"draw": "ran", "total": "cached"}
