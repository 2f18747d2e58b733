"""A user and password in the URL of a source: they are used, and nothing shows them."""

import base64
import hashlib
import traceback

import pytest

from classifier.errors import InputError
from classifier.sources import Mirror, Weights, name_of, weights
from classifier.sources.answers import one_line
from classifier.sources.fetch import AllSourcesFailed
from tests.classifier.sources.loopback import (
    UNPACKED,
    body,
    closed_address,
    contents,
    digits,
    fetch_into,
    reset,
    status,
)

SECRET = "pa55%2Fword"  # noqa: S105
SENT = "Basic " + base64.b64encode(b"reader:pa55/word").decode()
TOKEN = "t0ken"  # noqa: S105


def private(url):
    return url.replace("://", f"://reader:{SECRET}@")


def closed_to_others(answer):
    def checked(handler):
        (answer if handler.headers.get("Authorization") == SENT else status(401))(handler)

    return checked


def assert_shows_no_secret(error):
    text = "".join(traceback.format_exception(error))
    for secret in (SECRET, "pa55/word", TOKEN):
        assert secret not in text


def test_a_mirror_gets_them_and_is_named_without(web, folder):
    url = web.serve_mirror()
    web.answers = {path: closed_to_others(answer) for path, answer in web.answers.items()}
    assert fetch_into(digits(Mirror(private(url))), folder) == url
    assert contents(folder) == UNPACKED
    assert name_of(Mirror(private(url))) == url


@pytest.mark.parametrize("answer", [status(404), status(503), reset])
def test_no_error_of_a_mirror_shows_them(web, folder, answer):
    url = web.serve_mirror()
    web.answers = dict.fromkeys(web.answers, answer)
    with pytest.raises(AllSourcesFailed) as caught:
        fetch_into(digits(Mirror(private(url))), folder)
    assert url in str(caught.value)
    assert_shows_no_secret(caught.value)


@pytest.mark.parametrize(
    "url",
    [closed_address(), "http://[::1", "ftp://127.0.0.1/mnist"],
    ids=["nobody listens", "no address", "another scheme"],
)
def test_no_error_of_an_address_shows_them(folder, url):
    with pytest.raises(AllSourcesFailed) as caught:
        fetch_into(digits(Mirror(private(url))), folder)
    assert_shows_no_secret(caught.value)


@pytest.mark.parametrize("answer", [status(403), body(b"other weights")])
def test_no_error_of_initial_weights_shows_them_or_the_query(web, folder, answer):
    web.answers[f"/w?signature={TOKEN}"] = answer
    url = f"{private(web.url)}/w?signature={TOKEN}"
    wanted = Weights(url, hashlib.sha256(b"weights").hexdigest(), "cnn")
    with pytest.raises(InputError, match=f"{web.url}/w cannot be used") as caught:
        weights.fetch(wanted, folder, root=folder, progress=lambda *_: None)
    assert_shows_no_secret(caught.value)


@pytest.mark.parametrize("letter", ["/", "?", "#", "@"])
def test_a_password_that_is_not_encoded_as_a_url_asks_is_not_shown_either(folder, letter):
    url = f"http://reader:pa55{letter}word@127.0.0.1:9/mnist"
    assert name_of(Mirror(url)) == "http://127.0.0.1:9/mnist"
    with pytest.raises(AllSourcesFailed) as caught:
        fetch_into(digits(Mirror(url)), folder)
    text = "".join(traceback.format_exception(caught.value))
    assert "pa55" not in text
    assert "word@" not in text
    assert ("write %2F for /" in text) == (letter != "@")


@pytest.mark.parametrize("url", ["http://example.org/@scope/a", "http://ann@example.org/@scope/a"])
def test_a_path_may_hold_an_at_sign(url):
    assert name_of(Mirror(url)) == "http://example.org/@scope/a"


def test_what_a_program_says_is_quoted_without_them():
    said = f"request to https://reader:{SECRET}@example.org/mnist failed, see http://a@b/c"
    assert one_line(said) == "request to https://example.org/mnist failed, see http://b/c"
