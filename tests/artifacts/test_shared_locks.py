"""Locks between machines, of a PostgreSQL."""

import asyncio
import ctypes
import itertools
import logging
import os
import pickle
import signal
import socket
import threading
import time
from contextlib import contextmanager, suppress

import pytest

from artifacts import shared_locks
from artifacts.errors import InputError
from artifacts.locks import lock, shared_lock
from tests.artifacts.lock_processes import HOLD, NAME, Waiting, free_elsewhere, wait_until, who

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("asked_anew", "database")]

FORK = f"""
import os, time
from artifacts.locks import shared_lock
held = shared_lock("{NAME}")
held.acquire("the holder")
if os.fork() == 0:
    own = shared_lock("add/toy/of the child")
    own.acquire("the child")
    own.release()
    held._between.release()
    print(os.getpid(), flush=True)
    time.sleep(60)
time.sleep(60)
"""
_numbers = itertools.count()
COUNT = """
import sys
from pathlib import Path
from artifacts.locks import shared_lock
counter = Path(sys.argv[1])
for _ in range(20):
    with shared_lock("counter"):
        counter.write_text(str(int(counter.read_text()) + 1))
"""


@pytest.fixture
def database(postgres, root, monkeypatch):
    """The name of an empty database that RETRAIN_LOCKS leads to; no session is left in it.

    Each test has one of its own, so that a lock that one leaves behind holds up no other.
    """
    name = f"locks_{next(_numbers)}"
    postgres.create(name)
    monkeypatch.setenv("RETRAIN_LOCKS", postgres.address(name))
    yield name
    wait_until(lambda: not sessions(postgres, name))


@pytest.fixture
def holder(database, elsewhere):
    """A process on another machine that has the lock."""
    process = elsewhere(HOLD)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()


def sessions(postgres, database):
    """The server's process of each session that has or wants a lock, by who it is."""
    query = "SELECT application_name, pid FROM pg_stat_activity WHERE datname = '{}' AND {}"
    return dict(
        postgres.query(database, query.format(database, "application_name LIKE 'process %'"))
    )


def someone_waits(postgres, database):
    query = "SELECT 1 FROM pg_stat_activity WHERE datname = '{}' AND wait_event = 'advisory'"
    return postgres.query(database, query.format(database))


def end_session(postgres, database, name):
    pid = wait_until(lambda: sessions(postgres, database).get(name))
    assert postgres.query(database, f"SELECT pg_terminate_backend({pid})") == [(True,)]


def test_a_lock_that_another_machine_has_is_not_free_and_nobody_waits_to_learn_it(holder):
    mine = shared_lock(NAME)
    began = time.monotonic()
    assert not mine.try_acquire()
    assert not mine.is_free()
    assert shared_lock("add/toy/y").is_free()
    assert time.monotonic() - began < 2
    assert lock(NAME).is_free()
    holder.communicate("go on\n", timeout=30)
    assert mine.is_free()
    assert not mine.path.exists()


def test_whoever_waits_says_whom_it_waits_for(holder):
    waiting = Waiting()
    assert waiting.says() == [who(holder.pid)]
    assert waiting.is_alive()
    holder.communicate("go on\n", timeout=30)
    waiting.join(timeout=30)
    assert waiting.said == [who(holder.pid)]
    assert not free_elsewhere()
    waiting.lock.release()
    assert free_elsewhere()


def test_whoever_waits_says_so_again_after_a_while(holder, monkeypatch):
    monkeypatch.setitem(shared_locks._SESSION, "lock_timeout", "200ms")
    waiting = Waiting()
    wait_until(lambda: len(waiting.said) == 3)
    holder.communicate("go on\n", timeout=30)
    waiting.join(timeout=30)
    assert set(waiting.said) == {who(holder.pid)}
    waiting.lock.release()


