"""Ingest: labelled images of any form become a batch, or are refused with a reason."""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from artifacts import artifact, layout
from artifacts.artifact import Artifact, find_damage
from artifacts.code import CodeRule, components
from artifacts.files import explain_write_errors
from artifacts.locks import lock
from classifier import datasets
from classifier.errors import ArgumentError, InputError
from registry import data, log
from registry.data import Batch
from reporting import progress
from tasks.base import subject_of
from tasks.batch_names import keep_names
from tasks.commands import data_command

if TYPE_CHECKING:
    from classifier.data.inputs import Chunk, Refused, Subject
    from classifier.data.tables import Description

LISTED = 10_000  # refused rows that a report lists by name
PICTURED = 20  # refused rows whose pixels it shows


@dataclass
class Intake:
    """What became of the rows of one ingest.

    Fields:
        delivery: what was read: a name for people.
        batch: into which the good ones went; None if there is none.
        is_new: whether it was not there before.
        good: number of good rows.
        refused: the first LISTED of the others: what, and why.
        refused_rows: how many they are.
        pictures: pixels and reason of the first of them that have any.
    """

    delivery: str
    batch: Batch | None = None
    is_new: bool = False
    good: int = 0
    refused: list[dict[str, str]] = field(default_factory=list)
    refused_rows: int = 0
    pictures: list[tuple[Any, str]] = field(default_factory=list)

    def count(self, chunk: "Chunk") -> None:
        """Add what a chunk holds."""
        self.good += len(chunk.labels)
        for row in chunk.refused:
            self.refuse(row)

    def refuse(self, row: "Refused") -> None:
        """Add a refused row."""
        from classifier.data.inputs.wording import shown

        self.refused_rows += 1
        if len(self.refused) < LISTED:
            self.refused.append({"what": shown(row.what), "reason": row.reason})
        if row.image is not None and len(self.pictures) < PICTURED:
            self.pictures.append((row.image, row.reason))


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
    from classifier.data.batches import check_fits
    from classifier.data.inputs import plan
    from classifier.data.parts import official

    said = get_run_logger()
    description = official(base.path).description
    subject = subject_of(dataset, base)
    with _alone(dataset):
        name = free_name(dataset, name, paths)
        for batch in data.current(dataset).live:  # or none of them could be trained on
            if find_damage(batch.artifact) is None:
                check_fits(batch.artifact.path, batch.name, subject.shape, subject.classes)
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
    elif not taken.is_new:
        said.info("batch %s holds the same rows: nothing new", taken.batch.name)
    return taken


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
        _restored(there, new.artifact)
    if not is_new:
        return taken
    keep_names(new.artifact.digest, names)
    counts = {key: about[key] for key in ("train", "recent", "refused")}
    log.append(
        "ingest",
        dataset,
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


def _restored(lost: Batch, written: Artifact) -> None:
    """Say that a lost or damaged batch is whole again.

    Raises:
        InputError: other versions of the packages write other bytes, so that it is not.
    """
    if written.digest != lost.digest:
        raise InputError(
            f"Batch {lost.name} is damaged, and its files give other bytes than they gave then, "
            "as with another version of pyarrow: restore it from a backup."
        )
    get_run_logger().info("batch %s was damaged and is whole again", lost.name)


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
        if not data.NAME.fullmatch(name):
            raise ArgumentError(
                f"--batch is {name!r}: use letters, digits, dots, dashes and underscores, 80 at "
                "most."
            )
        return name
    first = paths[0].name if paths[0].is_dir() else paths[0].stem
    stem = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in first)
    stem = stem.strip("._-")[:70] or "batch"
    return next(n for n in (stem, *(f"{stem}-{i}" for i in range(2, 10**6))) if n not in taken)


@contextmanager
def _alone(dataset: str) -> Iterator[None]:
    """Let one ingest of a dataset run at a time."""
    held = lock(f"ingest/{dataset}")
    said = get_run_logger()
    held.acquire(f"ingest of {dataset}", lambda who: said.info("ingest: waiting for %s", who))
    try:
        yield
    finally:
        held.release()


class NothingGoodError(InputError):
    """No row could be used; `found` is the report."""

    def __init__(self, taken: Intake, found: dict[str, Any]) -> None:
        if not taken.refused:
            super().__init__("The files hold no rows: nothing was taken in.")
            self.found = found
            return
        first = taken.refused[0]
        super().__init__(
            f"None of the {taken.refused_rows:,} rows can be used. The first is {first['what']}: "
            f"{first['reason']}."
        )
        self.found = found
