"""Locks between machines when a network is cut: on a network and a PostgreSQL of their own."""

import os
import subprocess
import time

import pytest

from tests.artifacts.lock_processes import HOLD, who
from tests.fixtures.postgres import cluster, programs

pytestmark = pytest.mark.slow


class Cable:
    """A network between this machine and another, which is a namespace of the kernel."""

    def __init__(self):
        number = os.getpid()
        self.far, self.ends = f"far{number}", (f"a{number}", f"b{number}")
        self.here, self.there = (f"10.213.{number % 250}.{host}" for host in (1, 2))

    def lay(self):
        near, far = self.ends
        ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", self.far)
        ip("addr", "add", f"{self.here}/24", "dev", near)
        ip("link", "set", near, "up")
        ip("-n", self.far, "link", "set", far, "up")
        self.mend()

    def cut(self):
        """Take the other's address away: packets to it are lost, and nothing says so."""
        ip("-n", self.far, "addr", "del", f"{self.there}/24", "dev", self.ends[1])

    def mend(self):
        ip("-n", self.far, "addr", "replace", f"{self.there}/24", "dev", self.ends[1])


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def cable():
    made = Cable()
    try:
        ip("netns", "add", made.far)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a network of its own needs root and Debian's package `iproute2`")
    try:
        made.lay()
        yield made
    finally:
        ip("netns", "del", made.far)


@pytest.fixture(scope="module")
def reached(cable):
    """A PostgreSQL that listens on that network too."""
    if programs() is None:
        pytest.skip("there is no PostgreSQL here: it is Debian's package `postgresql`")
    with cluster(cable.here) as running:
        running.create("locks")
        yield running


@pytest.fixture
def far(cable, reached, elsewhere):
    """Start a process on the other machine, with the network in order."""
    url = reached.address("locks", host=cable.here)
    cable.mend()
    return lambda: elsewhere(HOLD, before=("ip", "netns", "exec", cable.far), RETRAIN_LOCKS=url)


@pytest.fixture
def near(reached, elsewhere):
    """Start a process on this machine."""
    return lambda: elsewhere(HOLD, RETRAIN_LOCKS=reached.address("locks"))


def test_a_holder_whose_network_is_cut_frees_the_lock_within_ten_seconds(cable, far, near):
    holder = far()
    assert holder.stdout.readline() == "held\n"
    waiter = near()
    assert waiter.stdout.readline() == f"waiting for {who(holder.pid)}\n"
    cable.cut()
    cut = time.monotonic()
    assert waiter.stdout.readline() == "held\n"
    assert time.monotonic() - cut < 10
    _, said = holder.communicate("go on\n", timeout=10)
    assert holder.returncode == 0
    assert said.count("is lost, and with it a lock between machines") == 1


def test_so_does_a_waiter_that_gets_the_lock_after_its_network_was_cut(cable, far, near):
    holder = near()
    assert holder.stdout.readline() == "held\n"
    cut_off = far()
    assert cut_off.stdout.readline() == f"waiting for {who(holder.pid)}\n"
    third = near()
    assert third.stdout.readline() == f"waiting for {who(holder.pid)}\n"
    cable.cut()
    cut = time.monotonic()
    holder.communicate("go on\n", timeout=10)
    assert third.stdout.readline() == "held\n"
    assert time.monotonic() - cut < 10
    assert cut_off.stdout.readline() == "held\n"  # it goes on
    assert time.monotonic() - cut < 20
    _, said = cut_off.communicate("go on\n", timeout=10)
    assert said.count("No locks between machines for now") == 1
