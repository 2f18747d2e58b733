"""Artifacts: published whole or not at all, and named by their content."""

import json
import os

import pytest

from artifacts import inventory, layout, pruning
from artifacts.artifact import Artifact, delete, draft, find_damage, stat_cache_path
from artifacts.errors import ArgumentError, InputError
from artifacts.files import folder_size, write_atomically
from tests.artifacts.small_cache import write


def publish(files, kind="numbers"):
    """An artifact of these files."""
    with draft(kind) as new:
        write(new.folder, files)
    return new.artifact


def everything(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


FILES = {"a.txt": "one", "b/c.txt": "two", "d.txt": "three"}


# Publishing


def test_a_draft_is_published_when_its_block_ends_and_is_nowhere_before(root):
    with draft("numbers") as new:
        write(new.folder, FILES)
        assert new.folder.parent == layout.staging()
        assert list((root / "cache" / "numbers").iterdir()) == []
        with pytest.raises(RuntimeError, match="inside its draft block"):
            _ = new.artifact
        new.metadata["count"] = 3
    made = new.artifact
    assert made.path == root / "cache" / "numbers" / made.digest
    assert {name: (made.path / name).read_text() for name in FILES} == FILES
    assert made.size == sum(map(len, FILES.values())) == folder_size(made.path)
    assert made.metadata == {"count": 3}
    assert not new.folder.exists()
    assert find_damage(made, thorough=True) is None


def test_a_published_folder_is_for_every_reader(root):
    """A staged one is its writer's own."""
    assert publish(FILES).path.stat().st_mode & 0o777 == 0o755


def test_a_block_that_fails_publishes_nothing(root):
    def fail():
        with draft("numbers") as new:
            write(new.folder, FILES)
            raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        fail()
    assert everything(root) == []
    assert list(layout.staging().iterdir()) == []


def test_equal_content_is_one_artifact(root):
    one, two = publish(FILES), publish(dict(reversed(FILES.items())))
    assert one == two
    assert everything(root / "cache" / "numbers") == sorted(
        [f"{one.digest}.json", *(f"{one.digest}/{name}" for name in FILES)]
    )


def test_an_intact_artifact_stays_when_it_is_published_again(root):
    inode = (publish(FILES).path / "a.txt").stat().st_ino
    assert (publish(FILES).path / "a.txt").stat().st_ino == inode


def test_a_damaged_artifact_is_replaced_when_it_is_published_again(root):
    made = publish(FILES)
    (made.path / "a.txt").write_text("eno")
    assert publish(FILES) == made
    assert (made.path / "a.txt").read_text() == "one"
    assert list(layout.staging().iterdir()) == []


@pytest.mark.parametrize(
    "files",
    [
        FILES | {"a.txt": "eno"},
        {"x.txt": "one", "b/c.txt": "two", "d.txt": "three"},
        {"a.txt": "one", "b/c.txt": "two"},
        FILES | {"e.txt": ""},
        {},
    ],
    ids=str,
)
def test_another_content_is_another_artifact(root, files):
    assert publish(files).digest != publish(FILES).digest


def test_what_an_artifact_says_of_itself_is_no_part_of_its_identity():
    one = Artifact(kind="numbers", digest="0" * 64, size=1, metadata={"at": "now"})
    assert one == Artifact(kind="numbers", digest="0" * 64, size=1)
    assert one != Artifact(kind="sums", digest="0" * 64, size=1)


def test_a_json_file_is_read_as_an_object(root):
    assert publish({"a.json": '{"values": [1, 2]}'}).read_json("a.json") == {"values": [1, 2]}


@pytest.mark.parametrize(
    "kind",
    ["", "Numbers", "1st", "a/b", "..", "a b", ".hidden", "a\n", *sorted(layout.RESERVED)],
)
def test_what_is_no_kind_is_refused(root, kind):
    with pytest.raises(ArgumentError, match="is no kind of artifact"), draft(kind):
        pytest.fail("the block ran")
    assert not root.exists()


def test_a_data_root_that_cannot_be_written_is_one_sentence(root):
    root.write_text("a file")
    with pytest.raises(InputError, match=f"^Cannot write to {root}: "), draft("numbers"):
        pytest.fail("the block ran")


# Damage


def test_each_kind_of_damage_is_named(root):
    made = publish(FILES)
    assert find_damage(made) is None
    (made.path / "a.txt").write_text("eno!")
    assert find_damage(made) == "a.txt has changed"
    (made.path / "b" / "c.txt").write_text("owt!")
    assert find_damage(made) == "a.txt, b/c.txt have changed"
    (made.path / "d.txt").unlink()
    (made.path / "more.txt").write_text("x")
    (made.path / "and.txt").write_text("x")
    assert find_damage(made) == (
        "d.txt is missing, a.txt, b/c.txt have changed, and.txt, more.txt do not belong"
    )


def test_a_missing_folder_is_named(root):
    made = publish(FILES)
    delete(made)
    assert find_damage(made) == f"{made} is missing"


def test_without_the_stats_the_damage_is_still_found(root):
    made = publish(FILES)
    (made.path / "a.txt").write_text("eno")
    for stats in ("", "[]", '{"a.txt": 5}', '{"a.txt": [1, 2]}'):
        stat_cache_path(made).write_text(stats)
        assert find_damage(made) in (f"{made} has changed", "a.txt has changed")
    stat_cache_path(made).unlink()
    assert find_damage(made) == f"{made} has changed"


def test_files_are_hashed_again_only_where_they_look_different_or_thoroughly(root):
    made = publish(FILES)
    path = made.path / "a.txt"
    before = path.stat()
    path.write_text("eno")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert find_damage(made) is None
    assert find_damage(made, thorough=True) == "a.txt has changed"


def test_files_that_were_only_touched_are_remembered_as_they_are_now(root):
    made = publish(FILES)
    os.utime(made.path / "a.txt", ns=(5, 5))
    assert find_damage(made) is None
    assert json.loads(stat_cache_path(made).read_text())["a.txt"][1] == 5


def test_a_deleted_artifact_leaves_nothing(root):
    made = publish(FILES)
    delete(made)
    delete(made)
    assert everything(root) == []
    assert list(layout.staging().iterdir()) == []


# Files


def test_a_file_is_replaced_whole_or_stays(tmp_path):
    path = tmp_path / "folder" / "a.txt"
    write_atomically(path, "one")
    write_atomically(path, "two")
    assert path.read_text() == "two"
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "three \ud800")
    assert path.read_text() == "two"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_of_the_writers_own_is_left_as_it_is(tmp_path):
    """The disk is not to blame."""
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(FileExistsError), draft("numbers"):
        (tmp_path / "elsewhere").mkdir()


