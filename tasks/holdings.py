"""Holdings: what data a dataset has, and what changes that."""

from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

from artifacts import keys, layout, lineage, records, runs
from artifacts.artifact import find_damage
from artifacts.errors import ArgumentError, InputError
from artifacts.files import explain_write_errors
from artifacts.locks import shared_lock
from registry import data, log, sharing
from registry.data import Batch
from tasks import champion
from tasks.base import class_names, known_base

#: Steps that look at a batch, and whose results do not rest on it.
LOOKING = ("manifest", "check")


def listed(dataset: str) -> list[dict[str, Any]]:
    """Return all batches, JSON-ready, in order."""
    return [row(dataset, batch) for batch in data.current(dataset).batches]


def row(dataset: str, batch: Batch) -> dict[str, Any]:
    """Return a batch as a line of a list, JSON-ready.

    `left_out` is how many of its good rows do not count in the manifest that was used last; None
    where none has the batch.
    """
    return {
        "batch": batch.name,
        "status": _status(batch),
        "train": batch.about["train"],
        "recent": batch.about["recent"],
        "left_out": _left_out(dataset, batch),
        "refused": batch.about["refused"],
        "at": batch.at,
        "artifact": batch.artifact.name,
        "size": batch.artifact.size,
    }


def _left_out(dataset: str, batch: Batch) -> int | None:
    there = records.everything(f"manifest/{dataset}")
    used = [record for record in there if batch.digest in keys.inputs(record.components()).values()]
    if not used:
        return None
    last = max(used, key=lambda record: record.last_used)
    return int(last.artifact.metadata["left_out"].get(batch.digest, 0))


def _status(batch: Batch) -> str:
    if batch.retracted is not None:
        return f"retracted: {batch.retracted}"
    if batch.broken:
        return "broken"
    looked = str(batch.check["outcome"]) if batch.check else "not checked"
    return f"in use, {looked}" if batch.accepted is None else f"accepted: {batch.accepted}"


def show(dataset: str, name: str) -> dict[str, Any]:
    """Return all that is known of a batch, JSON-ready.

    Raises:
        ArgumentError: there is no such batch.
        InputError: it is damaged, or its classes were reordered or removed.
    """
    import numpy as np

    from classifier.data import batches

    batch = data.current(dataset).batch(name)
    folder = _intact(batch)
    there = batches.read_rows(folder)
    names = class_names(dataset, batches.read_classes(folder))
    counts = np.bincount(there.labels, minlength=len(names)).tolist()
    reasons = Counter(batches.read_reasons(folder))
    resting = resting_on(batch)
    return row(dataset, batch) | {
        "counts": dict(zip(names, counts, strict=True)),
        "reasons": dict(reasons.most_common()),
        "check": batch.check,
        "rests_on_it": resting,
        **_promoted(dataset, batch),
        "reports": [run for run, steps in runs.timelines() if _used(steps, resting)],
    }


def _used(steps: list[dict[str, Any]], names: list[str]) -> bool:
    return any(step.get("artifact") in names for step in steps)


def resting_on(batch: Batch) -> list[str]:
    """Return the names of all artifacts that were made from the batch, models first."""
    made = lineage.descendants((batch.digest, *batch.former), without=LOOKING, needed=True)
    names = {record.artifact.name for record in made}
    return sorted(names, key=lambda name: (not name.startswith("models/"), name))


def rows(dataset: str, name: str | None, split: str | None) -> Iterator[dict[str, Any]]:
    """Yield digest, label, split and number of each row of a batch, or of the published rows.

    Labels are those that count now, corrections included.

    Raises:
        ArgumentError: there is no such batch.
        InputError: nothing was trained or ingested yet, or the rows are damaged.
    """
    from classifier.data import batches
    from classifier.data.digests import row_digests
    from classifier.data.parts import official

    now = data.current(dataset)
    corrected = data.corrections(map(data.patch, now.patches))
    if name is not None:
        batch = now.batch(name)
        folder = _intact(batch)
        there = batches.read_rows(folder)
        names = class_names(dataset, batches.read_classes(folder))
        splits = [batches.SPLITS[int(recent)] for recent in there.recent]
        found = zip(there.digests, there.labels.tolist(), splits, strict=True)
        yield from _listed(found, names, corrected, split, now.erased)
        return
    base = known_base(dataset)
    for half in ("train", "test"):
        if split in {None, half}:
            table = official(base.path, half)
            names = class_names(dataset, table.description.classes)
            for images, labels in table.chunks():
                found = zip(row_digests(images), labels.tolist(), [half] * len(labels), strict=True)
                yield from _listed(found, names, corrected, split, now.erased)


def _listed(
    found: Any,
    names: tuple[str, ...],
    corrected: dict[str, int],
    split: str | None,
    erased: Collection[str],
) -> Iterator[dict[str, Any]]:
    for digest, label, half in found:
        text = digest.tobytes().hex()
        number = corrected.get(text, label)
        if split in {None, half} and text not in erased:
            yield {"digest": text, "label": names[number] if number >= 0 else "drop", "split": half}


def retract(dataset: str, name: str, why: str) -> dict[str, Any]:
    """Write into the log that a batch no longer counts, and return what rests on it.

    Raises:
        ArgumentError: there is no such batch, it is retracted already, or there is no reason.
    """
    batch = data.current(dataset).batch(name)
    if batch.retracted is not None:
        raise ArgumentError(f"{batch.name} is retracted already: {batch.retracted}.")
    promoted = _promoted(dataset, batch)
    return _write("retract", dataset, batch, why) | {"rests_on_it": resting_on(batch)} | promoted


def _promoted(dataset: str, batch: Batch) -> dict[str, list[str]]:
    """Return the champions that rest on the batch, and the files of their predictions."""
    names = champion.resting_on(dataset, (batch.digest, *batch.former))
    told = (event for event in log.events(dataset) if event.kind == "predict")
    return {
        "champions": sorted(names),
        "predictions": [
            f"{event.about['out']}, {event.at}" for event in told if event.about["model"] in names
        ],
    }


def restore(dataset: str, name: str, why: str) -> dict[str, Any]:
    """Write into the log that a retracted batch counts again.

    Raises:
        ArgumentError: there is no such batch, or it is not retracted.
    """
    batch = data.current(dataset).batch(name)
    if batch.retracted is None:
        raise ArgumentError(f"{batch.name} is not retracted.")
    return _write("restore", dataset, batch, why or "restored")


def accept(dataset: str, name: str, why: str) -> dict[str, Any]:
    """Write into the log that a batch may be trained on although it was found broken.

    Raises:
        ArgumentError: there is no such batch, it was not found broken, or there is no reason.
    """
    batch = data.current(dataset).batch(name)
    if not batch.broken:
        raise ArgumentError(f"{batch.name} was not found broken: nothing is to be accepted.")
    return _write("accept", dataset, batch, why)


def _write(kind: str, dataset: str, batch: Batch, why: str) -> dict[str, Any]:
    log.check_reason(why)
    # Under the lock, no erasure gives the batch another digest meanwhile.
    with explain_write_errors(layout.root()), shared_lock(f"ingest/{dataset}"):
        sharing.expire()
        log.append(kind, dataset, batch=data.current(dataset).batch(batch.name).digest, why=why)
    return row(dataset, data.current(dataset).batch(batch.name))


def _intact(batch: Batch) -> Any:
    if damage := find_damage(batch.artifact):
        raise InputError(f"Batch {batch.name} is damaged ({damage}): restore it from a backup.")
    return batch.artifact.path
