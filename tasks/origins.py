"""Origins: where an artifact came from, and for which code it counts."""

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from classifier.errors import BadArgument
from tasks import artifacts, records
from tasks.inventory import NAMED
from tasks.records import Parts, Record


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


def trace(asked: str) -> Origin:
    """Where an artifact came from, down to the source.

    Args:
        asked: its folder, a file in that, or its name, of which the first letters are enough.

    Raises:
        BadArgument: no artifact is meant, or more than one.
    """
    by_digest: dict[str, Record] = {}
    for record in sorted(records.everything(), key=lambda record: record.used):
        by_digest[record.artifact.digest] = record
    named = NAMED.search(Path(asked).resolve().as_posix()) or NAMED.search(asked)
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
