"""Pruning: what may leave the cache, so that it does not grow for ever."""

import os
import re
import shutil
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from classifier.errors import BadArgument
from tasks import artifacts, records
from tasks.inventory import NAMED, Entry, entries, finished_reports, remove

LIMIT, DEFAULT_LIMIT = "MNIST_CACHE_LIMIT", "20GB"
TICK = 0.02  # seconds by which a file's time may lag behind the clock


def size(option: str, text: str) -> int:
    """Bytes of `2GB`, `500 MB` or `1.5GiB`, which the option was given.

    Raises:
        BadArgument: it is none of that.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b\s*", text.lower())
    if not found:
        raise BadArgument(f"{option} is {text!r}: write a size as 500MB, 2GB or 1.5GiB.")
    number, prefix, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** " kmgt".index(prefix or " "))


def limit() -> int:
    """The most bytes that the cache should hold: MNIST_CACHE_LIMIT, or the default."""
    return size(LIMIT, os.environ.get(LIMIT) or DEFAULT_LIMIT)


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
    if not artifacts.cache().is_dir():
        return []
    with artifacts.writing(artifacts.root()), artifacts.lock("prune"):
        began = time.time() - TICK
        since = _under_way_since()
        there = entries()
        needed = _named_in_store(there)
        free = [entry for entry in there if entry.used < since and entry.name not in needed]
        going = {entry.name for entry in free if entry.idle}
        if older_than is not None:
            going |= {entry.name for entry in free if entry.used < time.time() - older_than}
        if keep_runs is not None:
            runs = [path.parent.name for path in finished_reports()]
            kept = set(runs[max(0, len(runs) - keep_runs) :])
            first = min(map(_started, kept), default=float("inf"))
            going |= {e.name for e in free if e.used < first and kept.isdisjoint(e.runs)}
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
        remove(entry)
    finally:
        for lock in taken:
            lock.release()
    return True


def _since(moment: float, path: Path) -> bool:
    return (artifacts.modified(path) or moment) > moment


def _under_way_since() -> float:
    """When the oldest run that is still under way began; infinite without one."""
    began = [float("inf")]
    for path in (artifacts.locks() / "runs").glob("*.lock"):
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
    cache = artifacts.cache()
    left = [*artifacts.workshop().glob("*"), *artifacts.reports().glob("*/.*.tmp")]
    left += [*cache.glob("records/*/*/.*.tmp"), *cache.glob("checkpoints/*/*/*.tmp")]
    for kind in artifacts.KINDS:
        left += (cache / kind).glob(".*.tmp")
        notes = (cache / kind).glob("*.json")
        left += [path for path in notes if not path.with_suffix("").is_dir()]
    for path in left:
        if (artifacts.modified(path) or since) < since:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    for path in artifacts.locks().rglob("*.lock"):
        lock = artifacts.lock(path.relative_to(artifacts.locks()).with_suffix("").as_posix())
        if lock.free():
            lock.release()


def _named_in_store(there: Iterable[Entry]) -> set[str]:
    """The artifacts that a JSON file in data/store names, and all that they were made from."""
    named: set[str] = set()
    for path in artifacts.store().rglob("*.json"):
        named |= {match[0] for match in NAMED.finditer(path.read_text(errors="replace"))}
    by_digest = {entry.artifact.digest: entry for entry in there if entry.artifact}
    waiting = [entry for entry in by_digest.values() if entry.name in named]
    while waiting:
        for record in waiting.pop().records:
            for digest in records.inputs(record.parts()).values():
                if digest in by_digest and by_digest[digest].name not in named:
                    named.add(by_digest[digest].name)
                    waiting.append(by_digest[digest])
    return named
