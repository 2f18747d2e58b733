"""Artifacts: immutable folders, named by the SHA-256 of their content, published atomically."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from artifacts import layout
from artifacts.errors import ArgumentError
from artifacts.files import (
    FileStats,
    explain_write_errors,
    file_stats,
    write_atomically,
)
from artifacts.locks import lock


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One immutable folder below the data root.

    Fields:
        kind: what it is, such as `models`: the folder of the cache in which it lies.
        digest: SHA-256 of its content.
        size: bytes of its files.
        metadata: how it was made: step, run, time, seconds, and what the step adds. No part of its
            identity.
    """

    kind: str
    digest: str
    size: int
    metadata: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        """Kind and digest."""
        return f"{self.kind}/{self.digest}"

    @property
    def path(self) -> Path:
        """The folder."""
        return layout.cache() / self.name

    def read_json(self, name: str) -> dict[str, Any]:
        """Return the JSON object in that file of the folder."""
        return dict(json.loads((self.path / name).read_text(encoding="utf-8")))

    def __str__(self) -> str:
        return f"{self.kind}/{self.digest[:8]}"


def to_json(value: object) -> Any:
    """Encode what JSON does not know; Prefect's serialiser calls this."""
    if isinstance(value, Artifact):
        return asdict(value)
    raise TypeError(f"A step returns an Artifact, not {type(value).__name__}.")


def from_json(value: dict[str, Any]) -> Any:
    """Decode a JSON object; Prefect's serialiser calls this for each, innermost first."""
    return Artifact(**value) if value.keys() == Artifact.__dataclass_fields__.keys() else value


@dataclass(kw_only=True)
class Draft:
    """An artifact that is being written.

    Fields:
        folder: to write into.
        metadata: what its record should say besides.
    """

    folder: Path
    metadata: dict[str, Any] = field(default_factory=dict)
    _published: Artifact | None = None

    @property
    def artifact(self) -> Artifact:
        """The published artifact, once the `draft` block has ended."""
        if self._published is None:
            raise RuntimeError("The artifact is asked for inside its draft block.")
        return self._published


def check_kind(kind: str) -> None:
    """Check that a folder of the cache can have this name.

    Raises:
        ArgumentError: it cannot.
    """
    if not layout.KIND.fullmatch(kind) or kind in layout.RESERVED:
        raise ArgumentError(
            f"{kind!r} is no kind of artifact: use lower-case letters, digits and dashes, and none "
            f"of {', '.join(sorted(layout.RESERVED))}."
        )


@contextmanager
def draft(kind: str) -> Iterator[Draft]:
    """Publish what the block writes into the draft's folder; nothing if the block fails.

    Raises:
        ArgumentError: the kind is no name of a folder for artifacts.
        InputError: the data root cannot be written, or its disk is full.
    """
    check_kind(kind)
    with explain_write_errors(layout.root()):
        (layout.cache() / kind).mkdir(parents=True, exist_ok=True)
        layout.staging().mkdir(exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=layout.staging()))
        try:
            new = Draft(folder=folder)
            yield new
            new._published = _publish(new, kind)  # noqa: SLF001 - its own module
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _publish(new: Draft, kind: str) -> Artifact:
    """Rename the finished folder to its digest; an intact one that lies there already stays."""
    new.folder.chmod(0o755)  # mkdtemp makes it private
    stats = file_stats(new.folder, {})
    artifact = Artifact(
        kind=kind,
        digest=_digest(stats),
        size=sum(file.size for file in stats.values()),
        metadata=new.metadata,
    )
    with lock("publish"):
        if find_damage(artifact, thorough=True):
            delete(artifact)
            new.folder.rename(artifact.path)
            _write_stat_cache(artifact, stats)
        stat_cache_path(artifact).touch()  # in use: see pruning.py
    return artifact


def delete(artifact: Artifact) -> None:
    """Remove the artifact atomically: readers see all of it or nothing."""
    if artifact.path.exists():
        layout.staging().mkdir(exist_ok=True)
        gone = Path(tempfile.mkdtemp(prefix="deleted-", dir=layout.staging()))
        artifact.path.rename(gone / artifact.digest)
        shutil.rmtree(gone)
    stat_cache_path(artifact).unlink(missing_ok=True)


def find_damage(artifact: Artifact, *, thorough: bool = False) -> str | None:
    """Say how the folder differs from what the digest promises, such as `a.png is missing`.

    Files are hashed again only where size, modification time or inode differ from when they were
    last hashed, or with `thorough`.
    """
    if not artifact.path.is_dir():
        return f"{artifact} is missing"
    before = _read_stat_cache(artifact)
    now = file_stats(artifact.path, {} if thorough else before)
    if _digest(now) == artifact.digest:
        if now != before:
            with suppress(OSError):  # on a full disk: it is hashed again next time
                _write_stat_cache(artifact, now)
        return None
    return _describe_difference(before, now) or f"{artifact} has changed"


def stat_cache_path(artifact: Artifact) -> Path:
    """Return the file that holds the artifact's file stats; its time is that of the last use."""
    return artifact.path.with_suffix(".json")


def _write_stat_cache(artifact: Artifact, stats: Mapping[str, FileStats]) -> None:
    write_atomically(stat_cache_path(artifact), json.dumps(stats))


def _read_stat_cache(artifact: Artifact) -> dict[str, FileStats]:
    try:
        stats = json.loads(stat_cache_path(artifact).read_text(encoding="utf-8"))
        return {name: FileStats(*values) for name, values in stats.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _digest(stats: Mapping[str, FileStats]) -> str:
    """Return the SHA-256 of the sorted lines `path sha256 size`."""
    lines = (f"{name} {file.sha256} {file.size}\n" for name, file in sorted(stats.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def describe_difference(old: Path, new: Path) -> str:
    """Say which files of the new folder differ from those of the old one."""
    return _describe_difference(file_stats(old, {}), file_stats(new, {}))


def _describe_difference(before: Mapping[str, FileStats], now: Mapping[str, FileStats]) -> str:
    both = before.keys() & now.keys()
    changed = {name for name in both if before[name].sha256 != now[name].sha256}
    said = (
        (before.keys() - now.keys(), "is missing", "are missing"),
        (changed, "has changed", "have changed"),
        (now.keys() - before.keys() if before else (), "does not belong", "do not belong"),
    )
    return ", ".join(
        f"{', '.join(sorted(names))} {one if len(names) == 1 else more}"
        for names, one, more in said
        if names
    )
