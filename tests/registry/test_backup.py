"""A backup holds the store as of one moment, whatever goes on meanwhile, or is not there."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from artifacts import layout
from artifacts.errors import ArgumentError, InputError
from artifacts.locks import lock
from registry import backup, decisions, log, models, pointer, restoring
from tests.conftest import PROJECT
from tests.registry.stores import content_of, keep, promote, tree, verified

PROMOTING = """
import sys
from tests.registry.stores import promote
expected = None
for number in range(int(sys.argv[1])):
    expected = promote(f"model {number}", expected).number
    print(number, flush=True)
"""
FULL = """
import resource, sys
from pathlib import Path
from artifacts.errors import InputError
from registry import backup
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    backup.back_up(Path(sys.argv[1]))
except InputError as error:
    print(error)
"""


def python(text, *arguments):
    """A process that runs the text."""
    return subprocess.Popen(
        [sys.executable, "-c", text, *map(str, arguments)],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def file(tmp_path):
    return tmp_path / "backups" / "monday.tar"


@pytest.fixture(autouse=True)
def _folder(file):
    file.parent.mkdir()


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A function that restores a backup in a root of its own, which is the root from then on."""
    count = 0

    def restore(file):
        nonlocal count
        count += 1
        root = tmp_path / f"restored-{count}"
        monkeypatch.setenv("RETRAIN_DATA", str(root))
        restoring.restore(file)
        return root

    return restore


def test_a_restored_store_is_the_one_that_was_backed_up(root, file, elsewhere):
    promote("a")
    store = root / "store"
    for name in ("incoming/toys/ä/1.png", "incoming/toys/.hidden", "names/x.jsonl", "seen/t.json"):
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_text(name)
    odd = os.fsencode(store / "incoming" / "toys") + b"/\xff.png"
    with open(odd, "wb") as opened:  # noqa: PTH123 - a name that is no text
        opened.write(b"odd")
    os.utime(store / "incoming" / "toys" / ".hidden", ns=(1, 1_795_702_688_264_190_311))
    (store / "incoming" / "toys" / "linked.png").symlink_to(store / "names" / "x.jsonl")
    before = tree(store)
    made = backup.back_up(file)
    assert (made.files, made.left_out) == (len(before), ())
    assert made.size == file.stat().st_size
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    restored = elsewhere(file) / "store"
    assert tree(restored) == before
    modified = (restored / "incoming" / "toys" / ".hidden").stat().st_mtime_ns
    assert modified == 1_795_702_688_264_190_311  # else `ingest` would read it again
    assert verified().startswith("models/")


def test_what_is_being_written_is_no_part_of_it(root, file):
    promote("a")
    for name in ("log/.1-2.tmp", "registry/toys/.champion.json.1-2.tmp", "names/.x.tmp"):
        (root / "store" / name).parent.mkdir(exist_ok=True)
        (root / "store" / name).write_text("{")
    backup.back_up(file)
    assert not [name for name in content_of(file) if name.endswith(".tmp")]
    kept = [name for name in content_of(file) if name.startswith("store/artifacts/")]
    assert {name.rpartition("/")[2] for name in kept} == {"content.txt"}  # no notes of hashes


def test_other_programs_read_it(root, file, tmp_path):
    promote("a")
    backup.back_up(file)
    subprocess.run(["tar", "-xf", file, "-C", tmp_path], check=True)
    assert tree(tmp_path / "store") == tree(root / "store")


def test_each_backup_that_is_taken_while_models_are_promoted_is_whole(root, file, elsewhere):
    taken = []
    with python(PROMOTING, 60) as promoting:
        promoting.stdout.readline()
        while promoting.poll() is None:
            taken.append(file.with_name(f"{len(taken)}.tar"))
            backup.back_up(taken[-1])
    assert promoting.returncode == 0
    assert len(taken) > 3
    lengths = []
    for each in taken:
        elsewhere(each)
        verified()
        history = models.current("toys").history
        assert len(log.events("toys")) == len(history)  # each promotion is completed
        lengths.append(len(history))
    assert lengths == sorted(lengths)
    assert len(set(lengths)) > 3


def test_a_promotion_under_way_is_completed_first(root, file, elsewhere, monkeypatch):
    first = promote("a")
    reached, go_on = threading.Event(), threading.Event()
    real = pointer.write

    def slow(*arguments):
        reached.set()
        go_on.wait(20)
        real(*arguments)

    monkeypatch.setattr(pointer, "write", slow)
    promoting = threading.Thread(target=promote, args=("b", first.number))
    promoting.start()
    assert reached.wait(20)
    taking = threading.Thread(target=backup.back_up, args=(file,))
    taking.start()
    time.sleep(0.3)
    assert not file.exists()
    go_on.set()
    promoting.join()
    taking.join()
    elsewhere(file)
    verified()
    assert [one.number for one in models.current("toys").history] == [1, 2]


def test_a_first_promotion_after_the_pointers_were_read_did_not_happen_in_the_backup(
    root, file, elsewhere, monkeypatch
):
    promote("a")
    real = backup._moment

    def moment():
        first, _ = real()
        promote("b", dataset="others")
        return first, log.last()

    monkeypatch.setattr(backup, "_moment", moment)
    backup.back_up(file)
    elsewhere(file)
    assert verified().startswith("models/")
    assert models.current("others").champion is None
    assert promote("b", dataset="others").number == 3


