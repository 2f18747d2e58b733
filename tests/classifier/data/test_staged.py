"""Staged chunks: an interrupted reading goes on where it was, and never with other data."""

import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classifier.data import idx, inputs, staged
from classifier.data.inputs import Chunk, Refused, idx_pairs, pictures
from classifier.datasets import resize_to_shape
from classifier.errors import InputError

PROJECT = Path(__file__).parents[3]
SHAPE = (6, 5)
COUNT = 10  # pictures of a class
reads = []  # a picture each that `prepare` saw


def counting(picture, shape):
    reads.append(picture.size)
    return resize_to_shape(picture, shape)


SUBJECT = inputs.Subject(dataset="toys", shape=SHAPE, classes=("box", "ring"), prepare=counting)


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """Seven jobs of at most three pictures, one of which cannot be read and one is blank."""
    monkeypatch.setattr(pictures, "ROWS", 3)
    random = np.random.default_rng(0)
    for name in SUBJECT.classes:
        (tmp_path / "in" / name / "anna").mkdir(parents=True)
        for number in range(COUNT):
            image = Image.fromarray(random.integers(0, 256, SHAPE, dtype=np.uint8))
            image.save(tmp_path / "in" / name / "anna" / f"{number}.png")
    (tmp_path / "in" / "box" / "anna" / "4.png").write_bytes(b"no picture")
    Image.fromarray(np.full(SHAPE, 9, np.uint8)).save(tmp_path / "in/ring/anna/5.png")
    reads.clear()
    planned = inputs.plan([tmp_path / "in"], SUBJECT)
    assert [job.rows for job in planned] == [3, 3, 3, 3, 3, 3, 2]
    return planned


def staged_chunks(jobs, folder, told=None):
    told = [] if told is None else told
    return staged.read_staged(jobs, SUBJECT, folder, on_rows=told.append)


def plain(chunk):
    """A chunk as values that can be compared."""
    refused = [
        (row.what, row.reason, None if row.image is None else row.image.tolist())
        for row in chunk.refused
    ]
    arrays = [(a.dtype.str, a.shape, a.tolist()) for a in (chunk.images, chunk.labels)]
    return arrays, chunk.groups, chunk.names, refused


def test_the_chunks_are_those_of_the_jobs_and_rows_are_told(jobs, tmp_path):
    expected = [plain(chunk) for chunk in inputs.read_all(jobs, SUBJECT)]
    told = []
    assert list(map(plain, staged_chunks(jobs, tmp_path / "s", told))) == expected
    assert told == [job.rows for job in jobs]


def test_finished_jobs_are_not_read_again(jobs, tmp_path):
    expected = list(map(plain, staged_chunks(jobs, tmp_path / "s")))
    reads.clear()
    shutil.rmtree(tmp_path / "in")  # so that nobody could
    told = []
    assert list(map(plain, staged_chunks(jobs, tmp_path / "s", told))) == expected
    assert reads == []
    assert told == [job.rows for job in jobs]


@pytest.mark.parametrize("finished", [0, 1, 3, 6, 7])
def test_an_interrupted_reading_goes_on_where_it_was(jobs, tmp_path, finished):
    expected = [plain(chunk) for chunk in inputs.read_all(jobs, SUBJECT)]
    reading = staged_chunks(jobs, tmp_path / "s")
    first = [plain(next(reading)) for _ in range(finished)]
    reading.close()
    assert first == expected[:finished]
    reads.clear()
    assert list(map(plain, staged_chunks(jobs, tmp_path / "s"))) == expected
    readable = [job.rows for job in jobs]
    readable[1] -= 1  # the file that is no picture never comes to `prepare`
    assert len(reads) == sum(readable[finished:])


