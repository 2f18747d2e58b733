"""./run store: every outcome in words, as JSON and as an exit code."""

import json
import shutil

import pytest

from registry import backup
from tests.registry.stores import FIXTURES, keep, promote, tree

FOLDER = ("--dataset", "folder")
MODEL = "models/1453a722e17ebce7063f02cfd78115641a7ffd5a9fd0d048ca75ee273f7327d8"


@pytest.fixture
def old(root):
    """A root with a store of format 1."""
    shutil.copytree(FIXTURES / "format-1", root / "store")
    return root


@pytest.fixture
def file(tmp_path):
    return tmp_path / "monday.tar"


def answer(done):
    """The one JSON value of a command that went well."""
    assert (done.code, done.err) == (0, "")
    return json.loads(done.out)


def test_an_upgrade_line_by_line(old, flows):
    for command in (("models", "list", *FOLDER), ("data", "list", *FOLDER)):
        done = flows(*command)
        assert done.code == 1
        assert "run `./run store migrate`" in done.sentence
    assert flows("store", "migrate").out == "10 files migrated: the store has format 2.\n"
    assert answer(flows("store", "migrate", "--json")) == {"migrated": 0, "format": 2}
    done = flows("models", "list", "--verify", *FOLDER)
    assert (done.code, done.out.splitlines()[-1]) == (0, "All files are intact.")
    assert flows("cache", "verify").code == 0


def test_a_newer_store_is_a_sentence(old, flows, file):
    (old / "store" / "format.json").write_text('{"format": 9}')
    for command in (("store", "migrate"), ("store", "backup", file), ("models", "list", *FOLDER)):
        done = flows(*command)
        assert done.code == 1
        assert done.sentence.endswith("update the project.")


def test_back_and_forth(old, flows, file, tmp_path):
    flows("store", "migrate")
    before = tree(old / "store")
    made = answer(flows("store", "backup", file, "--json"))
    assert made.pop("size") == file.stat().st_size
    assert made == {"backup": str(file), "files": 42, "left_out": [], "problems": []}
    there = answer(flows("store", "restore", file, "--data", tmp_path / "new", "--json"))
    assert there == {
        "store": str(tmp_path / "new" / "store"),
        "files": 42,
        "migrated": 0,
        "champions": {"folder": MODEL},
    }
    assert tree(tmp_path / "new" / "store") == before
    assert flows("models", "list", "--verify", *FOLDER, "--data", tmp_path / "new").code == 0
    file.unlink()
    assert flows("store", "backup", file, "--data", old).out == f"42 files, 154 kB in {file}.\n"
    said = flows("store", "restore", file, "--data", tmp_path / "third").out
    assert said == (
        f"42 files in {tmp_path / 'third' / 'store'}.\nmodels/1453a722 is the champion of folder.\n"
    )


def test_a_backup_goes_where_the_caller_is(root, flows, tmp_path, monkeypatch):
    promote("a")
    monkeypatch.chdir(tmp_path)
    assert flows("store", "backup", "monday.tar").out.endswith(" in monday.tar.\n")
    assert (tmp_path / "monday.tar").is_file()


def test_what_the_log_names_and_is_missing_is_a_warning(root, flows, file):
    event = promote("a")
    from registry import log

    batch = keep("batches", "rows")
    about = {"batch": batch.removeprefix("batches/"), "name": "b", "content": "c", "size": 1}
    log.append("ingest", event.dataset, train=1, recent=0, refused=0, **about)
    shutil.rmtree(root / "store" / "artifacts" / batch)
    done = flows("store", "backup", file, "--json")
    assert done.code == 0
    (problem,) = json.loads(done.out)["problems"]
    assert "is missing: ingest its files again" in problem["problem"]
    assert problem["what"] in done.err


def test_mistakes_are_sentences_with_exit_codes(root, flows, file):
    done = flows("store", "backup", file)
    assert (done.code, "nothing to back up" in done.sentence) == (1, True)
    promote("a")
    flows("store", "backup", file)
    for arguments, code, said in (
        (("backup", file), 2, "is there already"),
        (("backup", root / "store" / "b.tar"), 2, "lies in the data folder"),
        (("backup", file.parent / "nowhere" / "b.tar"), 2, "there is no folder"),
        (("backup",), 2, ""),
        (("restore", file), 1, "is not empty"),
        (("restore", file.parent / "nowhere.tar", "--data", file.parent / "new"), 1, "cannot be"),
        (("restore", __file__, "--data", file.parent / "new"), 1, "is no whole backup"),
    ):
        done = flows("store", *arguments)
        assert (done.code, said in done.sentence) == (code, True), done.err
    assert not (file.parent / "new" / "store").exists()


def test_an_interrupt_is_130_and_leaves_nothing(root, flows, file, monkeypatch):
    promote("a")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(backup, "check", interrupted)
    assert flows("store", "backup", file).code == 130
    assert [path.name for path in file.parent.iterdir()] == ["data"]