def test_a_delivery_that_was_taken_in_meanwhile_is_not_noted_as_seen(root, file, monkeypatch):
    """Else nobody would read it again, and its rows would be missing."""
    promote("a")
    real = backup._moment

    def moment():
        found = real()
        log.append("ingest", "toys", batch=keep("batches", "rows"), name="b", content="c")
        (root / "store" / "seen").mkdir()
        (root / "store" / "seen" / "toys.json").write_text("{}")
        return found

    monkeypatch.setattr(backup, "_moment", moment)
    backup.back_up(file)
    names = [name for name in content_of(file) if not name.startswith("store/artifacts/")]
    assert set(names) == {
        "store/registry/toys/champion.json",
        "store/log/000001.json",
        "store/format.json",
    }


def test_it_waits_for_an_erasure_and_not_for_an_ingest(root, file):
    promote("a")
    erasing = lock("store")
    erasing.acquire("erasure")
    taking = threading.Thread(target=backup.back_up, args=(file,))
    taking.start()
    time.sleep(0.3)
    assert not file.exists()
    erasing.release()
    taking.join()
    assert file.exists()
    with lock("ingest/toys"):
        backup.back_up(file.with_name("second.tar"))


def test_a_file_that_changes_while_it_is_read_is_left_out_and_named(root, file, elsewhere):
    promote("a")
    incoming = root / "store" / "incoming" / "toys"
    incoming.mkdir(parents=True)
    (incoming / "a.parquet").write_bytes(b"whole")
    (incoming / "z.parquet").write_bytes(b"last")
    stop = threading.Event()

    def deliver():
        with (incoming / "b.parquet").open("wb", buffering=0) as opened:
            opened.write(b"x" * 20_000_000)
            reached.set()
            while not stop.is_set():
                opened.write(b"more")

    reached = threading.Event()
    delivering = threading.Thread(target=deliver)
    delivering.start()
    assert reached.wait(20)
    made = backup.back_up(file)
    stop.set()
    delivering.join()
    assert made.left_out == ("store/incoming/toys/b.parquet",)
    assert {"store/incoming/toys/a.parquet", "store/incoming/toys/z.parquet"} <= set(
        content_of(file)
    )
    elsewhere(file)
    verified()


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("data/store/backup.tar", "lies in the data folder"),
        ("data/backup.tar", "lies in the data folder"),
        ("nowhere/backup.tar", "there is no folder"),
        ("backups", "is there already"),
        ("link.tar", "is there already"),
        ("note.txt/backup.tar", "there is no folder"),
    ],
)
def test_a_place_that_is_none_is_a_sentence(root, tmp_path, place, said):
    promote("a")
    (tmp_path / "note.txt").write_text("x")
    (tmp_path / "link.tar").symlink_to(tmp_path / "nowhere")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ArgumentError, match=said):
        backup.back_up(tmp_path / place)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(sys.platform != "linux", reason="has no /sys, where nobody may write")
def test_a_folder_that_cannot_be_written_is_a_sentence(root):
    promote("a")
    with pytest.raises(InputError, match=r"Cannot write to /sys: .*Choose another folder\."):
        backup.back_up(Path("/sys/backup.tar"))


def test_a_name_that_is_too_long_is_a_sentence(root, file):
    promote("a")
    with pytest.raises(InputError, match="File name too long"):
        backup.back_up(file.with_name("x" * 300))


def test_a_full_disk_is_a_sentence_and_nothing_stays(root, file):
    promote("a" * 20_000)
    said = python(FULL, file).communicate()[0]
    assert said.startswith(f"Cannot write to {file.parent}: File too large. Free some space there")
    assert list(file.parent.iterdir()) == []


def test_an_interrupt_leaves_nothing(root, file, monkeypatch):
    promote("a")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(backup, "check", interrupted)
    with pytest.raises(KeyboardInterrupt):
        backup.back_up(file)
    assert list(file.parent.iterdir()) == []
    assert lock("store").is_free()


def test_what_a_killed_backup_left_is_replaced(root, file):
    promote("a")
    file.with_name(f".{file.name}.tmp").write_text("half")
    backup.back_up(file)
    assert list(file.parent.iterdir()) == [file]


def test_without_events_there_is_nothing_to_back_up(root, file):
    (root / "store" / "incoming").mkdir(parents=True)
    with pytest.raises(InputError, match="nothing to back up"):
        backup.back_up(file)


def damage_artifact(event):
    path = layout.permanent() / event.about["model"] / "content.txt"
    path.write_text("other")


def remove_export(event):
    folder = layout.permanent() / event.about["export"]
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def lose_pointer(_):
    pointer.path_of("toys").unlink()


def lose_event(_):
    decisions.decide("freeze", "toys", "x")
    log.path_of(1).unlink()


def make_older(_):
    (layout.store() / "format.json").unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damage_artifact, r"is damaged \(content.txt has changed\), so nothing was backed up"),
        (remove_export, "exports/.* is missing: restore it from an earlier backup"),
        (lose_pointer, "is missing, and models were promoted"),
        (lose_event, "is not a readable event"),
        (make_older, "run `./run store migrate`"),
    ],
)
def test_a_damaged_store_is_a_sentence_and_nothing_stays(root, file, damage, said):
    damage(promote("a"))
    with pytest.raises(InputError, match=said):
        backup.back_up(file)
    assert list(file.parent.iterdir()) == []


def test_its_owner_alone_may_read_it(root, file):
    promote("a")
    backup.back_up(file)
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_store_that_is_a_link_holds_no_backup_of_itself(root, tmp_path):
    promote("a")
    (root / "store").rename(tmp_path / "moved")
    (root / "store").symlink_to(tmp_path / "moved")
    with pytest.raises(ArgumentError, match="lies in the data folder"):
        backup.back_up(tmp_path / "moved" / "monday.tar")
