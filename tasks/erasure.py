"""Erasure: the pixels of rows leave everything below the data root, for good.

New batches are written first, then the event, then the old ones go. An erasure that was interrupted
is finished by the same command.
"""

import io
import json
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifacts import artifact, inventory, layout, lineage, pruning, runs
from artifacts.artifact import Artifact
from artifacts.errors import ArgumentError, InputError
from artifacts.files import explain_write_errors
from artifacts.inventory import Entry
from artifacts.locks import lock, shared_lock
from artifacts.records import Record
from artifacts.remote import RemoteAwayError
from classifier import datasets
from registry import data, erasures, log, sharing, staying
from registry.data import DataChangedError
from registry.log import Event
from reporting.pictures import cover
from tasks import champion, incoming, row_holders, seen
from tasks.base import last_base, subject_of
from tasks.batch_names import names_of
from tasks.errors import INPUT_ERRORS
from tasks.ingest import staging_of

if TYPE_CHECKING:
    from classifier.data.inputs import Subject

WHY = "rows of it were erased"
#: Kinds of artifacts that show pixels without holding rows.
SHOWING = ("pictures", "checks")
#: Kinds that hold published rows.
HOLDING = ("raw", "tables")


def erase(dataset: str, digests: Collection[str], why: str) -> dict[str, Any]:
    """Remove the rows with these digests, and return what was removed and who saw them.

    Raises:
        ArgumentError: there is no digest, one is none, there is no reason, or neither the log nor
            this project knows the dataset.
        InputError: nothing here has such rows, or something cannot be read.
    """
    wanted = _wanted([digest.lower() for digest in digests], why)
    if dataset not in (known := sorted({*datasets.declared(), *log.datasets()})):
        raise ArgumentError(f"There is no dataset {dataset!r}: choose one of {', '.join(known)}.")
    # Held in this order: a backup waits for an erasure, and not for an ingest.
    with (
        explain_write_errors(layout.root()),
        shared_lock(f"ingest/{dataset}"),
        shared_lock("store"),
    ):
        sharing.bring(now=True)
        return _erase(dataset, wanted, why)


def _wanted(digests: Collection[str], why: str) -> frozenset[str]:
    for digest in digests:
        if not layout.SHA_256.fullmatch(digest):
            raise ArgumentError(f"{digest!r} is no digest of a row: that is 64 hexadecimal digits.")
    if not digests:
        raise ArgumentError("No digest is given: `./run data rows` lists them.")
    log.check_reason(why)
    return frozenset(digests)


def _erase(dataset: str, wanted: frozenset[str], why: str) -> dict[str, Any]:
    known = {batch.digest for batch in data.current(dataset).batches}
    gone = erasures.replaced_here()
    unknown = row_holders.bring_back(gone)
    looked_at = list(row_holders.batches_of(dataset))
    there = inventory.entries()
    in_cache = row_holders.cached(there, dataset, HOLDING)
    found = {
        holder: rows
        for holder in (*looked_at, *in_cache)
        if (rows := row_holders.rows_or_damaged(holder, wanted))
    }
    held = [holder for holder in found if holder.kind == data.BATCHES]
    digests = {holder.digest for holder in found} | _former(dataset, held)
    digests |= _replaced(dataset, wanted)
    made = lineage.descendants(digests)
    batches = data.current(dataset).batches
    names = {one.name for one in batches if not digests.isdisjoint((one.digest, *one.former))}
    showing = _showing(there, made)
    shown_in = showing | {holder.name for holder in found}
    notes = [*_notes(found), *unknown]
    removed = {"rows in incoming files": _erase_incoming(dataset, wanted, held, notes)}
    traced = {entry.name for entry in there}
    removed["pictures of reports"] = _cover_reports(dataset, wanted, shown_in, traced, names)
    here = last_base(dataset) is not None  # without published rows nobody knows what they held
    if here and not (any(removed.values()) or found or wanted <= data.current(dataset).erased):
        raise InputError(f"No row of {dataset} here has one of these digests.")
    removed["checkpoints"] = _remove_checkpoints(dataset)
    going = {holder.name for holder in found} | showing
    removed["artifacts of the cache"] = _remove_cached(there, going)
    renewed = {
        holder.digest: row_holders.rewrite(holder, wanted, dataset)
        for holder in held
        if holder.digest in known
    }
    # Such as what a batch was before it was mended. It counts nowhere; copies may lie elsewhere.
    nameless = sorted({one.digest for one in held if one.name not in gone} - renewed.keys())
    erasures.begin(dataset, wanted, why)
    # Else it is known, on all machines.
    if renewed or nameless or not wanted <= data.current(dataset).erased:
        _decide(dataset, wanted, why, known, renewed, nameless)
    known |= {holder.digest for holder in looked_at} | {new["batch"] for new in renewed.values()}
    held += _clear_remote(dataset, wanted, why, held, known, notes)
    for holder in held:  # last: while one is there, the same command starts again
        with lock("publish"):
            artifact.delete(holder, permanent=True)
        names_of(holder.digest).unlink(missing_ok=True)
    removed["rows in batches"] = sum(found.get(holder, 0) for holder in held)
    pruning.prune()  # what killed runs left half written
    if runs.oldest_start() < float("inf"):
        notes.append("A run is under way: erase the same rows again when it has ended.")
    else:
        erasures.done(dataset, wanted)
    models = {record.artifact.name for record in made if record.artifact.kind == "models"}
    models |= champion.resting_on(dataset, digests)
    return {"rows": sorted(wanted), "removed": removed, "models": sorted(models), "notes": notes}


