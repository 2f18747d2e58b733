"""OpenML, as scikit-learn speaks with it: the same files as from a mirror, or why not."""

import gc
import gzip
import hashlib
import json
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.datasets import _openml

from classifier.sources import OpenML
from classifier.sources import openml as openml_source
from classifier.sources.fetch import AllSourcesFailed
from tests.classifier.sources.loopback import (
    DIGESTS,
    PAGE,
    UNPACKED,
    body,
    closed_address,
    contents,
    digits,
    fetch_into,
    in_turn,
    reset,
    stall,
    status,
)

API = "/api/v1/json/data"
SEARCH, DESCRIPTION = f"{API}/list/data_name/mnist_784/limit/2/data_version/1", f"{API}/554"
FEATURES, QUALITIES = f"{API}/features/554", f"{API}/qualities/554"
TABLE = "/data/v1/download/52667/mnist_784.arff"
SPLITS = ("train", "test")
TINY = OpenML("mnist_784", version=1, train_rows=2)


# scikit-learn leaves the answers open that it could not read
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture(scope="module", autouse=True)
def _nothing_open_is_left_to_later_tests():
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def openml(web, monkeypatch):
    """Has scikit-learn ask there, and that server know a table."""
    move(web.url, monkeypatch)
    return lambda *rows, **fields: serve(web, *rows, **fields)


def move(url, monkeypatch):
    monkeypatch.setattr(_openml, "time", SimpleNamespace(sleep=lambda _: None))
    for name, value in list(vars(_openml).items()):
        if isinstance(value, str) and value.startswith("https://www.openml.org"):
            monkeypatch.setattr(_openml, name, value.replace("https://www.openml.org", url))


def serve(web, rows, pixels=4, kind="nominal"):
    """A table of these rows of comma-separated values, the last of which is the class."""
    head = [f"@ATTRIBUTE {column['name']} real" for column in columns(pixels, kind)]
    arff = "\n".join(["@RELATION mnist_784", *head, "@DATA", *rows, ""]).encode()
    description = {
        "name": "mnist_784",
        "version": "1",
        "description": "Digits",
        "format": "ARFF",
        "status": "active",
        "url": web.url + TABLE,
        "md5_checksum": hashlib.md5(arff, usedforsecurity=False).hexdigest(),
    }
    count = {"name": "NumberOfInstances", "value": f"{len(rows)}.0"}
    web.answers |= {
        SEARCH: as_json({"data": {"dataset": [{"did": 554}]}}),
        f"{SEARCH}/status/deactivated": status(412),
        DESCRIPTION: as_json({"data_set_description": description}),
        FEATURES: as_json({"data_features": {"feature": columns(pixels, kind)}}),
        QUALITIES: as_json({"data_qualities": {"quality": [count]}}),
        TABLE: body(gzip.compress(arff, compresslevel=1), Content_Encoding="gzip"),
    }


def columns(pixels=4, kind="nominal", target="true"):
    """What OpenML says of each column."""
    kinds = [(f"pixel{number}", "numeric", "false") for number in range(1, pixels + 1)]
    shared = {"is_ignore": "false", "is_row_identifier": "false", "number_of_missing_values": "0"}
    return [
        {"name": name, "data_type": kind, "is_target": target} | shared
        for name, kind, target in [*kinds, ("class", kind, target)]
    ]


def as_json(content):
    return body(json.dumps(content).encode(), Content_Type="application/json")


def tiny(**fields):
    """Images of 2 by 2 and three classes, of which the first two rows are for training."""
    return digits(TINY, shape=(2, 2), classes=("a", "b", "c"), **fields)


def refusal(dataset, folder):
    with pytest.raises(AllSourcesFailed) as caught:
        fetch_into(dataset, folder)
    assert list(folder.iterdir()) == []
    return caught.value


@pytest.fixture(scope="module")
def mnist_rows():
    """The table of OpenML: training rows first, a row being 784 pixels and the label."""
    pixels = [np.frombuffer(UNPACKED[f"{split}-images.idx"][16:], "u1") for split in SPLITS]
    labels = [np.frombuffer(UNPACKED[f"{split}-labels.idx"][8:], "u1") for split in SPLITS]
    images = np.concatenate(pixels).reshape(-1, 784).tolist()
    rows = zip(images, np.concatenate(labels).tolist(), strict=True)
    return [",".join(map(str, [*image, label])) for image, label in rows]


def test_gives_the_same_bytes_as_a_mirror(openml, mnist_rows, folder):
    openml(mnist_rows, pixels=784)
    dataset = digits(OpenML("mnist_784", version=1, train_rows=800), digests=DIGESTS)
    assert fetch_into(dataset, folder) == "OpenML mnist_784"
    assert contents(folder) == UNPACKED


@pytest.mark.parametrize("written", ["{}", '"{}"'])
@pytest.mark.parametrize("kind", ["nominal", "numeric"])
def test_a_class_is_a_label_whether_it_is_a_number_or_a_string(kind, written, openml, folder):
    openml([f"0,1,2,255,{written.format(label)}" for label in (2, 0, 1)], kind=kind)
    fetch_into(tiny(), folder)
    assert contents(folder)["train-images.idx"][16:] == bytes([0, 1, 2, 255] * 2)
    assert contents(folder)["train-labels.idx"][8:] == bytes([2, 0])
    assert contents(folder)["test-labels.idx"][8:] == bytes([1])


