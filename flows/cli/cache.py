"""The commands that look after the cache: ./run cache COMMAND. They need no server."""

from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from cyclopts.validators import Number

from artifacts import audit as audits
from artifacts import inventory, layout, pruning, runs, upkeep
from artifacts import lineage as lineages
from artifacts.errors import ArgumentError
from artifacts.lineage import Lineage
from flows.cli.answer import Answer, short, size
from flows.cli.signals import ended_by_term
from registry import data, erasures, log, sharing

MADE = ("at", "seconds", "device", "source", "flow_run")  # what `lineage` prints of an artifact

app = App(
    name="cache",
    help="Say what is cached and why steps ran, check it, and make room.",
    usage="Usage: ./run cache COMMAND [OPTIONS]",
)


@app.command(name="list")
def list_() -> Answer:
    """List what the cache holds: size, last use, which step made it, and which runs used it."""
    there = inventory.entries()
    rows = [entry.row() for entry in reversed(there)]
    total = f"{len(there)} artifacts, {size(sum(entry.size for entry in there))}"
    lines = [
        f"{short(row['artifact']):<21} {size(row['size']):>9}  "
        f"{row['last_used'].replace('T', ' ')[:16]}  "
        f"{', '.join(row['made_by']) or 'nothing':<10} {_users(row['used_by'])}"
        for row in rows
    ]
    head = f"{'artifact':<21} {'size':>9}  {'last used, UTC':<16}  {'made by':<10} used by"
    limit = f"The limit is {size(pruning.limit())} (RETRAIN_CACHE_LIMIT)."
    return Answer(rows, "\n".join([head, *lines, "", f"{total}. {limit}"]))


@app.command
def verify(*, repair: bool = False, remote: bool = False) -> Answer:
    """Hash everything again and say what is damaged.

    Args:
        repair: Remove what is damaged, so that the next run computes it again
        remote: Look at what lies in RETRAIN_REMOTE instead; --repair then writes it anew from here
    """
    if remote:
        return _verify_remote(repair=repair)
    found = inventory.verify(repair=repair, read_checkpoint=_read_checkpoint) + data.problems()
    stays = [row for row in found if row["what"].startswith("store/")]
    lines = [f"{short(row['what'])}: {row['problem']}" for row in found]
    if not found:
        lines = ["Nothing is damaged."]
    if len(found) > len(stays):
        rest = "What lies in the cache" if stays else "All of that"
        if repair:
            lines.append(f"{rest} was removed: the next run computes it again.")
        else:
            lines.append(f"{rest} can be computed again: --repair removes it.")
    left = stays if repair else found
    return Answer(found, "\n".join(lines), code=1 if left else 0)


def _verify_remote(*, repair: bool) -> Answer:
    if repair:
        log.everything()
        erasures.check_none_left()
    found = upkeep.verify(repair=repair)
    left = [short(row["what"]) for row in found if row["left"]]
    lines = [f"{short(row['what'])}: {row['problem']}" for row in found]
    if found and repair:
        lines.append("What is intact here was written anew; the rest of the cache is computed.")
        if left:
            lines.append(
                f"Not mended, because it is not intact here: {', '.join(left)}. Run the same "
                "command on a machine that has it, ingest the files of the batch again, or retract "
                "it."
            )
    elif found:
        lines.append("--repair writes anew what is intact here, and lets the rest be computed.")
    return Answer(
        found,
        "\n".join(lines or ["Nothing is damaged."]),
        code=1 if left or (found and not repair) else 0,
    )


@app.command
def push() -> Answer:
    """Write to RETRAIN_REMOTE what lies here and not there."""
    log.everything()  # with the erasures of other machines
    erasures.check_none_left()
    sharing.push()
    written, mended = upkeep.push()
    found = {"records": written, "artifacts": mended}
    return Answer(found, f"{written} records and {mended} artifacts were written.")


@app.command
def pull() -> Answer:
    """Bring everything from RETRAIN_REMOTE that is not here."""
    log.everything()  # with erasures that were decided without it, which reach it first
    brought = upkeep.pull()
    return Answer({"records": brought}, f"{brought} records were brought, with all their files.")


