"""The remote on a real S3 server: what one machine computes counts on all."""

import re
import subprocess
import sys
import time

import pytest

from artifacts import artifact, inventory, layout, pruning, records, remote, sharing, upkeep
from artifacts.remote import RemoteAwayError
from tests.artifacts.machines import CACHED, RAN, address, answers_again, files_here, objects, said

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("server")]


def test_a_second_machine_reuses_everything_and_brings_only_what_it_opens(toys, machines, bucket):
    machines.on("a")
    assert said(toys.direct()) == RAN
    machines.on("b")
    first = toys.direct()
    assert said(first) == CACHED
    assert files_here() == []
    assert first[1].artifact.read_json("sum.json")["sum"] == 0 + 1 + 2
    assert files_here() == []  # one file was read, and the artifact not brought
    assert (first[1].artifact.path / "sum.json").exists()
    assert [path.name for path in files_here()] == ["sum.json"]


def test_a_cached_run_asks_the_remote_nothing(toys, machines, bucket):
    machines.on("a")
    toys.direct()
    before = len(bucket.requests())
    assert said(toys.direct()) == CACHED
    assert len(bucket.requests()) == before


def test_the_record_comes_last_and_its_files_first(toys, machines, bucket):
    machines.on("a")
    before = len(bucket.requests())
    toys.direct()
    written = [path for method, path in bucket.requests()[before:] if method == "PUT"]
    kinds = [path.split("/team/")[1].split("/")[0] for path in written]
    assert kinds == ["format.json", *(2 * ["artifacts", "artifacts", "records"])]
    assert written[1].endswith("/numbers.json")
    assert re.search(r"/[0-9a-f]{64}\.json$", written[2])


def test_a_step_that_lacks_its_input_here_opens_it_from_there(toys, machines):
    machines.on("a")
    toys.direct()
    machines.on("b")
    done = toys.direct(offset=5)
    assert said(done) == {"draw": "cached", "total": "ran"}
    assert done[1].artifact.read_json("sum.json")["sum"] == 5 + 3


def test_a_forecast_knows_what_other_machines_computed(toys, machines):
    from artifacts.forecast import forecasting

    machines.on("a")
    toys.direct()
    machines.on("b")
    with forecasting() as forecast:
        toys.direct.fn()
    assert forecast.row()["steps"] == {"draw": "cached", "total": "cached"}
    assert list(records.all_keys()) == []


def test_a_refresh_computes_again_and_harms_nobody(toys, machines):
    machines.on("a")
    toys.direct()
    machines.on("b")
    assert said(toys.direct(refresh=True)) == RAN
    machines.on("c")
    assert said(toys.direct()) == CACHED


def test_damage_on_this_machine_is_mended_from_the_remote(toys, machines):
    machines.on("a")
    done = toys.direct()
    (done[0].artifact.path / "numbers.json").write_text("{}")
    assert said(toys.direct()) == CACHED
    assert done[0].artifact.read_json("numbers.json")["values"] == [0, 1, 2]


def test_what_was_pruned_here_comes_back(toys, machines):
    machines.on("a")
    toys.direct()
    assert len(pruning.prune(older_than=0)) == 2
    assert said(toys.direct()) == CACHED


def test_what_lies_only_in_the_remote_takes_no_room_here(toys, machines):
    machines.on("a")
    toys.direct()
    machines.on("b")
    toys.direct()
    assert [entry.size for entry in inventory.entries()] == [0, 0]
    assert inventory.verify() == []


def test_what_lies_only_in_the_remote_can_be_kept(toys, machines):
    machines.on("a")
    toys.direct()
    machines.on("b")
    numbers = artifact.keep(toys.direct()[0].artifact)
    assert (layout.permanent() / numbers.name / "numbers.json").exists()


def test_what_another_machine_removed_is_written_again_before_a_record_names_it(toys, machines):
    machines.on("a")
    toys.direct()
    machines.on("b")
    upkeep.clear()
    machines.on("a")
    toys.direct(refresh=True)
    machines.on("c")
    done = toys.direct()
    assert said(done) == CACHED
    assert done[0].artifact.read_json("numbers.json")["values"] == [0, 1, 2]