def test_only_one_machine_has_the_lock_at_a_time(database, elsewhere, tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")
    for process in [elsewhere(COUNT, counter) for _ in range(3)]:
        process.communicate(timeout=120)
        assert process.returncode == 0
    assert counter.read_text() == "60"


def test_a_killed_holder_frees_the_lock_within_a_second(holder):
    waiting = Waiting()
    waiting.says()
    killed = time.monotonic()
    holder.kill()
    waiting.join(timeout=30)
    assert time.monotonic() - killed < 1
    assert not free_elsewhere()
    waiting.lock.release()


def test_so_does_one_that_was_forked_meanwhile(database, elsewhere):
    holder = elsewhere(FORK)
    child = int(holder.stdout.readline())
    waiting = Waiting()
    assert waiting.says() == [who(holder.pid)]  # the child gave nothing back
    killed = time.monotonic()
    holder.kill()
    try:
        waiting.join(timeout=30)
        assert time.monotonic() - killed < 1
        os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)
    waiting.lock.release()


def test_a_frozen_holder_keeps_the_lock_until_its_session_is_ended(postgres, database, holder):
    waiting = Waiting()
    waiting.says()
    os.kill(holder.pid, signal.SIGSTOP)
    waiting.join(timeout=10)
    assert waiting.is_alive()
    end_session(postgres, database, who(holder.pid))
    waiting.join(timeout=1)
    assert not waiting.is_alive()
    os.kill(holder.pid, signal.SIGCONT)
    _, said = holder.communicate("go on\n", timeout=30)
    assert holder.returncode == 0
    assert said.count("is lost, and with it a lock between machines") == 1
    assert not free_elsewhere()
    waiting.lock.release()


def test_a_holder_whose_connection_is_lost_goes_on_and_warns_once(postgres, database, caplog):
    held = shared_lock(NAME)
    held.acquire("me")
    end_session(postgres, database, who(os.getpid(), "me"))
    wait_until(lambda: caplog.records)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"/{database} is lost" in record.getMessage()
    assert postgres.password not in record.getMessage()
    assert not lock(NAME).is_free()  # on this machine nothing changed
    assert free_elsewhere()
    held.release()
    assert held.is_free()
    assert len(caplog.records) == 1


def test_a_lock_is_given_back_while_its_session_says_goodbye(
    postgres, database, monkeypatch, caplog
):
    goodbye, closing = threading.Event(), threading.Event()
    at_end = lambda: goodbye.set() or closing.wait(30)  # noqa: E731
    with between(postgres.port, at_end=at_end) as port:
        url = postgres.address(database).replace(f":{postgres.port}/", f":{port}/")
        monkeypatch.setenv("RETRAIN_LOCKS", url)
        held = shared_lock(NAME)
        held.acquire("me")
        end_session(postgres, database, who(os.getpid(), "me"))
        assert goodbye.wait(30)
        shared_locks._background.call(asyncio.sleep(0.2))  # asyncpg reads it
        assert caplog.records == []  # but the connection is open still
        held.release()
        closing.set()
    monkeypatch.setenv("RETRAIN_LOCKS", postgres.address(database))
    assert [record.getMessage().count("is lost, and with it") for record in caplog.records] == [1]
    assert free_elsewhere()


def test_a_waiter_whose_connection_is_lost_takes_its_place_in_the_queue_again(
    postgres, database, holder, caplog
):
    waiting = Waiting()
    waiting.says()
    end_session(postgres, database, who(os.getpid(), "the waiter"))
    wait_until(lambda: len(waiting.said) == 2)
    holder.communicate("go on\n", timeout=30)
    waiting.join(timeout=30)
    assert caplog.records == []
    assert not free_elsewhere()
    waiting.lock.release()


def test_ctrl_c_ends_a_wait_and_leaves_the_queue(postgres, database, holder, elsewhere):
    waiter = elsewhere(HOLD)
    assert waiter.stdout.readline() == f"waiting for {who(holder.pid)}\n"
    wait_until(lambda: someone_waits(postgres, database))
    waiter.send_signal(signal.SIGINT)
    _, said = waiter.communicate(timeout=10)
    assert said.splitlines()[-1] == "KeyboardInterrupt"
    assert "never" not in said  # retrieved, awaited: what asyncio would complain of
    wait_until(lambda: list(sessions(postgres, database)) == [who(holder.pid)], seconds=5)


