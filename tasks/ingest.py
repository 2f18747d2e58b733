"""Ingest: labelled images of any form become a batch, or are refused with a reason."""

import json
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from artifacts import artifact, layout
from artifacts.artifact import Artifact, find_damage
from artifacts.code import CodeRule, components
from artifacts.files import explain_write_errors
from artifacts.locks import shared_lock
from artifacts.remote import RemoteAwayError
from artifacts.sharing import push_anew
from classifier import datasets
from classifier.errors import ArgumentError
from registry import data, log, sharing
from registry.data import Batch, DataChangedError
from registry.log import Event
from reporting import progress
from tasks.base import subject_of
from tasks.batch_names import keep_names
from tasks.commands import data_command
from tasks.intake import Intake
from tasks.row_holders import withdrawn_if_too_late

if TYPE_CHECKING:
    from classifier.data.inputs import Chunk, Subject
    from classifier.data.tables import Description


@task(name="ingest", persist_result=False, cache_policy=NO_CACHE)
def ingest(dataset: str, paths: Sequence[Path], name: str | None, base: Artifact) -> Intake:
    """Take labelled images in as a batch: whole, or not at all.

    Args:
        dataset: its name.
        paths: files and folders, in any of the forms of `classifier.data.inputs`.
        name: of the batch; that of the first path unless given.
        base: what `normalise` returned: new rows are of its shape.

    Raises:
        ArgumentError: the name is taken, or no name.
        InputError: a path cannot be used, or changes while it is read.
    """
    from classifier.data import staged
    from classifier.data.inputs import plan
    from classifier.data.parts import official

    said = get_run_logger()
    description = official(base.path).description
    subject = subject_of(dataset, base)
    with _alone(dataset):
        name = free_name(dataset, name, paths)
        jobs = plan(paths, subject)
        code = json.dumps([_code(Path(__file__)), _code(datasets.declared()[dataset][1])])
        staging = staging_of(dataset, staged.key_of(jobs, subject, code))
        total = sum(job.rows for job in jobs)
        with (
            progress.bar("ingest") as in_terminal,
            progress.ui_progress(f"Ingest {name}") as in_ui,
            _temporary(layout.staging() / f"names-{dataset}.jsonl") as names,
        ):
            done = 0

            def on_rows(rows: int) -> None:
                nonlocal done
                done += rows
                in_terminal(done, total)
                in_ui(done, total)

            chunks = staged.read_staged(jobs, subject, staging, on_rows=on_rows)
            taken = _take(dataset, name, chunks, description, subject, names)
        shutil.rmtree(staging, ignore_errors=True)
    if taken.batch is None:
        said.warning("no row of %s is good: nothing was taken in", name)
    elif taken.batch.retracted is not None:
        said.warning(
            "batch %s holds the same rows, but is retracted: %s brings it back",
            taken.batch.name,
            data_command("restore", taken.batch.name, dataset),
        )
    elif not taken.is_new and not taken.is_mended:
        said.info("batch %s holds the same rows: nothing new", taken.batch.name)
    return taken


def check_batches(dataset: str, base: Artifact) -> None:
    """Check, before new rows of the shape of the base come in, that the batches have it too.

    Raises:
        InputError: one has another shape, so that they could not be trained on together.
    """
    from classifier.data.batches import check_fits

    subject = subject_of(dataset, base)
    for batch in data.current(dataset).live:
        if find_damage(batch.artifact) is None:
            check_fits(batch.artifact.path, batch.name, subject.shape, subject.classes)


def _code(file: Path) -> dict[str, str]:
    """Return the fingerprints of a file and of all that it imports."""
    return components(file.resolve(), CodeRule(root=datasets.PROJECT))


