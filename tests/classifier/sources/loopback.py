"""A web server on loopback, and the answers that a test can have it give."""

import contextlib
import gzip
import hashlib
import os
import socket
import struct
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from classifier.datasets import Dataset
from classifier.sources import fetch
from classifier.sources.answers import OFFICIAL_NAMES
from tests.conftest import FIXTURE

Answer = Callable[[BaseHTTPRequestHandler], None]

#: What every source should give, by file name: 800 train and 200 test rows.
UNPACKED = {
    name: gzip.decompress((FIXTURE / f"{official}.gz").read_bytes())
    for name, official in OFFICIAL_NAMES.items()
}
DIGESTS = {name: hashlib.sha256(content).hexdigest() for name, content in UNPACKED.items()}


class Web(ThreadingHTTPServer):
    """Says `answers[path]`, else 404; `asked` are the paths of all requests, in order."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        self.over = threading.Event()

    def serve_mirror(self, folder: str = "/mnist") -> str:
        """The four files under their customary names; gives the address of their folder."""
        for official in OFFICIAL_NAMES.values():
            path = FIXTURE / f"{official}.gz"
            self.answers[f"{folder}/{path.name}"] = body(path.read_bytes())
        return self.url + folder

    def handle_error(self, request, client_address):
        """Clients leave when they like."""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        self.server.answers.get(self.path, status(404))(self)

    def log_message(self, *_):
        pass


def body(content: bytes, *, code: int = 200, length: int | None = None, **headers: str) -> Answer:
    def answer(handler):
        handler.send_response(code)
        handler.send_header("Content-Length", str(len(content) if length is None else length))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def status(code: int) -> Answer:
    return body(b"no", code=code)


def redirect(url: str) -> Answer:
    return body(b"", code=302, Location=url)


PAGE = body(b"<!DOCTYPE html><title>Sign in</title>", Content_Type="text/html")


def in_turn(*answers: Answer) -> Answer:
    """The first, then the second and so on; the last one stays."""
    waiting = list(answers)

    def answer(handler):
        now = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        now(handler)

    return answer


def reset(handler):
    linger = struct.pack("ii", 1, 0)  # closing sends RST, not FIN
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.connection.close()


def stall(handler):
    handler.server.over.wait(60)


def endless(handler):
    handler.send_response(200)
    handler.end_headers()
    while not handler.server.over.is_set():
        handler.wfile.write(bytes(2**16))


def closed_address() -> str:
    """Where nobody listens."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def digits(*places: object, **fields: object) -> Dataset:
    """A dataset like MNIST with these sources."""
    fields = {"shape": (28, 28), "classes": tuple("0123456789")} | fields
    return Dataset(name="digits", sources=places, **fields)


def fetch_into(dataset: Dataset, folder: os.PathLike, local: os.PathLike | None = None) -> str:
    return fetch.fetch(dataset, folder, local_folder=local, progress=lambda *_: None)


def contents(folder):
    """The content of all that lies in the folder, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
