"""Locks between the processes of one machine, which the operating system frees when one ends."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

POLL_SECONDS = 0.05  # between two looks at a lock that another process holds


class Lock:
    """One lock, held from `acquire` until `release`, or until its process is gone.

    The file says who holds it, and is removed with it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path, thread_local=False)

    def acquire(self, holder: str, waiting: Callable[[str], None] = lambda _: None) -> None:
        """Take it; where another has it, tell `waiting` once who that is, and wait."""
        if not self.free():
            waiting(self.holder())
            self._lock.acquire(poll_interval=POLL_SECONDS)
        with suppress(OSError):  # of a full disk: whoever waits is then told less
            self.path.write_text(f"process {os.getpid()} ({holder})", encoding="utf-8")

    def free(self) -> bool:
        """Take it if nobody has it; whether that is so."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            return False
        return True

    def holder(self) -> str:
        """Who has it, in words."""
        with suppress(OSError):
            return self.path.read_text(encoding="utf-8") or "another process"
        return "another process"

    def release(self) -> None:
        """Give it back. Whoever waits for a file that is removed opens a new one."""
        with suppress(OSError):  # of a disk that is read-only by now: the file alone locks nothing
            self.path.unlink()
        self._lock.release()

    def __enter__(self) -> Self:
        self.acquire("a moment")
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
