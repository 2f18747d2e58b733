"""The ingest flow: new labelled images in, each row looked at."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from prefect import flow

from artifacts.artifact import Artifact
from artifacts.text import one_line
from classifier import datasets, devices
from classifier.errors import ArgumentError, InputError
from flows.names import DatasetName
from flows.parameters import Device, ImageSize, size_of
from registry import data, log
from reporting.report import open_run
from tasks.announce import batch_came_in, looked_at
from tasks.base import check_size, last_base
from tasks.check import Drift, present_model, record_check
from tasks.check import check as check_batch
from tasks.download import asked_at, download, local_digest, local_source
from tasks.incoming import take_in_incoming
from tasks.ingest import check_batches
from tasks.ingest import ingest as take_in
from tasks.ingest_report import report
from tasks.intake import NothingGoodError
from tasks.manifest import manifest
from tasks.new_data import new_data
from tasks.normalise import normalise
from tasks.parts import parts_of

TIME_LIMIT = 6 * 3600  # seconds
SHOWN = 300  # letters of a path in a message

Paths = Annotated[list[str] | None, Parameter(consume_multiple=True)]


@flow(name="ingest", flow_run_name="ingest {dataset}", timeout_seconds=TIME_LIMIT)
def ingest(
    paths: Paths = None,
    *,
    dataset: DatasetName = "mnist",
    batch: str | None = None,
    drift: Drift = Drift(),  # noqa: B008 - frozen
    image_size: ImageSize = None,
    device: Device = "auto",
) -> dict[str, Any]:
    """Take in labelled images as a batch of new data, and look at it.

    Args:
        paths: Class folders, Parquet or IDX files; without any, what lies in the incoming folder
        dataset: Dataset to which they belong
        batch: Name of the batch; that of the first path unless given
        drift: When a batch raises an alarm
        image_size: Size of the images, as 64x64 or 64x64x3, for a dataset that declares none
        device: Where the present model reads the batch
    """
    place, names, size = check(
        paths=paths, dataset=dataset, batch=batch, image_size=image_size, device=device
    )
    log.events(dataset)  # can the log be read? before anything is fetched
    with open_run() as run:
        results = base_of(dataset, names, size)
        base = results["normalise"]
        check_batches(dataset, base)
        waiting: list[str] = []
        if paths:
            taken = [take_in(dataset, [Path(path) for path in paths], batch, base)]
        else:
            taken, waiting = take_in_incoming(dataset, base)
        for one in taken:
            if one.batch is not None and one.is_new:
                batch_came_in(dataset, one.batch)
        now = new_data(dataset, broken_too=True)
        rows = manifest(base, now.batches, now.patches, now.erased, dataset, names)
        results["manifest"] = rows
        checks = look(dataset, base, drift, place, names)
        looked_at(dataset, checks, run.folder)
        results |= checks
        found = report(run, dataset, taken, results, waiting)
    if paths and taken[0].batch is None:
        raise NothingGoodError(taken[0], found)
    return found


def check(
    *,
    paths: list[str] | None,
    dataset: str,
    batch: str | None,
    image_size: ImageSize,
    device: Device,
    **_: Any,
) -> tuple[str, tuple[str, ...] | None, tuple[int, ...] | None]:
    """Check, before anything is fetched, that the paths are there and the options can be used.

    Returns:
        The device, and the class names and the image size of the dataset, as far as they are known.

    Raises:
        ArgumentError: an option or a path cannot be used.
        InputError: nothing is there.
    """
    place = devices.resolve_device_name(device)
    declared = datasets.load(dataset)
    names, size = declared.classes, size_of(image_size, declared)
    if batch is not None and not paths:
        raise ArgumentError("--batch names one batch: give the paths that it is made of.")
    if batch is not None:
        data.check_name(batch)
    for path in paths or ():
        if not path.strip():
            raise ArgumentError("A path is empty, as where a shell variable is not set: name one.")
        try:
            there = Path(path).exists()
        except (OSError, ValueError):  # longer than a path can be, or with a zero byte
            there = False
        if not there:
            raise InputError(f"{one_line(path)[:SHOWN]} is not there: give files or folders.")
    return place, names, size


def base_of(
    dataset: str, names: tuple[str, ...] | None, size: tuple[int, ...] | None
) -> dict[str, Artifact]:
    """Return the published rows: those of the last full run, else download them.

    Raises:
        ArgumentError: those there have another size than the given one.
    """
    known = None if local_source() else last_base(dataset)
    if known is not None:
        check_size(dataset, known, size)
        return {"normalise": known}
    raw = download(dataset, local_digest(), asked_at(dataset), size)
    return {"download": raw, "normalise": normalise(raw, dataset, None, names)}


def look(
    dataset: str,
    base: Artifact,
    drift: Drift,
    device: str,
    names: tuple[str, ...] | None,
) -> dict[str, Artifact]:
    """Check each batch once, and write the outcome into the log.

    Also one that came in before, if that run was killed in between.
    """
    found = {}
    model, trained_on = present_model(base, dataset) or (None, None)
    parts = parts_of(trained_on) if trained_on else []
    for batch in data.current(dataset).live:
        if batch.check or not (batch.about["train"] or batch.about["recent"]):
            continue
        result = check_batch(
            batch.artifact, base, model, trained_on, parts, dataset, drift, device, names
        )
        record_check(dataset, batch, result)
        found[f"check {batch.name}"] = result
    return found
