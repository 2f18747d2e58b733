"""Inventory: what lies in the cache, who made and used it, and whether it is intact."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from artifacts import layout, records, runs
from artifacts.artifact import Artifact, delete, find_damage, stat_cache_path
from artifacts.errors import InputError
from artifacts.files import folder_size
from artifacts.locks import lock
from artifacts.records import Record


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What can be removed as one: an artifact with all its records, or a checkpoint.

    Fields:
        name: `<kind>/<digest>`, or the checkpoint's path in the cache.
        size: in bytes.
        last_used: in seconds since the epoch.
        artifact: None for a checkpoint.
        records: those that name the artifact.
        runs: those that used it, the oldest first.
    """

    name: str
    size: int
    last_used: float
    artifact: Artifact | None = None
    records: tuple[Record, ...] = ()
    runs: tuple[str, ...] = ()

    @property
    def orphaned(self) -> bool:
        """Whether no step can use it: no record names the artifact, or the step has ended."""
        if self.artifact is None:
            return records.path_of(self.name.partition("/")[2]).exists()
        return not self.records

    @property
    def touched_files(self) -> list[Path]:
        """The files whose modification time is that of a use."""
        found = [records.path_of(record.key) for record in self.records]
        return [*found, stat_cache_path(self.artifact)] if self.artifact else found

    def row(self) -> dict[str, Any]:
        """Return the entry, JSON-ready."""
        made = self.artifact.metadata if self.artifact else {}
        unfinished = [] if self.artifact else [self.name.split("/")[1]]
        return {
            "artifact": self.name,
            "size": self.size,
            "last_used": _iso(self.last_used),
            "made_at": made.get("at"),
            "made_by": sorted({record.step for record in self.records}) or unfinished,
            "made_in": made.get("flow_run"),
            "used_by": list(self.runs),
        }


def entries() -> list[Entry]:
    """Return all that the cache holds, the least recently used first."""
    by_artifact: dict[str, list[Record]] = defaultdict(list)
    for record in records.everything():
        by_artifact[record.artifact.name].append(record)
    used_by: dict[str, list[str]] = defaultdict(list)
    for run, timeline in runs.timelines():
        for name in {str(step.get("artifact")) for step in timeline}:
            used_by[name].append(run)
    found = [
        Entry(
            name=name,
            size=_size_here(named[0].artifact),
            last_used=max(record.last_used for record in named),
            artifact=named[0].artifact,
            records=tuple(named),
            runs=tuple(used_by[name]),
        )
        for name, named in by_artifact.items()
    ]
    found += [*_orphans(by_artifact), *_checkpoints()]
    return sorted(found, key=lambda entry: entry.last_used)


def _size_here(artifact: Artifact) -> int:
    """Return the bytes that the artifact takes here; none of what lies only in the remote."""
    return artifact.size if artifact.folder.is_dir() else 0


def _orphans(by_artifact: dict[str, list[Record]]) -> Iterator[Entry]:
    for kind in layout.kinds():
        for folder in (layout.cache() / kind).iterdir():
            if not layout.SHA_256.fullmatch(folder.name) or f"{kind}/{folder.name}" in by_artifact:
                continue
            with suppress(FileNotFoundError):  # another process removes it
                artifact = Artifact(kind=kind, digest=folder.name, size=folder_size(folder))
                stat_cache = stat_cache_path(artifact)
                seen = (stat_cache if stat_cache.exists() else folder).stat().st_mtime
                yield Entry(
                    name=artifact.name, size=artifact.size, last_used=seen, artifact=artifact
                )


def _checkpoints() -> Iterator[Entry]:
    for path in layout.checkpoints().glob("*/*/*"):
        if layout.SHA_256.fullmatch(path.name):
            with suppress(FileNotFoundError):  # its step has ended since
                stat = path.stat()
                name = path.relative_to(layout.cache()).as_posix()
                yield Entry(name=name, size=stat.st_size, last_used=stat.st_mtime)


def verify(
    *, repair: bool = False, read_checkpoint: Callable[[Path], object] = lambda _: None
) -> list[dict[str, str]]:
    """Hash everything again and say what is damaged, and how; with `repair`, remove it.

    What stays in `store/` is looked at too, and never removed.

    Args:
        repair: remove what is damaged, so that the next run computes it again.
        read_checkpoint: raises InputError for a damaged checkpoint.
    """
    found = []
    for key in records.all_keys():
        if isinstance(problem := records.read(key), str):
            found.append({"what": f"records/{key}", "problem": problem})
            if repair:
                records.evict(key, problem)
    for entry in entries():
        if (damage := _find_problem(entry, read_checkpoint)) and _is_there(entry):
            found.append({"what": entry.name, "problem": damage})
            if repair:
                remove(entry, damage)
    for artifact in permanent():
        if damage := find_damage(
            artifact, folder=layout.permanent() / artifact.name, thorough=True
        ):
            problem = f"{damage}: restore it from a backup"
            found.append({"what": f"store/artifacts/{artifact.name}", "problem": problem})
    return found


def permanent(place: Path | None = None) -> Iterator[Artifact]:
    """Yield the artifacts that stay, or those in another folder."""
    place = place or layout.permanent()
    for kind in layout.kinds(place):
        for folder in sorted((place / kind).iterdir()):
            if layout.SHA_256.fullmatch(folder.name):
                yield Artifact(kind=kind, digest=folder.name, size=folder_size(folder))


def _is_there(entry: Entry) -> bool:
    """Return whether the entry is still in the cache: another process may have removed it."""
    if entry.records:
        return any(records.path_of(record.key).exists() for record in entry.records)
    return (layout.cache() / entry.name).exists()


def _find_problem(entry: Entry, read_checkpoint: Callable[[Path], object]) -> str | None:
    if entry.artifact is not None:
        return find_damage(entry.artifact, thorough=True)
    try:
        read_checkpoint(layout.cache() / entry.name)
    except FileNotFoundError:
        return None  # its step has ended since
    except InputError as error:
        return str(error)
    return None


def remove(entry: Entry, why: str | None = None) -> None:
    """Remove the entry with its records; with a reason, the next run gives it."""
    for record in entry.records:
        records.evict(record.key, why)
    if entry.artifact is None:
        (layout.cache() / entry.name).unlink(missing_ok=True)
    else:
        with lock("publish"):
            delete(entry.artifact)


def _iso(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%SZ}"