def test_without_a_remote_nothing_of_it_is_imported():
    code = (
        "import sys; from artifacts import sharing; "
        "sharing.push('a/b/c'); assert sharing.pull('a/b/c') is None; sharing.begin(); "
        "assert not {'obstore', 'boto3', 'dask'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_run_goes_on_without_the_remote_and_a_later_one_writes_what_it_made(
    toys, machines, stoppable, caplog
):
    machines.on("a")
    stoppable.stop()
    started = time.monotonic()
    assert said(toys.direct()) == RAN
    assert time.monotonic() - started < 10
    (warning,) = [each for each in caplog.messages if "does not answer" in each]
    assert "This run goes on with what is here." in warning
    assert len(sharing.waiting()) == 2

    stoppable.start()
    stoppable.make(address().split("/")[2])
    answers_again()
    sharing.begin()
    assert sharing.waiting() == []
    machines.on("b")
    assert said(toys.direct()) == CACHED


def test_files_that_cannot_come_are_told_in_one_sentence(toys, machines, stoppable):
    machines.on("a")
    toys.direct()
    machines.on("b")
    numbers = toys.direct()[0].artifact
    stoppable.stop()
    answers_again()
    with pytest.raises(RemoteAwayError, match="lies only there: run the same command again"):
        _ = numbers.path


def test_an_artifact_that_cannot_come_is_computed_again(toys, machines, stoppable):
    machines.on("a")
    toys.direct()
    machines.on("b")
    toys.direct()
    stoppable.stop()
    answers_again()
    sharing.begin()
    assert said(toys.direct(offset=1)) == RAN


def test_two_machines_that_compute_the_same_keep_one_record(toys, machines, bucket):
    """As when a lock was lost: the second finds the record of the first when it writes its own."""
    machines.on("a")
    toys.direct()
    (name,) = [each for each in objects(address()) if each.startswith("records/draw/")]
    first = remote.current().get(name)
    machines.on("b")
    toys.direct(refresh=True)
    assert remote.current().get(name) == first


def test_unfinished_work_goes_on_on_another_machine(toys, machines):
    machines.on("a")
    with pytest.raises(RuntimeError, match="interrupted"):
        toys.resuming()
    assert [each for each in objects(address()) if each.startswith("checkpoints/")]
    machines.on("b")
    assert (toys.resuming().path / "count.txt").read_text() == "half and half"
    assert not [each for each in objects(address()) if each.startswith("checkpoints/")]


def test_the_newest_unfinished_work_counts_wherever_it_was_written(toys, machines):
    machines.on("a")
    with pytest.raises(RuntimeError, match="interrupted"):
        toys.resuming()
    key = next(layout.checkpoints().glob("*/*/*")).relative_to(layout.checkpoints()).as_posix()
    machines.on("b")
    with sharing.scratch(key):
        assert layout.scratch(key).read_text() == "half"
        layout.scratch(key).write_text("most")
    machines.on("a")
    assert (toys.resuming().path / "count.txt").read_text() == "most and half"


def test_a_forecast_of_a_refresh_runs_what_other_machines_computed(toys, machines):
    from artifacts.forecast import forecasting

    machines.on("a")
    toys.direct()
    machines.on("b")
    with forecasting(refresh=True) as forecast:
        toys.draw("toys", toys.Range(), 0)
    assert forecast.row()["steps"] == {"draw": "run"}


def test_unfinished_work_is_written_when_the_remote_answers_again(
    toys, machines, bucket, monkeypatch
):
    monkeypatch.setattr(sharing, "SCRATCH_SECONDS", 0.1)
    machines.on("a")
    toys.direct()
    upload, tried = remote.Remote.upload, []

    def away_at_first(self, name, path):
        tried.append(name)
        if len(tried) == 1:
            self.is_away = True
            raise RemoteAwayError("It does not answer.")
        return upload(self, name, path)

    monkeypatch.setattr(remote.Remote, "upload", away_at_first)
    key = f"resume/all/{'0' * 64}"
    with sharing.scratch(key):
        layout.scratch(key).parent.mkdir(parents=True)
        layout.scratch(key).write_text("half")
        deadline = time.monotonic() + 10
        while f"checkpoints/{key}" not in objects(address()):
            assert time.monotonic() < deadline
            time.sleep(0.1)