def _take(
    dataset: str,
    name: str,
    chunks: "Iterator[Chunk]",
    description: "Description",
    subject: "Subject",
    names: Path,
) -> Intake:
    from classifier.data import batches, erasure

    taken = Intake(delivery=name)
    now = data.current(dataset)
    known = {batch.content: batch for batch in now.batches}
    erased = now.erased

    def counted(file: Any) -> Iterator["Chunk"]:
        for each in chunks:
            chunk = erasure.without_erased(each, erased) if erased else each
            taken.count(chunk)
            file.writelines(json.dumps(each) + "\n" for each in chunk.names)
            yield chunk

    description = replace(description, classes=subject.classes, source=batches.SOURCE)
    with (
        explain_write_errors(layout.root()),
        artifact.draft(data.BATCHES, permanent=True) as new,
        names.open("w", encoding="utf-8") as file,
    ):
        about = batches.write(new.folder, counted(file), description)
        there = known.get(about["content"]) if taken.good else None
        is_new = taken.good > 0 and there is None
        is_lost = there is not None and find_damage(there.artifact) is not None
        if not (is_new or is_lost):
            new.discard()
        elif is_new and name in {batch.name for batch in now.batches}:
            raise ArgumentError(
                f"--batch is {name!r}: there is one of that name, with other rows. Choose another."
            )
    taken.batch = there
    if is_lost and there is not None:
        keep_names(new.artifact.digest, names)
        _restored(dataset, there, new.artifact, about, erased)
        taken.batch = data.current(dataset).batch(new.artifact.digest)
        taken.is_mended = True
    if not is_new:
        return taken
    keep_names(new.artifact.digest, names)
    counts = {key: about[key] for key in ("train", "recent", "refused")}

    def recheck(events: list[Event]) -> None:
        there = data.fold(events)
        known = {batch.number for batch in now.batches}
        new = [batch for batch in there.batches if batch.number not in known]
        taken_in = any(name == one.name or about["content"] == one.content for one in new)
        if taken_in or there.erased != erased:
            raise DataChangedError(dataset)

    with withdrawn_if_too_late(dataset, [new.artifact]):
        log.append(
            "ingest",
            dataset,
            recheck,
            batch=new.artifact.digest,
            name=name,
            content=about["content"],
            size=new.artifact.size,
            **counts,
        )
    taken.batch = data.current(dataset).batch(new.artifact.digest)
    taken.is_new = True
    _warn_of_retracted(dataset, taken.batch)
    return taken


def _restored(
    dataset: str, lost: Batch, written: Artifact, about: dict[str, Any], erased: Collection[str]
) -> None:
    """Write into the log that a lost or damaged batch is whole again.

    It has another digest where other rows were refused this time, or another version of pyarrow
    wrote it.
    """
    get_run_logger().info("batch %s was damaged or lost, and is whole again", lost.name)
    if written.digest == lost.digest:
        with suppress(RemoteAwayError):  # a later `cache verify --remote --repair` finds it
            push_anew(written.name, layout.permanent() / written.name, permanent=True)
    else:
        counts = {key: about[key] for key in ("train", "recent", "refused")}
        renewed = {
            "batch": written.digest,
            "content": about["content"],
            "about": counts | {"size": written.size},
        }

        def recheck(events: list[Event]) -> None:
            there = data.fold(events)
            if there.erased != erased or lost.digest not in {one.digest for one in there.batches}:
                raise DataChangedError(dataset)

        with withdrawn_if_too_late(dataset, [written]):
            log.append("mend", dataset, recheck, batches={lost.digest: renewed})


def _warn_of_retracted(dataset: str, batch: Batch) -> None:
    """Say how many rows of a new batch were retracted with another one."""
    from classifier.data import batches
    from classifier.data.combine import among

    digests = batches.read_rows(batch.artifact.path).digests
    for other in data.current(dataset).batches:
        if other.retracted is None or find_damage(other.artifact):
            continue
        gone = [row.tobytes().hex() for row in batches.read_rows(other.artifact.path).digests]
        if count := int(among(digests, gone).sum()):
            get_run_logger().warning(
                "%s holds %d rows of %s, which is retracted (%s): retract %s too, or correct them",
                *(batch.name, count, other.name, other.retracted, batch.name),
            )


def staging_of(dataset: str, key: str) -> Path:
    """Return the folder of what an ingest under way has read."""
    return layout.staging() / f"ingest-{dataset}-{key}"


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Remove what still lies there when the block ends, however it ends."""
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def free_name(dataset: str, name: str | None, paths: Sequence[Path]) -> str:
    """Return the name for a new batch.

    Raises:
        ArgumentError: the given one is no name.
    """
    taken = {batch.name for batch in data.current(dataset).batches}
    if name is not None:
        data.check_name(name)
        return name
    first = paths[0].name if paths[0].is_dir() else paths[0].stem
    stem = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in first)
    stem = stem.strip("._-")[:70] or "batch"
    return next(n for n in (stem, *(f"{stem}-{i}" for i in range(2, 10**6))) if n not in taken)


@contextmanager
def _alone(dataset: str) -> Iterator[None]:
    """Let one ingest of a dataset run at a time."""
    held = shared_lock(f"ingest/{dataset}")
    said = get_run_logger()
    held.acquire(f"ingest of {dataset}", lambda who: said.info("ingest: waiting for %s", who))
    sharing.expire()
    try:
        yield
    finally:
        held.release()