# Artifacts that stay


def keep(files, kind="numbers"):
    with draft(kind, permanent=True) as new:
        write(new.folder, files)
    return new.artifact


def test_a_permanent_artifact_lies_in_the_store_and_is_found_there(root):
    made = keep(FILES)
    assert made.path == root / "store" / "artifacts" / made.name
    assert find_damage(made, thorough=True) is None
    assert not (root / "cache" / made.name).exists()
    assert keep(FILES) == made
    assert [each.name for each in inventory.permanent()] == [made.name]


def test_what_is_cached_too_is_kept_as_a_copy_of_its_own(root):
    cached, made = publish(FILES), keep(FILES)
    assert made == cached
    assert made.path == root / "cache" / made.name
    delete(cached)
    assert made.path == root / "store" / "artifacts" / made.name
    assert find_damage(made, thorough=True) is None


def test_deleting_a_permanent_artifact_leaves_nothing(root):
    made = keep(FILES)
    delete(made)  # from the cache, where it is not
    assert made.path.is_dir()
    delete(made, permanent=True)
    assert everything(root / "store") == []


def test_a_discarded_draft_is_published_nowhere(root):
    with draft("numbers", permanent=True) as new:
        write(new.folder, FILES)
        new.discard()
    assert everything(root) == []
    with pytest.raises(RuntimeError):
        _ = new.artifact


def test_a_damaged_permanent_artifact_is_named_and_never_removed(root):
    made = keep(FILES)
    (made.path / "a.txt").write_text("changed")
    for repair in (False, True):
        (found,) = inventory.verify(repair=repair)
        assert found["what"] == f"store/artifacts/{made.name}"
        assert "a.txt has changed" in found["problem"]
        assert "backup" in found["problem"]
    assert (made.path / "a.txt").read_text() == "changed"


def test_pruning_leaves_what_stays_and_the_log_keeps_nothing_in_the_cache(root):
    made, cached = keep(FILES), publish({"x": "y"})
    write(root, {"store/log/000001.json": json.dumps({"artifact": cached.name})})
    os.utime(stat_cache_path(cached), (1, 1))
    assert [entry.name for entry in pruning.prune(max_size=0)] == [cached.name]
    assert find_damage(made, thorough=True) is None
