"""Machines: data roots of their own that share one remote."""

import os
import shutil

RAN, CACHED = {"draw": "ran", "total": "ran"}, {"draw": "cached", "total": "cached"}


class Machines:
    """Each has a folder below `top`; `on` makes one of them this process's."""

    def __init__(self, top, monkeypatch):
        self.top, self._monkeypatch = top, monkeypatch

    def on(self, name):
        self._monkeypatch.setenv("RETRAIN_DATA", str(self.top / name))
        return self.top / name

    def lose(self, name):
        """Lose a machine with its disk."""
        shutil.rmtree(self.top / name)


def objects(address):
    """Names of all objects below the prefix of a remote."""
    from artifacts.remote import Remote

    return [each.name for each in Remote(address).find("")]


def change(address, name, content):
    """Replace the content of an object, as only an intruder or a broken disk does."""
    from artifacts.remote import Remote

    there = Remote(address)
    there.checked = True
    there.put(name, content)


def said(outcomes):
    """What became of each step."""
    return {outcome.step: outcome.outcome for outcome in outcomes}


def address():
    """Of the remote."""
    return os.environ["RETRAIN_REMOTE"]


def files_here():
    """Files of artifacts that are on this machine."""
    from artifacts import layout

    return [p for kind in layout.kinds() for p in (layout.cache() / kind).glob("*/*")]


def answers_again():
    """Forget that the remote did not answer, as a new process does."""
    from artifacts import remote

    remote._remote.cache_clear()
