"""Initial weights: one file from a folder or the web, verified, or a sentence."""

import gzip
import hashlib

import pytest

from classifier.sources import Weights, weights
from classifier.sources.weights import WeightsFailed
from tests.classifier.sources.loopback import body, closed_address, status

CONTENT = b"some weights" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def fetched(source, tmp_path, digest=DIGEST):
    folder = tmp_path / "out"
    folder.mkdir()
    wanted = Weights(source, digest, "cnn")
    told = []
    weights.fetch(wanted, folder, root=tmp_path, progress=lambda done, _: told.append(done))
    return (folder / "weights.safetensors").read_bytes(), told


def test_a_file_is_found_relative_to_the_project(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "w.safetensors").write_bytes(CONTENT)
    assert fetched("models/w.safetensors", tmp_path)[0] == CONTENT


def test_a_file_comes_from_the_web(web, tmp_path):
    web.answers["/w"] = body(CONTENT)
    content, told = fetched(f"{web.url}/w", tmp_path)
    assert content == CONTENT
    assert told[-1] == len(CONTENT)


def test_another_file_is_refused_and_both_digests_are_named(tmp_path):
    (tmp_path / "w").write_bytes(b"other")
    with pytest.raises(WeightsFailed, match=f"SHA-256 is .*{DIGEST} is declared") as caught:
        fetched("w", tmp_path)
    assert not caught.value.transient


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(WeightsFailed, match="weights w cannot be used: No such file"):
        fetched("w", tmp_path)


@pytest.mark.parametrize(("code", "passes"), [(404, False), (503, True)])
def test_an_answer_that_may_pass_is_told_from_one_that_does_not(web, tmp_path, code, passes):
    web.answers["/w"] = status(code)
    with pytest.raises(WeightsFailed, match=f"HTTP {code}") as caught:
        fetched(f"{web.url}/w", tmp_path)
    assert caught.value.transient is passes


def test_nobody_who_answers_is_an_error(tmp_path):
    with pytest.raises(WeightsFailed, match="cannot be used"):
        fetched(f"{closed_address()}/w", tmp_path)


def test_a_server_that_would_compress_the_file_is_told_not_to(web, tmp_path):
    def answer(handler):
        packed = "gzip" in handler.headers.get("Accept-Encoding", "")
        content = gzip.compress(CONTENT) if packed else CONTENT
        encoding = {"Content_Encoding": "gzip"} if packed else {}
        body(content, **encoding)(handler)

    web.answers["/w"] = answer
    assert fetched(f"{web.url}/w", tmp_path)[0] == CONTENT
