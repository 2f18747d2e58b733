"""Erasure: the pixels of rows leave everything below the data root, for good.

New batches are written first, then the event, then the old ones go. An erasure that was interrupted
is finished by the same command.
"""

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifacts import artifact, inventory, layout, lineage
from artifacts.artifact import Artifact
from artifacts.errors import ArgumentError, InputError
from artifacts.files import explain_write_errors
from artifacts.locks import lock
from classifier import datasets
from registry import data, log
from tasks import incoming
from tasks.ingest import keep_names, names_of, staging_of

if TYPE_CHECKING:
    from classifier.data.inputs import Subject

WHY = "rows of it were erased"
#: Kinds of artifacts that show pixels without holding rows.
SHOWING = ("pictures", "checks")


def erase(dataset: str, digests: Collection[str], why: str) -> dict[str, Any]:
    """Remove the rows with these digests, and return what was removed and who saw them.

    Raises:
        ArgumentError: there is no digest, one is none, or there is no reason.
        InputError: nothing here has such rows, or something cannot be read.
    """
    wanted = _wanted(digests, why)
    held = lock(f"ingest/{dataset}")
    held.acquire(f"erasure in {dataset}")
    try:
        with explain_write_errors(layout.root()):
            return _erase(dataset, wanted, why)
    finally:
        held.release()


def _wanted(digests: Collection[str], why: str) -> frozenset[str]:
    for digest in digests:
        if not layout.SHA_256.fullmatch(digest):
            raise ArgumentError(f"{digest!r} is no digest of a row: that is 64 hexadecimal digits.")
    if not digests:
        raise ArgumentError("No digest is given: `./run data rows` lists them.")
    if not why.strip():
        raise ArgumentError("--why is empty: say why, for those who read the log later.")
    return frozenset(digests)


def _erase(dataset: str, wanted: frozenset[str], why: str) -> dict[str, Any]:
    found = {
        holder: rows
        for holder in (*_batches(dataset), *_cached(dataset, "tables"), *_cached(dataset, "raw"))
        if (rows := _rows_in(holder, wanted))
    }
    models = sorted(
        {
            record.artifact.name
            for holder in found
            for record in lineage.descendants(holder.digest, without=("check",))
            if record.artifact.kind == "models"
        }
    )
    touched = {holder.digest for holder in found}
    names = {batch.name for batch in data.current(dataset).batches if batch.digest in touched}
    showing = _showing(touched)
    traced = {entry.name for entry in inventory.entries()}
    renewed = {
        holder.digest: _rewrite(holder, wanted, dataset)
        for holder in found
        if holder.kind == data.BATCHES and _is_known(dataset, holder)
    }
    removed = {"rows in incoming files": _erase_incoming(dataset, wanted)}
    known = wanted <= data.current(dataset).erased
    if not (found or known or removed["rows in incoming files"]):
        raise InputError(f"No row of {dataset} here has one of these digests.")
    log.append("erase", dataset, rows=sorted(wanted), batches=renewed, why=why)
    for holder in found:
        if holder.kind == data.BATCHES:
            with lock("publish"):
                artifact.delete(holder, permanent=True)
            names_of(holder.digest).unlink(missing_ok=True)
    removed["rows in batches"] = sum(n for h, n in found.items() if h.kind == data.BATCHES)
    in_cache = {h.name for h in found if h.kind != data.BATCHES} | showing
    removed["artifacts of the cache"] = _remove_cached(in_cache)
    removed["checkpoints"] = _remove_checkpoints(dataset)
    shown_in = showing | {holder.name for holder in found}
    removed["pictures of reports"] = _cover_reports(dataset, shown_in, traced, names)
    return {"rows": sorted(wanted), "removed": removed, "models": models, "notes": _notes(found)}


def _batches(dataset: str) -> Iterator[Artifact]:
    """Yield every batch of the dataset that lies there, also one that no event names."""
    for holder in inventory.permanent():
        if holder.kind == data.BATCHES and holder.read_json("batch.json")["dataset"] == dataset:
            yield holder


def _is_known(dataset: str, holder: Artifact) -> bool:
    return any(batch.digest == holder.digest for batch in data.current(dataset).batches)


def _cached(dataset: str, kind: str) -> Iterator[Artifact]:
    """Yield the artifacts of the cache that hold rows of the dataset, or may."""
    for entry in inventory.entries():
        if entry.artifact is None or entry.artifact.kind != kind:
            continue
        groups = {record.place.partition("/")[2] for record in entry.records}
        if not groups or dataset in groups:
            yield entry.artifact


