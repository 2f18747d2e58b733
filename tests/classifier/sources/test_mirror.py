"""A mirror of the IDX files: four whole files, or one answer that says what was wrong."""

import gzip
import resource
import struct
from contextlib import contextmanager

import pytest

from classifier.sources import Mirror
from classifier.sources import mirror as mirror_source
from classifier.sources.fetch import AllSourcesFailed
from tests.classifier.sources.loopback import (
    DIGESTS,
    PAGE,
    UNPACKED,
    body,
    closed_address,
    contents,
    digits,
    endless,
    fetch_into,
    redirect,
    reset,
    stall,
    status,
)

MEBIBYTE = 1 << 20
LAST = "/mnist/t10k-labels-idx1-ubyte.gz"
WHOLE = gzip.compress(UNPACKED["test-labels.idx"])


@pytest.fixture
def mirror(web):
    return Mirror(web.serve_mirror())


def refusal(mirror, folder, **fields):
    """What the one mirror of a dataset answered; nothing is left of it."""
    with pytest.raises(AllSourcesFailed) as caught:
        fetch_into(digits(mirror, **fields), folder)
    assert list(folder.iterdir()) == []
    return caught.value


@contextmanager
def no_file_beyond(size):
    """Any file that grows beyond that many bytes is an error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_gives_the_four_files_unpacked_and_nothing_else(mirror, folder, web):
    assert fetch_into(digits(mirror, digests=DIGESTS), folder) == mirror.url
    assert contents(folder) == UNPACKED
    assert len(web.asked) == 4


def test_tells_its_bytes_as_they_come(mirror, folder):
    reported = []
    mirror_source.from_mirror(mirror, folder, lambda done, _: reported.append(done))
    assert reported == sorted(reported)
    assert reported[-1] > 100_000


def test_plain_files_under_the_names_of_gzipped_ones_are_taken(mirror, folder, web):
    web.answers[LAST] = body(UNPACKED["test-labels.idx"])
    fetch_into(digits(mirror), folder)
    assert contents(folder) == UNPACKED


def test_a_server_that_may_compress_is_asked_not_to(mirror, folder, web):
    def compressing(handler):
        twice = "gzip" in handler.headers.get("Accept-Encoding", "")
        body(gzip.compress(WHOLE) if twice else WHOLE)(handler)

    web.answers[LAST] = compressing
    fetch_into(digits(mirror), folder)
    assert contents(folder) == UNPACKED


def test_a_redirect_is_followed(mirror, folder, web):
    web.answers["/moved"] = web.answers[LAST]
    web.answers[LAST] = redirect(f"{web.url}/moved")
    fetch_into(digits(mirror), folder)
    assert contents(folder) == UNPACKED


def test_a_proxy_of_the_environment_is_asked_instead(mirror, folder, web, monkeypatch):
    web.serve_mirror("http://mirror.invalid/mnist")
    monkeypatch.setenv("http_proxy", web.url)
    fetch_into(digits(Mirror("http://mirror.invalid/mnist")), folder)
    assert contents(folder) == UNPACKED


FAILURES = {
    "503": (status(503), "HTTP 503", True),
    "429": (status(429), "HTTP 429", True),
    "404": (status(404), "HTTP 404", False),
    "not modified": (status(304), "HTTP 304", False),
    "reset": (reset, "", True),
    "stall": (stall, "no answer in time", True),
    "closed before its end": (body(WHOLE[:-9], length=len(WHOLE)), "", True),
    "truncated": (body(WHOLE[:-40]), "t10k-labels-idx1-ubyte.gz is truncated", False),
    "empty": (body(b""), "is not an IDX file: it begins with nothing", False),
    "HTML page": (PAGE, "is not an IDX file: it begins with 3c 21 44 4f", False),
    "other elements": (body(b"\0\0\x0d\1\0\0\0\1\0\0\0\0"), "elements of type 0x0d", False),
    "redirect to itself": (redirect(LAST), "redirects", False),
    "redirect to no web address": (redirect("ftp://127.0.0.1/"), "protocol", False),
    "redirect to nobody": (redirect(closed_address()), "refused", False),
}


@pytest.mark.parametrize(("answer", "answered", "transient"), FAILURES.values(), ids=FAILURES)
def test_names_what_was_answered_and_whether_to_try_again(
    answer, answered, transient, mirror, folder, web, monkeypatch
):
    if answer is stall:
        monkeypatch.setattr(mirror_source, "READ_SECONDS", 0.2)
    web.answers[LAST] = answer
    failed = refusal(mirror, folder)
    assert f"\n  {mirror.url}: " in str(failed)
    assert answered in str(failed)
    assert str(folder) not in str(failed)
    assert failed.transient is transient


def test_a_refused_connection_is_not_tried_again(folder):
    failed = refusal(Mirror(closed_address()), folder)
    assert "refused" in str(failed)
    assert not failed.transient


def test_an_address_that_is_none_is_an_answer_too(folder):
    assert not refusal(Mirror("http://[::1/mnist"), folder).transient


def test_other_data_than_the_pinned_is_refused(mirror, folder):
    failed = refusal(mirror, folder, digests=DIGESTS | {"test-labels.idx": "0" * 64})
    assert "the test-labels are not those of digits: their SHA-256 is another" in str(failed)
    assert not failed.transient


def test_a_body_that_does_not_end_is_left(mirror, folder, web, monkeypatch):
    monkeypatch.setattr(mirror_source, "MAX_BYTES", MEBIBYTE)
    web.answers[LAST] = endless
    failed = refusal(mirror, folder)
    assert "t10k-labels-idx1-ubyte.gz does not end" in str(failed)
    assert not failed.transient


def test_a_body_that_comes_too_slowly_is_left(mirror, folder, monkeypatch):
    monkeypatch.setattr(mirror_source, "FILE_SECONDS", 0.0)
    failed = refusal(mirror, folder)
    assert "train-images-idx3-ubyte.gz comes too slowly" in str(failed)
    assert failed.transient


def test_of_a_gzip_bomb_no_more_is_written_than_its_header_promises(mirror, folder, web):
    promised = UNPACKED["test-labels.idx"]
    web.answers[LAST] = body(gzip.compress(promised + bytes(64 * MEBIBYTE), compresslevel=1))
    with no_file_beyond(MEBIBYTE):
        failed = refusal(mirror, folder)
    assert "is oversized: it goes on after the 200 bytes of values" in str(failed)


@pytest.mark.parametrize("wrap", [bytes, gzip.compress], ids=["plain", "gzipped"])
def test_a_promise_of_four_billion_rows_is_not_waited_for(wrap, mirror, folder, web):
    header = struct.pack(">2x2B3I", 8, 3, 2**32 - 1, 28, 28)
    web.answers["/mnist/train-images-idx3-ubyte.gz"] = body(wrap(header + b"abc"))
    with no_file_beyond(MEBIBYTE):
        failed = refusal(mirror, folder)
    assert "train-images-idx3-ubyte.gz promises (4294967295, 28, 28)" in str(failed)


def test_a_promise_that_a_dataset_could_keep_but_does_not_is_a_truncated_file(mirror, folder, web):
    header = struct.pack(">2x2B3I", 8, 3, 60_000, 28, 28)
    web.answers["/mnist/train-images-idx3-ubyte.gz"] = body(gzip.compress(header + b"abc"))
    assert "is truncated: 3 of 47040000 bytes" in str(refusal(mirror, folder))
