"""Locks between machines where RETRAIN_LOCKS leads to no PostgreSQL."""

import logging
import os
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

from artifacts import pruning, shared_locks
from artifacts.errors import InputError
from artifacts.locks import lock, shared_lock
from tests.artifacts.lock_processes import NAME, PATH
from tests.fixtures.postgres import free_port

pytestmark = pytest.mark.usefixtures("asked_anew", "root")


def test_the_locks_of_files_and_of_machines_are_one_for_pruning(monkeypatch, caplog):
    monkeypatch.setattr(shared_locks, "PATIENCE_SECONDS", 0.3)
    monkeypatch.setenv("RETRAIN_LOCKS", f"postgresql://127.0.0.1:{free_port()}/x")
    with shared_lock(NAME):
        assert pruning._oldest_step() < float("inf")
        caplog.clear()
        monkeypatch.setattr(shared_locks._background, "away_until", 0.0)
        pruning.prune(older_than=0)
        assert caplog.records == []  # it asks no server
    assert pruning._oldest_step() == float("inf")


def test_without_a_server_a_warning_says_so_once_and_the_lock_of_the_machine_stays(
    monkeypatch, caplog
):
    assert shared_locks.PATIENCE_SECONDS < 10
    monkeypatch.setattr(shared_locks, "PATIENCE_SECONDS", 0.3)
    place = f"127.0.0.1:{free_port()}/x"
    monkeypatch.setenv("RETRAIN_LOCKS", f"postgresql://me:s3cret@{place}")
    with shared_lock(NAME) as held:
        assert not lock(NAME).is_free()
        assert not shared_lock(NAME).try_acquire()
        with shared_lock("add/toy/y"):
            pass
    assert held.is_free()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(
        f"No locks between machines for now: no PostgreSQL at {place} ("
    )
    assert "s3cret" not in record.getMessage()


def test_a_server_that_is_no_postgresql_is_away(monkeypatch, caplog):
    monkeypatch.setattr(shared_locks, "PATIENCE_SECONDS", 0.5)
    with serving(lambda _, peer: peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
        monkeypatch.setenv("RETRAIN_LOCKS", f"postgresql://me@127.0.0.1:{port}/x")
        with shared_lock(NAME):
            assert f"no PostgreSQL at 127.0.0.1:{port}/x" in caplog.text


def test_pgbouncer_is_refused_by_what_it_says(monkeypatch):
    fields = b"SFATAL\0C08P01\0Munsupported startup parameter: tcp_keepalives_idle\0\0"
    answer = b"E" + (len(fields) + 4).to_bytes(4, "big") + fields

    def refuse(asked, peer):
        peer.sendall(b"N" if asked.endswith((80877103).to_bytes(4, "big")) else answer)

    with serving(refuse) as port:
        monkeypatch.setenv("RETRAIN_LOCKS", f"postgresql://me@127.0.0.1:{port}/x")
        with pytest.raises(InputError) as raised:
            shared_lock(NAME).acquire("me")
    assert str(raised.value) == (
        f"RETRAIN_LOCKS leads to a connection pooler at 127.0.0.1:{port}/x, such as PgBouncer, "
        "where a lock may end before its time: name the PostgreSQL behind it."
    )


@pytest.mark.parametrize(
    "url",
    [
        "s3cret",
        "mysql://me:s3cret@host/x",
        "postgresql://me:s3/cret@host/x",
        "postgresql://me:s3?cret@host/x",
        "postgresql://me:1#s3cret@host/x",
        "postgresql://me:[s3cret@host/x",
        "postgresql://me:s3cret@host:s3cret/x",
        "postgresql://me:s3cret@127.0.0.1/x?sslmode=s3cret",
    ],
)
def test_what_is_no_address_is_one_sentence_that_shows_none_of_it(monkeypatch, url):
    monkeypatch.setenv("RETRAIN_LOCKS", url)
    with pytest.raises(InputError) as raised:
        shared_lock(NAME).acquire("me")
    assert str(raised.value) == (
        "RETRAIN_LOCKS names no PostgreSQL, or has options that cannot be used: write "
        "postgresql://USER:PASSWORD@HOST:5432/DATABASE, with %-codes for special characters in "
        "user and password."
    )
    assert lock(NAME).is_free()


def test_without_the_setting_there_is_no_connection(monkeypatch):
    monkeypatch.setenv("RETRAIN_LOCKS", "")
    assert shared_lock(NAME)._between is None
    script = "import artifacts.policy, sys; sys.exit('asyncpg' in sys.modules)"
    environment = {n: v for n, v in os.environ.items() if n != "RETRAIN_LOCKS"}
    done = subprocess.run([sys.executable, "-c", script], cwd=PATH, env=environment, check=False)
    assert done.returncode == 0


@contextmanager
def serving(answer):
    """A server that answers each message of its peers; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                with peer:
                    while asked := peer.recv(1 << 16):
                        answer(asked, peer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join(10)
