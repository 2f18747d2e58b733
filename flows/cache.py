"""The commands that look after the cache: python -m flows cache <command>.

They need no server, and answer at once.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any

from cyclopts import App, Parameter
from cyclopts.validators import Number

from tasks import inventory, origins, pruning
from tasks.origins import Origin

app = App(name="cache", help="Say what is cached and why steps ran, check it, and make room.")


@dataclass(frozen=True)
class Answer:
    """What a command found: JSON-ready, and in words. The exit code is 1 where it is bad news."""

    found: Any
    text: str
    code: int = 0


@app.command(name="list")
def list_() -> Answer:
    """List what the cache holds: size, last use, which step made it, how many runs used it."""
    there = inventory.entries()
    rows = [entry.row() for entry in reversed(there)]
    total = f"{len(there)} artifacts, {_size(sum(entry.size for entry in there))}"
    lines = [
        f"{_short(row['artifact']):<21} {_size(row['size']):>9}  "
        f"{row['used'].replace('T', ' ')[:16]}  "
        f"{', '.join(row['made_by']) or 'nothing':<10} {_users(row['used_by'])}"
        for row in rows
    ]
    head = f"{'artifact':<21} {'size':>9}  {'last used, UTC':<16}  {'made by':<10} used by"
    limit = f"The limit is {_size(pruning.limit())} (MNIST_CACHE_LIMIT)."
    return Answer(rows, "\n".join([head, *lines, "", f"{total}. {limit}"]))


@app.command
def verify(*, repair: Annotated[bool, Parameter(negative="")] = False) -> Answer:
    """Hash everything again and name what is damaged.

    Args:
        repair: Drop what is damaged, so that the next run makes it again
    """
    found = inventory.verify(repair=repair)
    lines = [f"{_short(row['what'])}: {row['problem']}" for row in found]
    if not found:
        lines = ["Everything is as it was made."]
    elif repair:
        lines.append("All of that was dropped: the next run makes it again.")
    else:
        lines.append("--repair drops it, so that the next run makes it again.")
    return Answer(found, "\n".join(lines), code=1 if found and not repair else 0)


@app.command
def prune(
    *,
    keep_runs: Annotated[int | None, Parameter(validator=Number(gte=0))] = None,
    max_size: str | None = None,
    older_than: timedelta | None = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
) -> Answer:
    """Remove what is not needed any more, and what killed runs have left.

    Without a limit, that of the settings counts. What a run under way uses stays, and what a file
    in data/store names.

    Args:
        keep_runs: Keep only what the newest so many runs used
        max_size: Keep at most so much: 500MB, 2GB; the longest unused goes first
        older_than: Remove what was not used for so long: 12h, 30d
        dry_run: Only say what would go
    """
    bytes_kept = pruning.size("--max-size", max_size) if max_size is not None else None
    if keep_runs is None and bytes_kept is None and older_than is None:
        bytes_kept = pruning.limit()
    gone = pruning.prune(
        keep_runs=keep_runs,
        max_size=bytes_kept,
        older_than=older_than.total_seconds() if older_than is not None else None,
        dry_run=dry_run,
    )
    said = "would go" if dry_run else "went"
    freed = _size(sum(entry.size for entry in gone))
    lines = [f"{_short(entry.name):<21} {_size(entry.size):>9}  {said}" for entry in gone]
    lines.append(f"{len(gone)} artifacts, {freed}, {said}.")
    return Answer([entry.row() for entry in gone], "\n".join(lines))


@app.command
def adopt(*, dry_run: Annotated[bool, Parameter(negative="")] = False) -> Answer:
    """After an edit that changes no result, let what the old code made count for the new code.

    Args:
        dry_run: Only say what would be adopted
    """
    found = origins.adopt(dry_run=dry_run)
    lines = [f"{row['step']}: {_short(row['artifact'])}, after {row['because']}" for row in found]
    lines.append(f"{len(found)} artifacts {'would be' if dry_run else 'are'} adopted.")
    return Answer(found, "\n".join(lines))


@app.command
def explain(run: str | None = None, /) -> Answer:
    """Say for each step of a run why it ran.

    Args:
        run: Its name, or a part of it  [default: the last run]
    """
    name, timeline = inventory.explained(run)
    lines = [f"run {name}"]
    lines += [
        f"{step['task']:<10} {step['outcome']:<7} {_short(step['artifact'] or ''):<21} {_why(step)}"
        for step in timeline
    ]
    return Answer({"run": name, "steps": timeline}, "\n".join(line.rstrip() for line in lines))


@app.command
def lineage(path: str, /) -> Answer:
    """Say from which inputs, parameters, code and versions an artifact came, down to the source.

    Args:
        path: Its folder, a file in it, or the first letters of its name
    """
    origin = origins.trace(path)
    return Answer(origin.row(), "\n".join(_tree(origin, "", set())))


def _tree(origin: Origin, indent: str, seen: set[str]) -> list[str]:
    row = origin.row()
    if origin.record is None:
        return [f"{indent}{origin.name[:8]}: its record is lost"]
    head = f"{indent}{_short(origin.name)}  by {row['task']}"
    if origin.name in seen:
        return [f"{head}, as above"]
    seen.add(origin.name)
    named = {
        "made": ", ".join(f"{name} {_plain(value)}" for name, value in row["made"].items()),
        "with": ", ".join(f"{name} {_plain(value)}" for name, value in row["parameters"].items()),
        "code": ", ".join(f"{name} {value[:8]}" for name, value in row["code"].items()),
        "versions": ", ".join(f"{name} {value}" for name, value in row["versions"].items()),
    }
    if row["adopted"]:
        head += f", {row['adopted']}"
    lines = [head, *(f"{indent}  {name}: {text}" for name, text in named.items() if text)]
    for name, source in origin.inputs.items():
        lines += [f"{indent}  from its {name}:", *_tree(source, indent + "    ", seen)]
    return lines


def _why(step: dict[str, Any]) -> str:
    if step.get("why"):
        return str(step["why"])
    return "for the first time" if step["outcome"] == "ran" else ""


def _users(runs: list[str]) -> str:
    if not runs:
        return "no run"
    return f"{len(runs)} runs, {runs[-1]}" if len(runs) > 1 else runs[-1]


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else _short(str(value))


def _short(name: str) -> str:
    """With the first eight letters of a digest."""
    start, slash, end = name.rpartition("/")
    return start + slash + (end[:8] if len(end) >= 64 else end)  # noqa: PLR2004 - of a SHA-256


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:  # noqa: PLR2004 - decimal units
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