VALUES = {
    "negative": "-1,0,0,0,0",
    "large": "256,0,0,0,0",
    "very large": "1e300,0,0,0,0",
    "fractional": "0.5,0,0,0,0",
    "missing": "?,0,0,0,0",
    "a word": "white,0,0,0,0",
    "label out of a byte": "0,0,0,0,256",
    "label in words": "0,0,0,0,shirt",
    "no label": "0,0,0,0,?",
}


@pytest.mark.parametrize("row", VALUES.values(), ids=VALUES)
def test_values_that_are_no_bytes_are_refused_and_not_wrapped(row, openml, folder):
    openml(["0,0,0,0,0", "0,0,0,0,1", row])
    failed = refusal(tiny(), folder)
    assert "OpenML mnist_784: no dataset in its answer (" in str(failed)
    assert not failed.transient


def test_a_label_beyond_the_classes_is_refused(openml, folder):
    openml(["0,0,0,0,0", "0,0,0,0,3", "0,0,0,0,0"])
    assert "a train label is 3, but there are 3 classes" in str(refusal(tiny(), folder))


@pytest.mark.parametrize("rows", [1, 2])
def test_a_table_without_test_rows_is_refused(rows, openml, folder):
    openml(["0,0,0,0,0"] * rows)
    failed = refusal(tiny(), folder)
    assert f"it has {rows} rows, and the first 2 are all for training" in str(failed)


def test_too_many_rows_are_not_those_that_are_pinned(openml, mnist_rows, folder):
    openml([*mnist_rows, mnist_rows[0]], pixels=784)
    dataset = digits(OpenML("mnist_784", version=1, train_rows=800), digests=DIGESTS)
    assert "the test-images are not those of digits" in str(refusal(dataset, folder))


def test_images_of_another_size_are_refused(openml, folder):
    openml(["0,0,0,0,0,0,0,0,0"] * 3, pixels=8)
    assert "no dataset in its answer (cannot reshape" in str(refusal(tiny(), folder))


FAILURES = {
    "503": (SEARCH, status(503), "HTTP 503", True),
    "503 for the table": (TABLE, status(503), "HTTP 503", True),
    "404": (SEARCH, status(404), "HTTP 404", False),
    "404 for the table": (TABLE, status(404), "HTTP 404", False),
    "no such dataset": (SEARCH, status(412), "mnist_784 with version 1 not found", False),
    "reset": (SEARCH, reset, "", True),
    "stall": (SEARCH, stall, "no answer in time", True),
    "stall of the table": (TABLE, stall, "no answer in time", True),
    "closed before its end": (SEARCH, body(b"{", length=9), "IncompleteRead", True),
    "cut gzip": (
        TABLE,
        body(gzip.compress(b"@DATA\n" * 99)[:30], Content_Encoding="gzip"),
        "ended before",
        True,
    ),
    "no gzip": (TABLE, body(b"@DATA\n", Content_Encoding="gzip"), "gzip", False),
    "HTML page": (SEARCH, PAGE, "no dataset in its answer", False),
    "HTML page for the table": (TABLE, PAGE, "md5 checksum", False),
    "other JSON": (SEARCH, as_json([]), "no dataset in its answer", False),
    "JSON of nothing": (SEARCH, as_json({"data": {"dataset": []}}), "no dataset", False),
    "absurd number of rows": (
        QUALITIES,
        as_json({"data_qualities": {"quality": [{"name": "NumberOfInstances", "value": "inf"}]}}),
        "no dataset in its answer",
        False,
    ),
    "no class": (
        FEATURES,
        as_json({"data_features": {"feature": columns(target="false")}}),
        "no dataset",
        False,
    ),
    "no columns": (FEATURES, as_json({"data_features": {"feature": []}}), "no dataset", False),
}


@pytest.mark.parametrize(
    ("path", "answer", "answered", "transient"), FAILURES.values(), ids=FAILURES
)
def test_names_what_was_answered_and_whether_to_try_again(
    path, answer, answered, transient, openml, web, folder, monkeypatch
):
    if answer is stall:
        monkeypatch.setattr(openml_source, "READ_SECONDS", 0.2)
    openml(["0,0,0,0,0"] * 3)
    web.answers[path] = answer
    failed = refusal(tiny(), folder)
    assert answered in str(failed)
    assert failed.transient is transient


def test_a_refused_connection_is_not_tried_again(folder, monkeypatch):
    move(closed_address(), monkeypatch)
    failed = refusal(tiny(), folder)
    assert "refused" in str(failed)
    assert not failed.transient


def test_the_attempts_of_scikit_learn_itself_warn_nobody(openml, web, folder):
    openml(["0,0,0,0,0", "0,0,0,0,1", "0,0,0,0,2"])
    web.answers[DESCRIPTION] = in_turn(status(503), status(503), web.answers[DESCRIPTION])
    with warnings.catch_warnings(record=True) as issued:
        warnings.simplefilter("always")
        fetch_into(tiny(), folder)
    assert web.asked.count(DESCRIPTION) == 3
    assert issued == []


def test_the_time_out_is_the_processes_only_while_it_asks(openml, folder):
    import socket

    openml(["0,0,0,0,0"] * 3)
    fetch_into(tiny(), folder)
    assert socket.getdefaulttimeout() is None
