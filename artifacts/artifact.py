"""Artifacts: immutable folders, named by the SHA-256 of their content, published atomically."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from artifacts import layout, remote, shared
from artifacts.errors import ArgumentError, InputError
from artifacts.files import (
    FileStats,
    content_digest,
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
        """The folder; its files are brought from the remote where they are only there.

        Raises:
            InputError: they cannot be brought, or are damaged there.
        """
        for permanent in (False, True):
            if not self.folder.is_dir() and remote.current() is not None:
                fetch(self, permanent=permanent)
        return self.folder

    @property
    def folder(self) -> Path:
        """The folder, be it there or not: in the cache, or among the artifacts that stay."""
        stays = layout.permanent() / self.name
        cached = layout.cache() / self.name
        return stays if stays.is_dir() and not cached.is_dir() else cached

    def read_json(self, name: str) -> dict[str, Any]:
        """Return the JSON object in that file; of files in the remote, this one alone is brought.

        Raises:
            InputError: it cannot be brought, or is damaged there.
        """
        content = None if self.folder.is_dir() else shared.read(self.name, name)
        return dict(json.loads(content or (self.path / name).read_bytes()))

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
        permanent: whether it stays, and no pruning removes it.
    """

    folder: Path
    metadata: dict[str, Any] = field(default_factory=dict)
    permanent: bool = False
    _published: Artifact | None = None
    _discarded: bool = False

    def discard(self) -> None:
        """Publish nothing when the block ends."""
        self._discarded = True

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
def draft(kind: str, *, permanent: bool = False) -> Iterator[Draft]:
    """Publish what the block writes into the draft's folder; nothing if the block fails.

    Args:
        kind: of the artifact.
        permanent: it cannot be computed again, and so stays in `store/`.

    Raises:
        ArgumentError: the kind is no name of a folder for artifacts.
        InputError: the data root cannot be written, or its disk is full.
    """
    check_kind(kind)
    with explain_write_errors(layout.root()):
        for folder in (
            (layout.permanent() if permanent else layout.cache()) / kind,
            layout.staging(),
        ):
            folder.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=layout.staging()))
        try:
            new = Draft(folder=folder, permanent=permanent)
            yield new
            if not new._discarded:  # noqa: SLF001 - its own module
                new._published = _publish(new, kind)  # noqa: SLF001
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _publish(new: Draft, kind: str) -> Artifact:
    """Rename the finished folder to its digest; an intact one that lies there already stays."""
    stats = file_stats(new.folder, {})
    artifact = Artifact(
        kind=kind,
        digest=content_digest(stats),
        size=sum(file.size for file in stats.values()),
        metadata=new.metadata,
    )
    top = layout.permanent() if new.permanent else layout.cache()
    _place(new.folder, top / artifact.name, artifact, stats)
    return artifact


def _place(
    finished: Path, folder: Path, artifact: Artifact, stats: Mapping[str, FileStats]
) -> None:
    finished.chmod(0o755)  # mkdtemp makes it private
    with lock("publish"):
        if find_damage(artifact, folder=folder, thorough=True):
            _delete(folder)
            finished.rename(folder)
            _write_stat_cache(folder, stats)
        _stat_cache(folder).touch()  # in use: see pruning.py


def fetch(artifact: Artifact, *, permanent: bool = False) -> None:
    """Bring the files of an artifact from the remote; nothing if it has none.

    Args:
        artifact: to be brought into the cache.
        permanent: bring it from where it stays there to where it stays here.

    Raises:
        InputError: the remote does not answer, the files are damaged there, or the data root
            cannot be written.
    """
    if (wanted := shared.index_of(artifact.name, permanent=permanent)) is None:
        return
    with draft(artifact.kind, permanent=permanent) as new:
        new.discard()
        stats = shared.download(artifact.name, wanted, new.folder, permanent=permanent)
        top = layout.permanent() if permanent else layout.cache()
        _place(new.folder, top / artifact.name, artifact, stats)


def keep(artifact: Artifact) -> Artifact:
    """Copy an artifact of the cache to where it stays; nothing if an intact copy is there.

    Raises:
        InputError: it is damaged, cannot be brought from the remote, or the data root cannot be
            written.
    """
    there = layout.permanent() / artifact.name
    if find_damage(artifact, folder=there) is None:
        return artifact
    if not (layout.cache() / artifact.name).is_dir() and remote.current() is not None:
        fetch(artifact)
    with draft(artifact.kind, permanent=True) as new:
        if damage := find_damage(artifact, folder=layout.cache() / artifact.name, thorough=True):
            raise InputError(f"{artifact} cannot be kept ({damage}): the next run computes it.")
        shutil.copytree(layout.cache() / artifact.name, new.folder, dirs_exist_ok=True)
    return artifact


def delete(artifact: Artifact, *, permanent: bool = False) -> None:
    """Remove the artifact from the cache atomically: readers see all of it or nothing.

    Args:
        artifact: to be removed.
        permanent: remove it from where it stays instead.
    """
    _delete((layout.permanent() if permanent else layout.cache()) / artifact.name)


def _delete(folder: Path) -> None:
    if folder.exists():
        layout.staging().mkdir(parents=True, exist_ok=True)
        gone = Path(tempfile.mkdtemp(prefix="deleted-", dir=layout.staging()))
        folder.rename(gone / folder.name)
        shutil.rmtree(gone)
    _stat_cache(folder).unlink(missing_ok=True)


def find_damage(
    artifact: Artifact, *, folder: Path | None = None, thorough: bool = False
) -> str | None:
    """Say how the folder differs from what the digest promises, such as `a.png is missing`.

    Files are hashed again only where size, modification time or inode differ from when they were
    last hashed, or with `thorough`. Files that are only in the remote are looked at when they come.
    """
    if folder is None and not artifact.folder.is_dir() and shared.can_come(artifact.name):
        return None
    folder = folder or artifact.folder
    if not folder.is_dir():
        return f"{artifact} is missing"
    before = _read_stat_cache(folder)
    now = file_stats(folder, {} if thorough else before)
    if content_digest(now) == artifact.digest:
        if now != before:
            with suppress(OSError):  # on a full disk: it is hashed again next time
                _write_stat_cache(folder, now)
        return None
    return _describe_difference(before, now) or f"{artifact} has changed"


def stats_of(folder: Path) -> dict[str, FileStats]:
    """Return the stats of an artifact's files, hashed where they changed since they last were."""
    return file_stats(folder, _read_stat_cache(folder))


def stat_cache_path(artifact: Artifact) -> Path:
    """Return the file that holds the artifact's file stats; its time is that of the last use."""
    return _stat_cache(artifact.folder)


def _stat_cache(folder: Path) -> Path:
    return folder.with_suffix(".json")


def _write_stat_cache(folder: Path, stats: Mapping[str, FileStats]) -> None:
    write_atomically(_stat_cache(folder), json.dumps(stats))


def _read_stat_cache(folder: Path) -> dict[str, FileStats]:
    try:
        stats = json.loads(_stat_cache(folder).read_text(encoding="utf-8"))
        return {name: FileStats(*values) for name, values in stats.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


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
