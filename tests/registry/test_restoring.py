"""A backup becomes a store whole or not at all, and nothing that a file says is believed."""

import gzip
import json
import shutil
import subprocess
import sys
import tarfile

import pytest

from artifacts import layout
from artifacts.errors import InputError
from artifacts.locks import lock
from registry import backup, formats, models, restoring
from tests.conftest import PROJECT
from tests.registry.stores import FIXTURES, content_of, promote, tree, verified, write_backup

CHAMPION = "models/1453a722e17ebce7063f02cfd78115641a7ffd5a9fd0d048ca75ee273f7327d8"
POINTER = "store/registry/toys/champion.json"


@pytest.fixture
def whole(tmp_path, monkeypatch):
    """A backup of a small store."""
    with monkeypatch.context() as patch:
        patch.setenv("RETRAIN_DATA", str(tmp_path / "original"))
        promote("b", promote("a").number)
        backup.back_up(tmp_path / "whole.tar")
    return tmp_path / "whole.tar"


def outside():
    """Everything beside the root."""
    found = sorted(layout.root().parent.rglob("*"))
    return [path for path in found if not path.is_relative_to(layout.root())]


def refused(file, said):
    """Restore, and see that it is one sentence about the file and that nothing stays."""
    beside = outside()
    with pytest.raises(InputError, match=said) as raised:
        restoring.restore(file)
    assert str(file) in str(raised.value)
    assert not layout.store().exists()
    assert not layout.restoring().exists()
    left = [path for path in layout.root().rglob("*") if path.is_file()]
    assert left == []
    assert outside() == beside


@pytest.mark.parametrize("number", range(2, formats.FORMAT + 1))
def test_a_backup_of_each_format_is_restored(root, number):
    made = restoring.restore(FIXTURES / f"format-{number}.tar")
    assert made.files == 42
    assert (made.migrated > 0) == (number < formats.FORMAT)
    assert made.champions == {"folder": verified("folder")}


def test_a_store_of_an_older_format_is_migrated_before_it_is_shown(root, tmp_path):
    content = {f"store/{name}": data for name, data in tree(FIXTURES / "format-1").items()}
    made = restoring.restore(write_backup(tmp_path / "old.tar", content))
    assert (made.files, made.migrated) == (41, 10)
    assert made.champions == {"folder": CHAMPION}
    assert verified("folder") == CHAMPION


def test_a_root_with_a_store_is_left_alone(root, whole):
    promote("mine")
    before = tree(root / "store")
    with pytest.raises(InputError, match=r"is not empty.* move it away"):
        restoring.restore(whole)
    assert tree(root / "store") == before


def test_an_empty_store_is_no_store_and_a_link_is_not_followed(root, whole, tmp_path):
    root.mkdir()
    (tmp_path / "other").mkdir()
    (root / "store").symlink_to(tmp_path / "other")
    with pytest.raises(InputError, match="is no folder: move it away"):
        restoring.restore(whole)
    (root / "store").unlink()
    (root / "store").mkdir()
    restoring.restore(whole)
    verified()


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "store/../../x",
        "/absolute/x",
        "x",
        "store",
        "store//x",
        "store/./x",
        "cache/records/x",
        "store/artifacts/x.json",
        "store/artifacts/models/x/y",
        "store/artifacts/../x/y/z",
        f"store/artifacts/Models/{'a' * 64}/x",
        "store/log/000001.json/x",
    ],
)
def test_a_path_that_leads_elsewhere_is_refused(root, whole, tmp_path, name):
    content = content_of(whole) | {name: b"x"}
    refused(write_backup(tmp_path / "hostile.tar", content), "is no whole backup of a store")


def test_a_name_that_is_too_long_is_a_sentence(root, whole, tmp_path):
    content = content_of(whole) | {f"store/names/{'x' * 300}": b"x"}
    with pytest.raises(InputError, match="File name too long"):
        restoring.restore(write_backup(tmp_path / "hostile.tar", content))
    assert not layout.restoring().exists()


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.FIFOTYPE,
        tarfile.DIRTYPE,
        tarfile.GNUTYPE_SPARSE,
    ],
)
def test_links_and_devices_are_refused(root, whole, tmp_path, kind):
    info = tarfile.TarInfo("store/names/x")
    info.type, info.linkname = kind, "/etc/passwd"
    content = content_of(whole)
    listed = dict.fromkeys([*content, info.name], "0" * 64)
    file = write_backup(tmp_path / "hostile.tar", content, members=[info], files=listed)
    refused(file, "store/names/x is no plain file")


def test_files_that_are_not_listed_or_come_twice_are_refused(root, whole, tmp_path):
    for name in ("store/names/x", POINTER):
        file = tmp_path / "hostile.tar"
        write_backup(file, content_of(whole), members=[tarfile.TarInfo(name)])
        refused(file, "does not hold the files that it lists")
    listed = dict.fromkeys([*content_of(whole), "store/names/x"], "0" * 64)
    refused(
        write_backup(tmp_path / "less.tar", content_of(whole), files=listed),
        "does not hold the files that it lists",
    )


