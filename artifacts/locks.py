"""Locks between the processes of one machine; the operating system frees those of a dead one."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from artifacts import layout
from artifacts.text import one_line

POLL_SECONDS = 0.05  # between two attempts at a lock that another process holds
REMIND_SECONDS = 60.0  # between two messages that one still waits


class Lock:
    """One lock, held from `acquire` until `release`, or until its process is gone.

    The lock file says who holds it, and is removed with it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path, thread_local=False)

    def acquire(self, holder: str, on_wait: Callable[[str], None] = lambda _: None) -> None:
        """Take the lock; while another process has it, say to `on_wait` who, once a minute."""
        reminded = float("-inf")
        while not self.try_acquire():
            if time.monotonic() - reminded >= REMIND_SECONDS:
                reminded = time.monotonic()
                on_wait(self.holder())
            with suppress(Timeout):
                self._lock.acquire(timeout=REMIND_SECONDS, poll_interval=POLL_SECONDS)
                break
        with suppress(OSError):  # on a full disk: whoever waits is told less
            self.path.write_text(f"process {os.getpid()} ({holder})", encoding="utf-8")

    def try_acquire(self) -> bool:
        """Take the lock if nobody has it; return whether that is so."""
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
        """Return who has the lock, in words."""
        with suppress(OSError):
            return one_line(self.path.read_text(encoding="utf-8")) or "another process"
        return "another process"

    def release(self) -> None:
        """Give the lock back. A process that waits for the removed file opens a new one."""
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
        return Lock, (self.path,)


def lock(name: str) -> Lock:
    """Return the lock of a key, of a run, or `publish`, which guards the folders of artifacts."""
    return Lock(layout.locks() / f"{name}.lock")
