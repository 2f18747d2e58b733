"""The cache as a whole: what lies there, whether it is intact, what may go, where it came from.

Nothing here imports Prefect or torch: these are questions that should be answered at once.
"""

import json
import os
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from classifier.errors import BadArgument, BadInput
from tasks import artifacts, records
from tasks.artifacts import Artifact
from tasks.records import Parts, Record

DEFAULT_LIMIT = "20GB"
TICK = 0.02  # seconds by which a file's time may lag behind the clock
_NAMED = re.compile(rf"({'|'.join(artifacts.KINDS)})/([0-9a-f]{{64}})")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What can be removed as one: an artifact with all its records, or a checkpoint.

    Fields:
        name: `<kind>/<digest>`, or the checkpoint's path in the cache.
        size: bytes.
        used: when it was last used, in seconds since the epoch.
        artifact: None for a checkpoint.
        records: those that name it; without any, an artifact serves nobody.
        runs: those that used it, the oldest first.
    """

    name: str
    size: int
    used: float
    artifact: Artifact | None = None
    records: tuple[Record, ...] = ()
    runs: tuple[str, ...] = ()

    @property
    def idle(self) -> bool:
        """Whether nothing can come of it any more."""
        return self.artifact is not None and not self.records

    def _unfinished(self) -> list[str]:
        return [] if self.artifact else [self.name.split("/")[1]]

    def row(self) -> dict[str, Any]:
        """JSON-ready."""
        made = self.artifact.made if self.artifact else {}
        return {
            "artifact": self.name,
            "size": self.size,
            "used": _iso(self.used),
            "made_at": made.get("at"),
            "made_by": sorted({record.task for record in self.records}) or self._unfinished(),
            "made_in": made.get("run"),
            "used_by": list(self.runs),
        }


def size(text: str) -> int:
    """Bytes of `2GB`, `500 MB` or `1.5GiB`.

    Raises:
        BadArgument: it is none of that.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b\s*", text.lower())
    if not found:
        raise BadArgument(f"{text!r} is no size: write it as 500MB, 2GB or 1.5GiB.")
    number, prefix, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** " kmgt".index(prefix or " "))


def limit() -> int:
    """The most bytes that the cache should hold: MNIST_CACHE_LIMIT, or the default."""
    return size(os.environ.get("MNIST_CACHE_LIMIT") or DEFAULT_LIMIT)


# What lies there


def inventory() -> list[Entry]:
    """All that the cache holds, the longest unused first."""
    made: dict[str, list[Record]] = defaultdict(list)
    for record in records.everything():
        made[record.artifact.name].append(record)
    used_by: dict[str, list[str]] = defaultdict(list)
    for run, timeline in timelines():
        for name in {step.get("artifact") for step in timeline} - {None}:
            used_by[name].append(run)
    there = {
        name: Entry(
            name=name,
            size=of_it[0].artifact.size,
            used=max(record.used for record in of_it),
            artifact=of_it[0].artifact,
            records=tuple(of_it),
            runs=tuple(used_by[name]),
        )
        for name, of_it in made.items()
    }
    there |= {entry.name: entry for entry in _without_records(made)}
    return sorted([*there.values(), *_checkpoints()], key=lambda entry: entry.used)


def _without_records(made: dict[str, list[Record]]) -> Iterator[Entry]:
    for kind in artifacts.KINDS:
        for folder in (artifacts.root() / "cache" / kind).glob("*"):
            if f"{kind}/{folder.name}" not in made and folder.is_dir():
                held = sum(path.stat().st_size for path in artifacts.files(folder))
                artifact = Artifact(kind=kind, digest=folder.name, dataset="", size=held)  # type: ignore[arg-type] # one of them
                note = artifacts.note(artifact)
                seen = (note if note.exists() else folder).stat().st_mtime
                yield Entry(name=artifact.name, size=held, used=seen, artifact=artifact)


def _checkpoints() -> Iterator[Entry]:
    cache = artifacts.root() / "cache"
    for path in (cache / "checkpoints").rglob("*.safetensors"):
        stat = path.stat()
        name = path.relative_to(cache).as_posix()
        yield Entry(name=name, size=stat.st_size, used=stat.st_mtime)


