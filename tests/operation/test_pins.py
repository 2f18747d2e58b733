"""The lock: exact, within the bounds of pyproject.toml, and complete for what is installed."""

import re
import tomllib
from importlib.metadata import distributions

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.conftest import PROJECT

LOCKS = ("requirements.txt", "requirements-scale.txt", "requirements-dev.txt")
#: What `python -m venv` and pip bring themselves.
OF_THE_ENVIRONMENT = {"pip", "setuptools", "wheel"}
#: What the CUDA build of torch brings, in the versions that torch itself names.
OF_CUDA = ("nvidia-", "cuda-", "triton")


def lines(name):
    text = (PROJECT / name).read_text()
    found = [line.partition(" #")[0].strip() for line in text.splitlines()]
    return [line for line in found if line and not line.startswith(("#", "-r "))]


def pinned(*names):
    found = {}
    for line in (line for name in names for line in lines(name)):
        package, _, version = line.partition("==")
        found[canonicalize_name(package)] = version
    return found


def bounds(extra=None):
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    wanted = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return [Requirement(line) for line in wanted]


@pytest.mark.parametrize("name", LOCKS)
def test_every_line_names_one_version(name):
    loose = [line for line in lines(name) if not re.fullmatch(r"[\w.-]+==[\w.!+]+", line)]
    assert loose == []
    packages = [canonicalize_name(line.partition("==")[0]) for line in lines(name)]
    assert len(packages) == len(set(packages))


@pytest.mark.parametrize(
    ("files", "extra"),
    [(LOCKS[:1], None), (LOCKS[:2], "scale"), (LOCKS, "dev")],
)
def test_the_bounds_admit_the_pins_and_each_has_one(files, extra):
    versions = pinned(*files)
    refused = [
        str(bound)
        for bound in bounds(extra)
        if not bound.specifier.contains(versions.get(canonicalize_name(bound.name), "0"))
    ]
    assert refused == []


def test_no_package_is_pinned_twice():
    packages = [package for name in LOCKS for package in pinned(name)]
    assert len(packages) == len(set(packages))


def needed_by(names):
    """The names of the installed packages that these need here, and those that those need."""
    there = {canonicalize_name(each.metadata["Name"]): each for each in distributions()}
    found, ahead = set(), list(names)
    while ahead:
        name = ahead.pop()
        if name in found or name not in there:
            continue
        found.add(name)
        wanted = [Requirement(line) for line in there[name].requires or ()]
        ahead += [
            canonicalize_name(each.name)
            for each in wanted
            if each.marker is None or each.marker.evaluate({"extra": ""})
        ]
    return found


def test_what_the_packages_need_is_pinned_too():
    known = pinned(*LOCKS)
    loose = needed_by(known) - known.keys() - OF_THE_ENVIRONMENT
    assert [name for name in loose if not name.startswith(OF_CUDA)] == []


def test_everything_installed_is_pinned_in_that_version():
    known = pinned(*LOCKS)
    there = {canonicalize_name(each.metadata["Name"]): each.version for each in distributions()}
    local = {name: Version(version).public for name, version in there.items()}
    own = OF_THE_ENVIRONMENT | {"image-retraining"}
    loose = {n: v for n, v in local.items() if n not in own and known.get(n) != v}
    assert [each for each in loose.items() if not each[0].startswith(OF_CUDA)] == []