def _decide(
    dataset: str,
    wanted: frozenset[str],
    why: str,
    known: Collection[str],
    renewed: dict[str, Any],
    nameless: list[str],
) -> None:
    """Write the event.

    Args:
        dataset: its name.
        wanted: digests of the rows.
        why: they are erased.
        known: digests of the batches that were looked at.
        renewed: what the event says of each batch that was written anew, by its digest before.
        nameless: digests of batches that held rows and count nowhere.

    Raises:
        DataChangedError: another machine took in a batch, or replaced one, meanwhile.
    """

    def recheck(events: list[Event]) -> None:
        if {batch.digest for batch in data.fold(events).batches} != known:
            raise DataChangedError(dataset)

    about: dict[str, Any] = {"rows": sorted(wanted), "batches": renewed, "why": why}
    if nameless:
        about["gone"] = nameless
    drafts = [Artifact(kind=data.BATCHES, digest=new["batch"], size=0) for new in renewed.values()]
    with row_holders.withdrawn_if_too_late(dataset, drafts):
        log.append("erase", dataset, recheck, **about)


def _clear_remote(
    dataset: str,
    wanted: frozenset[str],
    why: str,
    held: Collection[Artifact],
    known: Collection[str],
    notes: list[str],
) -> list[Artifact]:
    """Remove the batches from the remote, and what can be computed again.

    Args:
        dataset: its name.
        wanted: digests of the rows.
        why: they are erased.
        held: batches to be removed.
        known: digests of the batches of which it is known whether they hold such rows.
        notes: for the user; more may be added.

    Returns:
        Batches that came from the remote since, as of another machine that was lost, and hold such
        rows.

    Raises:
        RemoteAwayError: the remote does not answer.
    """
    try:
        staying.remove(held)
        row_holders.bring_back(erasures.replaced_here())
        late = [
            each
            for each in row_holders.batches_of(dataset)
            if each.digest not in known and row_holders.rows_or_damaged(each, wanted)
        ]
        if late:  # so that they leave the other machines too
            gone = [each.digest for each in late]
            log.append("erase", dataset, rows=sorted(wanted), batches={}, gone=gone, why=why)
            staying.remove(late)
        if staying.clear():
            notes.append(
                "A batch in the remote is not complete: another machine is writing it, or was "
                "lost. If it was lost, erase the same rows again tomorrow."
            )
    except RemoteAwayError as error:
        raise RemoteAwayError(
            f"{error} The rows of {dataset} are not yet erased there: run the same command again "
            "when it answers."
        ) from None
    return late


def _former(dataset: str, held: Collection[Artifact]) -> set[str]:
    """Return the digests that these batches had before earlier erasures."""
    digests = {holder.digest for holder in held}
    there = data.current(dataset).batches
    return {old for batch in there if batch.digest in digests for old in batch.former}


def _replaced(dataset: str, wanted: frozenset[str]) -> set[str]:
    """Return the digests of the batches that lost such rows earlier, as on another machine.

    With them those that they had before.
    """
    gone = {
        old
        for event in log.events(dataset)
        if event.kind == "erase" and not wanted.isdisjoint(event.about["rows"])
        for old in event.about["batches"]
    }
    for batch in data.current(dataset).batches:
        for number, old in enumerate(batch.former):
            if old in gone:
                gone |= set(batch.former[:number])
    return gone


def _showing(there: Iterable[Entry], made: Iterable[Record]) -> set[str]:
    """Return the names of the artifacts that may show rows, or whose origin is lost."""
    found = {entry.name for entry in there if entry.artifact and not entry.records}
    found |= {record.artifact.name for record in made}
    return {name for name in found if name.partition("/")[0] in SHOWING}


