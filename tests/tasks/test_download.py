"""The download task in a flow: when it tries again, and what it leaves behind."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect import flow

import tasks.download
from classifier import datasets
from classifier.errors import InputError
from classifier.sources import Mirror
from classifier.sources.fetch import AllSourcesFailed
from tasks.download import asked_at, download, local_digest
from tests.classifier.sources.loopback import (
    DIGESTS,
    UNPACKED,
    contents,
    digits,
    in_turn,
    reset,
    status,
)
from tests.conftest import FIXTURE

FIRST = "/mnist/train-images-idx3-ubyte.gz"
LAST = "/mnist/t10k-labels-idx1-ubyte.gz"
pytestmark = pytest.mark.usefixtures("server")


@flow
def fetch(dataset="digits", recipe="post", seed=0):
    patient = download.with_options(retry_delay_seconds=0.1)
    return patient(dataset, local_digest(), asked_at(dataset))


@pytest.fixture
def mirror(web, root, monkeypatch):
    """The only source of a declared dataset."""
    monkeypatch.delenv("RETRAIN_SOURCE")
    declared = digits(Mirror(web.serve_mirror()), digests=DIGESTS)
    file = Path(datasets.__file__).with_name("mnist.py")
    known = datasets.declared() | {"digits": (declared, file)}
    monkeypatch.setattr(datasets, "declared", lambda: known)
    return web


def nothing_half_written(root):
    return not any(
        (root / "cache" / name).exists() and contents(root / "cache" / name) for name in KEPT
    )


KEPT = ("raw", "staging")


def test_a_mirror_that_is_busy_twice_is_asked_a_third_time(mirror, root):
    mirror.answers[FIRST] = in_turn(status(503), status(503), mirror.answers[FIRST])
    raw = fetch()
    assert contents(raw.path) == UNPACKED
    assert raw.metadata["source"] == f"{mirror.url}/mnist"
    assert mirror.asked.count(FIRST) == 3
    assert list((root / "cache" / "staging").iterdir()) == []


def test_a_mirror_that_stays_busy_is_given_up_after_three_attempts(mirror, root):
    mirror.answers[LAST] = status(503)
    with pytest.raises(AllSourcesFailed, match="HTTP 503"):
        fetch()
    assert mirror.asked.count(LAST) == 3
    assert nothing_half_written(root)


def test_a_connection_that_was_reset_is_tried_again(mirror):
    mirror.answers[LAST] = in_turn(reset, mirror.answers[LAST])
    assert contents(fetch().path) == UNPACKED
    assert mirror.asked.count(LAST) == 2


def test_what_is_not_there_is_asked_for_once(mirror, root):
    del mirror.answers[FIRST]
    with pytest.raises(AllSourcesFailed, match="HTTP 404"):
        fetch()
    assert mirror.asked == [FIRST]
    assert nothing_half_written(root)


def test_equal_files_are_one_artifact_wherever_they_come_from(mirror, monkeypatch):
    public = fetch()
    monkeypatch.setenv("RETRAIN_SOURCE", str(FIXTURE))
    local = fetch()
    assert local.metadata["source"] == "local folder"
    assert (local.kind, local.digest) == (public.kind, public.digest)


def test_a_second_download_asks_nobody(mirror):
    first = fetch()
    asked = list(mirror.asked)
    assert fetch() == first
    assert mirror.asked == asked


@pytest.mark.parametrize("days", [1, 8])
def test_a_source_without_digests_is_asked_again_after_a_while(mirror, monkeypatch, days):
    known = datasets.declared()
    changing, file = known["digits"]
    known["digits"] = (replace(changing, digests={}, fresh_for=timedelta(days=7)), file)
    first = fetch()
    asked = len(mirror.asked)
    later = datetime.now(UTC) + timedelta(days=days)

    class Later(datetime):
        @classmethod
        def now(cls, _=None):
            return later

    monkeypatch.setattr(tasks.download, "datetime", Later)
    assert fetch() == first  # equal bytes are the same artifact
    assert (len(mirror.asked) > asked) == (days > 7)
    assert asked_at("digits") == asked_at("digits")


def test_of_several_answers_the_newest_counts(mirror, monkeypatch):
    known = datasets.declared()
    changing, file = known["digits"]
    known["digits"] = (replace(changing, digests={}, fresh_for=timedelta(days=7)), file)
    now = datetime.now(UTC)
    answer = flow(lambda asked: download("digits", None, asked), name="answer")
    for days in (0, 5, 2):
        answer((now - timedelta(days=days)).isoformat(timespec="seconds"))
    assert asked_at("digits") == now.isoformat(timespec="seconds")


def test_a_source_with_digests_is_asked_once(mirror):
    assert asked_at("digits") is None


def test_a_local_folder_is_the_only_source(mirror, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("RETRAIN_SOURCE", str(tmp_path / "empty"))
    with pytest.raises(InputError, match="empty has no file for train-images"):
        fetch()
    assert mirror.asked == []
