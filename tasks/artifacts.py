"""Artifacts: what the tasks hand each other. The only place that knows where files live.

    <root>/cache/<kind>/<SHA-256>   one immutable folder an artifact, named by its content
    <root>/cache/records/           what was made from what: see caching.py
    <root>/cache/checkpoints/       of trainings that are not finished
    <root>/cache/tmp/               work in progress
    <root>/reports/<run>/           one folder a run

The root is the process's: MNIST_DATA, else the project's data/. So is the folder of a local source.
"""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from classifier.errors import BadInput

#: Part of every key. Raise it when a change here or in caching.py makes older records unfit.
FORMAT = 1

Kind = Literal["raw", "tables", "models", "evaluations", "pictures"]
KINDS: tuple[str, ...] = get_args(Kind)
PROJECT = Path(__file__).resolve().parent.parent


def root() -> Path:
    """The data root of this process."""
    return Path(os.environ.get("MNIST_DATA") or PROJECT / "data").resolve()


def records() -> Path:
    """The folder of the cache records."""
    return root() / "cache" / "records"


def checkpoint(key: str) -> Path:
    """The file from which an interrupted training under this key goes on."""
    return root() / "cache" / "checkpoints" / f"{key}.safetensors"


def reports() -> Path:
    """The folder that holds one folder a run."""
    return root() / "reports"


def local_source() -> Path | None:
    """The folder that MNIST_SOURCE names: data is then taken from there and nowhere else."""
    named = os.environ.get("MNIST_SOURCE")
    return Path(named).resolve() if named else None


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One immutable folder under the data root.

    Fields:
        kind, digest: where it lies; the digest is that of its content.
        dataset: the name that it was made under.
        size: bytes of its files.
        made: how: seconds, device, host, time. No part of its identity.
    """

    kind: Kind
    digest: str
    dataset: str
    size: int
    made: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def path(self) -> Path:
        """The folder."""
        return root() / "cache" / self.kind / self.digest

    def read_json(self, name: str) -> dict[str, Any]:
        """The JSON object in that file of the folder."""
        return dict(json.loads((self.path / name).read_text(encoding="utf-8")))

    def __str__(self) -> str:
        return f"{self.kind}/{self.digest[:8]}"


def to_json(value: object) -> Any:
    """Prefect's JSON encoder calls this for what JSON does not know."""
    if isinstance(value, Artifact):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} is no artifact, and has no place in a record.")


def from_json(value: dict[str, Any]) -> Any:
    """Prefect's JSON decoder calls this for every object, innermost first."""
    return Artifact(**value) if value.keys() == Artifact.__dataclass_fields__.keys() else value


@dataclass(kw_only=True)
class Draft:
    """An artifact in the making: write into `folder`, note in `made` what its record should say."""

    folder: Path
    made: dict[str, Any] = field(default_factory=dict)
    artifact: Artifact | None = None

    def finished(self) -> Artifact:
        """The artifact, once its `draft` block has ended."""
        if self.artifact is None:
            raise RuntimeError("finished() was called inside the draft block.")
        return self.artifact


@contextmanager
def draft(kind: Kind, *, dataset: str) -> Iterator[Draft]:
    """A new artifact: all that the block writes into its folder, or nothing if it fails.

    Raises:
        BadInput: the data root cannot be written, or its disk is full.
    """
    with writing(root()):
        shelf = root() / "cache" / kind
        shelf.mkdir(parents=True, exist_ok=True)
        work = root() / "cache" / "tmp"
        work.mkdir(exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{kind}-{os.getpid()}-", dir=work))
        try:
            new = Draft(folder=folder)
            yield new
            new.artifact = _keep(new, kind, dataset)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _keep(new: Draft, kind: Kind, dataset: str) -> Artifact:
    """Rename the finished folder to its digest; an intact one that lies there already stays."""
    new.folder.chmod(0o755)  # mkdtemp makes it private
    artifact = Artifact(
        kind=kind,
        digest=digest(new.folder),
        dataset=dataset,
        size=sum(path.stat().st_size for path in files(new.folder)),
        made=new.made,
    )
    if not intact(artifact, thorough=True):
        if artifact.path.exists():
            artifact.path.rename(new.folder.with_suffix(".damaged"))
            shutil.rmtree(new.folder.with_suffix(".damaged"))
        new.folder.rename(artifact.path)
        _remember(artifact)
    return artifact


def intact(artifact: Artifact, *, thorough: bool = False) -> bool:
    """Whether the folder still has the content that its name promises.

    The files are hashed again only where size, modification time or inode differ from when they
    were last hashed, or with `thorough`.
    """
    if not artifact.path.is_dir():
        return False
    if not thorough and _signature(artifact.path) == _remembered(artifact):
        return True
    if digest(artifact.path) != artifact.digest:
        return False
    _remember(artifact)
    return True


def files(folder: Path) -> list[Path]:
    """All files below the folder, in a fixed order."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def digest(folder: Path) -> str:
    """SHA-256 of the sorted lines `path sha256 size` of all files below the folder."""
    lines = [
        f"{path.relative_to(folder).as_posix()} {sha256(path)} {path.stat().st_size}\n"
        for path in files(folder)
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def sha256(path: Path) -> str:
    """SHA-256 of the file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """The whole text under that name, or what was there before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turns the errors of a full, read-only or unfit disk into one sentence about `place`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _CANNOT_WRITE:
            raise
        raise BadInput(
            f"Cannot write to {place}: {os.strerror(error.errno)}. Make room there, or choose "
            "another folder with --data."
        ) from error


_CANNOT_WRITE = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EEXIST,
    errno.EFBIG,
    errno.ENAMETOOLONG,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}


def _signature(folder: Path) -> dict[str, list[int]]:
    stats = ((path, path.stat()) for path in files(folder))
    return {
        path.relative_to(folder).as_posix(): [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        for path, stat in stats
    }


def _note(artifact: Artifact) -> Path:
    return artifact.path.with_suffix(".json")


def _remember(artifact: Artifact) -> None:
    write_atomically(_note(artifact), json.dumps(_signature(artifact.path)))


def _remembered(artifact: Artifact) -> Any:
    try:
        return json.loads(_note(artifact).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
