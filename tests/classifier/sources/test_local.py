"""A local folder as the source: what counts in it, and what is wrong with it in one sentence."""

import gzip
import os
import re
import shutil
import struct

import numpy as np
import pytest

from classifier import datasets
from classifier.data import idx
from classifier.errors import InputError
from classifier.sources.answers import OFFICIAL_NAMES
from classifier.sources.local import content_digest
from tests.classifier.sources.loopback import DIGESTS, UNPACKED, contents, digits, fetch_into
from tests.conftest import FIXTURE

FOLDER = datasets.load("folder")


@pytest.fixture
def local(tmp_path):
    """A copy of the fixture."""
    return shutil.copytree(FIXTURE, tmp_path / "local")


def plain(local, name, content=None):
    """Puts an unpacked file in the place of the gzipped one."""
    packed = local / f"{OFFICIAL_NAMES[f'{name}.idx']}.gz"
    packed.unlink()
    path = packed.with_suffix("")
    path.write_bytes(UNPACKED[f"{name}.idx"] if content is None else content)
    return path


def refusal(local, folder, dataset=FOLDER):
    with pytest.raises(InputError) as caught:
        fetch_into(dataset, folder, local)
    assert list(folder.iterdir()) == []
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("dataset", [FOLDER, digits(digests=DIGESTS)], ids=["folder", "pinned"])
def test_gives_the_four_files_unpacked(dataset, local, folder):
    assert fetch_into(dataset, folder, local) == "local folder"
    assert contents(folder) == UNPACKED


def test_some_files_may_be_plain(local, folder):
    for name in ("train-images", "test-labels"):
        plain(local, name)
    fetch_into(FOLDER, folder, local)
    assert contents(folder) == UNPACKED


@pytest.mark.parametrize("end", ["", ".idx", "-idx3-ubyte", "-idx3-ubyte.gz"])
def test_test_files_may_be_called_test_and_end_in_any_way(end, local, folder):
    for part in ("images", "labels"):
        plain(local, f"test-{part}").rename(local / f"test-{part}{end}")
    fetch_into(FOLDER, folder, local)
    assert contents(folder) == UNPACKED


def test_a_missing_file_is_named_with_what_there_is_and_the_remedy(local, folder):
    (local / "t10k-labels-idx1-ubyte.gz").unlink()
    sentence = refusal(local, folder)
    assert f"{local} has no file for t10k-labels; it holds README.md, t10k-images-idx3" in sentence
    assert "Give --source DIR with the four IDX files" in sentence


