"""Addresses, servers and disks that refuse: one sentence, and no secret in it."""

import subprocess
import sys
import threading
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from artifacts import layout, remote, sharing
from artifacts.errors import ArgumentError
from artifacts.remote import RemoteError
from tests.artifacts.machines import address, answers_again, change, files_here, objects
from tests.fixtures.s3 import KEY, SECRET

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("server")]


@pytest.mark.parametrize(
    "wrong",
    [
        "bucket",
        "file:///tmp/x",
        "https://example.com/bucket",
        "s3://",
        "s3://[::1",
        "s3://bucket:99999/team",
        "s3://bucket//team",
        "s3://key:secret-word@bucket/team",
        "s3://bucket/team?token=secret-word",
    ],
)
def test_what_is_no_address_of_a_bucket_is_refused_without_its_secret(monkeypatch, wrong):
    monkeypatch.setenv("RETRAIN_REMOTE", wrong)
    with pytest.raises(ArgumentError, match="RETRAIN_REMOTE") as caught:
        remote.current()
    assert "secret-word" not in str(caught.value)


@pytest.mark.parametrize("wrong", ["minio:9000", "minio", "http://minio:99999", "http://", "[::1"])
def test_an_endpoint_that_is_no_url_is_told(machines, monkeypatch, wrong):
    monkeypatch.setenv("RETRAIN_REMOTE", "s3://bucket/endpoint")
    monkeypatch.setenv("AWS_ENDPOINT_URL", wrong)
    answers_again()
    with pytest.raises(ArgumentError, match="AWS_ENDPOINT_URL is no URL"):
        sharing.begin()


def test_a_bucket_that_is_not_there(machines, monkeypatch):
    monkeypatch.setenv("RETRAIN_REMOTE", "s3://nobody-made-this/team")
    with pytest.raises(RemoteError, match="there is no such bucket"):
        sharing.begin()


def test_a_bucket_of_another_format(machines, bucket):
    change(address(), "format.json", b'{"format": 7}')
    with pytest.raises(RemoteError, match="has format 7, and this version reads 2"):
        sharing.begin()


@pytest.mark.parametrize(
    ("refusing", "sentence"),
    [
        ("InvalidAccessKeyId", r"refuses access \(InvalidAccessKeyId\)"),
        ("RequestTimeTooSkewed", "refuses the clock of this machine: set it right"),
    ],
    indirect=["refusing"],
)
def test_a_remote_that_refuses_says_what_to_put_right(machines, monkeypatch, refusing, sentence):
    monkeypatch.setenv("AWS_ENDPOINT_URL", refusing)
    with pytest.raises(RemoteError, match=sentence) as caught:
        sharing.begin()
    assert "the-secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def refusing(request):
    """Address of a server that answers every request with that error of S3."""

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self):
            body = f"<Error><Code>{request.param}</Code><Message>no</Message></Error>".encode()
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_full_disk_while_files_arrive_is_one_sentence_and_leaves_nothing(toys, machines):
    machines.on("a")
    toys.direct()
    root = machines.on("b")
    numbers = toys.direct()[0].artifact
    code = (
        "import resource; from artifacts.artifact import Artifact; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4, resource.RLIM_INFINITY)); "
        f"Artifact(**{asdict(numbers)}).path"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"InputError: Cannot write to {root}" in done.stderr
    assert files_here() == []
    assert not list(layout.staging().glob("*"))
    assert (numbers.path / "numbers.json").exists()


def test_no_secret_is_written_anywhere(toys, machines, bucket, caplog):
    machines.on("a")
    toys.direct()
    texts = [path.read_bytes() for path in machines.top.rglob("*") if path.is_file()]
    texts += [remote.current().get(name) or b"" for name in objects(address())]
    texts.append(" ".join(caplog.messages).encode())
    assert not [text for text in texts if SECRET.encode() in text or KEY.encode() in text]


def test_who_may_only_read_is_told_so_once(toys, machines, bucket, monkeypatch, caplog):
    machines.on("a")
    toys.direct()

    def refuse(self, *_):
        raise RemoteError("It refuses access.")

    for name in ("put", "upload", "replace"):
        monkeypatch.setattr(remote.Remote, name, refuse)
    machines.on("b")
    toys.direct(offset=1)
    sharing.begin()
    toys.direct(offset=2)
    assert len([each for each in caplog.messages if "refuses access" in each]) == 1


def test_a_profile_that_is_not_there_is_one_sentence(machines, monkeypatch, bucket):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    remote._remote.cache_clear()
    with pytest.raises(RemoteError, match=r"s3://.*: The config profile \(nobody\)"):
        sharing.begin()


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (301, b"", "AWS_REGION"),
        (400, b"<Error><Code>ExpiredToken</Code></Error>", r"refuses access \(ExpiredToken\)"),
        (
            400,
            b"<Error><Code>AuthorizationHeaderMalformed</Code></Error>",
            "AWS_REGION",
        ),
    ],
)
def test_what_does_not_pass_by_itself_ends_the_run(
    machines, monkeypatch, answering, status, body, sentence
):
    monkeypatch.setenv("AWS_ENDPOINT_URL", answering(status, body))
    remote._remote.cache_clear()
    with pytest.raises(RemoteError, match=sentence):
        sharing.begin()


@pytest.fixture
def answering():
    """Start a server that gives one answer to everything."""
    servers = []

    def start(status, body):
        class Answering(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        servers.append(HTTPServer(("127.0.0.1", 0), Answering))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
