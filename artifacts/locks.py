"""Locks between the processes of one machine; the operating system frees those of a dead one.

What other machines may want too is locked with `shared_lock`: on this machine first, and then, if
RETRAIN_LOCKS names a PostgreSQL, between machines (`shared_locks.py`).
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from filelock import FileLock, Timeout

from artifacts import layout
from artifacts.text import one_line

if TYPE_CHECKING:
    from artifacts.shared_locks import SharedLock

POLL_SECONDS = 0.05  # between two attempts at a lock that another process holds
REMIND_SECONDS = 60.0  # between two messages that one still waits


class Lock:
    """One lock, held from `acquire` until `release`, or until its process is gone.

    The lock file says who holds it, and is removed with it.

    Fields:
        path: of the lock file.
        shared: name of the lock between machines, if it is one.
    """

    def __init__(self, path: Path, shared: str | None = None) -> None:
        self.path = path
        self.shared = shared
        self._lock = FileLock(path, thread_local=False)
        self._between = _between_machines(shared)

    def acquire(self, holder: str, on_wait: Callable[[str], None] = lambda _: None) -> None:
        """Take the lock; while another process has it, say to `on_wait` who, once a minute.

        Raises:
            InputError: RETRAIN_LOCKS cannot be used.
        """
        self._acquire_here(holder, on_wait)
        if self._between is not None:
            try:
                self._between.acquire(holder, on_wait)
            except BaseException:
                self._release_here()
                raise

    def _acquire_here(self, holder: str, on_wait: Callable[[str], None]) -> None:
        reminded = float("-inf")
        while not self._try_here():
            if time.monotonic() - reminded >= REMIND_SECONDS:
                reminded = time.monotonic()
                on_wait(self.holder())
            with suppress(Timeout):
                self._lock.acquire(timeout=REMIND_SECONDS, poll_interval=POLL_SECONDS)
                break
        with suppress(OSError):  # on a full disk: whoever waits is told less
            self.path.write_text(f"process {os.getpid()} ({holder})", encoding="utf-8")

    def try_acquire(self) -> bool:
        """Take the lock if nobody has it; return whether that is so.

        Raises:
            InputError: as `acquire`.
        """
        if not self._try_here():
            return False
        taken = False
        try:
            taken = self._between is None or self._between.try_acquire()
        finally:
            if not taken:
                self._release_here()
        return taken

    def _try_here(self) -> bool:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            return False
        return True

    def is_free(self) -> bool:
        """Return whether nobody has the lock."""
        if free := self.try_acquire():
            self.release()
        return free

    def holder(self) -> str:
        """Return which process of this machine has the lock, in words."""
        with suppress(OSError):
            return one_line(self.path.read_text(encoding="utf-8")) or "another process"
        return "another process"

    def release(self) -> None:
        """Give the lock back. A process that waits for the removed file opens a new one."""
        try:
            if self._between is not None:
                self._between.release()
        finally:
            self._release_here()

    def _release_here(self) -> None:
        with suppress(OSError):  # on a disk that became read-only: the file alone locks nothing
            self.path.unlink()
        self._lock.release()

    def __enter__(self) -> Self:
        self.acquire("for a moment")
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process as a lock that is not held there."""
        return Lock, (self.path, self.shared)


def _between_machines(name: str | None) -> "SharedLock | None":
    if name is None or not os.environ.get("RETRAIN_LOCKS"):
        return None
    from artifacts.shared_locks import SharedLock

    return SharedLock(name)


def lock(name: str) -> Lock:
    """Return a lock of this data root: of a run, `publish`, which guards folders, or the like."""
    return Lock(layout.locks() / f"{name}.lock")


def shared_lock(name: str) -> Lock:
    """Return a lock between machines too: of a key, or of what they decide together.

    `lock` of the same name is the part of it on this machine.
    """
    return Lock(layout.locks() / f"{name}.lock", shared=name)
