"""Processes that share locks: processes with data roots of their own."""

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import artifacts
from artifacts.locks import shared_lock

PATH = str(Path(artifacts.__file__).parent.parent)
NAME = "add/toy/x"
HOLD = f"""
import sys
from artifacts.locks import shared_lock
held = shared_lock("{NAME}")
held.acquire("the holder", lambda who: print("waiting for", who, flush=True))
print("held", flush=True)
sys.stdin.readline()
held.release()
"""


class Processes:
    """Starts processes, each with a data root of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.running = []

    def __call__(self, script, *arguments, before=(), **environment):
        data = {"RETRAIN_DATA": str(self.folder / str(len(self.running))), "PYTHONPATH": PATH}
        process = subprocess.Popen(
            [*before, sys.executable, "-c", script, *map(str, arguments)],
            env=os.environ | data | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.running.append(process)
        return process

    def end(self):
        for process in self.running:
            process.kill()
            process.communicate()


class Waiting(threading.Thread):
    """Someone in this process who takes the lock and keeps it."""

    def __init__(self):
        super().__init__(daemon=True)
        self.said, self.ended = [], None
        self.lock = shared_lock(NAME)
        self.start()

    def run(self):
        try:
            self.lock.acquire("the waiter", self.said.append)
        except ZeroDivisionError as error:
            self.ended = error

    def says(self):
        """Whom it waits for, once it does."""
        wait_until(lambda: self.said)
        return self.said


def wait_until(true, seconds=30):
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def who(pid, holder="the holder"):
    """What is said of a holder on this host."""
    return f"process {pid} on {socket.gethostname().partition('.')[0][:30]} ({holder})"


def free_elsewhere():
    """Whether another machine could have the lock."""
    from artifacts.shared_locks import SharedLock

    other = SharedLock(NAME)
    if free := other.try_acquire():
        other.release()
    return free