def timelines() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The finished runs, the oldest first, and what became of their steps."""
    for path in _finished():
        try:
            timeline = json.loads(path.read_text(encoding="utf-8"))["timeline"]
            yield path.parent.name, [dict(step) for step in timeline]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # a report is for people: one that is damaged stops nothing


def _finished() -> list[Path]:
    """The reports of finished runs, the oldest first: by the second in the name, then the file."""
    there = artifacts.reports().glob("*/report.json")
    return sorted(there, key=lambda path: (path.parent.name[:15], path.stat().st_mtime))


def explained(run: str | None) -> tuple[str, list[dict[str, Any]]]:
    """A run by its name or a part of it, else the last one, and its steps with their reasons.

    Raises:
        BadArgument: there is none, or more than one.
    """
    there = dict(timelines())
    found = [name for name in there if run is None or run in name]
    if run in there:
        found = [run]
    if not found:
        asked = f"a run {run}" if run else "any run"
        raise BadArgument(
            f"There is no report of {asked} in {artifacts.reports()}. What a run that did not "
            "finish has done is in its log.txt."
        )
    if run is not None and len(found) > 1:
        raise BadArgument(f"{run!r} may be any of {', '.join(found)}.")
    return found[-1], there[found[-1]]


# Whether it is intact


def verify(*, repair: bool = False) -> list[dict[str, str]]:
    """Hash everything again: what is damaged, and how. With `repair` that is dropped.

    The next run makes it again.
    """
    found = []
    for key in records.all_keys():
        if isinstance(unfit := records.read(key), str):
            found.append({"what": f"records/{key}", "problem": unfit})
            if repair:
                records.drop(key, unfit)
    for entry in inventory():
        if problem := _problem(entry):
            found.append({"what": entry.name, "problem": problem})
            if repair:
                _remove(entry, problem)
    return found


def _problem(entry: Entry) -> str | None:
    if entry.artifact is not None:
        return artifacts.damage(entry.artifact, thorough=True)
    from classifier import checkpoints  # loads torch: only where there is a checkpoint

    try:
        checkpoints.read(artifacts.root() / "cache" / entry.name)
    except BadInput as error:
        return str(error)
    return None


def _remove(entry: Entry, why: str | None = None) -> None:
    for record in entry.records:
        records.drop(record.key, why)
    if entry.artifact is None:
        (artifacts.root() / "cache" / entry.name).unlink(missing_ok=True)
    else:
        with artifacts.lock("shelf"):
            artifacts.remove(entry.artifact)


# What may go


def prune(
    *,
    keep_runs: int | None = None,
    max_size: int | None = None,
    older_than: float | None = None,
    dry_run: bool = False,
) -> list[Entry]:
    """Remove what any of the limits lets go, and what killed runs left; what it was.

    What runs under way have used stays, and what a file in data/store names, with all that it was
    made from.

    Args:
        keep_runs: keep what the newest so many runs used.
        max_size: bytes; the longest unused goes first.
        older_than: seconds since the last use.
        dry_run: only say.
    """
    if not (artifacts.root() / "cache").is_dir():
        return []
    with artifacts.writing(artifacts.root()), artifacts.lock("prune"):
        began = time.time() - TICK
        since = _under_way_since()
        there = inventory()
        needed = _named_in_store(there)
        free = [entry for entry in there if entry.used < since and entry.name not in needed]
        going = {entry.name for entry in free if entry.idle}
        if older_than is not None:
            going |= {entry.name for entry in free if entry.used < time.time() - older_than}
        if keep_runs is not None:
            kept = [path.parent.name for path in _finished()][-keep_runs:] if keep_runs else []
            first = _started(kept[0]) if kept else float("inf")
            going |= {e.name for e in free if e.used < first and not set(kept) & set(e.runs)}
        if max_size is not None:
            left = sum(entry.size for entry in there if entry.name not in going)
            for entry in free:
                if left > max_size and entry.name not in going:
                    going.add(entry.name)
                    left -= entry.size
        gone = [entry for entry in free if entry.name in going]
        if not dry_run:
            gone = [entry for entry in gone if _let_go(entry, began)]
            _sweep(since)
        return gone


def _let_go(entry: Entry, began: float) -> bool:
    """Remove it, unless somebody has it in hand or has used it since the pruning began."""
    touched = [records.path_of(record.key) for record in entry.records]
    if entry.artifact:
        touched.append(artifacts.note(entry.artifact))
    locks = [artifacts.lock(record.key) for record in entry.records]
    taken = [lock for lock in locks if lock.free()]
    try:
        if len(taken) < len(locks) or any(_since(began, path) for path in touched):
            return False
        _remove(entry)
    finally:
        for lock in taken:
            lock.release()
    return True


def _since(moment: float, path: Path) -> bool:
    return path.exists() and path.stat().st_mtime > moment


def _under_way_since() -> float:
    """When the oldest run that is still under way began; infinite without one."""
    began = [float("inf")]
    for path in (artifacts.root() / "cache" / "locks" / "runs").glob("*.lock"):
        lock = artifacts.lock(f"runs/{path.stem}")
        if lock.free():
            lock.release()
        else:
            began.append(_started(path.stem))
    return min(began)


def _started(run: str) -> float:
    """When the run of that name began: the second that its name gives."""
    return datetime.strptime(run[:15] + "+0000", "%Y%m%d-%H%M%S%z").timestamp()


def _sweep(since: float) -> None:
    """Remove what killed runs have left: work in progress, and locks that nobody holds."""
    cache = artifacts.root() / "cache"
    for path in artifacts.workshop().glob("*"):
        if path.stat().st_mtime < since:
            shutil.rmtree(path, ignore_errors=True)
    half = [*cache.rglob("*.tmp"), *artifacts.reports().glob("*/.*.tmp")]
    half += [
        path
        for kind in artifacts.KINDS
        for path in (cache / kind).glob("*.json")
        if not path.with_suffix("").is_dir()
    ]
    for path in half:
        if path.exists() and path.stat().st_mtime < since:
            path.unlink()
    for path in (cache / "locks").rglob("*.lock"):
        lock = artifacts.lock(path.relative_to(cache / "locks").with_suffix("").as_posix())
        if lock.free():
            lock.release()


def _named_in_store(there: Iterable[Entry]) -> set[str]:
    """The artifacts that a JSON file in data/store names, and all that they were made from."""
    named: set[str] = set()
    for path in artifacts.store().rglob("*.json"):
        named |= {match[0] for match in _NAMED.finditer(path.read_text(errors="replace"))}
    by_digest = {entry.artifact.digest: entry for entry in there if entry.artifact}
    waiting = [entry for entry in by_digest.values() if entry.name in named]
    while waiting:
        for record in waiting.pop().records:
            for digest in records.inputs(record.parts()).values():
                if digest in by_digest and by_digest[digest].name not in named:
                    named.add(by_digest[digest].name)
                    waiting.append(by_digest[digest])
    return named


# Where it came from


@dataclass(frozen=True)
class Origin:
    """How an artifact came to be: its record, or none if that was lost, and those of its inputs."""

    name: str
    record: Record | None
    inputs: dict[str, "Origin"]

    @cached_property
    def parts(self) -> Parts:
        """All that it was made from."""
        return self.record.parts() if self.record else {}

    def row(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "artifact": self.name,
            "task": self.parts.get("task"),
            "made": self.record.artifact.made if self.record else None,
            "adopted": records.adoption(self.parts),
            "parameters": {n: v for n, v in self.parts.items() if " " not in n and n not in _ABOUT},
            "code": _under("code ", self.parts),
            "versions": _under("version ", self.parts),
            "inputs": {name: origin.row() for name, origin in self.inputs.items()},
        }


_ABOUT = {"task", "format", "module"} | records.NOT_IN_KEY


def _under(prefix: str, parts: Parts) -> Parts:
    return {n.removeprefix(prefix): v for n, v in parts.items() if n.startswith(prefix)}


def lineage(asked: str) -> Origin:
    """Where an artifact came from, down to the source.

    Args:
        asked: its folder, a file in that, or its name, of which the first letters are enough.

    Raises:
        BadArgument: no artifact is meant, or more than one.
    """
    by_digest: dict[str, Record] = {}
    for record in sorted(records.everything(), key=lambda record: record.used):
        by_digest[record.artifact.digest] = record
    named = _NAMED.search(Path(asked).resolve().as_posix()) or _NAMED.search(asked)
    start = f"{named[1]}/{named[2]}" if named else asked.removeprefix("cache/")
    found = [
        record
        for record in by_digest.values()
        if record.artifact.name.startswith(start)
        or (start and record.artifact.digest.startswith(start))
    ]
    if not found:
        raise BadArgument(f"No record of the cache names an artifact {asked!r}.")
    if len(found) > 1:
        raise BadArgument(f"{asked!r} may be any of {', '.join(r.artifact.name for r in found)}.")

    def origin(digest: str) -> Origin:
        record = by_digest.get(digest)
        if record is None:
            return Origin(digest, None, {})
        there = {name: origin(of) for name, of in records.inputs(record.parts()).items()}
        return Origin(record.artifact.name, record, there)

    return origin(found[0].artifact.digest)


def adopt(*, dry_run: bool = False) -> list[dict[str, str]]:
    """After an edit that changes no result: let the artifacts of the old code count for the new.

    Taken are those made by the code that each step was last used with, where nothing but code
    differs. What was taken, and after which change.
    """
    by_place: dict[str, list[Record]] = defaultdict(list)
    for record in records.everything():
        by_place[record.key.rpartition("/")[0]].append(record)
    taken = []
    for place, there in sorted(by_place.items()):
        there.sort(key=lambda record: record.used, reverse=True)
        code = _under("code ", there[0].parts())
        for record in there:
            old = record.parts()
            if _under("code ", old) != code or artifacts.damage(record.artifact):
                continue
            new = records.with_present_code(old)
            key = records.key(new, place.partition("/")[2]) if new else record.key
            if new is None or records.path_of(key).exists():
                continue
            because = "; ".join(records.difference(old, new))
            taken.append({"artifact": record.artifact.name, "step": place, "because": because})
            if not dry_run:
                records.take_over(record, key, new, because)
    return taken


def _iso(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%SZ}"
