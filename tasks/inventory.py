"""Inventory: what lies in the cache, who made and used it, and whether it is intact.

Neither this nor its neighbours pruning.py and origins.py import Prefect or torch: these are
questions that should be answered at once.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from classifier.errors import BadArgument, BadInput
from tasks import artifacts, records
from tasks.artifacts import Artifact
from tasks.records import Record

#: The name of an artifact wherever it stands in a text.
NAMED = re.compile(rf"({'|'.join(artifacts.KINDS)})/([0-9a-f]{{64}})")


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


def entries() -> list[Entry]:
    """All that the cache holds, the longest unused first."""
    made: dict[str, list[Record]] = defaultdict(list)
    for record in records.everything():
        made[record.artifact.name].append(record)
    used_by: dict[str, list[str]] = defaultdict(list)
    for run, timeline in timelines():
        for name in {step["artifact"] for step in timeline if step.get("artifact")}:
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
        for folder in (artifacts.cache() / kind).glob("*"):
            if f"{kind}/{folder.name}" not in made and folder.is_dir():
                held = sum(path.stat().st_size for path in artifacts.files(folder))
                artifact = Artifact(kind=kind, digest=folder.name, dataset="", size=held)  # type: ignore[arg-type] # one of them
                note = artifacts.note(artifact)
                seen = (note if note.exists() else folder).stat().st_mtime
                yield Entry(name=artifact.name, size=held, used=seen, artifact=artifact)


def _checkpoints() -> Iterator[Entry]:
    for path in artifacts.checkpoints().glob("*/*/*.safetensors"):
        with suppress(FileNotFoundError):  # of a training that has ended since
            stat = path.stat()
            name = path.relative_to(artifacts.cache()).as_posix()
            yield Entry(name=name, size=stat.st_size, used=stat.st_mtime)


def timelines() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The finished runs, the oldest first, and what became of their steps."""
    for path in finished_reports():
        try:
            timeline = json.loads(path.read_text(encoding="utf-8"))["timeline"]
            yield path.parent.name, [dict(step) for step in timeline]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # a report is for people: one that is damaged stops nothing


def finished_reports() -> list[Path]:
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
    for entry in entries():
        if problem := _problem(entry):
            found.append({"what": entry.name, "problem": problem})
            if repair:
                remove(entry, problem)
    return found


def _problem(entry: Entry) -> str | None:
    if entry.artifact is not None:
        return artifacts.damage(entry.artifact, thorough=True)
    from classifier import checkpoints  # loads torch: only where there is a checkpoint

    try:
        checkpoints.read(artifacts.cache() / entry.name)
    except BadInput as error:
        return str(error)
    return None


def remove(entry: Entry, why: str | None = None) -> None:
    """Remove it with its records; with a reason, that is what the next run will give."""
    for record in entry.records:
        records.drop(record.key, why)
    if entry.artifact is None:
        (artifacts.cache() / entry.name).unlink(missing_ok=True)
    else:
        with artifacts.lock("shelf"):
            artifacts.remove(entry.artifact)


def _iso(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%SZ}"
