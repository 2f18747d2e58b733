"""Pairs of IDX files."""

import gzip

import numpy as np
import pytest

from classifier.data import idx, inputs
from classifier.data.inputs import idx_pairs
from classifier.errors import InputError
from tests.classifier.data.inputs.material import drawn, pair, read, reasons, subject
from tests.conftest import FIXTURE

DIGITS = {"shape": (28, 28), "classes": tuple("0123456789")}


def test_gives_the_rows_of_both_real_pairs():
    chunk = read(FIXTURE, subject(**DIGITS))
    files = ["t10k", "train"]
    images = [idx.read(FIXTURE / f"{name}-images-idx3-ubyte.gz") for name in files]
    labels = [idx.read(FIXTURE / f"{name}-labels-idx1-ubyte.gz") for name in files]
    assert np.array_equal(chunk.images, np.concatenate(images))
    assert np.array_equal(chunk.labels, np.concatenate(labels))
    assert chunk.names[217] == "train-images-idx3-ubyte.gz row 17"


@pytest.mark.parametrize("end", ["", ".gz"])
def test_pieces_are_the_whole_in_any_order(end, tmp_path, monkeypatch):
    monkeypatch.setattr(idx_pairs, "ROWS", 10)
    images = drawn(47)
    pair(tmp_path, images, np.arange(47) % 3, end)
    jobs = inputs.plan([tmp_path], subject())
    assert [job.rows for job in jobs] == [10, 10, 10, 10, 7]
    for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 2, 4, 0, 3]):
        for number in order:
            chunk = inputs.read(jobs[number], subject())
            assert np.array_equal(chunk.images, images[10 * number : 10 * number + 10])
            assert chunk.names[0] == f"train-images-idx3-ubyte{end} row {10 * number}"


def test_blank_images_and_labels_without_a_class_are_refused(tmp_path):
    images = drawn(4)
    images[2] = 9
    chunk = read(pair(tmp_path, images, [0, 12, 1, 2]))
    assert chunk.labels.tolist() == [0, 2]
    assert reasons(chunk) == {
        "train-images-idx3-ubyte row 1": "label 12 has no class: there are 3",
        "train-images-idx3-ubyte row 2": "a blank image: every value is 9",
    }
    assert np.array_equal(chunk.refused[0].image, images[1])


def test_two_files_given_together_pair_whatever_their_names(tmp_path):
    idx.write(tmp_path / "digits.idx", drawn(2))
    idx.write(tmp_path / "answers.idx", np.array([0, 1], np.uint8))
    chunk = read([tmp_path / "digits.idx", tmp_path / "answers.idx"])
    assert chunk.labels.tolist() == [0, 1]


def wrong_shape(folder):
    pair(folder, drawn(2, (5, 6)), [0, 1])


def without_labels(folder):
    pair(folder, drawn(2), [0, 1])
    (folder / "train-labels-idx1-ubyte").unlink()


def without_images(folder):
    pair(folder, drawn(2), [0, 1])
    (folder / "train-images-idx3-ubyte").unlink()


def unequal(folder):
    pair(folder, drawn(2), [0, 1, 2])


def twins(folder):
    pair(folder, drawn(2), [0, 1])
    pair(folder, drawn(2), [0, 1], ".gz")


def cut(folder):
    path = pair(folder, drawn(9), [0] * 9) / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])


def cut_gzip(folder):
    path = pair(folder, drawn(9), [0] * 9, ".gz") / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-9])


def long_gzip(folder):
    path = pair(folder, drawn(9), [0] * 9, ".gz") / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + b"1"))


def boastful_gzip(folder):
    path = pair(folder, drawn(9), [0] * 9, ".gz") / "train-images-idx3-ubyte.gz"
    data = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(data[:4] + b"\xff\xff\xff\xff" + data[8:]))


def of_floats(folder):
    path = pair(folder, drawn(9), [0] * 9) / "train-images-idx3-ubyte"
    path.write_bytes(b"\0\0\x0d" + path.read_bytes()[3:])


FAULTS = {
    wrong_shape: r"holds images of \(5, 6\), and toys has \(6, 5\)",
    without_labels: "has no labels: give its labels file too",
    without_images: "has no images: give its images file too",
    unequal: "has 2 images and .* 3 labels",
    twins: "are two of a kind: leave one",
    cut: "is truncated",
    cut_gzip: "is damaged gzip",
    long_gzip: "is oversized",
    boastful_gzip: "is damaged: its header promises",
    of_floats: "elements of type 0x0d",
}


@pytest.mark.parametrize(("fault", "sentence"), FAULTS.items())
def test_files_that_do_not_fit_or_are_damaged_fail(fault, sentence, tmp_path):
    fault(tmp_path)
    with pytest.raises(InputError, match=sentence) as caught:
        read(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_pair_without_rows_gives_none(tmp_path):
    assert inputs.plan([pair(tmp_path, drawn(0), [])], subject()) == []


@pytest.mark.parametrize("end", ["", ".gz"])
def test_a_file_that_changes_after_it_was_planned_fails(end, tmp_path):
    (job,) = inputs.plan([pair(tmp_path, drawn(3), [0] * 3, end)], subject())
    pair(tmp_path, drawn(3, seed=1), [0] * 3, end)
    with pytest.raises(InputError, match="changed while it was read"):
        inputs.read(job, subject())