def _erase_incoming(
    dataset: str, wanted: frozenset[str], held: Collection[Artifact], notes: list[str]
) -> int:
    """Remove the rows from what lies in the incoming folder; note what cannot be read there.

    Pictures are looked at in the size of the published rows, and in that of each batch that held
    such rows.
    """
    from classifier.data import inputs
    from classifier.data.inputs.pictures import too_deep

    folder = seen.folder_of(dataset)
    subject = _subject(dataset)
    if subject is None or not folder.is_dir():
        return 0
    for left in folder.rglob(".*.tmp"):  # of an erasure that was killed
        left.unlink(missing_ok=True)
    digests = [bytes.fromhex(digest) for digest in wanted]
    shapes = {tuple(batch.read_json("batch.json")["shape"]) for batch in held} | {subject.shape}
    total = 0
    for path in [path for _, paths in incoming.parts(folder, subject.classes) for path in paths]:
        for shape in sorted(shapes):
            try:
                incoming.check_inside(path, folder)
                total += inputs.erase(path, digests, replace(subject, shape=shape))
            except INPUT_ERRORS as error:
                if shape == subject.shape:
                    notes.append(f"{error} If it holds such rows, remove them there.")
        notes += [
            f"{deep} lies too deep to be read: if it holds such rows, remove them there."
            for deep in too_deep(path)
        ]
    return total


def _subject(dataset: str) -> "Subject | None":
    base = last_base(dataset)
    if base is not None:
        return subject_of(dataset, base)
    if dataset not in datasets.declared():
        return None
    declared = datasets.load(dataset)
    if declared.shape is None or declared.classes is None:
        return None
    from classifier.data.inputs import Subject

    return Subject(
        dataset=dataset,
        shape=declared.shape,
        classes=declared.classes,
        prepare=declared.prepare,
    )


def _remove_cached(there: Iterable[Entry], names: Collection[str]) -> int:
    going = [entry for entry in there if entry.name in names]
    for entry in going:
        inventory.remove(entry, WHY)
    return len(going)


def _remove_checkpoints(dataset: str) -> int:
    """Remove what a killed training or ingest left: its rows may be among the erased."""
    import shutil

    going = [path for path in layout.checkpoints().glob(f"*/{dataset}/*") if path.is_file()]
    for path in going:
        path.unlink(missing_ok=True)
    for folder in layout.staging().glob("ingest-*"):
        if folder == staging_of(dataset, folder.name[-64:]):
            shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(layout.restoring(), ignore_errors=True)  # of a restore that was killed
    return len(going)


def _cover_reports(
    dataset: str,
    wanted: frozenset[str],
    names: Collection[str],
    traced: Collection[str],
    batches: Collection[str],
) -> int:
    """Replace the pictures of each report that may show the rows, beside its page and in it.

    Args:
        dataset: its name.
        wanted: digests of the rows.
        names: of the artifacts that hold or show the rows.
        traced: names of the artifacts of the cache: where the published rows of a report are no
            longer there, nobody knows what it shows.
        batches: names of the batches that held the rows.
    """
    from classifier.evaluation import figures

    covered, note = 0, io.BytesIO()
    figures.save(figures.note("erased"), note)
    if runs.oldest_start() == float("inf"):  # else one without a page may be under way
        for pattern in ("*.png", "report.html", ".report.html.*.tmp"):
            for showing in layout.reports().glob(f"*/{pattern}"):
                if not showing.with_name("report.json").exists():  # of a run that was killed
                    showing.unlink(missing_ok=True)
                    covered += 1
    for path in layout.reports().glob("*/report.json"):
        if not _may_show(path, dataset, wanted, names, traced, batches):
            continue
        cover(path.with_name("report.html"), note.getvalue())  # which embeds them
        for picture in path.parent.glob("*.png"):
            picture.write_bytes(note.getvalue())
            covered += 1
    return covered


def _may_show(
    path: Path,
    dataset: str,
    wanted: frozenset[str],
    names: Collection[str],
    traced: Collection[str],
    batches: Collection[str],
) -> bool:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        if report["dataset"] != dataset:
            return False
        used = {step["artifact"] for step in report["timeline"]}
        there = report.get("batches") or ()
        taken = {batch["batch" if "batch" in batch else "name"] for batch in there}
        pictured = {digest for batch in there for digest in batch.get("pictured", ())}
    except (OSError, ValueError, KeyError, TypeError):
        return True  # what it shows is not known
    lost = {name for name in used - set(traced) if name.partition("/")[0] in HOLDING}
    return bool(lost or used & set(names) or taken & set(batches) or pictured & wanted)


def _notes(found: Collection[Artifact]) -> list[str]:
    notes = ["The Prefect server keeps pictures of earlier runs: delete those runs there."]
    # Of files that another machine's erasure removed from the remote, nobody knows that.
    if any(holder.kind != data.BATCHES and holder.folder.is_dir() for holder in found):
        notes.append(
            "The published source has such rows: remove them there, or each download brings them "
            "back into the cache. They are not trained on, tested on or shown."
        )
    return notes
