"""Artifacts: what the tasks hand each other. The only place that knows where files live.

    <root>/cache/<kind>/<SHA-256>   one immutable folder an artifact, named by its content
    <root>/cache/<kind>/<SHA-256>.json   what its files looked like when they were last hashed
    <root>/cache/records/           what was made from what: see records.py
    <root>/cache/checkpoints/       of trainings that are not finished
    <root>/cache/locks/             who is making what, and which runs are under way
    <root>/cache/tmp/               work in progress
    <root>/reports/<run>/           one folder a run
    <root>/store/                   what cannot be made again

The root is the process's: MNIST_DATA, else the project's data/. So is the folder of a local source.
"""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from classifier.errors import BadInput
from tasks.locks import Lock

#: Part of every key. Raise it when a change here, in records.py or in caching.py makes older
#: records unfit.
FORMAT = 2

Kind = Literal["raw", "tables", "models", "evaluations", "pictures"]
KINDS: tuple[str, ...] = get_args(Kind)
PROJECT = Path(__file__).resolve().parent.parent


def root() -> Path:
    """The data root of this process."""
    return Path(os.environ.get("MNIST_DATA") or PROJECT / "data").resolve()


def cache() -> Path:
    """The folder of all that only costs time to make again."""
    return root() / "cache"


def records() -> Path:
    """The folder of the cache records."""
    return cache() / "records"


def checkpoints() -> Path:
    """The folder of the trainings that are not finished."""
    return cache() / "checkpoints"


def checkpoint(key: str) -> Path:
    """The file from which an interrupted training under this key goes on."""
    return checkpoints() / f"{key}.safetensors"


def lock(name: str) -> Lock:
    """The lock of that name: of a key, of a run, or `shelf`, to move artifacts about."""
    return Lock(locks() / f"{name}.lock")


def locks() -> Path:
    """The folder of the locks."""
    return cache() / "locks"


def workshop() -> Path:
    """The folder of work in progress."""
    return cache() / "tmp"


def reports() -> Path:
    """The folder that holds one folder a run."""
    return root() / "reports"


def store() -> Path:
    """The folder of what cannot be made again: nothing here removes any of it."""
    return root() / "store"


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
    def name(self) -> str:
        """Kind and digest."""
        return f"{self.kind}/{self.digest}"

    @property
    def path(self) -> Path:
        """The folder."""
        return cache() / self.name

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
        shelf = cache() / kind
        shelf.mkdir(parents=True, exist_ok=True)
        workshop().mkdir(exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=workshop()))
        try:
            new = Draft(folder=folder)
            yield new
            new.artifact = _keep(new, kind, dataset)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _keep(new: Draft, kind: Kind, dataset: str) -> Artifact:
    """Rename the finished folder to its digest; an intact one that lies there already stays."""
    new.folder.chmod(0o755)  # mkdtemp makes it private
    looks = _looks(new.folder, {})
    artifact = Artifact(
        kind=kind,
        digest=_digest(looks),
        dataset=dataset,
        size=sum(look[0] for look in looks.values()),
        made=new.made,
    )
    with lock("shelf"):
        if damage(artifact, thorough=True):
            remove(artifact)
            new.folder.rename(artifact.path)
            _remember(artifact, looks)
        note(artifact).touch()  # in use: see pruning.py
    return artifact


def remove(artifact: Artifact) -> None:
    """Take it away, at once: what is seen of it is whole or gone."""
    if artifact.path.exists():
        workshop().mkdir(exist_ok=True)
        gone = Path(tempfile.mkdtemp(prefix="gone-", dir=workshop()))
        artifact.path.rename(gone / artifact.digest)
        shutil.rmtree(gone)
    note(artifact).unlink(missing_ok=True)


def damage(artifact: Artifact, *, thorough: bool = False) -> str | None:
    """What of the folder is not as the artifact's name promises: `samples.png is missing`.

    A file is hashed again only where its size, modification time or inode differ from when it was
    last hashed, or with `thorough`.
    """
    if not artifact.path.is_dir():
        return f"{artifact} is missing"
    before = _remembered(artifact)
    looks = _looks(artifact.path, {} if thorough else before)
    if _digest(looks) == artifact.digest:
        if looks != before:
            with suppress(OSError):  # of a disk that is full: it is hashed again next time
                _remember(artifact, looks)
        return None
    return _difference(before, looks) or f"{artifact} has changed"


def modified(path: Path) -> float | None:
    """When the file was last written; None if it is gone, which another run may see to any time."""
    with suppress(FileNotFoundError):
        return path.stat().st_mtime
    return None


def files(folder: Path) -> list[Path]:
    """All files below the folder, in a fixed order."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


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


#: Of each file of a folder: size, modification time in ns, inode, SHA-256.
Looks = dict[str, list[Any]]


def _looks(folder: Path, known: Looks) -> Looks:
    """How the files look; hashed where they do not look as they are known."""
    found: Looks = {}
    for path in files(folder):
        stat = path.stat()
        seen = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        before = known.get(name := path.relative_to(folder).as_posix(), [])
        found[name] = before if before[:3] == seen else [*seen, sha256(path)]
    return found


def _digest(looks: Looks) -> str:
    """SHA-256 of the sorted lines `path sha256 size`."""
    lines = (f"{name} {look[3]} {look[0]}\n" for name, look in sorted(looks.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _difference(before: Looks, now: Looks) -> str:
    both = before.keys() & now.keys()
    said = (
        (before.keys() - now.keys(), "is missing", "are missing"),
        ({name for name in both if before[name][3] != now[name][3]}, "has changed", "have changed"),
        (now.keys() - before.keys() if before else (), "is no part of it", "are no part of it"),
    )
    return ", ".join(
        f"{', '.join(sorted(names))} {one if len(names) == 1 else more}"
        for names, one, more in said
        if names
    )


def note(artifact: Artifact) -> Path:
    """The file that says what the artifact's files looked like when they were last hashed."""
    return artifact.path.with_suffix(".json")


def _remember(artifact: Artifact, looks: Looks) -> None:
    write_atomically(note(artifact), json.dumps(looks))


def _remembered(artifact: Artifact) -> Looks:
    try:
        looks = json.loads(note(artifact).read_text(encoding="utf-8"))
        return {name: [*look] for name, look in looks.items() if len(look) == 4}  # noqa: PLR2004
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
