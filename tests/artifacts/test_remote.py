"""The remote on a real S3 server: what one machine computes counts on all, and faults are told."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from artifacts import artifact, inventory, layout, pruning, records, remote, shared, sharing, upkeep
from artifacts.errors import ArgumentError, InputError
from artifacts.remote import RemoteAwayError, RemoteError
from tests.artifacts.machines import Machines, change, objects
from tests.fixtures.s3 import KEY, SECRET, running

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("server")]
RAN, CACHED = {"draw": "ran", "total": "ran"}, {"draw": "cached", "total": "cached"}


@pytest.fixture
def machines(tmp_path, monkeypatch, bucket):
    return Machines(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def toys(server):
    from tests.artifacts import toy_steps

    return toy_steps


def said(outcomes):
    return {outcome.step: outcome.outcome for outcome in outcomes}


def address():
    return os.environ["RETRAIN_REMOTE"]


def files_here():
    """Files of artifacts that are on this machine."""
    return [p for kind in layout.kinds() for p in (layout.cache() / kind).glob("*/*")]


# One cache


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
    upkeep.clear(())
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


# A remote that is away


@pytest.fixture
def stoppable(tmp_path, monkeypatch):
    """A server of this test, which holds the remote."""
    with running(tmp_path) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("RETRAIN_REMOTE", f"{server.make(f'bucket-{server.port}')}/team")
        yield server


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


def answers_again():
    """Forget that the remote did not answer, as a new process does."""
    remote._remote.cache_clear()


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


# Damage in the remote


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


def test_two_machines_that_compute_the_same_keep_one_record(toys, machines, bucket):
    """As when a lock was lost: the second finds the record of the first when it writes its own."""
    machines.on("a")
    toys.direct()
    (name,) = [each for each in objects(address()) if each.startswith("records/draw/")]
    first = remote.current().get(name)
    machines.on("b")
    toys.direct(refresh=True)
    assert remote.current().get(name) == first


# Unfinished work


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


# Upkeep


def test_push_writes_what_was_computed_without_the_remote(toys, machines, monkeypatch):
    there = address()
    monkeypatch.delenv("RETRAIN_REMOTE")
    machines.on("a")
    toys.direct()
    monkeypatch.setenv("RETRAIN_REMOTE", there)
    assert upkeep.push() == (2, 2)
    assert upkeep.push() == (0, 0)
    machines.on("b")
    assert said(toys.direct()) == CACHED


def test_pull_brings_everything_with_its_files(toys, machines, monkeypatch):
    machines.on("a")
    toys.direct()
    machines.on("b")
    assert upkeep.pull() == 2
    assert len(files_here()) == 2
    assert upkeep.pull() == 0
    monkeypatch.delenv("RETRAIN_REMOTE")
    assert said(toys.direct()) == CACHED


def test_prune_leaves_what_is_young(toys, machines):
    machines.on("a")
    toys.direct()
    assert upkeep.prune(older_than=timedelta(days=1), kept=()) == (0, 0, 0)
    with pytest.raises(ArgumentError, match="--older-than must be a day or more"):
        upkeep.prune(older_than=timedelta(hours=1), kept=())


def test_nothing_is_older_than_all_time(toys, machines):
    machines.on("a")
    toys.direct()
    for days in (999_999, timedelta.max.days):
        assert upkeep.prune(older_than=timedelta(days=days), kept=()) == (0, 0, 0)


def test_prune_removes_old_records_and_what_only_they_name(toys, machines, monkeypatch):
    machines.on("a")
    numbers, total = (each.artifact for each in toys.direct())
    in_a_month(monkeypatch, young="records/draw/")
    dry = upkeep.prune(older_than=timedelta(days=7), kept=(), dry_run=True)
    assert dry[:2] == (1, 2)
    assert upkeep.prune(older_than=timedelta(days=7), kept=()) == dry
    left = [each for each in objects(address()) if each.startswith(("records", "artifacts"))]
    assert sorted(left) == sorted(
        [
            f"artifacts/{numbers.name}.json",
            f"artifacts/{numbers.name}/numbers.json",
            next(each for each in left if each.startswith("records/draw/")),
        ]
    )
    machines.on("b")
    assert said(toys.direct()) == {"draw": "cached", "total": "ran"}
    kept = {total.name}
    in_a_month(monkeypatch, young="nothing")
    assert upkeep.prune(older_than=timedelta(days=7), kept=kept)[0] == 2
    assert f"artifacts/{total.name}.json" in objects(address())


def in_a_month(monkeypatch, young):
    """Let listings say that all but the clock and some objects were written a month ago."""
    find = remote.Remote.find

    def aged(self, prefix, **more):
        return [
            each
            if each.name == "clock" or each.name.startswith(young)
            else replace(each, modified=each.modified - timedelta(days=30))
            for each in find(self, prefix, **more)
        ]

    monkeypatch.setattr(remote.Remote, "find", aged)


def test_clear_removes_all_that_can_be_computed(toys, machines):
    machines.on("a")
    numbers, _ = (each.artifact for each in toys.direct())
    upkeep.clear({numbers.name})
    assert objects(address()) == [
        f"artifacts/{numbers.name}.json",
        f"artifacts/{numbers.name}/numbers.json",
        "format.json",
    ]


# Bad input


@pytest.mark.parametrize(
    "wrong",
    [
        "bucket",
        "file:///tmp/x",
        "https://example.com/bucket",
        "s3://",
        "s3://[::1",
        "s3://bucket:99999/team",
        "s3://bucket//team",
        "s3://key:secret-word@bucket/team",
        "s3://bucket/team?token=secret-word",
    ],
)
def test_what_is_no_address_of_a_bucket_is_refused_without_its_secret(monkeypatch, wrong):
    monkeypatch.setenv("RETRAIN_REMOTE", wrong)
    with pytest.raises(ArgumentError, match="RETRAIN_REMOTE") as caught:
        remote.current()
    assert "secret-word" not in str(caught.value)


@pytest.mark.parametrize("wrong", ["minio:9000", "minio", "http://minio:99999", "http://", "[::1"])
def test_an_endpoint_that_is_no_url_is_told(machines, monkeypatch, wrong):
    monkeypatch.setenv("RETRAIN_REMOTE", "s3://bucket/endpoint")
    monkeypatch.setenv("AWS_ENDPOINT_URL", wrong)
    answers_again()
    with pytest.raises(ArgumentError, match="AWS_ENDPOINT_URL is no URL"):
        sharing.begin()


def test_a_bucket_that_is_not_there(machines, monkeypatch):
    monkeypatch.setenv("RETRAIN_REMOTE", "s3://nobody-made-this/team")
    with pytest.raises(RemoteError, match="there is no such bucket"):
        sharing.begin()


def test_a_bucket_of_another_format(machines, bucket):
    change(address(), "format.json", b'{"format": 7}')
    with pytest.raises(RemoteError, match="has format 7, and this version reads 1"):
        sharing.begin()


@pytest.mark.parametrize(
    ("refusing", "sentence"),
    [
        ("InvalidAccessKeyId", r"refuses access \(InvalidAccessKeyId\)"),
        ("RequestTimeTooSkewed", "refuses the clock of this machine: set it right"),
    ],
    indirect=["refusing"],
)
def test_a_remote_that_refuses_says_what_to_put_right(machines, monkeypatch, refusing, sentence):
    monkeypatch.setenv("AWS_ENDPOINT_URL", refusing)
    with pytest.raises(RemoteError, match=sentence) as caught:
        sharing.begin()
    assert "the-secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def refusing(request):
    """Address of a server that answers every request with that error of S3."""

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self):
            body = f"<Error><Code>{request.param}</Code><Message>no</Message></Error>".encode()
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_full_disk_while_files_arrive_is_one_sentence_and_leaves_nothing(toys, machines):
    machines.on("a")
    toys.direct()
    root = machines.on("b")
    numbers = toys.direct()[0].artifact
    code = (
        "import resource; from artifacts.artifact import Artifact; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4, resource.RLIM_INFINITY)); "
        f"Artifact(**{asdict(numbers)}).path"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"InputError: Cannot write to {root}" in done.stderr
    assert files_here() == []
    assert not list(layout.staging().glob("*"))
    assert (numbers.path / "numbers.json").exists()


def test_no_secret_is_written_anywhere(toys, machines, bucket, caplog):
    machines.on("a")
    toys.direct()
    texts = [path.read_bytes() for path in machines.top.rglob("*") if path.is_file()]
    texts += [remote.current().get(name) or b"" for name in objects(address())]
    texts.append(" ".join(caplog.messages).encode())
    assert not [text for text in texts if SECRET.encode() in text or KEY.encode() in text]


def test_a_folder_that_vanishes_here_is_no_damage_there(toys, machines, bucket):
    machines.on("a")
    numbers = toys.direct()[0].artifact
    there = remote.current()
    with pytest.raises(FileNotFoundError):
        there.download(f"artifacts/{numbers.name}/numbers.json", machines.top / "gone" / "x")
    assert there.download(f"artifacts/{numbers.name}/other", machines.top / "x") is None


def test_a_forecast_of_a_refresh_runs_what_other_machines_computed(toys, machines):
    from artifacts.forecast import forecasting

    machines.on("a")
    toys.direct()
    machines.on("b")
    with forecasting(refresh=True) as forecast:
        toys.draw("toys", toys.Range(), 0)
    assert forecast.row()["steps"] == {"draw": "run"}


def test_files_that_are_gone_there_are_written_again_with_a_new_record(toys, machines):
    """As after `cache prune --remote`, or an erasure, on another machine."""
    machines.on("a")
    toys.direct()
    upkeep.clear(())
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
    upkeep.clear(())
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


def test_pull_says_that_the_remote_went_away(toys, machines, stoppable, monkeypatch):
    machines.on("a")
    toys.direct()
    machines.on("b")
    find = remote.Remote.find

    def then_stop(self, prefix, **more):
        found = find(self, prefix, **more)
        stoppable.stop()
        return found

    monkeypatch.setattr(remote.Remote, "find", then_stop)
    with pytest.raises(RemoteAwayError, match="does not answer"):
        upkeep.pull()


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


def test_who_may_only_read_is_told_so_once(toys, machines, bucket, monkeypatch, caplog):
    machines.on("a")
    toys.direct()

    def refuse(self, *_):
        raise RemoteError("It refuses access.")

    for name in ("put", "upload", "replace"):
        monkeypatch.setattr(remote.Remote, name, refuse)
    machines.on("b")
    toys.direct(offset=1)
    sharing.begin()
    toys.direct(offset=2)
    assert len([each for each in caplog.messages if "refuses access" in each]) == 1


def test_a_profile_that_is_not_there_is_one_sentence(machines, monkeypatch, bucket):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    remote._remote.cache_clear()
    with pytest.raises(RemoteError, match=r"s3://.*: The config profile \(nobody\)"):
        sharing.begin()


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (301, b"", "AWS_REGION"),
        (400, b"<Error><Code>ExpiredToken</Code></Error>", r"refuses access \(ExpiredToken\)"),
        (
            400,
            b"<Error><Code>AuthorizationHeaderMalformed</Code></Error>",
            "AWS_REGION",
        ),
    ],
)
def test_what_does_not_pass_by_itself_ends_the_run(
    machines, monkeypatch, answering, status, body, sentence
):
    monkeypatch.setenv("AWS_ENDPOINT_URL", answering(status, body))
    remote._remote.cache_clear()
    with pytest.raises(RemoteError, match=sentence):
        sharing.begin()


@pytest.fixture
def answering():
    """Start a server that gives one answer to everything."""
    servers = []

    def start(status, body):
        class Answering(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        servers.append(HTTPServer(("127.0.0.1", 0), Answering))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