def test_a_killed_waiter_leaves_the_queue(postgres, database, holder, elsewhere):
    waiter = elsewhere(HOLD)
    assert waiter.stdout.readline() == f"waiting for {who(holder.pid)}\n"
    wait_until(lambda: someone_waits(postgres, database))
    waiter.kill()
    wait_until(lambda: list(sessions(postgres, database)) == [who(holder.pid)], seconds=5)


def test_a_time_limit_of_prefect_ends_a_wait(holder):
    waiting = Waiting()
    waiting.says()
    raised = ctypes.py_object(ZeroDivisionError)  # as Prefect interrupts a thread
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(waiting.ident), raised)
    waiting.join(timeout=5)
    assert isinstance(waiting.ended, ZeroDivisionError)
    assert lock(NAME).is_free()


def test_who_shares_no_results_shares_no_locks(holder, monkeypatch):
    monkeypatch.setenv("RETRAIN_REMOTE", "s3://bucket/mine")
    mine = shared_lock(NAME)
    assert mine.try_acquire()
    monkeypatch.setenv("RETRAIN_REMOTE", "s3://bucket/mine/")
    assert not free_elsewhere()
    monkeypatch.setenv("RETRAIN_REMOTE", "s3://bucket/yours")
    assert free_elsewhere()
    mine.release()


def test_a_lock_travels_without_being_held_there_and_without_the_password(postgres, database):
    with shared_lock(NAME) as held:
        sent = pickle.dumps(held)
        assert postgres.password.encode() not in sent
        other = pickle.loads(sent)  # noqa: S301 - as Prefect sends a task
        assert not other.try_acquire()
    assert other.try_acquire()
    assert not free_elsewhere()
    other.release()
    assert other.is_free()


def test_who_takes_a_lock_again_does_not_wait_for_itself(postgres):
    said = []
    for _ in range(50):
        held = shared_lock(NAME)
        held.acquire("me", said.append)
        held.release()
    assert said == []


def test_a_holder_is_told_in_63_bytes_of_plain_text(postgres, database, elsewhere):
    script = HOLD.replace("the holder", "\\\\0\\\\n\\\\x1b[31m\N{SNOWMAN}" + "x" * 100)
    holder = elsewhere(script.replace("\\\\", "\\"))
    assert holder.stdout.readline() == "held\n"
    waiting = Waiting()
    (said,) = waiting.says()
    assert len(said) == 63
    assert said.isascii()
    assert said.isprintable()
    assert said.startswith(f"process {holder.pid} on ")
    assert said.endswith("xxx)")
    holder.communicate("go on\n", timeout=30)
    waiting.join(timeout=30)
    waiting.lock.release()


def test_the_server_gives_up_a_dead_session_after_six_seconds(database):
    held = shared_lock(NAME)
    held.acquire("me")
    between = held._between
    asked = "SELECT current_setting($1)"
    settings = {
        name: shared_locks._background.call(between._connection.fetchval(asked, name))
        for name in shared_locks._SESSION
    }
    opened = shared_locks._socket_of(between._connection)
    mine = [
        opened.getsockopt(socket.IPPROTO_TCP, option)
        for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    ]
    held.release()
    keepalives = [settings[f"tcp_keepalives_{name}"] for name in ("idle", "interval", "count")]
    assert keepalives == ["3", "1", "3"]
    assert settings["tcp_user_timeout"] in {"6s", "6000"}
    assert settings["client_connection_check_interval"] == "1s"
    assert mine == [3, 1, 3]