def test_a_failing_reading_keeps_what_it_had(jobs, tmp_path):
    damaged = tmp_path / "in" / "ring" / "anna" / "1.png"
    content = damaged.read_bytes()
    stamp = damaged.stat()
    damaged.write_bytes(content + b"x")
    with pytest.raises(InputError):
        list(staged_chunks(jobs, tmp_path / "s"))
    kept = len(list((tmp_path / "s").glob("*.npz")))
    assert 0 < kept < len(jobs)
    damaged.write_bytes(content)
    os.utime(damaged, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    reads.clear()
    assert len(list(staged_chunks(jobs, tmp_path / "s"))) == len(jobs)
    assert len(reads) == sum(job.rows for job in jobs[kept:])


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("number", [0, 3, 6])
def test_a_truncated_chunk_is_read_again(jobs, tmp_path, number, keep):
    expected = list(map(plain, staged_chunks(jobs, tmp_path / "s")))
    path = tmp_path / "s" / f"{number}.npz"
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    reads.clear()
    assert list(map(plain, staged_chunks(jobs, tmp_path / "s"))) == expected
    assert len(reads) >= jobs[number].rows - 1
    assert path.read_bytes() == content


def test_a_chunk_with_any_byte_changed_is_read_again_or_is_the_same(jobs, tmp_path):
    """The archive has a checksum of each array; what lies outside of them may go unnoticed."""
    list(staged_chunks(jobs[1:2], tmp_path / "s"))
    path = tmp_path / "s" / "0.npz"
    content = path.read_bytes()
    expected = plain(staged._load(path))
    random = np.random.default_rng(0)
    places = random.choice(len(content), 400, replace=False).tolist()
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1 << int(random.integers(8))
        path.write_bytes(changed)
        found = staged._load(path)
        assert found is None or plain(found) == expected


def test_files_that_were_being_written_do_not_count(jobs, tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "0.tmp").write_bytes(b"half a chunk")
    assert len(list(staged_chunks(jobs, tmp_path / "s"))) == len(jobs)
    assert not list((tmp_path / "s").glob("*.tmp"))


@pytest.mark.parametrize(
    "chunk",
    [
        Chunk(
            images=np.empty((0, *SHAPE), np.uint8),
            labels=np.empty(0, np.uint8),
            groups=[],
            names=[],
            refused=[],
        ),
        Chunk(
            images=np.arange(60, dtype=np.uint8).reshape(2, *SHAPE),
            labels=np.array([1, 0], np.uint8),
            groups=[None, "M\udcfcller"],
            names=["a.png", "ä\udcff.png"],
            refused=[
                Refused(what="b", reason="no class"),
                Refused(what="c", reason="blank", image=np.full(SHAPE, 3, np.uint8)),
                Refused(what="d", reason="no label"),
                Refused(what="e", reason="blank", image=np.full(SHAPE, 4, np.uint8)),
            ],
        ),
    ],
    ids=["empty", "everything"],
)
def test_every_chunk_comes_back_as_it_was(tmp_path, chunk):
    staged._save(tmp_path / "0.npz", chunk)
    assert plain(staged._load(tmp_path / "0.npz")) == plain(chunk)


def test_the_same_files_give_the_same_key(jobs, tmp_path):
    key = staged.key_of(jobs, SUBJECT, "code")
    assert len(bytes.fromhex(key)) == 32
    assert staged.key_of(inputs.plan([tmp_path / "in"], SUBJECT), SUBJECT, "code") == key
    assert staged.key_of(tuple(jobs), SUBJECT, "code") == key


def test_jobs_that_are_equal_give_the_same_key_whoever_made_them(jobs):
    """A job that was sent to another process and back shares its texts differently."""
    apart = [pickle.loads(pickle.dumps(job)) for job in jobs]  # noqa: S301 - our own
    assert apart == jobs
    assert staged.key_of(apart, SUBJECT, "code") == staged.key_of(jobs, SUBJECT, "code")


def test_another_process_gives_the_same_key(tmp_path):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (12, *SHAPE), dtype=np.uint8)
    idx.write(tmp_path / "a-images-idx3-ubyte", images)
    idx.write(tmp_path / "a-labels-idx1-ubyte", np.arange(12, dtype=np.uint8) % 2)
    code = (
        "import sys; from pathlib import Path; from classifier.data import inputs, staged;"
        "from classifier.datasets import resize_to_shape;"
        "s = inputs.Subject(dataset='toys', shape=(6, 5), classes=('box', 'ring'),"
        " prepare=resize_to_shape);"
        "print(staged.key_of(inputs.plan([Path(sys.argv[1])], s), s, 'code'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=PROJECT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    here = staged.key_of(inputs.plan([tmp_path], SUBJECT), SUBJECT, "code")
    assert done.stdout.strip() == here


def test_another_code_subject_or_order_gives_another_key(jobs):
    others = [
        (jobs, SUBJECT, "other code"),
        (jobs, replace(SUBJECT, dataset="others"), "code"),
        (jobs, replace(SUBJECT, shape=(5, 6)), "code"),
        (jobs, replace(SUBJECT, classes=("ring", "box")), "code"),
        (jobs[:-1], SUBJECT, "code"),
        (jobs[::-1], SUBJECT, "code"),
    ]
    keys = {staged.key_of(*each) for each in [(jobs, SUBJECT, "code"), *others]}
    assert len(keys) == 1 + len(others)


@pytest.mark.parametrize("change", ["content", "time", "name", "new file", "gone"])
def test_another_stamp_of_a_file_gives_another_key(jobs, tmp_path, change):
    key = staged.key_of(jobs, SUBJECT, "code")
    path = tmp_path / "in" / "box" / "anna" / "7.png"
    match change:
        case "content":
            path.write_bytes(path.read_bytes() + b"x")
        case "time":
            os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
        case "name":
            path.rename(path.with_name("77.png"))
        case "new file":
            shutil.copy(path, path.with_name("78.png"))
        case "gone":
            path.unlink()
    assert staged.key_of(inputs.plan([tmp_path / "in"], SUBJECT), SUBJECT, "code") != key


def test_every_field_of_a_job_is_in_the_key():
    """Written out, so that a field that someone adds is thought of."""
    pair = fields(idx_pairs.IdxJob)
    assert {field.name for field in pair} == {"rows", "seconds", "pair", "start"}
    assert all(field.repr for field in (*pair, *fields(pictures.PictureJob)))
