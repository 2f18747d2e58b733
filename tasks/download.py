"""Download: from the dataset's first source that answers correctly to four IDX files."""

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff

from artifacts import keys, records
from artifacts.artifact import Artifact
from artifacts.step import draft
from classifier import datasets
from classifier.errors import InputError
from classifier.sources import local
from reporting import progress
from tasks.step import DATASET, step


def local_source() -> Path | None:
    """Return the folder that RETRAIN_SOURCE names: then data comes from there alone."""
    named = os.environ.get("RETRAIN_SOURCE")
    return Path(named).resolve() if named else None


def local_digest() -> str | None:
    """Return the SHA-256 of what the local source holds; None without one."""
    folder = local_source()
    return local.content_digest(folder) if folder else None


def asked_at(dataset: str) -> str | None:
    """Return when the public sources were last asked, or now, if that is too long ago.

    None where nothing can change: the digests of the files are known, or a local source counts by
    its content.
    """
    declared = datasets.load(dataset)
    if local_source() or declared.digests or not declared.sources:
        return None
    there = records.everything(f"{download.rule.step}/{dataset}")
    asked = [keys.parameters(record.components()).get("asked") for record in there]
    last = max(filter(None, asked), default=None)  # of one length and zone, so in order of time
    now = datetime.now(UTC)
    if last and now - datetime.fromisoformat(last) < declared.fresh_for:
        return str(last)
    return now.isoformat(timespec="seconds")


async def may_pass(_: Task[..., Any], __: TaskRun, state: State[Any]) -> bool:
    """Return whether a source failed in a way that may pass: 503, a reset, a time-out."""
    error = await state.aresult(raise_on_failure=False)
    return bool(getattr(error, "transient", False))


@step(
    kind="raw",
    code=DATASET,
    environment=("RETRAIN_SOURCE",),
    unavailable=(InputError,),
    retries=2,
    retry_delay_seconds=exponential_backoff(4),
    retry_jitter_factor=0.5,
    retry_condition_fn=may_pass,
)
def download(
    dataset: str,
    source: str | None,
    asked: str | None = None,  # noqa: ARG001 - in the key: an older answer does not count
    image_size: tuple[int, ...] | None = None,
) -> Artifact:
    """Write the four unpacked IDX files of the dataset, verified.

    Args:
        dataset: its name.
        source: content of the local source, as `local_digest` gives it; None for the public ones.
        asked: when a public source was asked that may change; None where it cannot.
        image_size: of the images, where the dataset declares none and pictures are read.

    Raises:
        InputError: no source gives the files, or the local one has changed meanwhile.
    """
    from classifier.sources import fetch

    folder = _unchanged_source(source) if source else None
    declared = datasets.load(dataset)
    if image_size:
        declared = replace(declared, shape=image_size)
    with draft() as new, progress.bar("download", in_bytes=True) as advance:
        new.metadata["source"] = fetch.fetch(
            declared, new.folder, local_folder=folder, progress=advance
        )
        if source:
            _unchanged_source(source)
    return new.artifact


def _unchanged_source(digest: str) -> Path:
    folder = local_source()
    if folder is None:
        raise InputError("It was made with --source: give that here too.")
    if local.content_digest(folder) != digest:
        raise InputError(f"{folder} has changed since its content was hashed: start the run again.")
    return folder