@app.command
def prune(
    *,
    keep_runs: Annotated[int | None, Parameter(validator=Number(gte=0))] = None,
    max_size: str | None = None,
    older_than: str | None = None,
    remote: bool = False,
    dry_run: bool = False,
) -> Answer:
    """Remove what is no longer needed, and what killed runs left.

    Without an option, RETRAIN_CACHE_LIMIT counts. Pruning keeps what running flows use, what
    data/store references and its ancestors, all reports, and data/store itself.

    Args:
        keep_runs: Keep only what this many of the newest runs used
        max_size: Keep at most this much, such as 500MB or 2GB; the least recently used goes first
        older_than: Remove what was last used before this time, such as 12h or 30d
        remote: Remove from RETRAIN_REMOTE instead, by --older-than since it was written
        dry_run: Only say what would be removed
    """
    age = None if older_than is None else pruning.parse_age("--older-than", older_than)
    if remote:
        if age is None or keep_runs is not None or max_size is not None:
            raise ArgumentError("--remote needs --older-than, such as 90d, and no other limit.")
        return _prune_remote(age, dry_run=dry_run)
    bytes_kept = pruning.parse_size("--max-size", max_size) if max_size is not None else None
    if keep_runs is None and bytes_kept is None and age is None:
        bytes_kept = pruning.limit()
    gone = pruning.prune(
        keep_runs=keep_runs,
        max_size=bytes_kept,
        older_than=None if age is None else age.total_seconds(),
        dry_run=dry_run,
    )
    said = "would be removed" if dry_run else "removed"
    freed = size(sum(entry.size for entry in gone))
    lines = [f"{short(entry.name):<21} {size(entry.size):>9}  {said}" for entry in gone]
    lines.append(f"{len(gone)} artifacts, {freed}, {said}.")
    return Answer([entry.row() for entry in gone], "\n".join(lines))


def _prune_remote(older_than: timedelta, *, dry_run: bool) -> Answer:
    upkeep.named()
    gone = upkeep.prune(older_than=older_than, dry_run=dry_run)
    said = "would be removed" if dry_run else "removed"
    found = dict(zip(("records", "files", "bytes"), gone, strict=True))
    text = f"{gone[0]} records and {gone[1]} files, {size(gone[2])}, {said}."
    return Answer(found, text)


@app.command
def adopt(*, dry_run: bool = False) -> Answer:
    """After an edit that changes no result, declare results of the old code valid for the new.

    Args:
        dry_run: Only say what would be adopted
    """
    found = lineages.adopt(_rules(), dry_run=dry_run)
    lines = [f"{row['step']}: {short(row['artifact'])}, after {row['because']}" for row in found]
    lines.append(f"{len(found)} artifacts {'would be ' if dry_run else ''}adopted.")
    return Answer(found, "\n".join(lines))


@app.command
def explain(run: str | None = None, /) -> Answer:
    """Say why each step of a run ran.

    Args:
        run: Its name, or a part of it  [default: the last run]
    """
    name, timeline = runs.timeline_of(run)
    lines = [f"run {name}"]
    lines += [
        f"{step['step']:<15} {step['outcome']:<7} {short(step['artifact'] or ''):<21} {_why(step)}"
        for step in timeline
    ]
    return Answer({"run": name, "steps": timeline}, "\n".join(line.rstrip() for line in lines))


@app.command
def lineage(path: str, /) -> Answer:
    """Say from which inputs, parameters, code and versions an artifact came, down to the source.

    Args:
        path: Its folder, a file in it, the first letters of its name, or the name of a run
    """
    if not runs.is_name(Path(path).name):
        origin = lineages.trace(path)
        return Answer(origin.row(), "\n".join(_tree(origin, "", set())))
    run, timeline = runs.timeline_of(Path(path).name)
    found: dict[str, Any] = {}
    lines, seen = [f"run {run}"], set[str]()
    for step in timeline:
        origin = lineages.trace(str(step["artifact"]))
        found[step["step"]] = origin.row() | {"outcome": step["outcome"]}
        lines += [f"{step['step']}, {step['outcome']}", *_tree(origin, "  ", seen)]
    return Answer({"run": run, "steps": found}, "\n".join(lines))


