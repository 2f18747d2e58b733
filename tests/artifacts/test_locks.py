"""Locks between processes: who waits, for whom, and for how long."""

import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import artifacts
from artifacts.locks import Lock, lock

PATH = str(Path(artifacts.__file__).parent.parent)
HOLD = """
import sys
from artifacts.locks import lock
held = lock(sys.argv[1])
held.acquire("the holder")
print("held", flush=True)
sys.stdin.readline()
held.release()
"""
COUNT = """
import sys
from pathlib import Path
from artifacts.locks import lock
counter = Path(sys.argv[1])
for _ in range(100):
    with lock("counter"):
        counter.write_text(str(int(counter.read_text()) + 1))
"""


def python(script, *arguments):
    """A process that runs the script with the data root of this one."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": PATH},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def holder(root):
    """Another process that has the lock `add/toy/x`."""
    with python(HOLD, "add/toy/x") as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


class Waiting(threading.Thread):
    """Someone here who takes the lock and keeps it."""

    def __init__(self):
        super().__init__(daemon=True)
        self.said = []
        self.lock = lock("add/toy/x")
        self.start()

    def run(self):
        self.lock.acquire("the waiter", self.said.append)

    def says(self):
        """Whom it waits for, once it does."""
        wait_until(lambda: self.said)
        return self.said


def wait_until(true):
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_whoever_waits_says_once_whom_it_waits_for(holder):
    waiting = Waiting()
    assert waiting.says() == [f"process {holder.pid} (the holder)"]
    assert waiting.is_alive()
    holder.communicate("go on\n", timeout=30)
    waiting.join(timeout=30)
    assert waiting.said == [f"process {holder.pid} (the holder)"]
    assert waiting.lock.holder() == f"process {os.getpid()} (the waiter)"
    waiting.lock.release()
    assert not waiting.lock.path.exists()


def test_a_killed_holder_frees_the_lock_within_a_second(holder):
    waiting = Waiting()
    waiting.says()
    holder.kill()
    holder.wait()
    killed = time.monotonic()
    waiting.join(timeout=30)
    assert time.monotonic() - killed < 1
    assert waiting.lock.holder() == f"process {os.getpid()} (the waiter)"
    waiting.lock.release()


def test_a_lock_that_another_process_has_is_not_free(holder):
    mine = lock("add/toy/x")
    assert not mine.try_acquire()
    assert not mine.is_free()
    assert lock("add/toy/y").is_free()
    holder.communicate("go on\n", timeout=30)
    assert mine.is_free()


def test_lock_files_vanish(root):
    with lock("add/toy/x") as held:
        assert held.path == root / "cache" / "locks" / "add" / "toy" / "x.lock"
        assert held.path.read_text() == f"process {os.getpid()} (for a moment)"
        assert not lock("add/toy/x").is_free()
    assert not held.path.exists()
    assert lock("add/toy/x").is_free()
    assert [path for path in root.rglob("*") if path.is_file()] == []


def test_the_lock_of_nobody_says_so_too(root):
    assert lock("add/toy/x").holder() == "another process"


def test_only_one_has_the_lock_at_a_time_although_its_file_comes_and_goes(root, tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")
    for process in [python(COUNT, counter) for _ in range(3)]:
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert counter.read_text() == "300"


def test_a_lock_travels_to_another_process_without_being_held_there(root):
    with lock("add/toy/x") as held:
        other = pickle.loads(pickle.dumps(held))  # noqa: S301 - as Prefect sends a task
        assert isinstance(other, Lock)
        assert other.path == held.path
        assert not other.try_acquire()
    assert other.is_free()