def test_an_empty_folder_holds_nothing(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    assert "has no file for train-images; it holds nothing." in refusal(tmp_path / "empty", folder)


@pytest.mark.parametrize("other", ["test-images.idx", "t10k-images-idx3-ubyte"])
def test_of_two_candidates_none_is_chosen(other, local, folder):
    (local / other).write_bytes(b"")
    sentence = refusal(local, folder)
    assert f"{local} has several files for t10k-images: " in sentence
    assert other in sentence
    assert sentence.endswith("Leave one of them.")


def test_a_folder_that_is_not_there_or_a_file_is_named(tmp_path, folder):
    for name, reason in (("missing", "No such file or directory"), ("file", "Not a directory")):
        (tmp_path / "file").write_bytes(b"")
        assert f"{tmp_path / name} cannot be read: {reason}. Give" in refusal(
            tmp_path / name, folder
        )
        with pytest.raises(InputError, match=f"{name} cannot be read: {reason}"):
            content_digest(tmp_path / name)


def test_a_folder_in_the_place_of_a_file_is_named(local, folder):
    path = plain(local, "train-labels")
    path.unlink()
    path.mkdir()
    assert refusal(local, folder) == f"{path} cannot be read: Is a directory."
    with pytest.raises(InputError, match=re.escape(f"{path} cannot be read: Is a directory.")):
        content_digest(local)


def test_files_called_train_and_test_are_no_folders_of_pictures(local, folder):
    for name in ("train", "test"):
        (local / name).write_bytes(b"")
    fetch_into(FOLDER, folder, local)
    assert contents(folder) == UNPACKED


def array(values):
    """The bytes of an IDX file of these values."""
    values = np.asarray(values, np.uint8)
    return struct.pack(f">2x2B{values.ndim}I", 8, values.ndim, *values.shape) + values.tobytes()


NOT_OURS = {
    "labels and images that disagree": (
        {"train-labels": array([0] * 799)},
        "the train files do not belong together: images (800, 28, 28), labels (799,).",
    ),
    "a label beyond the classes": (
        {"test-labels": array([10] * 200)},
        "a test label is 10, but there are 10 classes.",
    ),
    "another shape": (
        {"test-images": array(np.zeros((200, 14, 14)))},
        "the test images are (14, 14), not (28, 28).",
    ),
    "no rows": (
        {"test-images": array(np.zeros((0, 28, 28))), "test-labels": array([])},
        "there are no test images: their shape is (0, 28, 28).",
    ),
    "other data": (
        {"test-labels": UNPACKED["test-labels.idx"][:-1] + b"\0"},
        "the test-labels are not those of digits: their SHA-256 is another.",
    ),
}


@pytest.mark.parametrize(("changed", "sentence"), NOT_OURS.values(), ids=NOT_OURS)
def test_files_of_another_subject_are_refused_with_the_remedy(changed, sentence, local, folder):
    for name, content in changed.items():
        plain(local, name, content)
    refused = refusal(local, folder, digits(digests=DIGESTS))
    remedy = "To train on other files, use --dataset folder."
    assert refused == f"{local} cannot be used: {sentence} {remedy}"


def test_files_of_another_subject_are_right_for_the_dataset_folder(local, folder):
    plain(local, "test-labels", array([255] * 200))
    fetch_into(FOLDER, folder, local)
    assert idx.read(folder / "test-labels.idx").max() == 255


def test_a_remedy_that_was_taken_is_not_given_again(local, folder):
    plain(local, "test-labels", array([0] * 199))
    assert "--dataset folder" not in refusal(local, folder, FOLDER)


@pytest.mark.parametrize("wrap", [bytes, gzip.compress], ids=["plain", "gzipped"])
def test_a_promise_of_four_billion_rows_is_a_truncated_file(wrap, local, folder):
    header = struct.pack(">2x2B3I", 8, 3, 2**32 - 1, 28, 28)
    path = plain(local, "train-images", wrap(header + b"abc"))
    assert f"{path} is truncated: 3 of 3367254359280 bytes" in refusal(local, folder)


def test_the_local_folder_is_never_written_to(local, folder):
    before = contents(local)
    fetch_into(FOLDER, folder, local)
    assert contents(local) == before


def test_content_is_that_of_the_files_and_not_of_their_place(local, tmp_path):
    content = content_digest(local)
    assert content == content_digest(shutil.copytree(local, tmp_path / "copy"))
    (local / "README.md").write_text("Something else")
    assert content == content_digest(local)


@pytest.mark.parametrize("name", OFFICIAL_NAMES.values())
def test_content_is_another_after_any_changed_byte(name, local):
    content = content_digest(local)
    path = local / f"{name}.gz"
    changed = bytearray(path.read_bytes())
    changed[-1] ^= 1
    path.write_bytes(changed)
    assert content_digest(local) != content


def test_content_tells_train_from_test(local):
    content = content_digest(local)
    train, test = (local / f"{split}-labels-idx1-ubyte.gz" for split in ("train", "t10k"))
    train.rename(local / "other")
    test.rename(train)
    (local / "other").rename(test)
    assert content_digest(local) != content


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split / "a").mkdir(parents=True)
        (tmp_path / split / "a" / "0.png").touch()
    (tmp_path / "train" / "a" / "0.png").unlink()
    os.mkfifo(tmp_path / "train" / "a" / "0.png")
    with pytest.raises(InputError, match=r"0\.png is not a regular file"):
        content_digest(tmp_path)


def test_a_folder_of_pictures_without_its_other_half_is_named(tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    with pytest.raises(InputError, match="has a folder train and none test"):
        content_digest(tmp_path)