def _rows_in(holder: Artifact, wanted: frozenset[str]) -> int:
    """Return how many rows of the artifact have one of the digests."""
    from classifier.data import batches, idx
    from classifier.data.digests import row_digests
    from classifier.data.parts import official

    def count(digests: Any) -> int:
        return sum(digest.tobytes().hex() in wanted for digest in digests)

    if holder.kind == data.BATCHES:
        refused = batches.read_refused(holder.path)
        images = [image[None] for _, image in refused if image is not None]
        shown = sum(count(row_digests(image)) for image in images)
        return shown + count(batches.read_rows(holder.path).digests)
    if holder.kind == "tables":
        return sum(count(row_digests(images)) for images, _ in official(holder.path).chunks())
    total = 0
    for path in holder.path.glob("*-images.idx"):
        stored = idx.stored(path)
        for start in range(0, len(stored), 10_000):
            total += count(row_digests(stored[start : start + 10_000]))
    return total


def _showing(digests: Collection[str]) -> set[str]:
    """Return the names of the artifacts that may show rows of these, or whose origin is lost."""
    found = {e.name for e in inventory.entries() if e.artifact and not e.records}
    for digest in digests:
        found |= {record.artifact.name for record in lineage.descendants(digest)}
    return {name for name in found if name.partition("/")[0] in SHOWING}


def _rewrite(holder: Artifact, wanted: frozenset[str], dataset: str) -> dict[str, Any]:
    """Write the batch without the rows; return what the log says of the new one."""
    from classifier.data import erasure

    names = layout.staging() / f"names-{dataset}-erasure.jsonl"
    with artifact.draft(data.BATCHES, permanent=True) as new:
        kept, about = erasure.write_without(holder.path, new.folder, wanted)
    if names_of(holder.digest).exists():
        with names_of(holder.digest).open(encoding="utf-8") as old:
            lines = [line for row, line in enumerate(old) if kept[row]]
        names.write_text("".join(lines), encoding="utf-8")
        keep_names(new.artifact.digest, names)
    counts = {key: about[key] for key in ("train", "recent", "refused")}
    return {
        "batch": new.artifact.digest,
        "content": about["content"],
        "about": counts | {"size": new.artifact.size},
    }


def _erase_incoming(dataset: str, wanted: frozenset[str]) -> int:
    from classifier.data import inputs

    folder = incoming.folder_of(dataset)
    subject = _subject(dataset)
    if subject is None or not folder.is_dir():
        return 0
    digests = [bytes.fromhex(digest) for digest in wanted]
    paths = [path for _, paths in incoming.parts(folder, subject.classes) for path in paths]
    return sum(inputs.erase(path, digests, subject) for path in paths)


def _subject(dataset: str) -> "Subject | None":
    from tasks.base import last_base
    from tasks.ingest import subject_of

    base = last_base(dataset)
    if base is not None:
        return subject_of(dataset, base)
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


def _remove_cached(names: Collection[str]) -> int:
    going = [entry for entry in inventory.entries() if entry.name in names]
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
    return len(going)


def _cover_reports(
    dataset: str, names: Collection[str], traced: Collection[str], batches: Collection[str]
) -> int:
    """Replace the pictures of each report that may show the rows.

    Args:
        dataset: its name.
        names: of the artifacts that hold or show the rows.
        traced: names of the artifacts of the cache: where the pictures of a report are no longer
            there, nobody knows what they show.
        batches: names of the batches that held the rows.
    """
    from classifier.evaluation import figures

    covered = 0
    for path in layout.reports().glob("*/report.json"):
        if not _may_show(path, dataset, names, traced, batches):
            continue
        for picture in path.parent.glob("*.png"):
            figures.save(figures.note("erased"), picture)
            covered += 1
    return covered


def _may_show(
    path: Path,
    dataset: str,
    names: Collection[str],
    traced: Collection[str],
    batches: Collection[str],
) -> bool:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        used = {step["artifact"] for step in report["timeline"]}
        taken = {batch["batch"] for batch in report.get("batches") or ()}
    except (OSError, ValueError, KeyError, TypeError):
        return True  # what it shows is not known
    if report.get("dataset") != dataset:
        return False
    lost = {name for name in used - set(traced) if name.partition("/")[0] in SHOWING}
    return bool(lost or used & set(names) or taken & {*batches, None})


def _notes(found: Collection[Artifact]) -> list[str]:
    notes = ["The Prefect server keeps pictures of earlier runs: delete those runs there."]
    if any(holder.kind != data.BATCHES for holder in found):
        notes.append(
            "The published source has such rows: remove them there, or each download brings them "
            "back into the cache. They are not trained on, tested on or shown."
        )
    return notes
