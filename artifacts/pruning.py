"""Pruning: what may leave the cache, so that it does not grow for ever."""

import os
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

from artifacts import keys, layout, records, runs
from artifacts.artifact import delete
from artifacts.errors import ArgumentError, InputError
from artifacts.files import explain_write_errors, modified_at
from artifacts.inventory import Entry, entries
from artifacts.locks import Lock, lock

LIMIT, DEFAULT_LIMIT = "RETRAIN_CACHE_LIMIT", "20GB"
MAX_DIGITS = 30  # of a size
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
CLOCK_LAG = 0.02  # seconds by which a file's time may lag behind the clock


def parse_size(option: str, text: str) -> int:
    """Return the bytes of `2GB`, `500 MB` or `1.5GiB`, the value of that option.

    Raises:
        ArgumentError: the text is no size.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b\s*", text.lower())
    if not found:
        raise ArgumentError(f"{option} is {text!r}: write a size as 500MB, 2GB or 1.5GiB.")
    number, prefix, binary = found.groups()
    if len(number) > MAX_DIGITS:
        raise ArgumentError(f"{option} is more than any disk holds: write a size such as 2GB.")
    return int(float(number) * (1024 if binary else 1000) ** " kmgt".index(prefix or " "))


def parse_age(option: str, text: str) -> timedelta:
    """Return the time of `90m`, `12h`, `30d` or `8w`, the value of that option.

    Raises:
        ArgumentError: the text is no time.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhdw])\s*", text)
    if not found:
        raise ArgumentError(f"{option} is {text!r}: write a time as 12h, 30d or 8w.")
    number, unit = found.groups()
    try:
        return timedelta(**{UNITS[unit]: float(number)})
    except OverflowError:
        raise ArgumentError(f"{option} is {text!r}: nothing is that old.") from None


def limit() -> int:
    """Return the most bytes that the cache should hold: RETRAIN_CACHE_LIMIT, or the default."""
    return parse_size(LIMIT, os.environ.get(LIMIT) or DEFAULT_LIMIT)


def prune(
    *,
    keep_runs: int | None = None,
    max_size: int | None = None,
    older_than: float | None = None,
    dry_run: bool = False,
) -> list[Entry]:
    """Remove what any of the limits allows, and what killed runs left; return what it was.

    Pruning keeps what running flows use, what `store/` references and its ancestors, all reports,
    and `store/` itself.

    Args:
        keep_runs: keep what this many of the newest runs used.
        max_size: in bytes; the least recently used goes first.
        older_than: seconds since the last use.
        dry_run: only say.
    """
    if not layout.cache().is_dir():
        return []
    with explain_write_errors(layout.root()), lock("prune"):
        began = time.time() - CLOCK_LAG
        in_use_since = min(runs.oldest_start(), _oldest_step())
        there = entries()
        needed = _referenced_by_store(there)
        free = [e for e in there if e.last_used < in_use_since and e.name not in needed]
        going = {entry.name for entry in free if entry.orphaned}
        if older_than is not None:
            going |= {entry.name for entry in free if entry.last_used < began - older_than}
        if keep_runs is not None:
            going |= _unused_by_newest(free, keep_runs)
        if max_size is not None:
            left = sum(entry.size for entry in there if entry.name not in going)
            for entry in free:
                if left > max_size and entry.name not in going:
                    going.add(entry.name)
                    left -= entry.size
        gone = [entry for entry in free if entry.name in going]
        if not dry_run:
            gone = [entry for entry in gone if _remove_unused(entry, began)]
            _sweep(min(in_use_since, began))
        return gone


def _unused_by_newest(free: Iterable[Entry], keep_runs: int) -> set[str]:
    names = [path.parent.name for path in runs.finished_reports()]
    kept = set(names[max(0, len(names) - keep_runs) :])
    first = min(map(runs.started_at, kept), default=float("inf"))
    return {e.name for e in free if e.last_used < first and kept.isdisjoint(e.runs)}


def _oldest_step() -> float:
    """Return when the oldest running step took its key; infinite if none is running.

    What a step published is named by no record before the step has ended.
    """
    starts = [float("inf")]
    for path in layout.locks().glob("*/*/*.lock"):
        name = path.relative_to(layout.locks()).with_suffix("").as_posix()
        taken = modified_at(path)
        if taken is not None and not lock(name).is_free():
            starts.append(taken)
    return min(starts)


def _remove_unused(entry: Entry, began: float) -> bool:
    """Remove the entry, unless a step holds one of its keys, or used it since pruning began."""
    with _all_free(lock(record.key) for record in entry.records) as free:
        if not free:
            return False
        with lock("publish"):
            if any((modified_at(path) or began) > began for path in entry.touched_files):
                return False
            for record in entry.records:
                records.evict(record.key)
            if entry.artifact is None:
                (layout.cache() / entry.name).unlink(missing_ok=True)
            else:
                delete(entry.artifact)
    return True


@contextmanager
def _all_free(locks: Iterable[Lock]) -> Iterator[bool]:
    """Hold all the locks, if nobody else holds one; yield whether that is so."""
    with ExitStack() as held:
        for each in locks:
            if not each.try_acquire():
                yield False
                return
            held.callback(each.release)
        yield True


def _sweep(since: float) -> None:
    """Remove what killed runs left: staged artifacts, temporary files, and free locks."""
    cache = layout.cache()
    left = [*layout.staging().glob("*"), *layout.reports().glob("**/.*.tmp")]
    left += [*cache.glob("records/*/*/.*.tmp"), *cache.glob("checkpoints/*/*/*.tmp")]
    for kind in layout.kinds():
        left += (cache / kind).glob(".*.tmp")
        stat_caches = (cache / kind).glob("*.json")
        left += [path for path in stat_caches if not path.with_suffix("").is_dir()]
    known = list((cache / "remote").glob("*/artifacts/*/*.json"))
    if known:
        named = {record.artifact.name for record in records.everything()}
        left += [path for path in known if f"{path.parent.name}/{path.stem}" not in named]
    for path in left:
        if (modified_at(path) or since) < since:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    for path in layout.locks().rglob("*.lock"):
        lock(path.relative_to(layout.locks()).with_suffix("").as_posix()).is_free()


def _pinning_files() -> Iterator[Path]:
    apart = (layout.log(), layout.permanent())
    for path in layout.store().rglob("*.json"):
        if path.is_file() and not any(path.is_relative_to(folder) for folder in apart):
            yield path


def _referenced_by_store(there: Iterable[Entry]) -> set[str]:
    """Return the artifacts that a JSON file in `store/` names, and all their ancestors.

    The log and the artifacts that stay pin nothing: they name what was, and hold what they need.
    """
    named: set[str] = set()
    for path in _pinning_files():
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise InputError(
                f"{path} cannot be read ({error.strerror}), so what it references is not known: "
                "nothing was pruned."
            ) from error
        named |= {match[0] for match in layout.ARTIFACT_NAME.finditer(text)}
    by_digest: dict[str, list[Entry]] = defaultdict(list)
    for entry in there:
        if entry.artifact:
            by_digest[entry.artifact.digest].append(entry)
    waiting = [entry for entry in there if entry.name in named]
    while waiting:
        for record in waiting.pop().records:
            for digest in keys.inputs(record.components()).values():
                for entry in by_digest[digest]:
                    if entry.name not in named:
                        named.add(entry.name)
                        waiting.append(entry)
    return named
