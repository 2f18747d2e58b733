"""Stores of each format that there was become stores of this one, whatever interrupts it."""

import json
import shutil
import subprocess
import sys

import pytest

from artifacts import layout
from artifacts.errors import InputError
from registry import data, formats, log, migration, models
from tests.conftest import PROJECT
from tests.registry.stores import FIXTURES, tree, verified

OLD = FIXTURES / "format-1"
MODEL = "models/1453a722e17ebce7063f02cfd78115641a7ffd5a9fd0d048ca75ee273f7327d8"


@pytest.fixture
def old(root):
    """A root with a store of format 1."""
    shutil.copytree(OLD, root / "store")
    return root


def test_there_is_a_fixture_of_each_format():
    there = {path.stem for path in FIXTURES.iterdir()} - {"README"}
    assert there == {f"format-{number}" for number in range(1, formats.FORMAT + 1)}


def test_an_older_store_is_refused_until_it_is_migrated(old):
    with pytest.raises(InputError, match=r"run `\./run store migrate`"):
        models.current("folder")
    assert migration.migrate() == 10
    assert verified("folder") == MODEL
    assert [event.kind for event in log.events("folder")][-2:] == ["freeze", "thaw"]
    (batch,) = data.current("folder").live
    assert batch.name == "week-1"
    assert len(data.current("folder").patches) == 1
    assert data.problems() == []


def test_a_migration_changes_numbers_alone_and_the_second_nothing(old):
    migration.migrate()
    after = tree(old / "store")
    assert json.loads(after.pop("format.json")) == {"format": 2}
    for name, content in tree(OLD).items():
        if name.startswith("log/"):
            assert json.loads(after[name]) == json.loads(content) | {"format": 2}
        else:
            assert after[name] == content
    assert after.keys() == tree(OLD).keys()
    assert migration.migrate() == 0


def test_a_migration_that_is_killed_at_any_moment_is_completed_by_the_next(tmp_path, monkeypatch):
    done = subprocess.run(
        [sys.executable, "-m", "tests.fixtures.killing", tmp_path, OLD, "migrate"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    count = int(done.stdout)
    assert count > 20  # two changes for each of ten files
    whole = tree(tmp_path / str(count) / "data" / "store")
    for number in range(1, count):
        root = tmp_path / str(number) / "data"
        monkeypatch.setenv("RETRAIN_DATA", str(root))
        if (root / "store" / "format.json").exists():
            assert verified("folder") == MODEL
        else:
            with pytest.raises(InputError, match="store migrate"):
                models.current("folder")
        migration.migrate()
        found = tree(root / "store")
        assert found.keys() - whole.keys() <= {name for name in found if name.startswith(".format")}
        assert {name: found[name] for name in whole} == whole


def test_an_event_that_an_older_version_adds_afterwards_is_migrated_too(old):
    migration.migrate()
    event = {"kind": "freeze", "dataset": "folder", "at": "2026-11-26T15:00:00Z"}
    text = json.dumps(event | {"about": {"why": "by an older version", "who": "x"}})
    (layout.log() / "000010.json").write_text(text)
    with pytest.raises(InputError, match=r"000010\.json has format 1"):
        models.current("folder")
    assert migration.migrate() == 1
    assert models.current("folder").frozen == "by an older version"


def test_a_newer_store_is_left_alone(old):
    (old / "store" / "format.json").write_text('{"format": 3}')
    before = tree(old / "store")
    with pytest.raises(InputError, match="update the project"):
        migration.migrate()
    assert tree(old / "store") == before


def test_a_damaged_event_is_no_older_one(old):
    (layout.log() / "000009.json").write_text("{}")
    with pytest.raises(InputError, match=r"000009\.json is not a readable event"):
        migration.migrate()
    assert not (old / "store" / "format.json").exists()


def test_without_a_store_there_is_nothing_to_migrate(root):
    with pytest.raises(InputError, match="There is no store in"):
        migration.migrate()
    assert not root.exists()
    (root / "store" / "incoming").mkdir(parents=True)
    assert migration.migrate() == 0
    assert list((root / "store").iterdir()) == [root / "store" / "incoming"]