@app.command
def audit(*, sample: Annotated[int | None, Parameter(validator=Number(gte=1))] = None) -> Answer:
    """Compute cached steps again in clean processes, and compare.

    A step that gives something else depends on more than its key holds. What it made is evicted,
    with all that was made from it.

    Args:
        sample: How many steps, drawn at random  [default: all]
    """
    from prefect.settings import PREFECT_API_URL

    from flows.cli import server

    with server.choose(), ended_by_term():
        found = list(audits.audit(_rules(), sample=sample, server=PREFECT_API_URL.value()))
    rows = [asdict(finding) for finding in found if finding.outcome != "skipped"]
    different = [row for row in rows if row["outcome"] == "different"]
    lines = [
        f"{finding.step:<15} {finding.outcome:<9} {short(finding.artifact):<21} {finding.why or ''}"
        for finding in found
    ]
    lines.append(f"{len(rows)} audited, {len(different)} different.")
    empty = () if found else (f"There is nothing cached below {layout.root()}.",)
    text = "\n".join(line.rstrip() for line in lines)
    answer = {"audited": rows, "different": different}
    return Answer(answer, text, code=1 if different else 0, warnings=empty)


def _tree(origin: Lineage, indent: str, seen: set[str]) -> list[str]:
    row = origin.row()
    if origin.record is None:
        return [f"{indent}{origin.name[:8]}: its record is missing"]
    head = f"{indent}{short(origin.name)}  by {row['step']}"
    if origin.name in seen:
        return [f"{head}, as above"]
    seen.add(origin.name)
    named = {
        "made": _listed({name: row["metadata"].get(name) for name in MADE}),
        "with": _listed(row["parameters"]),
        "code": _listed(row["code"]),
        "versions": _listed(row["versions"]),
    }
    if row["adopted"]:
        head += f", {row['adopted']}"
    lines = [head, *(f"{indent}  {name}: {text}" for name, text in named.items() if text)]
    for name, source in origin.inputs.items():
        lines += [f"{indent}  from its {name}:", *_tree(source, indent + "    ", seen)]
    return lines


def _listed(values: dict[str, Any]) -> str:
    known = ((name, value) for name, value in values.items() if value is not None)
    return ", ".join(f"{name} {_plain(value)}" for name, value in known)


def _why(step: dict[str, Any]) -> str:
    if step.get("why"):
        return str(step["why"])
    return "first run" if step["outcome"] == "ran" else ""


def _users(runs: list[str]) -> str:
    if not runs:
        return "no run"
    return f"{len(runs)} runs, {runs[-1]}" if len(runs) > 1 else runs[-1]


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else short(str(value))


def _read_checkpoint(path: Path) -> None:
    from classifier.training import checkpoints  # loads torch: only where there is a checkpoint

    checkpoints.read(path)


def _rules() -> dict[str, Any]:
    """Return the key rule of every step."""
    from tasks.check import check
    from tasks.download import download
    from tasks.evaluate import evaluate, evaluate_recent
    from tasks.export import export
    from tasks.flips import plot_flips
    from tasks.initial_weights import initial_weights
    from tasks.manifest import manifest
    from tasks.normalise import normalise
    from tasks.plot import plot
    from tasks.plot_sweep import plot_sweep
    from tasks.train import train

    before = (download, normalise, manifest, check, initial_weights)
    after = (train, evaluate, evaluate_recent, plot, plot_flips, plot_sweep, export)
    return {step.rule.step: step.rule for step in (*before, *after)}


for _command in (list_, verify, push, pull, prune, adopt, explain, lineage, audit):
    _name = _command.__name__.rstrip("_")
    app[_name].usage = f"Usage: ./run cache {_name} [OPTIONS]"