def test_a_cut_file_is_refused_wherever_it_is_cut(root, whole, tmp_path):
    data = whole.read_bytes()
    with tarfile.open(whole) as tar:
        starts = [member.offset for member in tar.getmembers()]
        end = tar.getmembers()[-1].offset_data + tar.getmembers()[-1].size
    for length in (0, 1, 100, *starts, *(start + 700 for start in starts), end - 1):
        (tmp_path / "cut.tar").write_bytes(data[: min(length, end - 1)])
        refused(tmp_path / "cut.tar", "is no whole backup of a store")


def test_a_changed_bit_is_found_wherever_it_is(root, whole, tmp_path):
    data = whole.read_bytes()
    with tarfile.open(whole) as tar:
        members = tar.getmembers()
    for member in members:
        changed = bytearray(data)
        changed[member.offset_data + member.size // 2] ^= 1
        (tmp_path / "changed.tar").write_bytes(changed)
        refused(tmp_path / "changed.tar", "is no whole backup of a store")


@pytest.mark.parametrize("content", [b"", b"hello" * 1000, b"\0" * 10240, b"\xff" * 2000])
def test_a_file_of_another_kind_is_refused(root, whole, tmp_path, content):
    (tmp_path / "other.tar").write_bytes(content)
    refused(tmp_path / "other.tar", "is no whole backup of a store")
    (tmp_path / "zipped.tar").write_bytes(gzip.compress(whole.read_bytes()))
    refused(tmp_path / "zipped.tar", "is no whole backup of a store")


def test_a_file_that_cannot_be_read_is_a_sentence(root, tmp_path):
    refused(tmp_path / "nowhere.tar", "cannot be read: No such file or directory")
    refused(tmp_path, "cannot be read: Is a directory")


def changed(content, name, **values):
    return content | {name: json.dumps(json.loads(content[name]) | values).encode()}


def without(content, text):
    return {name: data for name, data in content.items() if text not in name}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: changed(c, "store/format.json", format=3), "update the project"),
        (lambda c: changed(c, "store/log/000001.json", format=3), "update the project"),
        (lambda c: changed(c, POINTER, format=2), "update the project"),
        (lambda c: changed(c, POINTER, event=7), "is no promotion of toys"),
        (lambda c: without(c, POINTER), "is missing, and models were promoted"),
        (lambda c: without(c, "000001.json"), "is not a readable event"),
        (lambda c: without(c, "store/log"), "holds no event"),
        (lambda c: without(c, "/exports/"), "The champion of toys is not whole, exports/"),
        (lambda c: without(c, "/"), "holds no event"),
        (
            lambda c: {n: b"x" if "/models/" in n else data for n, data in c.items()},
            r"models/.* is damaged \(",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(root, whole, tmp_path, change, said):
    refused(write_backup(tmp_path / "made.tar", change(content_of(whole))), said)


@pytest.mark.parametrize(
    "about", [{"format": 2}, {"format": None}, {"files": 3}, {"files": ["x"]}, {"files": None}]
)
def test_a_list_of_another_form_is_refused(root, whole, tmp_path, about):
    said = "update the project" if about == {"format": 2} else "is no whole backup"
    refused(write_backup(tmp_path / "made.tar", content_of(whole), **about), said)


def test_a_disk_that_cannot_be_written_is_a_sentence(root, whole):
    root.write_text("a file where the folder should be")
    with pytest.raises(InputError, match=r"Cannot write to .*another folder with --data"):
        restoring.restore(whole)
    assert root.read_text() == "a file where the folder should be"


def test_an_interrupt_leaves_nothing(root, whole, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(backup, "check", interrupted)
    with pytest.raises(KeyboardInterrupt):
        restoring.restore(whole)
    assert not layout.store().exists()
    assert not layout.restoring().exists()
    assert lock("store").is_free()


def test_a_restore_that_is_killed_at_any_moment_leaves_no_store_or_a_whole_one(
    whole, tmp_path, monkeypatch
):
    done = subprocess.run(
        [sys.executable, "-m", "tests.fixtures.killing", tmp_path / "roots", whole, "restore"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    count = int(done.stdout)
    assert count > 30
    stores = 0
    for number in range(1, count):
        monkeypatch.setenv("RETRAIN_DATA", str(tmp_path / "roots" / str(number) / "data"))
        if layout.store().exists():
            stores += 1
            shutil.rmtree(layout.restoring(), ignore_errors=True)
        else:
            restoring.restore(whole)
        assert len(models.current("toys").history) == 2
        verified()
        assert not layout.restoring().exists()
    assert 0 < stores < 10


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("store/log/000003.json", '{"format": 2, "kind": "block", "dataset": "toys", "at": "x"}'),
        ("store/log/000003.json", "[]"),
        (
            "store/registry/other/champion.json",
            f'{{"format": 1, "event": 2, "model": "{CHAMPION}"}}',
        ),
    ],
)
def test_a_store_that_could_not_be_read_afterwards_is_refused_in_a_sentence(
    root, whole, tmp_path, name, content
):
    edited = content_of(whole) | {name: content.encode()}
    refused(write_backup(tmp_path / "edited.tar", edited), "cannot be restored")


def test_an_event_without_what_its_kind_says_is_a_sentence(root, whole, tmp_path):
    event = {"format": 2, "kind": "block", "dataset": "toys", "at": "2026-01-01T00:00:00Z"}
    text = json.dumps(event | {"about": {}})
    edited = content_of(whole) | {"store/log/000003.json": text.encode()}
    refused(write_backup(tmp_path / "edited.tar", edited), "cannot be restored")
