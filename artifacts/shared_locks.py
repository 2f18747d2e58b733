"""Locks between machines: advisory locks of the PostgreSQL that RETRAIN_LOCKS names.

One session holds one lock. The server ends the session, and with it the lock, when its process is
gone or its network has been cut for some seconds.

A lock saves work, and nothing rests on it. So whoever loses one goes on, and so does whoever finds
no server; a warning says so.
"""

import asyncio
import contextvars
import hashlib
import logging
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent import futures
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

import asyncpg

from artifacts.errors import InputError
from artifacts.text import one_line

T = TypeVar("T")
SETTING = "RETRAIN_LOCKS"
REMIND_SECONDS = 60  # between two messages that one still waits
PATIENCE_SECONDS = 8.0  # with a server that does not answer
AWAY_SECONDS = 60.0  # until it is asked again
RETRY_SECONDS = 0.2  # between two attempts to reach it
CLOSE_SECONDS = 1.0  # that a goodbye may take
SLICE_SECONDS = 1.0  # after which a time limit of Prefect ends a wait
NAME_BYTES = 63  # of an application_name

#: Idle time, interval, count: whoever is cut off is noticed after six seconds.
_KEEPALIVE = (3, 1, 3)
_SESSION = {
    "tcp_keepalives_idle": str(_KEEPALIVE[0]),
    "tcp_keepalives_interval": str(_KEEPALIVE[1]),
    "tcp_keepalives_count": str(_KEEPALIVE[2]),
    "tcp_user_timeout": "6s",  # keepalives do not count while an answer is under way
    "client_connection_check_interval": "1s",  # who waits and dies leaves the queue
    "lock_timeout": f"{REMIND_SECONDS}s",
    "statement_timeout": "0",
    "idle_session_timeout": "0",
}
_TAKE = "SELECT pg_try_advisory_lock($1) AS taken, pg_backend_pid() AS pid"
_HOLDER = """
SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND objsubid = 1 AND granted
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND classid::bigint = ($1::bigint >> 32) & 4294967295 AND objid::bigint = $1 & 4294967295
"""
#: The server is away, restarts, has no place for one session more, or has ended this one: asyncpg
#: takes a goodbye that it has begun to read for an operation in progress, an InternalClientError.
_LOST = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
)
_log = logging.getLogger(__name__)


class _AwayError(Exception):
    """The server does not answer."""


class SharedLock:
    """One lock of the database, held from `acquire` until `release`, or until its session ends.

    Whoever shares results shares locks: a name counts for the remote store, RETRAIN_REMOTE, and
    without one for the whole database.
    """

    def __init__(self, name: str) -> None:
        remote = os.environ.get("RETRAIN_REMOTE", "").strip().rstrip("/")
        digest = hashlib.sha256(f"{remote}\0{name}".encode()).digest()
        self._number = int.from_bytes(digest[:8], "big", signed=True)
        self._connection: Any = None
        self._held = False
        self._place = ""  # of the database, as it may be shown
        self._process = 0  # that connected
        self._context = contextvars.copy_context()  # of the run that holds it

    def acquire(self, holder: str, on_wait: Callable[[str], None]) -> None:
        """Take the lock; while another has it, say to `on_wait` who, once a minute.

        Raises:
            InputError: the server refuses what RETRAIN_LOCKS says, or it says nothing usable.
        """
        try:
            while not self._take(holder):
                on_wait(_background.call(self._holder()))
                if _background.call(self._wait()):
                    return
        except BaseException:
            self.release()
            raise

    def try_acquire(self) -> bool:
        """Take the lock if nobody has it; return whether that is so.

        Raises:
            InputError: as `acquire`.
        """
        taken = False
        try:
            taken = self._take("for a moment")
        finally:
            if not taken:
                self.release()
        return taken

    def release(self) -> None:
        """Give the lock back. A process that was forked leaves it to the one that has it."""
        if self._connection is not None and self._process == os.getpid():
            _background.call(self._close())

    def _take(self, holder: str) -> bool:
        """Take the lock if nobody has it, or if the server is away."""
        if time.monotonic() < _background.away_until:
            return True
        if self._process != os.getpid():
            self._connection, self._process = None, os.getpid()
        self._context = contextvars.copy_context()
        try:
            return _background.call(self._try(holder))
        except _AwayError as error:
            _background.away_until = time.monotonic() + AWAY_SECONDS
            _log.warning(
                "No locks between machines for now: %s. Another machine may compute the same, "
                "which costs time and does no harm.",
                error,
            )
            return True

    async def _try(self, holder: str) -> bool:
        deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        url, self._place = _address()
        said = "it does not answer"
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    return await self._try_once(url, holder)
            except _LOST as error:
                self._drop()
                said = one_line(str(error)) or said  # a time-out says nothing
                if asyncio.get_running_loop().time() + RETRY_SECONDS > deadline:
                    raise _AwayError(f"no PostgreSQL at {self._place} ({said})") from None
            await asyncio.sleep(RETRY_SECONDS)

    async def _try_once(self, url: str, holder: str) -> bool:
        try:
            if self._connection is None or self._connection.is_closed():
                self._connection = await _connect(url, holder)
                self._connection.add_termination_listener(self._on_end)
            found = await self._connection.fetchrow(_TAKE, self._number)
            is_pooler = found["pid"] != self._connection.get_server_pid()
        except (asyncpg.ClientConfigurationError, ValueError):
            raise _no_address() from None
        except asyncpg.ProtocolViolationError as error:
            if "startup parameter" not in str(error):
                raise
            is_pooler = True
        except _LOST as error:
            if isinstance(error, ssl.SSLCertVerificationError):
                raise _refused(self._place, error) from None
            raise
        except asyncpg.PostgresError as error:
            raise _refused(self._place, error) from None
        if is_pooler:
            raise InputError(
                f"{SETTING} leads to a connection pooler at {self._place}, such as PgBouncer, "
                "where a lock may end before its time: name the PostgreSQL behind it."
            )
        self._held = bool(found["taken"])
        return self._held

    async def _wait(self) -> bool:
        """Wait for the lock, for a minute at most; return whether it was given."""
        try:
            await self._connection.fetchval(
                "SELECT pg_advisory_lock($1)", self._number, timeout=2 * REMIND_SECONDS
            )
        except asyncpg.LockNotAvailableError:
            return False
        except _LOST:
            self._drop()
            return False
        self._held = True
        return True

    async def _holder(self) -> str:
        """Return who has the lock, in words."""
        found = None
        with suppress(*_LOST):
            found = await self._connection.fetchval(_HOLDER, self._number)
        return one_line(found or "") or "another process"

    async def _close(self) -> None:
        if self._held and self._connection is not None:
            try:
                await self._connection.fetchval(
                    "SELECT pg_advisory_unlock($1)", self._number, timeout=CLOSE_SECONDS
                )
                self._held = False
                await self._connection.close(timeout=CLOSE_SECONDS)
            except _LOST:
                self._warn()
        self._drop()

    def _drop(self) -> None:
        connection, self._connection, self._held = self._connection, None, False
        if connection is not None:
            connection.terminate()

    def _on_end(self, connection: Any) -> None:
        """Notice that a held lock is lost: the loop calls this when a connection has ended."""
        if connection is self._connection:
            self._warn()

    def _warn(self) -> None:
        if self._held:
            self._held = False
            self._context.run(
                _log.warning,
                "The connection to %s is lost, and with it a lock between machines. This run goes "
                "on; another machine may compute the same, which costs time and does no harm.",
                self._place,
            )


