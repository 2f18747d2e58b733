"""A backup of a real champion, restored where there is nothing else: nothing is trained again."""

import threading
from types import SimpleNamespace

import pytest

from artifacts.locks import lock
from registry import backup, pointer
from tests.flows import pictures
from tests.flows.digits import Root, new

pytestmark = pytest.mark.slow


def restored(folder, source, file):
    """What comes of a backup in a root of its own."""
    with pictures.data_root(folder, source) as there:
        root = Root(there.folder)
        made = root("store", "restore", file)
        assert made.code == 0, made.err
        assert not (folder / "cache" / "models").exists()
        verified = root("models", "list", "--verify", "--dataset", "folder")
        assert (verified.code, "All files are intact." in verified.out) == (0, True)
        return root.retrain()


@pytest.fixture(scope="module")
def story(tmp_path_factory, source, server):
    told = SimpleNamespace()
    folder = tmp_path_factory.mktemp("backup")
    during = folder / "during.tar"
    with pictures.data_root(folder / "data", source) as there, pytest.MonkeyPatch.context() as now:
        now.setenv("RETRAIN_QUIET_SECONDS", "0")
        root = Root(there.folder)
        incoming = root.folder / "store" / "incoming" / "folder"
        pictures.as_table(incoming / "good.parquet", *new(0, 20))
        real = pointer.write

        def write(dataset, to):
            """Take a backup between the event of the promotion and its pointer."""
            if to is not None:
                taking.start()
                taking.join(0.5)
            real(dataset, to)

        taking = threading.Thread(target=backup.back_up, args=(during,))
        with now.context() as patch:
            patch.setattr(pointer, "write", write)
            told.first = root.retrain()
        taking.join()
        digest = root.data("rows", "--batch", "good")[0]["digest"]
        from tasks import row_holders

        real_rewrite = row_holders.rewrite

        def rewrite(*arguments):
            told.free = lock("store").is_free()
            return real_rewrite(*arguments)

        now.setattr(row_holders, "rewrite", rewrite)
        told.during = restored(folder / "restored", source, during)
        root.data("erase", digest, "--why", "a test")
    return told


def test_a_root_without_a_cache_is_unchanged(story):
    assert story.first["outcome"] == "promoted"
    assert story.during["outcome"] == "unchanged"
    assert story.during["champion"] == story.first["champion"]
    assert story.during["test_accuracy"] == story.first["test_accuracy"]
    assert [batch["name"] for batch in story.during["batches"]] == ["good"]


def test_an_erasure_keeps_backups_waiting(story):
    assert story.free is False