def test_the_address_may_be_written_as_prefect_writes_it(postgres, database, monkeypatch, holder):
    monkeypatch.setenv("RETRAIN_LOCKS", postgres.address(database, "+asyncpg"))
    assert not shared_lock(NAME).is_free()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"user": "nobody"}, 'password authentication failed for user "nobody"'),
        ({"password": "s3cret"}, 'password authentication failed for user "prefect"'),
        ({"database": "nowhere"}, 'database "nowhere" does not exist'),
    ],
)
def test_what_the_server_refuses_is_one_sentence(postgres, database, monkeypatch, wrong, said):
    parts = {"user": "prefect", "password": postgres.password, "database": database} | wrong
    place = f"127.0.0.1:{postgres.port}/{parts['database']}"
    url = f"postgresql://{parts['user']}:{parts['password']}@{place}"
    monkeypatch.setenv("RETRAIN_LOCKS", url)
    with pytest.raises(InputError) as raised:
        shared_lock(NAME).acquire("me")
    assert str(raised.value) == (
        f"PostgreSQL at {place} refuses RETRAIN_LOCKS: {said}. Put the address right, or unset "
        "it to do without locks between machines."
    )
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__
    assert lock(NAME).is_free()


def test_a_pooler_is_refused(postgres, database, monkeypatch):
    with between(postgres.port, renumbered) as port:
        url = postgres.address(database).replace(f":{postgres.port}/", f":{port}/")
        monkeypatch.setenv("RETRAIN_LOCKS", url)
        with pytest.raises(InputError, match="leads to a connection pooler at "):
            shared_lock(NAME).acquire("me")


def test_a_server_without_a_place_for_one_more_is_away(postgres, database, monkeypatch, caplog):
    monkeypatch.setattr(shared_locks, "PATIENCE_SECONDS", 1.0)
    query = f"ALTER DATABASE {database} CONNECTION LIMIT "
    postgres.query("postgres", f"{query} 0", role="postgres")
    try:
        with shared_lock(NAME):
            assert f'too many connections for database "{database}"' in caplog.text
    finally:
        postgres.query("postgres", f"{query} -1", role="postgres")


def test_a_server_that_is_back_counts_again(holder, monkeypatch):
    monkeypatch.setattr(shared_locks._background, "away_until", time.monotonic() + 1)
    assert shared_lock(NAME).is_free()  # it is not asked yet
    time.sleep(1)
    assert not shared_lock(NAME).is_free()


def test_a_server_that_answers_no_more_does_not_hold_up_a_release(
    postgres, database, elsewhere, monkeypatch
):
    with relay(elsewhere, postgres.port) as (process, port):
        url = postgres.address(database).replace(f":{postgres.port}/", f":{port}/")
        monkeypatch.setenv("RETRAIN_LOCKS", url)
        held = shared_lock(NAME)
        held.acquire("me")
        os.kill(process.pid, signal.SIGSTOP)
        began = time.monotonic()
        held.release()
        assert time.monotonic() - began < 5
    assert held._between._connection is None


def renumbered(chunk):
    """What PostgreSQL sends, with another number of its session, as PgBouncer gives it."""
    key = b"K\0\0\0\x0c"  # and then the number of the server's process
    head, found, tail = chunk.partition(key)
    return head + found + (b"\0\0\0\x07" + tail[4:] if found else tail)


@contextmanager
def between(port, change=lambda chunk: chunk, at_end=lambda: None):
    """Between client and PostgreSQL: changes what the server sends, and waits before it closes."""

    def pump(source, target, change, at_end):
        while chunk := source.recv(1 << 16):
            target.sendall(change(chunk))
        at_end()
        target.shutdown(socket.SHUT_WR)

    def relay(server):
        near, _ = server.accept()
        with near, socket.create_connection(("127.0.0.1", port)) as far:
            back = threading.Thread(target=pump, args=(far, near, change, at_end))
            back.start()
            with suppress(OSError):  # the client is gone
                pump(near, far, lambda chunk: chunk, lambda: None)
            back.join(10)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=relay, args=(server,), daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(10)


RELAY = """
import asyncio, sys

async def pump(source, target):
    while chunk := await source.read(1 << 16):
        target.write(chunk)
        await target.drain()
    target.close()

async def serve(reader, writer):
    far, back = await asyncio.open_connection("127.0.0.1", int(sys.argv[1]))
    await asyncio.gather(pump(reader, back), pump(far, writer))

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.sleep(3600)

asyncio.run(main())
"""


@contextmanager
def relay(elsewhere, port):
    """A process between client and PostgreSQL, which can be frozen; yields it and its port."""
    process = elsewhere(RELAY, port)
    yield process, int(process.stdout.readline())