async def _connect(url: str, holder: str) -> Any:
    settings = _SESSION | {"application_name": _introduce(holder)}
    connection = await asyncpg.connect(
        url, timeout=PATIENCE_SECONDS, command_timeout=PATIENCE_SECONDS, server_settings=settings
    )
    _background.connections.add(connection)
    connection.add_termination_listener(_background.connections.discard)
    opened = _socket_of(connection)
    if opened.family in {socket.AF_INET, socket.AF_INET6}:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
        for name, value in zip(names, _KEEPALIVE, strict=True):
            if hasattr(socket, name):
                opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connection


def _socket_of(connection: Any) -> Any:
    return connection._transport.get_extra_info("socket")  # noqa: SLF001 - it has no other way


def _introduce(holder: str) -> str:
    """Return who one is, in the 63 bytes of ASCII that the server keeps."""
    host = socket.gethostname().partition(".")[0][:30]
    text = one_line(f"process {os.getpid()} on {host} ({holder}")
    return text.encode("ascii", "replace")[: NAME_BYTES - 1].decode() + ")"


def _address() -> tuple[str, str]:
    """Return the address, and what of it may be shown: no user, password or option.

    Raises:
        InputError: it is none.
    """
    given = os.environ.get(SETTING, "")
    url = re.sub(r"^(postgres|postgresql)\+asyncpg:", r"\1:", given)  # as Prefect writes it
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _no_address() from None
    behind = parts.path + parts.query + parts.fragment
    if parts.scheme not in {"postgres", "postgresql"} or "@" in behind:  # of a password with / ? #
        raise _no_address()
    return url, parts.netloc.rpartition("@")[2] + parts.path


def _no_address() -> InputError:
    return InputError(
        f"{SETTING} names no PostgreSQL, or has options that cannot be used: write "
        "postgresql://USER:PASSWORD@HOST:5432/DATABASE, with %-codes for special characters in "
        "user and password."
    )


def _refused(place: str, error: Exception) -> InputError:
    return InputError(
        f"PostgreSQL at {place} refuses {SETTING}: {one_line(str(error))}. Put the address right, "
        "or unset it to do without locks between machines."
    )


class _Background:
    """An event loop in a thread, which all locks of a process share."""

    def __init__(self) -> None:
        self._of_parents: list[object] = []
        self._begin()

    def _begin(self) -> None:
        self.away_until = 0.0
        self.connections: set[Any] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = threading.Lock()

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end there, and return what it gives."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._running())
        try:
            while not futures.wait([future], SLICE_SECONDS).done:
                pass
            return future.result()
        finally:
            future.cancel()

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="locks", daemon=True).start()
            return self._loop

    def after_fork(self) -> None:
        """Forget the parent's connections in a child, which would keep them open."""
        null = os.open(os.devnull, os.O_RDWR)
        for connection in self.connections:
            if (number := _socket_of(connection).fileno()) >= 0:
                os.dup2(null, number)
        os.close(null)
        # None of them may be collected here: they would reach into the parent's selector.
        self._of_parents += [self._loop, self.connections]
        self._begin()


_background = _Background()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_background.after_fork)
